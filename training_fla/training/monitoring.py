"""What a person sees of a run: a line at each evaluation, sample translations, the curve, a clip's contact sheet."""

from pathlib import Path

import numpy as np
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training_fla.files import atomic_file


class TrainingProgress(ProgressCallback):
    """A bar of the steps with the latest loss beside it; evaluations have lines of their own."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the loss of `logs`, in nats per token."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)


def show_progress(trainer) -> None:
    """Replace transformers' bar, which prints every logged figure, by ours.

    Args:
        trainer ([`~transformers.Trainer`]): before training. Where its bars are off (`disable_tqdm`) nothing is shown.
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(TrainingProgress())


class EvaluationLines(TrainerCallback):
    """Prints one line of scores and two translations at every evaluation, and keeps the lines in `evaluations.txt`.

    Args:
        folder (`Path`): the run's folder.
    """

    def __init__(self, folder: Path):
        self.folder, self.trainer = folder, None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print the line; `metrics` are the evaluation's figures."""
        if not state.is_world_process_zero or not metrics:
            return
        figures = {name.split("_", 1)[1]: value for name, value in metrics.items()}
        shown = "  ".join(f"{n} {figures[n]:.2f}" for n in ("bleu1", "bleu4", "rouge_l", "loss") if n in figures)
        line = f"epoch {state.epoch or 0:.2f}  step {state.global_step}  {shown}  ({figures.get('runtime', 0):.0f} s)"
        trainer = self.trainer
        if trainer is not None and trainer.last_translations:
            sentences = trainer.eval_dataset.sentences
            for place in sample_places(state.global_step, len(sentences)):
                line += f"\n    {trainer.last_translations[place]!r}\n    for {sentences[place]!r}"
        print("\n" + line, flush=True)
        with open(self.folder / "evaluations.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")


def sample_places(step: int, count: int) -> list[int]:
    """Two places spread over a split and moving with the step, so that one sees more than the same two clips.

    Args:
        step (`int`): of the run.
        count (`int`): clips of the split.

    Returns:
        `list[int]`: one or two indices.
    """
    return sorted({step % count, (step + count // 2) % count})


def plot_curve(log_history: list[dict], file: Path) -> None:
    """Draw the training loss and the dev score over the steps.

    Args:
        log_history (`list[dict]`): the trainer's log.
        file (`Path`): a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    losses = [(row["step"], row["loss"]) for row in log_history if "loss" in row]
    scores = [(row["step"], row["eval_bleu4"]) for row in log_history if "eval_bleu4" in row]
    figure, left = plt.subplots(figsize=(7, 4))
    if losses:
        left.plot(*zip(*losses, strict=True), color="tab:blue")
    left.set_xlabel("step")
    left.set_ylabel("training loss (nats per token)", color="tab:blue")
    right = left.twinx()
    if scores:
        right.plot(*zip(*scores, strict=True), color="tab:red", marker="o")
    right.set_ylabel("dev BLEU-4", color="tab:red")
    right.set_ylim(0, 100)
    figure.tight_layout()
    with atomic_file(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)


def contact_sheet(frames: np.ndarray, reference: str | None, translation: str, file: Path, columns: int = 8) -> None:
    """Draw the sampled frames of a clip in a grid with its reference and translation below.

    Args:
        frames (`np.ndarray` of shape `(T, H, W, 3)`, uint8): what the model saw, in order.
        reference (`str`, *optional*): the true sentence.
        translation (`str`): the model's sentence.
        file (`Path`): a PNG.
        columns (`int`): frames in a row.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.6 * rows + 0.9), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, frame) in enumerate(zip(axes.flat, frames, strict=False), start=1):
        axis.imshow(frame)
        axis.set_title(str(number), fontsize=7, pad=2)
    lines = [f"translation: {translation}"] + ([f"reference: {reference}"] if reference else [])
    figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.75 / (1.6 * rows + 0.9), wspace=0.05, hspace=0.15)
    for height, line in enumerate(lines):
        figure.text(0.02, (0.4 - 0.28 * height) / (1.6 * rows + 0.9), line, fontsize=10, wrap=True)
    with atomic_file(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
