"""Translations, subtitles, inspections. Imports scoring, files and what travels with a model."""
