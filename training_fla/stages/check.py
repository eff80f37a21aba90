"""`--check`: what a run would need, printed before it is trained; a few of its steps are taken and timed.

All that is built for them is written into a temporary folder. The largest step of the first epoch is among them, so
that a lack of memory shows now.
"""

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import psutil
import torch
from accelerate.utils import broadcast_object_list, send_to_device
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from training_fla.console import Done, counted, note, size_text, time_text
from training_fla.data.batching import FilledBatches
from training_fla.data.datasets import feature_folder
from training_fla.data.feature_store import UnstoredFeatures
from training_fla.errors import InputError
from training_fla.recipe import Recipe
from training_fla.stages.building import Splits, build_parts, check_training, make_trainer, open_splits
from training_fla.stages.launch import training_arguments
from training_fla.stages.output_folder import check_output_folder
from training_fla.training.adapters import unsaved_weights
from training_fla.training.callbacks import device_text, peak_memory_mib
from training_fla.training.trainer import SignTranslationTrainer

TIMED = 4  # steps, each from the middle of a quarter of the epoch's steps sorted by their frames
NOTHING_KEPT = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
    "push_to_hub": False,
    "disable_tqdm": True,
    "max_steps": TIMED + 2,
}


class StepTimes(TrainerCallback):
    """The seconds of each step, from the end of the one before it, so with the wait for its clips."""

    def __init__(self):
        self.seconds, self.since = [], 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.since)
        self.since = now


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds, and bytes."""

    step: float  # seconds
    evaluated_batch: float  # seconds of one batch of dev
    encoded_frame: float  # seconds of one sampled frame whose features are to be stored, on one process
    largest: int  # frames of the largest batch, padding included
    optimizer: int  # bytes of its state


def check_run(
    recipe: Recipe, args: Seq2SeqTrainingArguments, build_processor: Callable, build_model: Callable
) -> Done:
    """Take a few steps of a run, and print what the whole of it needs."""
    for name, is_given in {"resume": recipe.run.resume, "streaming": recipe.data.streaming}.items():
        if is_given:
            raise InputError(f"--check is for a whole run of clips at hand: drop `{name}`")
    check_output_folder(recipe)
    splits = open_splits(recipe)
    with tempfile.TemporaryDirectory(prefix="fla-check-") as folder:
        trial = replace(recipe.optimization, early_stopping_patience=None, norm_logging_steps=None)
        trial = replace(recipe, training=recipe.training | NOTHING_KEPT | {"output_dir": folder}, optimization=trial)
        trial_args = training_arguments(trial)
        processor, model = build_parts(recipe, trial_args, splits, build_processor, build_model)
        # The folder is the recipe's, so that features which are stored there already are found.
        trial.training["output_dir"] = recipe.training["output_dir"]
        trainer = make_trainer(trial, trial_args, splits, processor, model)
        check_training(trainer)
        steps = steps_of(trainer, args)
        try:
            costs = measure(trainer, args)
        except torch.OutOfMemoryError as error:
            remedy = "lower total_batch_size, set frames_per_batch or activation_checkpointing, or use more GPUs"
            raise InputError(f"the run does not fit into the memory of {device_text('cuda')}: {remedy}") from error
        if trainer.is_world_process_zero():
            for name, text in lines_of(recipe, args, splits, trainer, steps, costs):
                print(f"{name:<9} {text}")
    return Done("checked the run; nothing was written")


def steps_of(trainer: SignTranslationTrainer, args: Seq2SeqTrainingArguments) -> int:
    """The optimizer steps of the whole run, as transformers counts them."""
    an_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * an_epoch)


def measure(trainer: SignTranslationTrainer, args: Seq2SeqTrainingArguments) -> Costs:
    """Take the steps, and translate one batch of dev."""
    dataset, device, workers = trainer.train_dataset, args.device, args.dataloader_num_workers
    batches = list(trainer.get_train_dataloader().batch_sampler)
    steps = [batches[place : place + args.gradient_accumulation_steps]
             for place in range(0, len(batches), args.gradient_accumulation_steps)]  # fmt: skip
    sizes = np.array([sum(padded_frames(dataset.lengths, batch) for batch in step) for step in steps])
    order = broadcast_object_list([np.argsort(sizes, kind="stable")])[0]  # the same steps on all processes
    quarters = [order[int((number + 0.5) * len(order) / TIMED)] for number in range(TIMED)]
    chosen = [order[len(order) // 2], order[-1], *quarters]  # the first compiles and plans
    by_length = np.argsort(trainer.eval_dataset.lengths, kind="stable")
    begin = max(0, (len(by_length) - args.eval_batch_size) // 2)
    middle = by_length[begin : begin + args.eval_batch_size].tolist()
    needed = {clip for place in chosen for batch in steps[place] for clip in batch} | {0}
    encoded_frame = encode_some(dataset, needed, device, workers)
    encode_some(trainer.eval_dataset, middle, device, workers)

    note("timing a few steps ...")
    times = StepTimes()
    trainer.add_callback(times)
    sampler = list(chain.from_iterable(steps[place] for place in chosen))
    trainer.get_train_dataloader = lambda: trainer.make_loader(FilledBatches(dataset), batch_sampler=sampler)
    trainer.train()
    per_frame = sum(times.seconds[2:]) / max(1, sizes[quarters].sum())
    return Costs(
        step=max(per_frame * sizes.mean(), seconds_of_reading(dataset, steps, workers)),
        evaluated_batch=seconds_of_translating(trainer, middle),
        encoded_frame=encoded_frame,
        largest=max(padded_frames(dataset.lengths, batch) for batch in batches),
        optimizer=num_bytes(chain.from_iterable(state.values() for state in trainer.optimizer.state.values())),
    )


def padded_frames(lengths: np.ndarray, batch: Sequence[int]) -> int:
    return len(batch) * int(lengths[batch].max()) if len(batch) else 0


def encode_some(dataset, clips: Sequence[int], device: torch.device, num_workers: int) -> float:
    """Make the features of some clips where they are not stored; seconds a frame."""
    began, frames, first = time.perf_counter(), 0, 0
    for part in parts_of(dataset):
        own = [clip - first for clip in clips if first <= clip < first + len(part)]
        features = getattr(part, "features", None)
        if own and isinstance(features, UnstoredFeatures):
            features.encode(own, device, num_workers)
            frames += int(part.lengths[sorted(set(own))].sum())
        first += len(part)
    return (time.perf_counter() - began) / frames if frames else 0.0


def parts_of(dataset) -> Sequence:
    """A dataset of one corpus, or those of several."""
    return getattr(dataset, "datasets", [dataset])


def seconds_of_reading(dataset, steps: list, num_workers: int) -> float:
    """What a step waits for at least where workers read its clips; they are ahead of the few timed steps."""
    if not num_workers:
        return 0.0
    clips = steps[len(steps) // 2][0][:4]
    began = time.perf_counter()
    for clip in clips:
        dataset[clip]
    a_clip = (time.perf_counter() - began) / max(1, len(clips))
    a_step = statistics.mean(sum(map(len, step)) for step in steps)
    return a_clip * a_step / min(num_workers, os.cpu_count() or 1)


def seconds_of_translating(trainer: SignTranslationTrainer, clips: list[int]) -> float:
    """Of one batch of dev, by a model that has learnt nothing and so writes to the last token."""
    trainer.model.eval()
    batch = next(iter(trainer.make_loader(trainer.eval_dataset, batch_size=len(clips), sampler=clips)))
    began = time.perf_counter()
    trainer.translate_batch(send_to_device(batch, trainer.args.device))
    return time.perf_counter() - began


def num_bytes(values) -> int:
    """Of tensors, each memory once."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def lines_of(
    recipe: Recipe,
    args: Seq2SeqTrainingArguments,
    splits: Splits,
    trainer: SignTranslationTrainer,
    steps: int,
    costs: Costs,
) -> list[tuple[str, str]]:
    """What is printed: a name and a text a line."""
    datasets = {"train": trainer.train_dataset, "dev": trainer.eval_dataset, "test": trainer.test_dataset}
    unit = "positions" if splits.train.feature_size else "frames"
    lines = []
    for name, dataset in datasets.items():
        corpora = getattr(getattr(splits, name), "parts", [getattr(splits, name)])
        parts = zip(corpora, parts_of(dataset), strict=True)
        stored = sum(int(np.sum(corpus.num_frames.array[: len(part)].to_numpy())) for corpus, part in parts)
        sampled = f", {int(dataset.lengths.sum()):,} of them sampled" if unit == "frames" else ""
        lines.append((name, f"{counted(len(dataset), 'clip')}, {stored:,} {unit}{sampled}"))
    clips = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    most = "at most " if recipe.data.frames_per_batch else ""
    lines.append(("steps", f"{steps:,} of {most}{counted(clips, 'clip')}"))
    lines.append(("memory", memory_text(trainer, costs.largest, unit)))
    each = chain.from_iterable(map(parts_of, datasets.values()))
    unstored = [part for part in each if isinstance(getattr(part, "features", None), UnstoredFeatures)]
    positions = sum(int(dataset.lengths.sum()) for dataset in unstored)  # whose features are to be stored
    lines.append(("time", needed_time(args, datasets, steps, costs, positions)))
    lines.append(("disk", needed_disk(recipe, args, trainer, steps, costs, positions)))
    replaced = ", in place of the run that is there" if recipe.run.overwrite and recipe.output_dir.exists() else ""
    lines.append(("output", f"{recipe.output_dir}{replaced}"))
    return [*lines, ("features", str(feature_folder(recipe)))] if unstored else lines


