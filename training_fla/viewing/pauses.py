"""Rests in the signing of a long recording, found from how much moves between small pictures of it.

    video file  ->  one small grey picture every 80 ms  ->  motion between neighbours  ->  stretches of signing

Motion is what is left of the difference between two pictures once a shift of the whole picture (a shaking camera) and
a change of its brightness or contrast (flicker, clouds, automatic exposure) have been taken out by least squares.
Where it is low for long enough, nobody signs. What is low is learned from the recording itself.

It sees motion, not language: signers do not rest after every sentence, a held sign looks like a rest, and whoever else
moves in the picture counts as signing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

STEP_SECONDS = 0.08  # Unstated: a slow sign moves visibly in it, and repeated frames do not look like rests
PICTURE_SIDE = 64  # Unstated: pixels of the longer side; averaging over so many source pixels takes out their noise
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
    """What counts as a pause and as a sentence, in seconds.

    Args:
        min_pause (`float`): a shorter rest lies within a sentence.
        min_length (`float`): signing shorter than this is a twitch and left out.
        max_length (`float`): longer signing is cut at its stillest moment, and its halves again.
    """

    min_pause: float = 0.4
    min_length: float = 0.3
    max_length: float = 15.0


@dataclass
class Motion:
    """How much moves in a recording, at M moments.

    Args:
        seconds (`np.ndarray` of shape `(M,)`): float64; rising; the middle between the two pictures compared.
        energy (`np.ndarray` of shape `(M,)`): float64; root mean square of what moved, as a share of the picture's
            contrast.
        end_seconds (`float`): of the recording.
    """

    seconds: np.ndarray
    energy: np.ndarray
    end_seconds: float


def measure_motion(pictures: Iterable[tuple[float, np.ndarray]], frame_seconds: float) -> Motion:
    """Compare each picture with the one before it.

    Args:
        pictures (`Iterable[tuple[float, np.ndarray]]`): seconds and a grey picture `(H, W)`, all of one size.
        frame_seconds (`float`): how long the last one is shown.

    Returns:
        [`Motion`]: one moment fewer than pictures.
    """
    moments: list[tuple[float, float]] = []
    before, seconds = None, 0.0
    for seconds, picture in pictures:
        picture = picture.astype(np.float32)
        if before is not None:
            moments.append(((before[0] + seconds) / 2, motion_between(before[1], picture)))
        before = (seconds, picture)
    columns = np.array(moments).reshape(-1, 2)
    return Motion(columns[:, 0], columns[:, 1], seconds + frame_seconds)


def motion_between(before: np.ndarray, after: np.ndarray) -> float:
    """What moved, without shifts of the whole picture and changes of its light.

    Args:
        before (`np.ndarray` of shape `(H, W)`): grey values, float32, 0 to 255.
        after (`np.ndarray` of shape `(H, W)`): float32, of a little later.

    Returns:
        `float`: not negative; 0 where nothing moved, about 0.2 while somebody who fills the picture signs.
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


def find_stretches(motion: Motion, rules: PauseRules) -> list[tuple[float, float]]:
    """Where somebody signs.

    Args:
        motion ([`Motion`]): of the recording.
        rules ([`PauseRules`]): what counts as a pause and as a sentence.

    Returns:
        `list[tuple[float, float]]`: first and last second of each stretch, rising, without overlap. The whole
            recording, cut at its stillest moments, where rests and signing cannot be told apart.
    """
    if not len(motion.energy):
        return [(0.0, motion.end_seconds)]
    level = np.log(without_spikes(motion.energy) + STILL)
    resting, signing = two_levels(level)
    if signing - resting < np.log(CONTRAST):
        stretches = [(0.0, motion.end_seconds)]
    else:
        begins, ends = (resting + share * (signing - resting) for share in (BEGINS, ENDS))
        stretches = with_margins(join(moving(motion.seconds, level, begins, ends), rules), motion.end_seconds)
    return [part for stretch in stretches for part in cut_longer(stretch, motion.seconds, level, rules.max_length)]


def without_spikes(energy: np.ndarray) -> np.ndarray:
    """The median of each value and its neighbours: a key frame or a flash is one moment long.

    Args:
        energy (`np.ndarray` of shape `(M,)`): float64; at least one value.

    Returns:
        `np.ndarray` of shape `(M,)`: as many.
    """
    padded = np.pad(energy, 1, mode="edge")
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


