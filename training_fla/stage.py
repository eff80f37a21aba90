"""`run_stage`: the one sequence both stages go through. A stage itself is a processor, a model and a recipe."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import Seq2SeqTrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor, FlaVideoProcessor, SignTranslationPipeline
from training_fla.console import Done, note
from training_fla.corpora.registry import convention_of
from training_fla.data.collation import SignTranslationCollator
from training_fla.data.datasets import make_datasets
from training_fla.data.packed_corpus import PackedCorpus, packed_splits
from training_fla.data.packing import ensure_packed
from training_fla.data.streaming import SignVideoStream, check_streaming, local_copy
from training_fla.errors import InputError, first_line
from training_fla.folders import check_folder, check_not_inside, locked_folder, write_marker, write_text
from training_fla.hub.card import read_facts, training_facts, write_card
from training_fla.hub.push import make_repository, push_trained
from training_fla.recipe import (
    BATCH_LINES,
    DECIDED_LATER,
    FREE_TO_CHANGE,
    Recipe,
    VisualArguments,
    clips_a_process,
    default_lines,
    read_kept_lines,
)
from training_fla.scoring.conventions import convention_for
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.scoring.scores import SCORE_NAMES
from training_fla.tables import write_table
from training_fla.training.adapters import FOLDER as PEFT_FOLDER
from training_fla.training.adapters import is_peft, merge_peft, save_peft
from training_fla.training.callbacks import StoppedError, add_callbacks, check_report_to, run_facts
from training_fla.training.one_run import OneRunModel, without_light_t
from training_fla.training.parts import set_language
from training_fla.training.plots import SAMPLES, curve_panels, save_picture, save_sample_frames
from training_fla.training.trainer import (
    SignTranslationTrainer,
    clean_generation_config,
    last_whole_checkpoint,
    step_of,
)

# All that a run writes into `output_dir`: what `--overwrite` removes.
RUN_FILES = (
    "checkpoint-[0-9]*", "broken-checkpoint-[0-9]*", "runs", PEFT_FOLDER, ".model.partial", ".*.writing", SAMPLES,
    "recipe.yaml", "metrics.json", "evaluations.txt", "predictions_*.tsv", "bad_batch_*.json", "README.md",
    "trainer_state.json", "training_curve.png", "norms.tsv", "norms.png", "config.json", "generation_config.json",
    "processor_config.json", "*tokenizer*", "special_tokens_map.json", "model*.safetensors*", "*_fla.py",
)  # fmt: skip

LAUNCH = ("accelerate", "launch", "--multi_gpu", "--num_processes")


@dataclass
class Splits:
    """The three splits of a run: trained on, choosing the model, reported."""

    train: PackedCorpus
    dev: PackedCorpus
    test: PackedCorpus


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
                if recipe.start:
                    note(f"taken from {recipe.start['model']}: {recipe.start['taken']}\nnew: {recipe.start['new']}")
                if recipe.data.dev_split == recipe.data.train_split:
                    note("note: dev scores are of the clips that are trained on (dev_split)")
            if checkpoint and args.ignore_data_skip and trainer.is_world_process_zero():
                note("note: the epoch that was interrupted begins anew with its first clips")
        try:
            train_and_score(recipe, trainer, splits, checkpoint, started)
        except (StoppedError, KeyboardInterrupt) as stop:
            return end_unfinished(recipe, trainer, stop)
    return Done(f"saved to {recipe.output_dir}", next_command) if trainer.is_world_process_zero() else None


def train_and_score(
    recipe: Recipe, trainer: SignTranslationTrainer, splits: Splits, checkpoint: Path | None, started: float
) -> None:
    """Train to the last step, score dev and test, and save; `started` is when the run began, by `perf_counter`."""
    args = trainer.args
    outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    started -= trainer.throughput.earlier_seconds  # of the run that this one resumes
    outcome.metrics.pop("total_flos", None)  # not counted
    facts = {"seconds": round(time.perf_counter() - started, 1), "best_step": trainer.state.best_global_step}
    facts["clips_per_step"] = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    report = {"train": {**outcome.metrics, **facts, **trainer.throughput.figures()}}
    for split in ("dev", "test"):
        report[split] = score_split(trainer, split, recipe)
    report |= training_facts(recipe, splits) | run_facts(trainer, time.perf_counter() - started)
    save(trainer, recipe, report)
    if trainer.is_world_process_zero() and not splits.test.feature_size:
        save_sample_frames(splits.test, len(trainer.test_dataset), recipe.output_dir / SAMPLES)


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


def training_arguments(recipe: Recipe) -> Seq2SeqTrainingArguments:
    """Transformers' arguments of a recipe, checked by transformers and by us."""
    check_launch(recipe)
    on_gpu = torch.cuda.is_available()
    # Pinned memory is for copies to an accelerator; without one torch only warns.
    own = {"dataloader_pin_memory": on_gpu} | ({"accelerator_config": {"non_blocking": True}} if on_gpu else {})
    # Workers that live on open the corpus once, not once an epoch.
    own |= {"dataloader_persistent_workers": bool(recipe.training.get("dataloader_num_workers"))}
    own |= {"ignore_data_skip": recipe.data.streaming}  # a stream begins an interrupted epoch anew
    own |= {"run_name": "/".join(recipe.output_dir.absolute().parts[-2:]), "project": "fla-llm"}  # for `report_to`
    try:
        args = Seq2SeqTrainingArguments(**own | recipe.training)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"the recipe's training fields do not fit together: {error}") from None
    set_batch_size(recipe, args)
    check_report_to(args)
    names = (*SCORE_NAMES, "loss")
    if args.metric_for_best_model and args.metric_for_best_model.removeprefix("eval_") not in names:
        raise InputError(f"metric_for_best_model: {args.metric_for_best_model} is none of {', '.join(names)}")
    if args.train_sampling_strategy == "sequential":
        raise InputError("train_sampling_strategy: sequential would have no effect; choose random or group_by_length")
    if recipe.optimization.early_stopping_patience and args.eval_strategy == "no":
        raise InputError("early_stopping_patience needs evaluations: set `eval_strategy` to epoch or steps")
    return args


