"""The folder of a run: what may be written there, what it begins with, what is saved."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from training_fla.errors import InputError
from training_fla.folders import check_folder, check_not_inside, locked_folder, write_marker, write_text
from training_fla.hub.card import write_card
from training_fla.hub.push import push_trained
from training_fla.recipe import Recipe, dataset_places
from training_fla.stages.resuming import check_unchanged
from training_fla.training.adapters import FOLDER as PEFT_FOLDER
from training_fla.training.adapters import is_peft, merge_peft, save_peft
from training_fla.training.one_run import OneRunModel, without_light_t
from training_fla.training.plots import SAMPLES, curve_panels, save_picture
from training_fla.training.trainer import SignTranslationTrainer

# All that a run writes into `output_dir`: what `--overwrite` removes.
RUN_FILES = (
    "checkpoint-[0-9]*", "broken-checkpoint-[0-9]*", "runs", PEFT_FOLDER, ".model.partial", ".*.writing", SAMPLES,
    "recipe.yaml", "metrics.json", "evaluations.txt", "predictions_*.tsv", "bad_batch_*.json", "README.md",
    "trainer_state.json", "training_curve.png", "norms.tsv", "norms.png", "config.json", "generation_config.json",
    "processor_config.json", "*tokenizer*", "special_tokens_map.json", "model*.safetensors*", "*_fla.py",
)  # fmt: skip


@contextlib.contextmanager
def held_output_folder(recipe: Recipe, is_main: bool) -> Iterator[None]:
    """Check `output_dir` and hold it against other runs; nothing in it is changed."""
    folder = recipe.output_dir
    if folder.is_file():
        raise InputError(f"output_dir {folder} is a file")
    is_new = not folder.exists()  # a run that could not begin leaves no empty folder
    with locked_folder(folder, folder, temporary=is_new) if is_main else contextlib.nullcontext():
        check_output_folder(recipe)
        yield


def check_output_folder(recipe: Recipe) -> None:
    """Refuse a folder that is not a run's, that holds what the run reads, or a run that is to be left alone."""
    folder, run = recipe.output_dir, recipe.run
    if run.resume and run.overwrite:
        raise InputError("--resume and --overwrite contradict each other")
    if run.resume and recipe.training.get("save_only_model"):
        raise InputError("--resume needs the optimizer, which `save_only_model: true` does not save: give --overwrite")
    if folder.exists() and not os.access(folder, os.W_OK):
        raise InputError(f"output_dir {folder} cannot be written to")
    read = [*dataset_places(recipe.data), recipe.data.manifest, recipe.text.tokenizer]
    read += [getattr(recipe.model, name, None) for name in ("stage1_checkpoint", "language_model", "imagenet_weights")]
    check_not_inside(read, folder)
    stored = {"packed_dir": recipe.data.packed_dir, "feature_cache": getattr(recipe.model, "feature_cache", None)}
    for name, place in stored.items():  # filled before the folder is a run's
        if place and Path(place).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{name} {place} lies in output_dir {folder}: name a folder outside it")
    if not (run.resume and (folder / "recipe.yaml").is_file()):  # runs of 0.1.0 have no marker
        check_folder(folder, "run", overwrite=run.resume or run.overwrite)
        return
    check_unchanged(recipe)


def begin_output_folder(recipe: Recipe) -> None:
    """Remove what an earlier run left, if that is asked for, and mark the folder as a run's."""
    folder = recipe.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.run.overwrite:
        for old in {path for pattern in RUN_FILES for path in folder.glob(pattern)}:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    write_marker(folder, "run")
    write_text(folder / "recipe.yaml", kept_text(recipe))


def kept_text(recipe: Recipe) -> str:
    """All lines of a run, as YAML that is a recipe again: first those that were given, then the others."""
    given = {name: value for name, value in recipe.resolved.items() if name in recipe.given}
    others = {name: value for name, value in recipe.resolved.items() if name not in recipe.given}
    blocks = [yaml.safe_dump(lines, allow_unicode=True, sort_keys=False) for lines in (given, others)]
    return f"{blocks[0]}\n# Not given: defaults.\n{blocks[1]}"


def save(trainer: SignTranslationTrainer, recipe: Recipe, report: dict) -> None:
    """Write model, processor, scores, curve and card; push them if the recipe says so."""
    folder, args = recipe.output_dir, trainer.args
    save_model(trainer, folder)
    if not trainer.is_world_process_zero():
        return
    save_picture(curve_panels({"": trainer.state.log_history}), folder / "training_curve.png")
    trainer.save_state()
    write_text(folder / "metrics.json", json.dumps(report, indent=2, ensure_ascii=False, default=float) + "\n")
    write_card(folder, trainer.hub_model_id if args.push_to_hub else None)
    for split in ("dev", "test"):
        scores = report[split]
        of_which = " (the clips that were trained on)" if scores["on_training_clips"] else ""
        for name, of in {
            "": scores,
            **{f" {corpus}": part for corpus, part in scores.get("corpora", {}).items()},
        }.items():
            figures = "  ".join(f"{score} {of[score]:.2f}" for score in ("bleu1", "bleu4", "rouge_l"))
            print(f"{split}{name}{of_which}: {figures}")
    if args.push_to_hub:
        print(f"pushed to {push_trained(folder, args, trainer.hub_model_id)}")


def save_model(trainer: SignTranslationTrainer, folder: Path) -> None:
    """Write model and processor; their files appear all together."""
    trainer.model = trainer.whole_model()
    if is_peft(trainer.model) and trainer.is_world_process_zero():
        save_peft(trainer.model, folder / PEFT_FOLDER)
        merge_peft(trainer.model, folder / PEFT_FOLDER)
    if isinstance(trainer.model, OneRunModel):
        trainer.model = without_light_t(trainer.model)
    if not trainer.is_world_process_zero():
        return
    staging = folder / ".model.partial"
    try:
        trainer.model.save_pretrained(staging)
        trainer.processing_class.save_pretrained(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # it may be what fills the disk
        raise
    for file in staging.iterdir():
        os.replace(file, folder / file.name)
    shutil.rmtree(staging)
