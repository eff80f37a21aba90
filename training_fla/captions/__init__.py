"""Captions of signing as it is shown: segments, kept features, drafts; it may import stages and what lies below."""
