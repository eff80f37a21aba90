"""The workbench: everything needed to prepare corpora, train both stages and score; never uploaded with a model."""

from importlib.metadata import version

__version__ = version("fla-llm")
