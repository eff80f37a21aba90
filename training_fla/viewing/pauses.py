"""Rests in the signing of a long recording, found from how much moves between small pictures of it.

    video file  ->  one small grey picture every 80 ms  ->  motion between neighbours  ->  segments of signing

Motion is what is left of the difference between two pictures once a shift of the whole picture (a shaking camera) and
a change of its brightness or contrast (flicker, clouds, automatic exposure) are taken out by least squares. Where it
is low for long enough, nobody signs. What counts as low is learned from the recording itself.

It sees motion, not language: signers do not rest after every sentence, a held sign looks like a rest, and whoever else
moves in the picture counts as signing. M is the number of moments at which motion is measured.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

STEP_SECONDS = 0.08  # Unstated: a slow sign moves visibly in it, and repeated frames do not look like rests
PICTURE_SIZE = (48, 48)  # Unstated: each pixel is the mean of so many that their noise is gone
# Unstated: of the picture's contrast; motion below it is the coding's, so that rests which are exact repeats of one
# frame do not make a quiet rest look like motion.
STILL = 0.01
# Unstated: how far from the rests' level to the signing's, in logarithms, motion begins and ends.
BEGINS, ENDS = 0.5, 0.35
# Unstated: signing moves at least so many times as much as resting. Measured on How2Sign: 1.3 to 2.9 in clips that are
# signed throughout, 3.3 to 23 with rests between them, the lower ones under shaking and flicker.
CONTRAST = 3.0
MARGIN_SECONDS = 0.2  # Unstated: hands leave their rest slowly; a cue takes so much of a pause, at most half of it


@dataclass(frozen=True)
class PauseRules:
    """What counts as a pause and as a sentence, in seconds."""

    min_pause: float = 0.4  # a shorter rest lies within a sentence
    min_length: float = 0.3  # shorter signing is left out
    max_length: float = 15.0  # longer signing is cut at its stillest moment, and its halves again


@dataclass(frozen=True)
class Motion:
    """How much moves in a recording that is shown from `start` to `end` seconds."""

    seconds: np.ndarray  # (M,), float64, rising: the middle between the two pictures compared
    energy: np.ndarray  # (M,), float64: root mean square of what moved, as a share of the picture's contrast
    start: float
    end: float


def measure_motion(pictures: Iterable[tuple[float, np.ndarray]]) -> Motion:
    """Compare each grey picture `(H, W)` with the one before it; the end is the last one's start."""
    moments: list[tuple[float, float]] = []
    times, before = [], None
    for seconds, picture in pictures:
        picture = picture.astype(np.float32)
        if before is not None:
            moments.append(((times[-1] + seconds) / 2, motion_between(before, picture)))
        before = picture
        times.append(seconds)
    columns = np.array(moments).reshape(-1, 2)
    return Motion(columns[:, 0], columns[:, 1], times[0], times[-1])


def motion_between(before: np.ndarray, after: np.ndarray) -> float:
    """What moved between two float32 pictures, less shifts of the whole picture and changes of its light.

    0 where nothing moved, about 0.2 while somebody who fills the picture signs.
    """
    middle = (before + after) / 2
    vertical, horizontal = np.gradient(middle)
    # A small shift changes each pixel by the slope there; light changes it by a constant and in proportion.
    causes = np.stack([part.ravel() for part in (vertical, horizontal, middle, np.ones_like(middle))], axis=1)
    difference = (after - before).ravel()
    # By the normal equations, pixels times 4 unknowns; a flat picture has no slope, hence the small ridge.
    squares = causes.T @ causes + 1e-3 * np.eye(4, dtype=np.float32)
    left = difference - causes @ np.linalg.solve(squares, causes.T @ difference)
    return float(np.sqrt(np.mean(left**2)) / max(middle.std(), 1.0))


def find_segments(motion: Motion, rules: PauseRules) -> list[tuple[float, float]]:
    """First and last second of each segment; without any rest the whole recording, cut at its stillest moments."""
    if len(motion.energy) < 2:
        return [(motion.start, motion.end)]
    level = np.log(without_spikes(motion.energy) + STILL)
    resting, signing = two_levels(level)
    if signing - resting < np.log(CONTRAST):
        segments = [(motion.start, motion.end)]
    else:
        begins, ends = (resting + share * (signing - resting) for share in (BEGINS, ENDS))
        segments = signed(motion.seconds, level, begins, ends, rules)
        segments = with_margins(segments, motion.start, motion.end)
    return [part for segment in segments for part in cut_longer(segment, motion.seconds, level, rules.max_length)]


def without_spikes(energy: np.ndarray) -> np.ndarray:
    """The median of each of M values and its neighbours: a key frame or a flash is one moment long."""
    padded = np.pad(energy, 1, mode="edge")
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


def two_levels(values: np.ndarray) -> tuple[float, float]:
    """Means of the lower and the upper part of M values, split where they tell most of the spread (Otsu)."""
    values = np.sort(values)
    count, total = len(values), values.sum()
    below = np.arange(1, count)
    lower = np.cumsum(values)[:-1] / below
    upper = (total - lower * below) / (count - below)
    best = int(np.argmax(below * (count - below) * (upper - lower) ** 2))
    return float(lower[best]), float(upper[best])


def signed(
    seconds: np.ndarray, level: np.ndarray, begins: float, ends: float, rules: PauseRules
) -> list[tuple[float, float]]:
    """Segments from where the level rises above `begins` to where it falls below `ends`, but for short rests."""
    segments: list[tuple[float, float]] = []
    is_moving = False
    for moment, value in zip(seconds.tolist(), level.tolist(), strict=True):
        is_moving = value >= ends if is_moving else value > begins
        if not is_moving:
            continue
        first, last = moment - STEP_SECONDS / 2, moment + STEP_SECONDS / 2
        if segments and first - segments[-1][1] < max(rules.min_pause, STEP_SECONDS / 2):
            first = segments.pop()[0]
        segments.append((first, last))
    return [(first, last) for first, last in segments if last - first >= rules.min_length]


def with_margins(segments: list[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """Give each segment some of the pauses around it, within the recording and without overlap."""
    if not segments:
        return []
    gaps = [2 * (segments[0][0] - start), *(b[0] - a[1] for a, b in pairwise(segments)), 2 * (end - segments[-1][1])]
    margins = [min(MARGIN_SECONDS, gap / 2) for gap in gaps]
    return [(a - before, b + after) for (a, b), before, after in zip(segments, margins[:-1], margins[1:], strict=True)]


def cut_longer(
    segment: tuple[float, float], seconds: np.ndarray, level: np.ndarray, max_length: float
) -> Iterator[tuple[float, float]]:
    """Halve a segment at its lowest level until its parts are short enough; together they are the segment."""
    first, last = segment
    if last - first <= max_length:
        yield segment
        return
    quarter = (last - first) / 4  # a cut nearer to an end would leave very short parts
    inside = np.flatnonzero((seconds >= first + quarter) & (seconds <= last - quarter))
    middle = float(seconds[inside[np.argmin(level[inside])]]) if len(inside) else (first + last) / 2
    yield from cut_longer((first, middle), seconds, level, max_length)
    yield from cut_longer((middle, last), seconds, level, max_length)
