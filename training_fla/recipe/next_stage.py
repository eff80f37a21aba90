"""The command of stage 2 that follows a stage 1."""

import dataclasses
from pathlib import Path

from training_fla.recipe.arguments import DataArguments, Recipe, Stage2Arguments, TextArguments
from training_fla.recipe.values import read_lines

# Lines that stage 2 shares with its stage 1.
SHARED = (
    "dataset", "manifest", "streaming", "video_column", "sentence_column", "follow_links", "no_times", "packed_dir",
    "packed_size", "on_error", "train_split", "dev_split", "test_split", "frame_stride", "max_source_frames",
    "frame_size", "crop_size", "score_convention", "language_code",
)  # fmt: skip
OWN_CLIPS = Path("recipes/own_clips/stage2.yaml")


def stage2_words(recipe: Recipe, file: str) -> list[str]:
    """What goes behind `run_stage2.py` after a stage 1 of the recipe `file`: a recipe and the lines it lacks.

    The recipe of stage 2 is the one beside that of stage 1, else the one for clips of one's own.
    """
    first = Path(file)
    beside = (first.with_name(first.name.replace("stage1", "stage2")), first.with_name("stage2.yaml"))
    second = next((path for path in beside if path != first and path.is_file()), OWN_CLIPS)
    lines = read_lines(Stage2Arguments, second) if second.is_file() else {}
    defaults = {
        field.name: field.default for part in (DataArguments, TextArguments) for field in dataclasses.fields(part)
    }
    run = recipe.output_dir
    words = {name: recipe.resolved.get(name, defaults[name]) for name in SHARED}
    words = {name: value for name, value in words.items() if value != lines.get(name, defaults[name])}
    source = "manifest" if recipe.data.manifest else "dataset"
    words = {source: recipe.resolved[source]} | words | {"stage1_checkpoint": run}
    if lines.get("tokenizer") not in (None, recipe.text.tokenizer) and not lines.get("language_model"):
        words["tokenizer"] = run
    if _is_language_model(recipe.text.tokenizer) and lines.get("language_model") != recipe.text.tokenizer:
        words["language_model"] = recipe.text.tokenizer  # stage 1 has its tokenizer
        words |= {"language_model_config": None} if "language_model_config" in lines else {}
    if Path(lines.get("output_dir", run)).parent != run.parent:
        name = run.name.replace("stage1", "stage2")
        words["output_dir"] = run.with_name(name if name != run.name else f"{run.name}-stage2")
    texts = {None: "null", True: "true", False: "false"}
    given = ((f"--{name}", texts.get(value, str(value))) for name, value in words.items())
    return [str(second), *(word for pair in given for word in pair)]


def _is_language_model(folder: str | None) -> bool:
    """Whether a folder holds a language model with its tokenizer, and no run."""
    names = ("config.json", "processor_config.json")
    return [(Path(folder) / name).is_file() for name in names] == [True, False] if folder else False
