"""Draw an [`~training_fla.viewing.inspection.Inspection`]: one PNG, or one HTML page that needs no other file."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training_fla.training.plots import inline_svg, spread, styled
from training_fla.viewing.inspection import Inspection, data_url
from training_fla.viewing.pages import render

MAX_FRAMES = 14  # shown; all of them are in the matrices


def shown_positions(inspection: Inspection) -> list[int]:
    """Which sampled frames are shown."""
    return spread(len(inspection.clip.pixels), MAX_FRAMES)


def heading(inspection: Inspection) -> str:
    """The clip, how much of it was sampled, and how sure the model was."""
    clip = inspection.clip
    text = f"{clip.name}: {len(clip.pixels)} of {clip.num_source_frames} frames"
    return text if inspection.score is None else f"{text}, score {inspection.score:.2f}"


def draw_png(inspection: Inspection, file: Path | io.BytesIO) -> None:
    """Draw the sentence, frames with their times, attention by word, and feature similarity."""
    with styled():
        height = max(3.6, attention_height(inspection))
        figure = Figure(figsize=(11, 2 + height), layout="constrained")
        title = "\n".join(filter(None, (inspection.sentence, heading(inspection))))
        figure.suptitle(title, fontsize=11, wrap=True, x=0.01, horizontalalignment="left")
        frames, below = figure.subfigures(2, 1, height_ratios=[1.2, height])
        draw_frames(frames, inspection)
        left, right = below.subfigures(1, 2, width_ratios=[3, 2] if inspection.words else [2, 3])
        if inspection.words:
            draw_attention(left, inspection)
        draw_similarity(right if inspection.words else left, inspection)
        figure.savefig(file, format="png")


def attention_height(inspection: Inspection) -> float:
    """Of the picture of attention, in inches."""
    return 0.9 + 0.24 * len(inspection.words)


def draw_frames(part, inspection: Inspection) -> None:
    """Draw the shown frames in a row, each below its time."""
    positions = shown_positions(inspection)
    for axis, position in zip(np.atleast_1d(part.subplots(1, len(positions))), positions, strict=True):
        axis.set_axis_off()
        axis.imshow(inspection.clip.image(position))
        axis.set_title(inspection.clip.when(position), fontsize=7, loc="center")


def draw_attention(part, inspection: Inspection) -> None:
    """Draw what each word attended to, with a frame round half of it, which colour alone need not show."""
    axis = part.subplots()
    image = axis.imshow(inspection.attention, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    axis.set_yticks(range(len(inspection.words)), inspection.words)
    time_axis(axis.xaxis, inspection)
    axis.set_title("cross attention by word (framed: half of it)")
    for row in range(len(inspection.words)):
        first, last = inspection.focus(row)
        corners = [first - 0.5, last + 0.5, last + 0.5, first - 0.5, first - 0.5]
        axis.plot(corners, row + np.array([-0.42, -0.42, 0.42, 0.42, -0.42]), color="white", linewidth=1)
    part.colorbar(image, ax=axis, pad=0.01, label="share")


def draw_similarity(part, inspection: Inspection) -> None:
    """Draw how alike the frames are."""
    axis = part.subplots()
    image = axis.imshow(inspection.similarity, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    time_axis(axis.xaxis, inspection)
    time_axis(axis.yaxis, inspection)
    axis.set_title(f"similarity of {inspection.features}, less their mean")
    part.colorbar(image, ax=axis, pad=0.01, label="cosine", shrink=0.8)


def time_axis(axis, inspection: Inspection) -> None:
    """At most six times on an axis of sampled frames."""
    num_frames = len(inspection.clip.pixels)
    ticks = range(0, num_frames, -(-num_frames // 6))
    axis.set_ticks(ticks, [inspection.clip.when(position) for position in ticks], fontsize=8)


def write_page(inspection: Inspection, file: Path) -> None:
    """Write a page with the frames, a table of attention that a screen reader can read, and the pictures."""
    clip, words, pictures = inspection.clip, [], []
    for number, word in enumerate(inspection.words):
        first, last = inspection.focus(number)
        segment = clip.when(first) + (f" to {clip.when(last)}" if last > first else "")
        words.append((word, segment, inspection.attention[number, first : last + 1].sum()))
    parts = [("attention over time by word, as in the table", draw_attention, attention_height(inspection))]
    parts = parts * bool(words) + [(f"similarity of the {inspection.features} of all frames", draw_similarity, 3.4)]
    with styled():
        for name, draw, height in parts:
            figure = Figure(figsize=(4.6, height), layout="constrained")
            draw(figure, inspection)
            pictures.append((name, inline_svg(figure)))
    frames = [(clip.when(position), data_url(clip.image(position))) for position in shown_positions(inspection)]
    content = {"heading": heading(inspection), "frames": frames, "words": words, "pictures": pictures}
    file.write_text(render("inspection.html", inspection=inspection, **content), encoding="utf-8")
