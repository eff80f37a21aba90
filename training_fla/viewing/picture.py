"""Draw an [`~training_fla.viewing.inspection.Inspection`]: one PNG, or one HTML page that needs no other file."""

import base64
import html
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from training_fla.viewing.inspection import Inspection, data_url

MAX_FRAMES = 14  # shown; all of them are in the matrices
# Fonts that know Chinese, taken where one is installed: matplotlib's own does not.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC", "SimHei")
STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
.frames { display: flex; flex-wrap: wrap; gap: .5rem }
figure { margin: 0 } figcaption { font-size: .8rem }
.frames img { width: 6rem; image-rendering: auto }
.wide { overflow-x: auto } .picture { width: 100%; min-width: 44rem }
h1 { overflow-wrap: anywhere } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
"""


def shown_positions(inspection: Inspection) -> list[int]:
    """Which sampled frames are shown, evenly spread, the first and the last among them."""
    num_frames = len(inspection.clip.pixels)
    return sorted(set(np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()))


def heading(inspection: Inspection) -> str:
    """The clip, how much of it was sampled, and how sure the model was."""
    clip = inspection.clip
    text = f"{clip.name}: {len(clip.pixels)} of {clip.num_source_frames} frames"
    return text if inspection.score is None else f"{text}, score {inspection.score:.2f}"


def draw_png(inspection: Inspection, file: Path | io.BytesIO) -> None:
    """Draw frames, attention by word and feature similarity."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in CJK_FONTS if name in known)]
    with matplotlib.rc_context({"font.family": fonts, "font.size": 9}):
        num_words = len(inspection.words)
        heights = [1.5, *([0.6 + 0.24 * num_words] if num_words else []), 4.2]
        figure = Figure(figsize=(11, sum(heights) + 1.1), layout="constrained", dpi=110)
        figure.suptitle("\n".join(filter(None, (heading(inspection), inspection.sentence))), fontsize=11, wrap=True)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        _draw_frames(parts[0], inspection)
        if num_words:
            _draw_attention(parts[1], inspection)
        _draw_similarity(parts[-1], inspection)
        figure.savefig(file, format="png")


def _draw_frames(part, inspection: Inspection) -> None:
    positions = shown_positions(inspection)
    for axis, position in zip(np.atleast_1d(part.subplots(1, len(positions))), positions, strict=True):
        axis.set_axis_off()
        axis.imshow(inspection.clip.image(position))
        axis.set_title(f"{position}\n{inspection.clip.when(position)}", fontsize=7)


def _draw_attention(part, inspection: Inspection) -> None:
    axis = part.subplots()
    image = axis.imshow(inspection.attention, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    axis.set_yticks(range(len(inspection.words)), inspection.words)
    _time_axis(axis.xaxis, inspection)
    axis.set_title(
        "cross attention of the language model: where it looks as it writes each word (framed: half of it)", fontsize=9
    )
    for row in range(len(inspection.words)):
        first, last = inspection.focus(row)
        # A frame, so that half of the attention is not shown by colour alone.
        corners = [first - 0.5, last + 0.5, last + 0.5, first - 0.5, first - 0.5]
        axis.plot(corners, row + np.array([-0.42, -0.42, 0.42, 0.42, -0.42]), color="white", linewidth=1)
    part.colorbar(image, ax=axis, pad=0.01, label="share")


def _draw_similarity(part, inspection: Inspection) -> None:
    axis = part.subplots()
    image = axis.imshow(inspection.similarity, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    _time_axis(axis.xaxis, inspection)
    _time_axis(axis.yaxis, inspection)
    axis.set_title(f"similarity of frames: cosine of their {inspection.features} less the mean", fontsize=9)
    part.colorbar(image, ax=axis, pad=0.01, label="cosine")


def _time_axis(axis, inspection: Inspection) -> None:
    num_frames = len(inspection.clip.pixels)
    ticks = range(0, num_frames, -(-num_frames // 10))
    axis.set_ticks(ticks, [inspection.clip.when(position) for position in ticks], fontsize=7)


def write_page(inspection: Inspection, file: Path) -> None:
    """Write a page with the frames, a table of attention that a screen reader can read, and the picture."""
    picture, clip = io.BytesIO(), inspection.clip
    draw_png(inspection, picture)
    title = html.escape(inspection.sentence or clip.name)
    language = _language(inspection) if inspection.sentence else ""
    frames = "".join(
        f'<figure><img src="{data_url(clip.image(position))}" alt="frame at {clip.when(position)}">'
        f"<figcaption>{clip.when(position)}</figcaption></figure>"
        for position in shown_positions(inspection)
    )
    alt = "Sampled frames, " + ("attention over time by word (in the table above), " if inspection.words else "")
    file.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body><main>
<h1{language}>{title}</h1><p>{html.escape(heading(inspection))}</p>
<h2>Sampled frames</h2><div class="frames">{frames}</div>
{_attention_table(inspection)}
<h2>Picture</h2>
<div class="wide" role="region" aria-label="Picture, which may be scrolled sideways" tabindex="0">
<img class="picture" src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
 alt="{alt}similarity of frames"></div>
</main></body></html>
""",
        encoding="utf-8",
    )


def _attention_table(inspection: Inspection) -> str:
    rows, clip = "", inspection.clip
    for number, word in enumerate(inspection.words):
        first, last = inspection.focus(number)
        share = inspection.attention[number, first : last + 1].sum()
        segment = clip.when(first) + (f" to {clip.when(last)}" if last > first else "")
        name = f'<th scope="row"{_language(inspection)}>{html.escape(word)}</th>'
        rows += f"<tr>{name}<td>{segment}</td><td>{share:.0%}</td></tr>"
    if not rows:
        return ""
    columns = ("word", "shortest segment with half of its attention", "share")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h2>What each word attended to</h2>{table}"


def _language(inspection: Inspection) -> str:
    """The attribute that tells a screen reader how to pronounce the sentence."""
    return f' lang="{html.escape(inspection.language)}"' if inspection.language else ""