def set_batch_size(recipe: Recipe, args: Seq2SeqTrainingArguments) -> None:
    """Share the recipe's total batch out to the processes that were launched."""
    total = recipe.optimization.total_batch_size
    if total is None:
        return
    splits_batches = args.accelerator_config.split_batches
    for name, given in {"deepspeed": args.deepspeed, "accelerator_config.split_batches": splits_batches}.items():
        if given:
            raise InputError(f"{name} counts clips otherwise: instead of total_batch_size give {BATCH_LINES[1]}")
    args.per_device_train_batch_size = clips_a_process(total, args.world_size, args.gradient_accumulation_steps)


def one_process(words: Sequence[str]) -> str:
    """A command of one process as it can be typed here; of several visible GPUs it gets the first."""
    command = shlex.join(words)
    if torch.cuda.device_count() < 2:
        return command
    return f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]} {command}"


def check_launch(recipe: Recipe) -> None:
    """Refuse more processes than GPUs, and one process for several: torch would copy the model to all at each step."""
    gpus = 0 if recipe.training.get("use_cpu") else torch.cuda.device_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if 0 < gpus < processes:
        if os.environ.get("LOCAL_RANK") != "0":
            raise SystemExit(2)  # one process prints why
        words = ["python", *sys.argv] if gpus == 1 else [*LAUNCH, str(gpus), *sys.argv]
        raise InputError(f"{processes} processes were launched for {gpus} visible GPU(s): `{shlex.join(words)}` fits")
    if gpus > 1 and "LOCAL_RANK" not in os.environ:
        command = shlex.join([*LAUNCH, str(gpus), *sys.argv])
        raise InputError(f"{gpus} GPUs are visible: use them with `{command}`, or set CUDA_VISIBLE_DEVICES=0 for one")


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
    read = [recipe.data.dataset, recipe.data.manifest, recipe.text.tokenizer]
    read += [getattr(recipe.stage, name, None) for name in ("stage1_checkpoint", "language_model", "imagenet_weights")]
    check_not_inside(read, folder)
    stored = {"packed_dir": recipe.data.packed_dir, "feature_cache": getattr(recipe.stage, "feature_cache", None)}
    for name, place in stored.items():  # filled before the folder is a run's
        if place and Path(place).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{name} {place} lies in output_dir {folder}: name a folder outside it")
    if not (run.resume and (folder / "recipe.yaml").is_file()):  # runs of 0.1.0 have no marker
        check_folder(folder, "run", overwrite=run.resume or run.overwrite)
        return
    check_unchanged(recipe)


def check_unchanged(recipe: Recipe) -> None:
    """Refuse to resume with other lines than the run began with; a line that it did not keep had today's default."""
    folder, now = recipe.output_dir, recipe.resolved
    before = default_lines(type(recipe.stage)) | read_kept_lines(type(recipe.stage), folder / "recipe.yaml")
    undecided = {name for name in DECIDED_LATER if before.get(name) is None or now.get(name) is None}
    compared = (before.keys() | now.keys()) - undecided - {*FREE_TO_CHANGE}
    changed = sorted(name for name in compared if before.get(name) != now.get(name))
    if changed:
        lines = ", ".join(f"{name} (it was {before.get(name)}, now {now.get(name)})" for name in changed)
        remedy = more_epochs(recipe) if {"num_train_epochs", "max_steps"} & set(changed) else ""
        raise InputError(f"cannot resume {folder}: the recipe has changed in {lines}{remedy}")


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
        what = "steps have the same clips, dropout and augmentation draw other numbers"
        note(f"note: the run had {numbers}; {what}")


