"""The value of each line by the type of its field."""

import dataclasses
import difflib
import functools
import re
import typing
from pathlib import Path
from typing import Any

import yaml
from transformers.hf_argparser import HfArgumentParser

from training_fla.errors import InputError
from training_fla.recipe.arguments import COMMON
from training_fla.recipe.reading import NO_VALUE, RecipeLoader, read_recipe
from training_fla.recipe.training_fields import REFUSED, TRAINING_DEFAULTS

# The least value of fields that nothing else checks before an old run is removed.
LEAST = {
    name: least
    for least, names in {
        1: "frame_stride max_source_frames packed_size frame_size crop_size max_train_clips max_eval_clips "
        "shuffle_buffer frames_per_batch max_target_tokens max_new_tokens generation_num_beams train_tokenizer_pieces "
        "adapter_hidden_size visual_feature_size temporal_kernel_size early_stopping_patience norm_logging_steps "
        "total_batch_size per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps",
        0: "learning_rate adapter_learning_rate visual_learning_rate weight_decay momentum label_smoothing_factor "
        "max_grad_norm num_train_epochs dataloader_num_workers",
    }.items()
    for name in names.split()
}


class RecipeParser(HfArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str):
        """`message` is argparse's, of a value that does not fit its field."""
        raise InputError(re.sub(r"^argument --(\w+)\S*?: ", r"`\1`: ", message))


@functools.cache
def recipe_parser(stage_class: type) -> tuple[RecipeParser, dict[str, Any], dict[str, Any]]:
    """The parser of all fields, their types, and the defaults of transformers' fields."""
    from transformers import Seq2SeqTrainingArguments

    classes = [stage_class, *COMMON, Seq2SeqTrainingArguments]
    types = {name: kind for cls in classes for name, kind in typing.get_type_hints(cls).items()}
    names = [f.name for cls in classes for f in dataclasses.fields(cls)]
    defaults = {f.name: f.default for f in dataclasses.fields(Seq2SeqTrainingArguments)}
    return RecipeParser(classes, allow_abbrev=False), {name: types[name] for name in names}, defaults


def convert(stage_class: type, lines: dict[str, Any]) -> dict[str, Any]:
    """Give every line the type of its field; refuse unknown keys, other types, and lines without effect."""
    parser, types, defaults = recipe_parser(stage_class)
    values: dict[str, Any] = {}
    for name, value in lines.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1, cutoff=0.75)  # below, names are alike by chance
            raise InputError(f"unknown recipe key `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        options = typing.get_args(types[name]) if type(None) in typing.get_args(types[name]) else (types[name],)
        kinds = [typing.get_origin(option) or option for option in options]
        if value in NO_VALUE:
            if type(None) not in kinds:
                raise InputError(f"`{name}` needs a value, got none")
            value = None
        elif name in ("fsdp", "debug") or (isinstance(value, str) and value[:1] in "{[" and {dict, list} & set(kinds)):
            try:
                value = yaml.load(value, RecipeLoader)
            except yaml.YAMLError as error:
                raise InputError(f"`{name}` is not YAML: {error}") from None
        elif isinstance(value, str):
            value = getattr(parser.parse_args([f"--{name}={value}"]), name)
        elif type(value) not in kinds:
            raise InputError(f"`{name}` must not be a {'mapping' if isinstance(value, dict) else 'list'}, got {value}")
        if name in REFUSED and value != TRAINING_DEFAULTS.get(name, defaults[name]):
            raise InputError(f"`{name}: {value}` would have no effect; {REFUSED[name]}")
        if value is not None and name in LEAST and not value >= LEAST[name]:
            raise InputError(f"`{name}` must be at least {LEAST[name]}, got {value}")
        if name == "label_smoothing_factor" and value > 1:
            raise InputError(f"`{name}` must be at most 1, got {value}")
        values[name] = value
    return values


def read_lines(stage_class: type, file: Path) -> dict[str, Any]:
    """The lines of a recipe, each with the type of its field."""
    return convert(stage_class, read_recipe(file))
