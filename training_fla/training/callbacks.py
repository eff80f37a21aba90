"""What a run shows and keeps beside its weights: progress, scores, norms, speed, and what it reports elsewhere."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.utils import reduce
from torch import nn
from transformers import EarlyStoppingCallback, Seq2SeqTrainingArguments, TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from training_fla.console import note, progress
from training_fla.errors import InputError
from training_fla.recipe import Recipe
from training_fla.tables import write_table

from .plots import norm_panels, save_picture

PACKAGES = ("fla-llm", "torch", "transformers", "accelerate", "datasets", "sacrebleu")
NORMS = ("step", "visual_grad_norm", "language_grad_norm", "visual_parameter_norm", "language_parameter_norm")
UNITS = {"pixel_values_videos": "frames", "sign_features": "positions"}


class TrainingProgress(ProgressCallback):
    """A bar of the steps with the latest loss beside it; evaluations have lines of their own."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.current_step = 0
        if state.is_world_process_zero:
            self.training_bar = progress(total=state.max_steps, desc="training", unit="step")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)


def show_progress(trainer) -> None:
    """Replace transformers' bar, which prints every logged figure, by ours."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(TrainingProgress())


class EvaluationLines(TrainerCallback):
    """Prints one line of scores and two translations at every evaluation, and keeps the lines in `evaluations.txt`."""

    def __init__(self, trainer, folder: Path):
        self.trainer, self.folder = trainer, folder

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if not state.is_world_process_zero or not metrics:
            return
        figures = {name.split("_", 1)[1]: value for name, value in metrics.items()}
        shown = "  ".join(f"{n} {figures[n]:.2f}" for n in ("bleu1", "bleu4", "rouge_l", "loss") if n in figures)
        shown += "".join(
            f"  {n} {value:.2f}" for n, value in figures.items() if n.endswith("_bleu4")
        )  # of each corpus
        if "exact_matches" in figures:
            shown += "  {exact_matches} of {num_sentences} exact, {distinct_predictions} distinct".format(**figures)
        line = f"epoch {state.epoch or 0:.2f}  step {state.global_step}  {shown}  ({figures.get('runtime', 0):.0f} s)"
        for ours, true in self.trainer.samples(self.trainer.eval_dataset):
            line += f"\n    {ours!r}\n    for {true!r}"
        note("\n" + line)
        with open(self.folder / "evaluations.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")


class Throughput(TrainerCallback, ExportableState):
    """Counts what training steps see and their seconds, without evaluating and saving; a resumed run counts on.

    `earlier_seconds` is how long the runs before this one took, to their last checkpoint, evaluations included.
    """

    def __init__(self):
        self.earlier_counts, self.counts, self.own = {}, {}, {}
        self.seconds = self.earlier_seconds = 0.0
        self.began = self.since = time.perf_counter()

    def count(self, inputs: dict[str, torch.Tensor]) -> None:
        """Add a batch's frames or positions and its target tokens.

        Args:
            inputs (`dict[str, torch.Tensor]`): `attention_mask` `(B, T)`, 1 for real; `labels` `(B, L)`, -100 at
                padding and for repeated clips. The sums stay on their device, so that no step waits for them.
        """
        unit = next(UNITS[name] for name in UNITS if name in inputs)
        seen = {unit: inputs["attention_mask"].sum(), "target_tokens": inputs["labels"].ne(-100).sum()}
        for name, number in seen.items():
            self.own[name] = self.own[name] + number if name in self.own else number

    def on_train_begin(self, args, state, control, **kwargs):
        self.since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop the clock, which an evaluation or a checkpoint starts again when it is done."""
        now = time.perf_counter()
        self.seconds, self.since = self.seconds + now - self.since, now
        self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        """Sum up on all processes where a checkpoint is due; only one of them writes it."""
        if control.should_save:
            self.gather()

    def on_evaluate(self, args, state, control, **kwargs):
        """Leave out what an evaluation took; a checkpoint may follow."""
        self.gather()
        self.since = time.perf_counter()

    on_save = on_train_begin  # what a checkpoint took is left out

    def gather(self) -> None:
        """Sum over the processes; every process must call this."""
        totals = {name: int(reduce(number, reduction="sum")) for name, number in self.own.items()}
        self.counts = {name: self.earlier_counts.get(name, 0) + total for name, total in totals.items()}

    def state(self) -> dict:
        seconds = self.earlier_seconds + time.perf_counter() - self.began
        kept = {"earlier_counts": self.counts, "seconds": self.seconds, "earlier_seconds": seconds}
        return {"args": {}, "attributes": kept}

    def figures(self) -> dict[str, Any]:
        """Seconds of training, counts and counts a second, over all processes; every process must call this."""
        self.gather()
        counts = self.earlier_counts | self.counts
        rates = {f"{name}_per_second": round(count / max(self.seconds, 1e-9), 1) for name, count in counts.items()}
        return {"training_seconds": round(self.seconds, 2), **counts, **rates}


