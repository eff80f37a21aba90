"""Model card and upload. Imports scoring, corpora and files."""
