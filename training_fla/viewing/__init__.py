"""Translations, subtitles, inspections and reports of runs; it may import stages and what lies below."""
