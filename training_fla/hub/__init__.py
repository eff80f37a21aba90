"""The model card and the upload; it may import training and what lies below."""
