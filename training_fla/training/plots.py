"""The one style of all pictures, and those of a run: learning curves, norms, and frames of a few test clips."""

import dataclasses
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training_fla.errors import InputError
from training_fla.folders import atomic_file

SAMPLES = "sample_frames"  # the folder; clips of the test split, frames of each, and the side of a frame in pixels
SAMPLE_CLIPS, SAMPLE_FRAMES, SAMPLE_SIZE = 5, 6, 96
SIZE = (4.2, 2.7)  # of a panel, in inches: on a phone its letters are as large as the page's
INK = "#333333"  # as in `pictures.mplstyle`
# Fonts that know Chinese, taken where one is installed: matplotlib's own does not.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC", "SimHei")


@dataclass(frozen=True)
class Panel:
    """A pair of axes: what is measured, with its unit, over what, and points `(x, y[, deviation])` by line.

    `limits` are the lowest and the highest value shown; `None` is as the points need it.
    """

    title: str
    over: str
    lines: dict[str, list[Sequence[float]]]
    limits: tuple[float | None, float | None] = (None, None)

    def in_words(self) -> str:
        """For people who do not see the picture."""
        ends = (f"{name} from {p[0][1]:.4g} to {p[-1][1]:.4g}" for name, p in self.lines.items())
        return f"{self.title} over {self.over}: {'; '.join(ends)}"


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the package's style."""
    from matplotlib import font_manager, style

    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = {"font.family": ["DejaVu Sans", *filter(known.__contains__, CJK_FONTS)]}
    with style.context([Path(__file__).with_name("pictures.mplstyle"), fonts]):
        yield


def figure_of(panels: Sequence[Panel]):
    """A matplotlib figure of panels beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] * len(panels), SIZE[1]), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (name, points) in enumerate(panel.lines.items()):
            marker = "os^D"[number % 4] if len(points) < 30 else None
            axis.errorbar(*zip(*points, strict=True), label=name, marker=marker, capsize=3)
        axis.set(title=panel.title, xlabel=panel.over, ylim=panel.limits)
        axis.grid(True)
        if len(panel.lines) > 1:
            axis.legend()
    return figure


def save_picture(panels: Sequence[Panel], file: Path) -> None:
    """Write a PNG of panels beside each other; the file appears whole or not at all."""
    with styled(), atomic_file(file, overwrite=True) as temporary:
        figure_of(panels).savefig(temporary, format="png")


def inline_svg(figure) -> str:
    """A figure as a part of an HTML page, which may hold several, and whose text colour and font it takes."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue().decode()
    text = re.sub(r' id="\w+_\d+"|<metadata>.*?</metadata>', "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(INK, "currentColor")


def curve_panels(histories: dict[str, list[dict]]) -> list[Panel]:
    """Training loss, dev loss and dev BLEU over the steps, of trainers' logs by the names of the runs."""
    rows = [row for history in histories.values() for row in history]
    # BLEU-4 of sentences of fewer than four words is always 0.
    order = 4 if any(row.get("eval_bleu4") for row in rows) else 1
    panels = [
        _curves("training loss (nats per token)", "loss", histories, (0, None)),
        _curves("dev loss (nats per token)", "eval_loss", histories, (0, None)),
        _curves(f"dev BLEU-{order} (0 to 100)", f"eval_bleu{order}", histories, (0, 100)),
    ]
    losses = [point[1] for panel in panels[:2] for line in panel.lines.values() for point in line]
    if losses:  # the two are read beside each other
        highest = max(filter(math.isfinite, losses), default=1.0) * 1.05
        panels[:2] = [dataclasses.replace(panel, limits=(0, highest or 1.0)) for panel in panels[:2]]
    return panels


def _curves(title: str, key: str, histories: dict[str, list[dict]], limits: tuple) -> Panel:
    """A figure of the logs over the steps; runs that did not log it have no line."""
    lines = {name: [(row["step"], row[key]) for row in history if key in row] for name, history in histories.items()}
    return Panel(title, "step", {name: points for name, points in lines.items() if points}, limits)


def norm_panels(rows: Sequence[Sequence[float]]) -> list[Panel]:
    """Figure 2 of the paper, of the rows of `norms.tsv`: gradient norms, then parameter norms."""
    parts = ("visual encoder", "language model")
    panels = []
    for kind, columns in {"gradient": (1, 2), "parameter": (3, 4)}.items():
        lines = {part: [(r[0], r[column]) for r in rows] for part, column in zip(parts, columns, strict=True)}
        panels.append(Panel(f"{kind} norm of the last layer (Euclidean)", "step", lines))
    return panels


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spread, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def save_sample_frames(corpus, count: int, folder: Path, first: int = 0) -> None:
    """Write small frames of a few of the first `count` clips of a packed split, for `fla report`.

    Their names are `CLIP_FRAME_WHEN.jpg`: the row of the clip in the predictions, its rank, its time or number. Of
    several corpora `first` is the row of the first clip of this one.
    """
    folder.mkdir(exist_ok=True)
    with suppress(OSError, InputError):  # a run that is done does not fail for want of pictures
        for place in spread(count, SAMPLE_CLIPS):
            kept, fps = spread(corpus.num_frames[place], SAMPLE_FRAMES), corpus.fps(place)
            for rank, (number, jpeg) in enumerate(zip(kept, corpus.read_jpegs(place, kept), strict=True)):
                number *= corpus.frame_stride
                when = f"{number / fps:.2f}s" if fps else f"frame{number}"
                image = Image.open(io.BytesIO(jpeg))
                image.thumbnail((SAMPLE_SIZE, SAMPLE_SIZE))
                image.save(folder / f"{first + place:05}_{rank}_{when}.jpg", quality=75)
