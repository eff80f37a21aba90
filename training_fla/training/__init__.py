"""Trainer, optimizer, parts of a model, adapters, callbacks. Imports data and what lies below."""
