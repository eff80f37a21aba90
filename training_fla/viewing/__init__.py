"""What people look at: translations, subtitles, inspections. Imports scoring, files and what travels with a model."""
