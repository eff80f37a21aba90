"""What prepares corpora, trains both stages, scores and translates; the order of its imports is in test_layout.py."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fla-llm")
except PackageNotFoundError:  # copied beside an app, as in a Space, or a clone that is not installed
    __version__ = "unknown"
