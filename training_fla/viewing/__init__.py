"""What people look at: inspection, pictures, subtitles. Imports scoring, files and the two travelling packages."""
