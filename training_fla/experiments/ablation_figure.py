"""Figure 4 of the paper, drawn: BLEU-4 over the epochs of visual initialing, for each stage."""

import statistics
from pathlib import Path

from training_fla.files import atomic_file


def plot_epochs(scores: dict[str, list[float]], file: Path) -> None:
    """Draw one curve a stage, with the deviation over the seeds as bars.

    Args:
        scores (`dict[str, list[float]]`): BLEU-4 of every seed, by a label such as `"75, stage 2"`.
        file (`Path`): a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = {"stage 1": "visual initialing stage", "stage 2": "LLM fine-tuning stage"}  # as in the paper's legend
    figure, axis = plt.subplots(figsize=(6, 4))
    for stage, name in names.items():
        points = {int(label.split(",")[0]): v for label, v in scores.items() if label.endswith(stage)}
        means = [statistics.mean(values) for values in points.values()]
        bars = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in points.values()]
        axis.errorbar(list(points), means, yerr=bars, marker="o", capsize=3, label=name)
    axis.set_xlabel("epochs of visual initialing")
    axis.set_ylabel("test BLEU-4")
    axis.legend()
    figure.tight_layout()
    with atomic_file(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)
