"""Translations, subtitles, inspections, and pages of them. Imports training (its plots) and what lies below."""
