"""What is trained on: corpora, features, text, trimmed language models. Imports every other room."""
