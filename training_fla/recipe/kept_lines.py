"""The lines that a run keeps: those that were given and the defaults."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_fla.recipe.reading import read_recipe
from training_fla.recipe.training_fields import REFUSED
from training_fla.recipe.values import defaults_of_fields, typed_lines, types_of_fields

# Lines that a run keeps only where they are given: they follow from other lines or from the machine.
DERIVED = (
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "accelerator_config",
    "ignore_data_skip",
    "run_name",
    "project",
    "debug",
)
# Lines that say nothing of what is learnt, or are a secret.
NOT_KEPT = ("resume", "overwrite", "check", "hub_token")
# Lines whose default is another part's; the run keeps what that part decided.
DECIDED_LATER = (
    "frame_stride",
    "random_frame_phase",
    "augmentation_probability",
    "rotate_degrees",
    "resize_factor",
    "translate_pixels",
    "visual_feature_size",
    "temporal_kernel_size",
    "generation_num_beams",
    "max_new_tokens",
)
# Lines in which a run may differ from the one that it resumes: clips a step are compared in place of the first two.
FREE_TO_CHANGE = ("output_dir", "total_batch_size", "per_device_train_batch_size", "ddp_backend", "ddp_timeout")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def default_lines(stage_class: type) -> dict[str, Any]:
    """The default of every line that a run keeps."""
    left_out = {*REFUSED, *DERIVED, *NOT_KEPT, "output_dir"}
    return {name: value for name, value in defaults_of_fields(stage_class).items() if name not in left_out}


def effective_lines(stage_class: type, values: dict[str, Any]) -> dict[str, Any]:
    """All lines of a recipe, those that were given first; no secret, and a path as it was given."""
    defaults = default_lines(stage_class)
    if values.get("total_batch_size") is not None:
        del defaults["per_device_train_batch_size"]
    lines = {name: value for name, value in values.items() if name not in NOT_KEPT}
    lines |= {name: value for name, value in defaults.items() if name not in lines}
    return {name: without_credentials(value) for name, value in lines.items()}


def without_credentials(value: Any) -> Any:
    """A line's value without user names and passwords in addresses."""
    if isinstance(value, dict):
        return {key: without_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_credentials(inner) for inner in value]
    return CREDENTIALS.sub("", value) if isinstance(value, str) else value


def stage_of(lines: Mapping[str, Any]) -> str:
    """Of which stage kept lines are, by what only one of them has; up to 0.3.0 a run kept what was given."""
    if {"light_t", "light_t_overrides", "train_tokenizer_pieces"} & lines.keys():
        return "stage1"
    return "stage2" if {"stage1_checkpoint", "language_model", "language_model_config"} & lines.keys() else "stage1"


def read_kept_lines(stage_class: type, file: Path) -> dict[str, Any]:
    """The lines that a run has kept; those of another version that this one does not know are left out."""
    names = types_of_fields(stage_class)
    return typed_lines(stage_class, {name: value for name, value in read_recipe(file).items() if name in names})
