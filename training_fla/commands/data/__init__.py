"""Commands that make what is trained on: corpora, features, language models; they may import all but cli."""
