"""Readers of corpora and of feature files, one record for each corpus; may import recipe and what lies below."""
