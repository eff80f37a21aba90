"""Several corpora as one, one after the other; a run with one corpus uses nothing of it. It may import data."""
