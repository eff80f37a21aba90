"""`run_stage`: the one sequence both stages go through. A stage itself is a processor, a model and a recipe."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import Seq2SeqTrainingArguments
from transformers.utils import logging as transformers_logging

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from training_fla.console import Done, note
from training_fla.hub.card import training_facts
from training_fla.recipe import Recipe
from training_fla.scoring.metric import score_dataset
from training_fla.stages.building import Splits, build_parts, check_training, make_trainer, open_splits
from training_fla.stages.check import check_run
from training_fla.stages.launch import training_arguments
from training_fla.stages.output_folder import begin_output_folder, held_output_folder, save
from training_fla.stages.resuming import check_clips_a_step, check_unchanged, decided_lines
from training_fla.tables import write_table
from training_fla.training.callbacks import StoppedError, run_facts
from training_fla.training.checkpoints import last_whole_checkpoint, step_of
from training_fla.training.plots import SAMPLES, save_sample_frames
from training_fla.training.trainer import SignTranslationTrainer


def run_stage(
    recipe: Recipe,
    build_processor: Callable[[Recipe, Splits], FlaProcessor],
    build_model: Callable[[Recipe, FlaProcessor], FlaForConditionalGeneration],
    next_command: str,
) -> Done | int | None:
    """Train, choose on dev, score dev and test, save; the last line, on the main process, or the status of a stop."""
    transformers_logging.disable_progress_bar()  # of reading and writing weights: they take less than a second here
    started = time.perf_counter()
    args = training_arguments(recipe)
    if recipe.run.check:
        return check_run(recipe, args, build_processor, build_model)
    with contextlib.ExitStack() as stack:
        with args.main_process_first(local=False, desc="output folder"):
            stack.enter_context(held_output_folder(recipe, is_main=args.process_index == 0))

        # Everything is checked before a file is written or removed.
        splits = open_splits(recipe)  # on every process: while one packs, for hours maybe, no collective may wait
        processor, model = build_parts(recipe, args, splits, build_processor, build_model)
        trainer = make_trainer(recipe, args, splits, processor, model)
        check_training(trainer)
        recipe.resolved |= decided_lines(recipe, model, trainer)
        if recipe.run.resume and (recipe.output_dir / "recipe.yaml").is_file():
            check_unchanged(recipe)
        trainer.accelerator.wait_for_everyone()

        with args.main_process_first(local=False, desc="checkpoints"):
            checkpoint = last_whole_checkpoint(recipe.output_dir) if recipe.run.resume else None
            if checkpoint:
                check_clips_a_step(recipe, args, checkpoint)
            if trainer.is_world_process_zero():
                begin_output_folder(recipe)
                note_beginning(recipe, args, checkpoint)
        try:
            train_and_score(recipe, trainer, splits, checkpoint, started)
        except (StoppedError, KeyboardInterrupt) as stop:
            return end_unfinished(recipe, trainer, stop)
    return Done(f"saved to {recipe.output_dir}", next_command) if trainer.is_world_process_zero() else None


def note_beginning(recipe: Recipe, args: Seq2SeqTrainingArguments, checkpoint: Path | None) -> None:
    """Print what the run begins with, where the recipe alone does not say it."""
    if recipe.start:
        note(f"taken from {recipe.start['model']}: {recipe.start['taken']}\nnew: {recipe.start['new']}")
    if recipe.data.dev_split == recipe.data.train_split:
        note("note: dev scores are of the clips that are trained on (dev_split)")
    if checkpoint and args.ignore_data_skip:
        note("note: the epoch that was interrupted begins anew with its first clips")


def train_and_score(
    recipe: Recipe, trainer: SignTranslationTrainer, splits: Splits, checkpoint: Path | None, started: float
) -> None:
    """Train to the last step, score dev and test, and save; `started` is when the run began, by `perf_counter`."""
    args = trainer.args
    metrics = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    metrics.pop("total_flos", None)  # not counted
    started -= trainer.throughput.earlier_seconds  # of the run that this one resumes
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    metrics["best_step"] = trainer.state.best_global_step
    metrics["clips_per_step"] = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    report = {"train": metrics | trainer.throughput.figures()}
    for split in ("dev", "test"):
        report[split] = score_split(trainer, split, recipe)
    report |= training_facts(recipe, splits) | run_facts(trainer, time.perf_counter() - started)
    save(trainer, recipe, report)
    if trainer.is_world_process_zero() and not splits.test.feature_size:
        save_samples(splits.test, trainer.test_dataset, recipe.output_dir / SAMPLES)


def score_split(trainer: SignTranslationTrainer, split: str, recipe: Recipe) -> dict:
    """Translate `dev` or `test` with the chosen model, write its predictions, and score them."""
    dataset = trainer.eval_dataset if split == "dev" else trainer.test_dataset
    start = time.perf_counter()
    translations, loss = trainer.translate(dataset, description=split)
    seconds = time.perf_counter() - start
    scores = score_dataset(trainer.metric, dataset, translations, intervals=True)
    if trainer.is_world_process_zero():
        write_predictions(recipe.output_dir, split, dataset, translations)
    trained_on = getattr(recipe.data, f"{split}_split") == recipe.data.train_split
    return {**scores, "loss": loss, "seconds": round(seconds, 2), "on_training_clips": trained_on}


def save_samples(corpus, dataset, folder: Path) -> None:
    """Write frames of a few test clips, of several corpora of each."""
    if not hasattr(dataset, "parts"):
        save_sample_frames(corpus, len(dataset), folder)
        return
    for part, clips in zip(corpus.parts, (part.clips for part in dataset.parts), strict=True):
        save_sample_frames(part, len(clips), folder, first=clips.start)


def write_predictions(folder: Path, split: str, dataset, translations: Sequence[str]) -> None:
    """Write the predictions of a split; of several corpora one file each, which `fla score` takes."""
    rows = list(zip(dataset.ids, translations, dataset.sentences, strict=True))
    parts = {f"predictions_{split}": rows}
    if hasattr(dataset, "parts"):
        ids = [name for of_corpus in dataset.datasets for name in of_corpus.ids]
        rows = [(name, *row[1:]) for name, row in zip(ids, rows, strict=True)]
        clips = {part.name: part.clips for part in dataset.parts}
        parts = {f"predictions_{split}_{name}": rows[c.start : c.stop] for name, c in clips.items()}
    for name, part in parts.items():
        write_table(folder / f"{name}.tsv", ("id", "prediction", "reference"), part, overwrite=True)


def end_unfinished(recipe: Recipe, trainer: SignTranslationTrainer, stop: BaseException) -> int:
    """Print how far a run came and how it goes on; the exit status: a shell's of the signal, 1 of another callback."""
    is_interrupted = isinstance(stop, KeyboardInterrupt)
    if trainer.is_world_process_zero():
        step, last = trainer.state.global_step, trainer.state.max_steps
        checkpoint = last_whole_checkpoint(recipe.output_dir)
        if recipe.training.get("save_only_model"):
            remedy = "`save_only_model: true` keeps nothing to go on from, --overwrite starts anew"
        elif checkpoint is None:
            remedy = "it has no checkpoint yet, the same command with --resume starts anew"
        else:
            saved = step_of(checkpoint)
            remedy = "the same command with --resume goes on" + ("" if saved == step else f" from step {saved:,}")
        line = f"{'interrupted' if is_interrupted else 'stopped'} at step {step:,} of {last:,}; {remedy}"
        print(("\n" if sys.stderr.isatty() else "") + line, file=sys.stderr)  # below the bar
    if is_interrupted:
        return 128 + signal.SIGINT
    return 128 + signal.SIGTERM if stop.by_signal else 1