class LossCheck(TrainerCallback):
    """Ends a run whose loss is not a number and names the clips; no step waits for the device."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.last = None  # step, copies of loss and places, and when they have arrived

    def check(self, loss: torch.Tensor, indices: torch.Tensor) -> None:
        """Start to copy a loss to the CPU, and check the one before, whose copy is complete.

        Args:
            loss (`torch.Tensor` of shape `()`): of a batch.
            indices (`torch.LongTensor` of shape `(B,)`): places of its clips in the training set.
        """
        self.check_last()
        self.last = (self.trainer.state.global_step, *start_copies(loss, indices))

    def check_last(self) -> None:
        """Raise where the last loss is not a number."""
        if self.last is None:
            return
        step, (loss, indices), arrived = self.last
        self.last = None
        if arrived is not None:
            arrived.synchronize()
        if math.isfinite(loss.item()):
            return
        args = self.trainer.args
        names = [self.trainer.train_dataset.ids[index] for index in indices.tolist()]
        file = Path(args.output_dir) / f"bad_batch_{args.process_index}.json"
        file.write_text(json.dumps({"step": step, "loss": str(loss.item()), "clips": names}, indent=1))
        raise InputError(f"the loss is {loss.item()} at step {step}; the batch's clips are in {file}")

    def on_step_end(self, args, state, control, **kwargs):
        """Check the loss before weights are scored or saved."""
        if control.should_evaluate or control.should_save:
            self.check_last()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.check_last()


class StoppedError(Exception):
    """Training was stopped before its last step, and a checkpoint of the step is saved; `by_signal`: by SIGTERM."""

    def __init__(self, step: int, by_signal: bool):
        super().__init__(f"stopped at step {step}")
        self.step, self.by_signal = step, by_signal


class Stops(TrainerCallback):
    """Saves a checkpoint and raises [`StoppedError`] where SIGTERM or a callback stops training before its last step.

    It must be the last callback, so that it sees what the others ask for. Early stopping ends a run as it should end.
    Where a finished run is resumed, its last state is scored and saved already: nothing is done again.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.is_signalled = False
        self.pending = None  # the number of signalled processes, on its way to the CPU
        self.is_within_epoch = False
        self.has_stepped = False  # in this epoch

    @contextlib.contextmanager
    def noticing_sigterm(self):
        """Note the signal instead of ending at once; only a main thread may have a handler."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self.notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def notice(self, *_) -> None:
        self.is_signalled = True

    def is_asked_to_stop(self) -> bool:
        """Whether a process is signalled; several processes learn it at the same step, which is the next one."""
        if self.trainer.args.world_size == 1:
            return self.is_signalled
        pending, self.pending = self.pending, self.start_count()
        if pending is None:
            return False
        (number,), arrived = pending
        if arrived is not None:
            arrived.synchronize()
        self.is_signalled |= number.item() > 0
        return number.item() > 0

    def start_count(self) -> tuple:
        """Add up how many processes are signalled."""
        signalled = torch.tensor(float(self.is_signalled), device=self.trainer.args.device)
        return start_copies(reduce(signalled, reduction="sum"))

    def is_stopping(self, control) -> bool:
        return control.should_training_stop and not self.trainer.is_finished()

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.has_stepped = False

    def on_step_end(self, args, state, control, **kwargs):
        """Save here, but at the end of an epoch after what is due there."""
        self.has_stepped = True
        control.should_training_stop |= self.is_asked_to_stop()
        self.is_within_epoch = not float(state.epoch).is_integer()
        if self.is_stopping(control) and self.is_within_epoch:
            self.ask_for_checkpoint(control)

    def on_epoch_end(self, args, state, control, **kwargs):
        if not self.has_stepped:
            control.should_evaluate = control.should_save = control.should_log = False
        if not self.is_stopping(control):
            return
        if self.is_within_epoch:  # the resumed run evaluates at the end of the epoch
            control.should_evaluate = control.should_log = False
        self.ask_for_checkpoint(control)

    def ask_for_checkpoint(self, control) -> None:
        """Have the step saved; the callbacks before this one did not know that it would be."""
        control.should_save = True
        self.trainer.loss_check.check_last()
        self.trainer.throughput.gather()

    def on_save(self, args, state, control, **kwargs):
        if self.is_stopping(control):
            raise StoppedError(state.global_step, self.is_signalled)


def start_copies(*tensors: torch.Tensor) -> tuple[list[torch.Tensor], Any]:
    """Start to copy tensors of one device to the CPU; the event to wait for before they are read, on a GPU.

    Args:
        *tensors (`torch.Tensor`): of any shape.

    Returns:
        `tuple[list[torch.Tensor], torch.cuda.Event | None]`: the copies, and when they have arrived.
    """
    is_cuda = tensors[0].is_cuda  # elsewhere there is no event to wait for, so the copies are complete
    copies = [tensor.detach().to("cpu", non_blocking=is_cuda) for tensor in tensors]
    arrived = torch.cuda.Event() if is_cuda else None
    if arrived is not None:
        arrived.record()
    return copies, arrived


def peak_memory_mib() -> int:
    """The most memory that this process has had."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset // 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def device_text(kind: str) -> str:
    """What a run computes on, for people."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores" if kind == "cpu" else f"{kind.upper()} of {platform.machine()}"


def run_facts(trainer, seconds: float) -> dict[str, Any]:
    """Seconds, peak memory in MiB, parameters, processes, versions and platform, for `metrics.json`."""
    parameters, on_gpu = list(trainer.model.parameters()), trainer.args.device.type == "cuda"
    facts = {
        "seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "processes": trainer.args.world_size,
        "device": device_text(trainer.args.device.type),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if on_gpu:
        facts["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return facts


class LayerNorms(TrainerCallback):
    """Figure 2 of the paper: gradient and parameter norms of both last layers, in `norms.tsv` and `norms.png`.

    Gradients are those the optimizer is about to use: of the accumulated batch, averaged over processes, clipped, and
    with fp16 no longer scaled.
    """

    def __init__(self, trainer, folder: Path, every: int):
        self.trainer, self.every = trainer, every
        self.file, self.figure = folder / "norms.tsv", folder / "norms.png"
        self.rows: list[list[float]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        """After `--resume`, keep the rows up to the checkpoint."""
        if self.file.exists():
            self.rows = [row for row in read_norms(self.file) if row[0] <= state.global_step]

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if (state.global_step + 1) % self.every or not state.is_world_process_zero:
            return
        parameters = [list(layer.parameters()) for layer in last_layers(model)]
        gradients = [[p.grad for p in layer if p.grad is not None] for layer in parameters]
        values = [[p.detach() for p in layer] for layer in parameters]
        norms = [float(nn.utils.get_total_norm(tensors)) for tensors in gradients + values]  # of no tensor: 0
        self.rows.append([state.global_step + 1, *norms])

    def on_step_end(self, args, state, control, **kwargs):
        """Put the row into the trainer's log."""
        if self.rows and self.rows[-1][0] == state.global_step:
            due = control.should_log  # logging resets it
            self.trainer.log(dict(zip(NORMS[1:], self.rows[-1][1:], strict=True)))
            control.should_log = due

    def on_save(self, args, state, control, **kwargs):
        """Write the rows wherever a resumed run might begin."""
        if state.is_world_process_zero:
            write_table(self.file, NORMS, ([int(row[0]), *map(repr, row[1:])] for row in self.rows), overwrite=True)

    def on_train_end(self, args, state, control, **kwargs):
        self.on_save(args, state, control)
        if state.is_world_process_zero and self.rows:
            save_picture(norm_panels(self.rows), self.figure)


