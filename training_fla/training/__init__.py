"""The trainer, the optimizer, parts of a model, adapters and callbacks; it may import data and what lies below."""
