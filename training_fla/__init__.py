"""The workbench: everything needed to prepare corpora, train both stages and score; `fla push` never uploads it."""

from importlib.metadata import version

__version__ = version("fla-llm")