def last_layers(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The temporal module, empty where a model reads features, and the language model's last decoder layer."""
    decoder = model.language_model.get_decoder()
    layers = getattr(decoder, "layers", None)
    # Unstated: "last layer" may be finer; a whole layer is what a transformer counts as one. T5 calls them blocks.
    visual = nn.Module() if model.visual_encoder is None else model.visual_encoder.temporal_module
    return visual, (decoder.block if layers is None else layers)[-1]


def read_norms(file: Path) -> list[list[float]]:
    """The rows of `norms.tsv`, in the order of `NORMS`."""
    return [[float(cell) for cell in line.split("\t")] for line in file.read_text().splitlines()[1:]]


def check_report_to(args: Seq2SeqTrainingArguments) -> None:
    """Refuse, before anything is trained, a place to report to that is unknown or not installed."""
    try:
        for callback in get_reporting_integration_callbacks(args.report_to):
            callback()
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"report_to: {error}") from None
    # trackio reads `project` from the arguments, wandb from here.
    os.environ.setdefault("WANDB_PROJECT", args.project)


class RecipeReport(TrainerCallback):
    """Shows the resolved recipe where a run is reported to; transformers shows its own arguments only."""

    def __init__(self, trainer, recipe: dict[str, Any]):
        self.trainer, self.recipe = trainer, recipe

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        for callback in self.trainer.callback_handler.callbacks:
            kind = type(callback).__name__
            if kind == "TensorBoardCallback" and callback.tb_writer is not None:
                text = yaml.safe_dump(self.recipe, allow_unicode=True, sort_keys=False)
                callback.tb_writer.add_text("recipe", "    " + text.replace("\n", "\n    "))  # Markdown for code
            elif kind in ("WandbCallback", "TrackioCallback"):
                package = importlib.import_module(kind.removesuffix("Callback").lower())
                package.config.update({"recipe": self.recipe}, allow_val_change=True)


def add_callbacks(trainer, recipe: Recipe) -> None:
    """What a recipe asks for beside the training itself."""
    optimization = recipe.optimization
    trainer.add_callback(EvaluationLines(trainer, recipe.output_dir))
    if optimization.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(optimization.early_stopping_patience))
    if optimization.norm_logging_steps:
        trainer.add_callback(LayerNorms(trainer, recipe.output_dir, optimization.norm_logging_steps))
    if trainer.args.report_to:
        trainer.add_callback(RecipeReport(trainer, recipe.resolved))
    show_progress(trainer)
    trainer.remove_callback(trainer.stops)  # the last one again
    trainer.add_callback(trainer.stops)