def needed_time(args: Seq2SeqTrainingArguments, datasets: dict, steps: int, costs: Costs, positions: int) -> str:
    """Least and most time, and what it is made of."""
    training, storing = costs.step * steps, costs.encoded_frame * positions / args.world_size
    batches = {name: -(-len(datasets[name]) // (args.eval_batch_size * args.world_size)) for name in ("dev", "test")}
    dev, test = (number * costs.evaluated_batch for number in batches.values())
    evaluations = times_of(args, "eval", steps)
    parts = [f"steps {time_text(training)} ({costs.step:.3g} s each)"]
    if storing:
        parts.append(f"storing features {time_text(storing)}")
    parts.append(f"{counted(evaluations, 'evaluation')} of at most {time_text(dev)}")
    parts.append(f"dev and test at the end at most {time_text(dev + test)}")
    least = training + storing
    return f"{time_text(least)} to {time_text(least + (evaluations + 1) * dev + test)}: {'; '.join(parts)}"


def needed_disk(
    recipe: Recipe,
    args: Seq2SeqTrainingArguments,
    trainer: SignTranslationTrainer,
    steps: int,
    costs: Costs,
    positions: int,
) -> str:
    """The most that is needed and what is free, and what it is made of."""
    state = trainer.model.state_dict()
    unsaved = unsaved_weights(trainer.model)
    model = num_bytes(state.values())
    checkpoint = num_bytes(tensor for name, tensor in state.items() if name not in unsaved)  # of LoRA no frozen ones
    checkpoint += 0 if args.save_only_model else costs.optimizer
    saves = times_of(args, "save", steps)
    # A new one is written before the oldest is removed.
    held = min(saves, args.save_total_limit + 1) if args.save_total_limit else saves
    element = 2 if getattr(recipe.model, "feature_dtype", "") == "bfloat16" else 4
    features = positions * trainer.model.config.adapter_input_size * element
    parts = [f"{counted(held, 'checkpoint')} of {size_text(checkpoint)}", f"the model {size_text(model)}"]
    if features:
        parts.append(f"features {size_text(features)}")
    needed = held * checkpoint + model + features
    output = recipe.output_dir.absolute()
    folder = next(place for place in (output, *output.parents) if place.is_dir())
    free = shutil.disk_usage(folder).free
    is_enough = "" if needed < free else ", NOT ENOUGH"
    return f"{size_text(needed)} of {size_text(free)} free{is_enough}: {'; '.join(parts)}"


def times_of(args: Seq2SeqTrainingArguments, what: str, steps: int) -> int:
    """How often a run does what `eval_` or `save_` lines ask for."""
    strategy, every = getattr(args, f"{what}_strategy"), getattr(args, f"{what}_steps")
    if strategy == "epoch":
        return math.ceil(args.num_train_epochs)
    if strategy != "steps" or not every:
        return 0
    return steps // (math.ceil(steps * every) if every < 1 else int(every))


def memory_text(trainer: SignTranslationTrainer, largest: int, unit: str) -> str:
    """The most memory that the steps took, and of how much."""
    steps = f"the largest batch of the first epoch has {largest:,} {unit}"
    if trainer.args.device.type == "cuda":
        peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties().total_memory
        return f"{size_text(peak)} of the {size_text(total)} of {device_text('cuda')}: {steps}"
    total = psutil.virtual_memory().total
    return f"{size_text(peak_memory_mib() * 2**20)} of {size_text(total)}: {steps}"
