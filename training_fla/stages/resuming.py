"""Which lines a run keeps, and whether the run that `--resume` goes on with had the same."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from modeling_fla import FlaForConditionalGeneration
from training_fla.console import note
from training_fla.errors import InputError
from training_fla.hub.card import read_facts
from training_fla.recipe import (
    DECIDED_LATER,
    FREE_TO_CHANGE,
    Recipe,
    Stage2Arguments,
    VisualArguments,
    default_lines,
    read_kept_lines,
)
from training_fla.training.trainer import SignTranslationTrainer


def check_unchanged(recipe: Recipe) -> None:
    """Refuse to resume with other lines than the run began with; a line that it did not keep had today's default."""
    now = recipe.resolved
    file = recipe.output_dir / "recipe.yaml"
    before = default_lines(type(recipe.model)) | read_kept_lines(type(recipe.model), file)
    undecided = {name for name in DECIDED_LATER if before.get(name) is None or now.get(name) is None}
    compared = (before.keys() | now.keys()) - undecided - {*FREE_TO_CHANGE}
    changed = sorted(name for name in compared if before.get(name) != now.get(name))
    if not changed:
        return
    lines = ", ".join(f"{name} (it was {before.get(name)}, now {now.get(name)})" for name in changed)
    remedy = more_epochs(recipe) if {"num_train_epochs", "max_steps"} & set(changed) else ""
    raise InputError(f"cannot resume {recipe.output_dir}: the recipe has changed in {lines}{remedy}")


def more_epochs(recipe: Recipe) -> str:
    """What to do instead of `--resume` with more epochs: the schedule of the learning rate cannot be prolonged."""
    run = recipe.output_dir
    lines = {"stage1_checkpoint": run, "output_dir": f"{run}-more"}
    lines["language_model" if isinstance(recipe.model, Stage2Arguments) else "tokenizer"] = run
    # Lines that contradict those.
    others = {"train_tokenizer_pieces", "language_model_config"} | {field.name for field in fields(VisualArguments)}
    for name in sorted(others - lines.keys()):
        if getattr(recipe.model, name, None) is not None:
            lines[name] = "null"
    if getattr(recipe.model, "random_language_model", False):
        lines["random_language_model"] = "false"
    words = " ".join(f"--{name} {value}" for name, value in lines.items())
    return f"; to train a finished run further start a new one from it, without --resume: {words}"


def check_clips_a_step(recipe: Recipe, args, checkpoint: Path) -> None:
    """Refuse to resume with another number of clips a step; print that the number of processes is another one."""
    processes = len(list(checkpoint.glob("rng_state*.pth")))  # each saved its own
    before = read_facts(checkpoint / "trainer_state.json").get("train_batch_size")
    if not (processes and before):
        return
    clips = before * processes * args.gradient_accumulation_steps
    now = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    numbers = f"{processes} process(es), now {args.world_size}"
    if clips != now:
        remedy = f"give --total_batch_size {clips}, or launch as many processes"
        raise InputError(
            f"cannot resume {recipe.output_dir}: a step had {clips} clips on {numbers} and {now} clips: {remedy}"
        )
    if processes == args.world_size:
        return
    if recipe.data.frames_per_batch:
        reason = f"frames_per_batch {recipe.data.frames_per_batch} is of each process: launch as many"
        raise InputError(f"cannot resume {recipe.output_dir}: the run had {numbers}, and {reason}")
    if args.process_index == 0:
        note(f"note: the run had {numbers}; steps have the same clips, dropout and augmentation draw other numbers")


def decided_lines(
    recipe: Recipe, model: FlaForConditionalGeneration, trainer: SignTranslationTrainer
) -> dict[str, Any]:
    """The lines that the recipe leaves open, as the parts that were built decided them."""
    generation = trainer.model.generation_config
    lines = {"generation_num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens}
    if model.config.sign_feature_size is None:
        lines["frame_stride"] = trainer.processing_class.video_processor.frame_stride
    if not (recipe.model.stage1_checkpoint or model.config.sign_feature_size):
        vision = model.config.vision_config
        lines |= {"visual_feature_size": vision.hidden_size, "temporal_kernel_size": vision.temporal_kernel_size}
    videos = getattr(trainer.train_dataset, "videos", trainer.train_dataset)  # a stream has them
    augmentation = getattr(videos, "augmentation", None)
    if augmentation is not None:
        lines |= {name: value for name, value in vars(augmentation).items() if name in DECIDED_LATER}
        lines["augmentation_probability"] = augmentation.probability
        lines["random_frame_phase"] = videos.random_frame_phase
    return {name: value for name, value in lines.items() if recipe.resolved[name] is None}
