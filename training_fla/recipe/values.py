"""The value of each line by the type of its field, and the lines that are refused."""

import argparse
import dataclasses
import difflib
import enum
import functools
import types
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
    "frame_stride": 1,
    "max_source_frames": 1,
    "packed_size": 1,
    "frame_size": 1,
    "crop_size": 1,
    "max_train_clips": 1,
    "max_eval_clips": 1,
    "shuffle_buffer": 1,
    "sampling_temperature": 1,
    "target_fps": 1,
    "frames_per_batch": 1,
    "max_target_tokens": 1,
    "max_new_tokens": 1,
    "generation_num_beams": 1,
    "train_tokenizer_pieces": 1,
    "adapter_hidden_size": 1,
    "visual_feature_size": 1,
    "temporal_kernel_size": 1,
    "early_stopping_patience": 1,
    "norm_logging_steps": 1,
    "total_batch_size": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "adapter_learning_rate": 0,
    "visual_learning_rate": 0,
    "weight_decay": 0,
    "momentum": 0,
    "label_smoothing_factor": 0,
    "max_grad_norm": 0,
    "num_train_epochs": 0,
    "dataloader_num_workers": 0,
}
MOST = {"label_smoothing_factor": 1}
# Fields that are YAML whatever they begin with: `fsdp: true`.
YAML_FIELDS = ("fsdp", "debug")


def read_lines(stage_class: type, file: Path) -> dict[str, Any]:
    """The lines of a recipe, each with the type of its field."""
    return typed_lines(stage_class, read_recipe(file))


def typed_lines(stage_class: type, lines: dict[str, Any]) -> dict[str, Any]:
    """Give every line the type of its field; refuse unknown keys, other types, and lines without effect."""
    field_types = types_of_fields(stage_class)
    defaults = defaults_of_fields(stage_class)
    values: dict[str, Any] = {}
    for name, written in lines.items():
        if name not in field_types:
            near = difflib.get_close_matches(name, field_types, n=1, cutoff=0.75)  # below, names are alike by chance
            raise InputError(f"unknown recipe key `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        value = typed_value(stage_class, name, written)
        if name in REFUSED and value != defaults[name]:
            raise InputError(f"`{name}: {value}` would have no effect; {REFUSED[name]}")
        check_range(name, value)
        values[name] = value
    return values


def typed_value(stage_class: type, name: str, written: Any) -> Any:
    """The value of a line, which is a text as it was written, or a mapping or a list."""
    kinds = kinds_of(types_of_fields(stage_class)[name])
    if written in NO_VALUE:
        if types.NoneType not in kinds:
            raise InputError(f"`{name}` needs a value, got none")
        return None
    if not isinstance(written, str):
        if type(written) not in kinds:
            kind = "mapping" if isinstance(written, dict) else "list"
            raise InputError(f"`{name}` must not be a {kind}, got {written}")
        return written
    if name in YAML_FIELDS or (written[0] in "{[" and {dict, list} & kinds):
        try:
            return yaml.load(written, RecipeLoader)
        except yaml.YAMLError as error:
            raise InputError(f"`{name}` is not YAML: {error}") from None
    try:
        parsed = parser_of_fields(stage_class).parse_args([f"--{name}={written}"])
    except argparse.ArgumentError as error:
        raise InputError(f"`{name}`: {error.message}") from None
    return getattr(parsed, name)


def check_range(name: str, value: Any) -> None:
    """Refuse a number that is too small or too large, and one that is no number."""
    if value is None:
        return
    if name in LEAST and not value >= LEAST[name]:
        raise InputError(f"`{name}` must be at least {LEAST[name]}, got {value}")
    if name in MOST and not value <= MOST[name]:
        raise InputError(f"`{name}` must be at most {MOST[name]}, got {value}")


def kinds_of(field_type: Any) -> set[type]:
    """The classes of a field's values: `dict` and `NoneType` of `dict[str, int] | None`."""
    is_union = typing.get_origin(field_type) in (typing.Union, types.UnionType)
    options = typing.get_args(field_type) if is_union else (field_type,)
    return {typing.get_origin(option) or option for option in options}


def classes_of_fields(stage_class: type) -> tuple[type, ...]:
    """The dataclasses whose fields a recipe of a stage may set: ours, and transformers' arguments."""
    from transformers import Seq2SeqTrainingArguments  # it needs torch

    return (stage_class, *COMMON, Seq2SeqTrainingArguments)


@functools.cache
def types_of_fields(stage_class: type) -> dict[str, Any]:
    """The type of every field by its name."""
    field_types = {}
    for cls in classes_of_fields(stage_class):
        hints = typing.get_type_hints(cls)
        field_types |= {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return field_types


@functools.cache
def parser_of_fields(stage_class: type) -> HfArgumentParser:
    """A parser of texts by the types of the fields, which raises what it would print."""
    return HfArgumentParser(classes_of_fields(stage_class), allow_abbrev=False, exit_on_error=False)


def defaults_of_fields(stage_class: type) -> dict[str, Any]:
    """The default of every field by its name: ours where we have one."""
    defaults = {}
    for cls in classes_of_fields(stage_class):
        for field in dataclasses.fields(cls):
            default = field.default_factory() if field.default is dataclasses.MISSING else field.default
            default = TRAINING_DEFAULTS.get(field.name, default)
            defaults[field.name] = default.value if isinstance(default, enum.Enum) else default
    return defaults
