"""Recordings with subtitles or annotations beside them: from both to a table of sentences; imports `corpora` alone."""
