"""Recipes: the lines of a YAML file and the command line, checked and typed; it imports errors only."""

from .arguments import (
    STAGES,
    DataArguments,
    OptimizationArguments,
    Recipe,
    RunArguments,
    Stage1Arguments,
    Stage2Arguments,
    TextArguments,
    VisualArguments,
)
from .batch_size import BATCH_LINES, PAPERS_CLIPS_A_STEP, clips_a_process, clips_a_step
from .corpora import CorpusEntry, corpus_entries, dataset_places
from .kept_lines import DECIDED_LATER, FREE_TO_CHANGE, default_lines, read_kept_lines, stage_of
from .next_stage import stage2_words
from .parsing import parse_recipe
from .reading import RecipeLoader, override, read_overrides, read_recipe
from .training_fields import REFUSED, TRAINING_DEFAULTS
from .values import read_lines, typed_lines

__all__ = [
    "BATCH_LINES",
    "CorpusEntry",
    "DECIDED_LATER",
    "DataArguments",
    "FREE_TO_CHANGE",
    "OptimizationArguments",
    "PAPERS_CLIPS_A_STEP",
    "REFUSED",
    "Recipe",
    "RecipeLoader",
    "RunArguments",
    "STAGES",
    "Stage1Arguments",
    "Stage2Arguments",
    "TRAINING_DEFAULTS",
    "TextArguments",
    "VisualArguments",
    "clips_a_process",
    "clips_a_step",
    "corpus_entries",
    "dataset_places",
    "default_lines",
    "override",
    "parse_recipe",
    "read_kept_lines",
    "read_lines",
    "read_overrides",
    "read_recipe",
    "stage2_words",
    "stage_of",
    "typed_lines",
]
