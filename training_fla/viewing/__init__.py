"""Translations, subtitles, inspections, reports of runs, and pages of them. Imports hub, training and below."""