def decided_lines(
    recipe: Recipe, model: FlaForConditionalGeneration, trainer: SignTranslationTrainer
) -> dict[str, Any]:
    """The lines that the recipe leaves open, as the parts that were built decided them."""
    generation, vision = trainer.model.generation_config, model.config.vision_config
    lines = {"generation_num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens}
    if model.config.sign_feature_size is None:
        lines["frame_stride"] = trainer.processing_class.video_processor.frame_stride
    if not (recipe.stage.stage1_checkpoint or model.config.sign_feature_size):
        lines |= {"visual_feature_size": vision.hidden_size, "temporal_kernel_size": vision.temporal_kernel_size}
    videos = getattr(trainer.train_dataset, "videos", trainer.train_dataset)  # a stream has them
    augmentation = getattr(videos, "augmentation", None)
    if augmentation is not None:
        lines |= {name: value for name, value in vars(augmentation).items() if name in DECIDED_LATER}
        lines |= {
            "augmentation_probability": augmentation.probability,
            "random_frame_phase": videos.random_frame_phase,
        }
    return {name: value for name, value in lines.items() if recipe.resolved[name] is None}


def more_epochs(recipe: Recipe) -> str:
    """What to do instead of `--resume` with more epochs: the schedule of the learning rate cannot be prolonged."""
    run, stage = recipe.output_dir, recipe.stage
    lines = {"stage1_checkpoint": run, "output_dir": f"{run}-more"}
    lines |= {"language_model": run} if hasattr(stage, "language_model") else {"tokenizer": run}
    instead = {"train_tokenizer_pieces", "language_model_config"} | {f.name for f in fields(VisualArguments)}
    lines |= {name: "null" for name in sorted(instead - lines.keys()) if getattr(stage, name, None) is not None}
    lines |= {"random_language_model": "false"} if getattr(stage, "random_language_model", False) else {}
    words = " ".join(f"--{name} {value}" for name, value in lines.items())
    return f"; to train a finished run further start a new one from it, without --resume: {words}"


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


def open_splits(recipe: Recipe) -> Splits:
    """Open the packed corpus; a manifest is packed first."""
    data = recipe.data
    if data.streaming:
        check_streaming(recipe)
    if bool(data.dataset) == bool(data.manifest):
        raise InputError("the recipe must name one of `dataset` (a packed folder) and `manifest` (a table of videos)")
    if data.manifest:
        columns = {"video_column": data.video_column, "sentence_column": data.sentence_column}
        columns |= {"start_column": "", "end_column": ""} if data.no_times else {}
        packed_dir = data.packed_dir or recipe.output_dir.parent / f"packed-{data.packed_size}"
        columns["follow_links"] = data.follow_links
        options = {"size": data.packed_size, "on_error": data.on_error}
        folder = ensure_packed(data.manifest, packed_dir, pack_options=options, **columns)
    else:
        folder = local_copy(data, recipe.output_dir.parent) if data.streaming else Path(data.dataset)
        if not folder.is_dir():
            is_unread_url = "://" in data.dataset and not data.streaming
            remedy = "add `streaming: true`" if is_unread_url else "make it with `fla prepare`"
            raise InputError(f"there is no packed corpus {data.dataset}; {remedy}")
    there = packed_splits(folder)
    wanted = {"train_split": data.train_split, "dev_split": data.dev_split, "test_split": data.test_split}
    for field, split in wanted.items():
        if split not in there:
            has = ", ".join(there) or "none"
            raise InputError(f"{folder} has no split `{split}`; it has {has}: name one with --{field}")
    streamed = {"train_split"} if data.streaming else {}
    return Splits(*(PackedCorpus(folder, split, name not in streamed) for name, split in wanted.items()))


def build_parts(recipe: Recipe, args, splits: Splits, build_processor: Callable, build_model: Callable) -> tuple:
    """The processor and the model of a recipe; the random seed is set before the model."""
    try:
        processor = build_processor(recipe, splits)
        processor.video_processor.packed_size = splits.train.size_before(processor.video_processor)
        set_seed(args.seed)
        model = build_model(recipe, processor)
    except InputError:
        raise
    except (ValueError, StrictDataclassError, OSError) as error:
        raise InputError(f"the recipe's model cannot be built: {error}") from error
    rows, tokens = model.get_output_embeddings().weight.shape[0], len(processor.tokenizer)
    # T5 and MT5 pad their embedding to a round number, so a few spare rows are fine; another vocabulary is not.
    if tokens > rows or rows - tokens > 256:
        raise InputError(f"tokenizer and language model do not belong together: {tokens} tokens, {rows} embeddings")
    return processor, model


def make_processor(recipe: Recipe, tokenizer) -> FlaProcessor:
    """A video processor of the recipe's numbers beside a tokenizer of the recipe's language."""
    data = recipe.data
    if recipe.text.language_code is not None:
        set_language(tokenizer, recipe.text.language_code, "language_code")
    stride = {} if data.frame_stride is None else {"frame_stride": data.frame_stride}
    video_processor = FlaVideoProcessor(
        **stride,
        max_source_frames=data.max_source_frames,
        size={"height": data.frame_size, "width": data.frame_size},
        crop_size={"height": data.crop_size, "width": data.crop_size},
    )
    return FlaProcessor(video_processor=video_processor, tokenizer=tokenizer)


def make_trainer(
    recipe: Recipe, args, splits: Splits, processor: FlaProcessor, model: FlaForConditionalGeneration
) -> SignTranslationTrainer:
    """Model, data, metric and optimizer together; it has `test_dataset` beside transformers' two."""
    datasets = make_datasets(recipe, args, splits, processor, model)
    if recipe.data.streaming:
        datasets["train"] = SignVideoStream(datasets["train"], recipe.data, args)
    convention = recipe.data.score_convention
    if convention == "auto":
        convention = convention_for(convention_of(splits.dev.corpus), splits.dev.sentences)
    if args.world_size > 1 and args.device.type == "cuda" and not model.visual_encoder_is_frozen:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    default = SignTranslationPipeline._default_generation_config
    beams = args.generation_num_beams or default.num_beams
    length = recipe.text.max_new_tokens or default.max_new_tokens
    positions = getattr(model.language_model.get_decoder(), "embed_positions", None)
    if isinstance(positions, torch.nn.Embedding) and length > model.config.text_config.max_position_embeddings:
        limit = model.config.text_config.max_position_embeddings
        raise InputError(f"max_new_tokens {length} is more than the language model's {limit} positions: lower it")
    generation = clean_generation_config(model, processor.tokenizer, beams, length)
    if args.push_to_hub and args.process_index == 0:
        make_repository(args)
    trainer = SignTranslationTrainer(
        model=model,
        args=args,
        optimization=recipe.optimization,
        metric=SignTranslationMetric(convention),
        generation=generation,
        frames_per_batch=recipe.data.frames_per_batch,
        train_dataset=datasets["train"],
        eval_dataset=datasets["dev"],
        data_collator=SignTranslationCollator(),
        processing_class=processor,
    )
    add_callbacks(trainer, recipe)
    trainer.test_dataset = datasets["test"]
    return trainer


def check_training(trainer: SignTranslationTrainer) -> None:
    """Make once what training makes first, so that what does not fit is refused before anything is removed."""
    try:
        trainer.get_train_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=100)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"the recipe's training fields do not fit together: {first_line(error)}") from error
    trainer.optimizer = trainer.lr_scheduler = None


