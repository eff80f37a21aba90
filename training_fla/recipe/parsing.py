"""A recipe and a command line as one [`Recipe`].

`--name value` on the command line wins over the recipe, a recipe over its `base:` recipe, that over the defaults.
"""

import dataclasses
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from pathlib import Path

from transformers.hf_argparser import HfArgumentParser

from training_fla.errors import InputError
from training_fla.recipe.arguments import COMMON, Recipe
from training_fla.recipe.kept_lines import effective_lines
from training_fla.recipe.reading import override, read_overrides, read_recipe
from training_fla.recipe.training_fields import REFUSED, TRAINING_DEFAULTS
from training_fla.recipe.values import typed_lines


def parse_recipe(stage_class: type, argv: list[str], usage: str) -> Recipe:
    """Read `RECIPE.yaml --name value ...` into a recipe of [`Stage1Arguments`] or [`Stage2Arguments`]."""
    classes = (stage_class, *COMMON)
    if not argv or {"-h", "--help"} & set(argv):
        print_help(classes, usage)
        raise SystemExit(0 if argv else 2)
    has_file = not argv[0].startswith("--")
    lines = read_recipe(Path(argv[0])) if has_file else {}
    overrides = read_overrides(argv[1:] if has_file else argv)
    values = typed_lines(stage_class, override(lines, overrides, "the command line"))
    if not values.get("output_dir"):
        raise InputError("the recipe names no `output_dir`; add the line or give --output_dir FOLDER")
    parts = HfArgumentParser(classes).parse_dict(values, allow_extra_keys=True)
    own = {field.name for cls in classes for field in dataclasses.fields(cls)}
    training = {name: value for name, value in values.items() if name not in own}
    return Recipe(
        *parts,
        training=TRAINING_DEFAULTS | training,
        resolved=effective_lines(stage_class, values),
        given=frozenset(values),
    )


class RecipeHelp(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the description as it is written."""


def print_help(classes: tuple[type, ...], usage: str) -> None:
    """Print every field of ours with its default; transformers' own need torch."""
    defaults = ", ".join(f"{name} {default}" for name, default in TRAINING_DEFAULTS.items() if name not in REFUSED)
    HfArgumentParser(
        classes,
        usage="run_stageN.py RECIPE.yaml [--name value ...]",
        description=usage,
        epilog=f"Every field of transformers' Seq2SeqTrainingArguments, too. Other defaults here: {defaults}",
        formatter_class=RecipeHelp,
    ).print_help()