def two_levels(values: np.ndarray) -> tuple[float, float]:
    """Split values in two where the means of the parts tell most of their spread (Otsu's criterion).

    Args:
        values (`np.ndarray` of shape `(M,)`): float64; in any order.

    Returns:
        `tuple[float, float]`: mean of the lower and of the upper part; the same twice for a single value.
    """
    values = np.sort(values)
    count, total = len(values), values.sum()
    if count < 2:
        return float(total), float(total)
    below = np.arange(1, count)
    lower = np.cumsum(values)[:-1] / below
    upper = (total - lower * below) / (count - below)
    best = int(np.argmax(below * (count - below) * (upper - lower) ** 2))
    return float(lower[best]), float(upper[best])


def moving(seconds: np.ndarray, level: np.ndarray, begins: float, ends: float) -> list[tuple[float, float]]:
    """Stretches that begin above one level and end below a lower one.

    Args:
        seconds (`np.ndarray` of shape `(M,)`): float64; of the moments.
        level (`np.ndarray` of shape `(M,)`): float64; how much moves.
        begins (`float`): motion begins above it.
        ends (`float`): motion ends below it.

    Returns:
        `list[tuple[float, float]]`: first and last second of each.
    """
    stretches: list[tuple[float, float]] = []
    is_moving = False
    for moment, value in zip(seconds.tolist(), level.tolist(), strict=True):
        is_moving = value >= ends if is_moving else value > begins
        if not is_moving:
            continue
        first, last = moment - STEP_SECONDS / 2, moment + STEP_SECONDS / 2
        if stretches and first - stretches[-1][1] < STEP_SECONDS / 2:
            first = stretches.pop()[0]
        stretches.append((first, last))
    return stretches


def join(stretches: list[tuple[float, float]], rules: PauseRules) -> list[tuple[float, float]]:
    """Join what short rests part, then leave out what is too short to be signed.

    Args:
        stretches (`list[tuple[float, float]]`): rising.
        rules ([`PauseRules`]): what is short.

    Returns:
        `list[tuple[float, float]]`: fewer or as many.
    """
    joined: list[tuple[float, float]] = []
    for first, last in stretches:
        if joined and first - joined[-1][1] < rules.min_pause:
            first = joined.pop()[0]
        joined.append((first, last))
    return [(first, last) for first, last in joined if last - first >= rules.min_length]


def with_margins(stretches: list[tuple[float, float]], end_seconds: float) -> list[tuple[float, float]]:
    """Give each stretch some of the pauses around it.

    Args:
        stretches (`list[tuple[float, float]]`): rising.
        end_seconds (`float`): of the recording.

    Returns:
        `list[tuple[float, float]]`: as many, still without overlap and inside the recording.
    """
    wider = []
    for number, (first, last) in enumerate(stretches):
        before = stretches[number - 1][1] if number else -first
        after = stretches[number + 1][0] if number + 1 < len(stretches) else 2 * end_seconds - last
        start = first - min(MARGIN_SECONDS, (first - before) / 2)
        wider.append((max(0.0, start), min(end_seconds, last + min(MARGIN_SECONDS, (after - last) / 2))))
    return wider


def cut_longer(
    stretch: tuple[float, float], seconds: np.ndarray, level: np.ndarray, max_length: float
) -> Iterator[tuple[float, float]]:
    """Halve a stretch where it is stillest, until its parts are short enough.

    Args:
        stretch (`tuple[float, float]`): first and last second.
        seconds (`np.ndarray` of shape `(M,)`): float64; of the moments.
        level (`np.ndarray` of shape `(M,)`): float64; how much moves.
        max_length (`float`): of a part.

    Yields:
        `tuple[float, float]`: first and last second of a part; together they are the stretch.
    """
    first, last = stretch
    if last - first <= max_length:
        yield stretch
        return
    quarter = (last - first) / 4  # a cut nearer to an end would leave crumbs
    inside = np.flatnonzero((seconds >= first + quarter) & (seconds <= last - quarter))
    middle = float(seconds[inside[np.argmin(level[inside])]]) if len(inside) else (first + last) / 2
    yield from cut_longer((first, middle), seconds, level, max_length)
    yield from cut_longer((middle, last), seconds, level, max_length)
