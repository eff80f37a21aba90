"""The workbench: everything needed to prepare corpora, train both stages and score; never uploaded with a model."""
