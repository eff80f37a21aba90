"""Text conventions, metrics and prediction files; it may import recipe and what lies below, but not corpora."""
