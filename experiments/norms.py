"""`fla ablate figure2`: norms of both last layers in joint training, beside the paper's words."""

import statistics
from collections.abc import Callable
from pathlib import Path

from training_fla.tables import mean_and_deviation
from training_fla.training.callbacks import NORMS, read_norms

HEAD = [
    "",
    "steps at which the gradient norm of the language model is the greater, %",
    "gradient norm, language model / visual encoder",
    "parameter norm, greatest less least: language model",
    "visual encoder",
]
# Paper: Sec. 3. Figure 2 has no figures in its text.
PAPER = ["the paper, in words", "always", "", "changed more drastically", ""]


def norm_rows(files: dict[str, list[Path]]) -> list[list[str]]:
    """The table, its head first: the paper's words, then a row for each label, of the `norms.tsv` of its seeds."""
    measures: list[Callable[[Path], float]] = [
        lambda file: 100 * language_share(file),
        lambda file: 1 / ratio if (ratio := gradient_ratio(file)) else 0.0,
        lambda file: parameter_change(file, "language"),
        lambda file: parameter_change(file, "visual"),
    ]
    rows = [[label, *(mean_and_deviation([measure(file) for file in seeds]) for measure in measures)]
            for label, seeds in files.items()]  # fmt: skip
    return [HEAD, PAPER, *rows]


def column(file: Path, name: str) -> list[float]:
    """A column of `norms.tsv`."""
    return [row[NORMS.index(name)] for row in read_norms(file)]


def language_share(file: Path) -> float:
    """The share of the steps at which the language model's gradient norm is the greater one."""
    pairs = list(zip(column(file, "visual_grad_norm"), column(file, "language_grad_norm"), strict=True))
    return sum(visual < language for visual, language in pairs) / len(pairs)


def gradient_ratio(file: Path) -> float:
    """The encoder's gradient norm over the language model's, as a geometric mean over the steps of `norms.tsv`."""
    pairs = zip(column(file, "visual_grad_norm"), column(file, "language_grad_norm"), strict=True)
    ratios = [visual / language for visual, language in pairs if visual and language]
    return statistics.geometric_mean(ratios) if ratios else 0.0


def parameter_change(file: Path, part: str) -> float:
    """How far the parameter norm of a part, `visual` or `language`, moves in a run."""
    norms = column(file, f"{part}_parameter_norm")
    return max(norms) - min(norms)
