"""The command of stage 2 that follows a stage 1."""

import json
from pathlib import Path

from training_fla.recipe.arguments import Recipe, Stage2Arguments
from training_fla.recipe.values import defaults_of_fields, read_lines

# Lines that stage 2 shares with its stage 1.
SHARED = (
    "dataset",
    "sampling_temperature",
    "manifest",
    "streaming",
    "video_column",
    "sentence_column",
    "follow_links",
    "no_times",
    "packed_dir",
    "packed_size",
    "on_error",
    "train_split",
    "dev_split",
    "test_split",
    "target_fps",
    "frame_stride",
    "max_source_frames",
    "frame_size",
    "crop_size",
    "score_convention",
    "language_code",
)
OWN_CLIPS = Path("recipes/own_clips/stage2.yaml")


def stage2_words(recipe: Recipe, file: str) -> list[str]:
    """What goes behind `run_stage2.py` after a stage 1 of the recipe `file`: a recipe and the lines it lacks.

    The recipe of stage 2 is the one beside that of stage 1, else the one for clips of one's own.
    """
    first = Path(file)
    beside = (first.with_name(first.name.replace("stage1", "stage2")), first.with_name("stage2.yaml"))
    second = next((path for path in beside if path != first and path.is_file()), OWN_CLIPS)
    lines = read_lines(Stage2Arguments, second) if second.is_file() else {}
    defaults = defaults_of_fields(Stage2Arguments)
    run = recipe.output_dir
    source = "manifest" if recipe.data.manifest else "dataset"
    words = {source: recipe.resolved[source]}
    for name in SHARED:
        value = recipe.resolved.get(name, defaults[name])
        if value != lines.get(name, defaults[name]):
            words[name] = value
    words["stage1_checkpoint"] = run
    if lines.get("tokenizer") not in (None, recipe.text.tokenizer) and not lines.get("language_model"):
        words["tokenizer"] = run
    if _is_language_model(recipe.text.tokenizer) and lines.get("language_model") != recipe.text.tokenizer:
        words["language_model"] = recipe.text.tokenizer  # stage 1 has its tokenizer
        if "language_model_config" in lines:
            words["language_model_config"] = None
    if Path(lines.get("output_dir", run)).parent != run.parent:
        name = run.name.replace("stage1", "stage2")
        words["output_dir"] = run.with_name(name if name != run.name else f"{run.name}-stage2")
    command = [str(second)]
    for name, value in words.items():
        command += [f"--{name}", _written(value)]
    return command


def _written(value: object) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_language_model(folder: str | None) -> bool:
    """Whether a folder holds a language model with its tokenizer, and no run."""
    if not folder:
        return False
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / "processor_config.json").is_file()