def score_split(trainer: SignTranslationTrainer, split: str, recipe: Recipe) -> dict:
    """Translate `dev` or `test` with the chosen model, write its predictions, and score them."""
    dataset = trainer.eval_dataset if split == "dev" else trainer.test_dataset
    start = time.perf_counter()
    translations, loss = trainer.translate(dataset, description=split)
    seconds = time.perf_counter() - start
    scores = trainer.metric.compute(predictions=translations, references=dataset.sentences, intervals=True)
    if trainer.is_world_process_zero():
        rows = zip(dataset.ids, translations, dataset.sentences, strict=True)
        file = recipe.output_dir / f"predictions_{split}.tsv"
        write_table(file, ("id", "prediction", "reference"), rows, overwrite=True)
    trained_on = getattr(recipe.data, f"{split}_split") == recipe.data.train_split
    return {**scores, "loss": loss, "seconds": round(seconds, 2), "on_training_clips": trained_on}


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
        note = " (the clips that were trained on)" if scores["on_training_clips"] else ""
        print(f"{split}{note}: " + "  ".join(f"{name} {scores[name]:.2f}" for name in ("bleu1", "bleu4", "rouge_l")))
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
    staging = folder / ".model.partial"
    try:
        trainer.save_model(str(staging), _internal_call=True)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # it may be what fills the disk
        raise
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return
    for file in staging.iterdir():
        if file.name != "training_args.bin":  # a pickle, and recipe.yaml holds every line of it that a recipe may have
            os.replace(file, folder / file.name)
    shutil.rmtree(staging)
