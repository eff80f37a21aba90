"""Text conventions, metrics and prediction files. Imports files only."""
