"""What prepares corpora, trains both stages, scores and translates; the order of its imports is in test_layout.py."""

from importlib.metadata import version

__version__ = version("fla-llm")
