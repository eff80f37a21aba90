"""Rests in signing, found as it is shown, from how much moves between small pictures of it.

    frames  ->  one small grey picture every 80 ms  ->  motion between neighbours  ->  segments of signing

Motion is what is left of the difference between two pictures once a shift of the whole picture (a shaking camera) and
a change of its brightness or contrast (flicker, clouds, automatic exposure) are taken out by least squares. Where it
is low for long enough, nobody signs. What counts as low is learned from what was shown so far, and what is learned
later still moves the ends of the segment that is open; a segment that was given is never changed. So a file and a
camera that shows the same have the same segments.

It sees motion, not language: signers do not rest after every sentence, a held sign looks like a rest, and whoever else
moves in the picture counts as signing.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

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
# Unstated: until both levels are known, less motion is a rest. Measured: 0.02 to 0.04 where nobody signs, 0.15 to 0.6
# in signing of How2Sign and FSL-105.
QUIET = 0.05
LEARNED_SECONDS = 60.0  # Unstated: of signing and of resting that levels are learned from; older ones are forgotten
LEAST_SECONDS = 0.4  # Unstated: of each, before the two levels are told apart
MARGIN_SECONDS = 0.2  # Unstated: hands leave their rest slowly; a cue takes so much of a pause, at most half of it
REST_SECONDS = 2.0  # Unstated: so much of a rest may still turn out to be the beginning of a segment
CUT_SECONDS = 1.5  # Unstated: a long segment is cut at its stillest moment among the last so many seconds

Segment = tuple[float, float]  # first and last second


@dataclass(frozen=True)
class PauseRules:
    """What counts as a pause and as a sentence, in seconds."""

    min_pause: float = 0.4  # a shorter rest lies within a sentence
    min_length: float = 0.3  # shorter signing is left out
    max_length: float = 15.0  # longer signing is cut at a still moment before


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


def two_levels(values: np.ndarray) -> tuple[float, float, int]:
    """Means of the lower and the upper part of values, split where they tell most of the spread (Otsu).

    The last one is how many values the smaller part has.
    """
    values = np.sort(values)
    count, total = len(values), values.sum()
    below = np.arange(1, count)
    lower = np.cumsum(values)[:-1] / below
    upper = (total - lower * below) / (count - below)
    best = int(np.argmax(below * (count - below) * (upper - lower) ** 2))
    return float(lower[best]), float(upper[best]), min(best + 1, count - best - 1)


class Levels:
    """How much resting and signing move, learned from as much of the one as of the other, however long it lasts."""

    def __init__(self):
        most = round(LEARNED_SECONDS / STEP_SECONDS)
        self.low, self.high = deque(maxlen=most), deque(maxlen=most)
        self.begins = self.ends = float(np.log(QUIET))  # where motion begins and ends

    def add(self, level: float) -> None:
        """Learn from one more moment."""
        (self.high if level > (self.begins + self.ends) / 2 else self.low).append(level)
        known = np.array([*self.low, *self.high])
        self.begins = self.ends = float(np.log(QUIET))
        if len(known) > 1:
            resting, signing, fewest = two_levels(known)
            if signing - resting >= np.log(CONTRAST) and fewest * STEP_SECONDS >= LEAST_SECONDS:
                self.begins, self.ends = (resting + share * (signing - resting) for share in (BEGINS, ENDS))


class PauseSegmenter:
    """Segments of signing in frames that come one after another.

    `add` and `finish` give the segments that have ended. `open_since` is where the one that has not yet ended begins,
    and `is_moving` whether its last moment moved. `settled` is the time before which nothing will begin any more:
    frames before it are not needed.
    """

    def __init__(self, rules: PauseRules, max_frames: int | None = None):
        self.rules, self.max_frames = rules, max_frames  # of a segment
        self.levels = Levels()
        self.times: deque[float] = deque()  # of the frames that may lie in a segment to come
        self.moments: list[tuple[float, float]] = []  # likewise: middle between two pictures, and level
        self.energies: list[float] = []  # of the last two moments: the later one has no level yet
        self.last_moment = 0.0
        self.picture: tuple[float, np.ndarray] | None = None
        self.start: float | None = None  # of the recording
        self.settled = 0.0
        self.rests_since: float | None = None  # the end of motion of the segment before
        self.cut: float | None = None  # where the segment before was cut off
        self.open_since: float | None = None
        self.is_moving = False
        self.num_moments = 0

    def wants_picture(self, seconds: float) -> bool:
        """Whether the frame of that time is to be compared with the one before."""
        return self.picture is None or seconds >= self.picture[0] + STEP_SECONDS - 1e-3

    def add(self, seconds: float, picture: np.ndarray | None = None) -> list[Segment]:
        """Take a frame's time and, where one is wanted, a small grey picture `(H, W)` of it."""
        if self.start is None:
            self.start = self.settled = seconds
        self.times.append(seconds)
        if picture is None:
            return []
        before, self.picture = self.picture, (seconds, picture.astype(np.float32))
        if before is None:
            return []
        return self.add_motion((before[0] + seconds) / 2, motion_between(before[1], self.picture[1]))

    def add_motion(self, moment: float, energy: float) -> list[Segment]:
        """Take how much moved around a moment."""
        self.num_moments += 1
        if self.energies:
            self.add_level([self.energies[0], self.energies[-1], energy])
        self.energies = [*self.energies[-1:], energy]
        self.last_moment = moment
        return list(self.ended())

    def add_level(self, energies: list[float]) -> None:
        """Take the last moment, by the median of what moved then and at its neighbours: a flash is one moment long."""
        level = float(np.log(np.median(energies) + STILL))
        self.levels.add(level)
        self.moments.append((self.last_moment, level))

    def finish(self, end: float) -> list[Segment]:
        """The last segments of a recording that ends at `end` seconds."""
        if self.start is None:
            return []
        if self.num_moments < 2:
            return [(self.start, end)]
        self.add_level([*self.energies, self.energies[-1]])
        segments = list(self.ended(end))
        self.open_since = None
        return segments

    def ended(self, end: float | None = None) -> Iterator[Segment]:
        """Segments that have ended by what is known; with the `end` of the recording, all."""
        half, margin, rules = STEP_SECONDS / 2, MARGIN_SECONDS, self.rules
        rest = max(rules.min_pause, 2 * margin)  # that ends a segment for certain, margins included
        self.open_since = None
        while parts := self.moving():
            (first, last), after = parts[0], parts[1:2]
            now = self.moments[-1][0] + half
            is_cut_off = self.cut is not None and first <= self.cut + STEP_SECONDS
            gap = first - self.rests_since if self.rests_since is not None else 2 * (first - self.start)
            start = self.cut if is_cut_off else max(first - min(margin, gap / 2), self.settled)
            has_ended = bool(after) or end is not None or now - last >= rest
            gap = after[0][0] - last if after else rest if end is None else 2 * (end - last)
            limit = self.limit(start)
            stop = min(last + min(margin, gap / 2), max(limit, last)) if has_ended else now
            if stop > limit:
                cut = self.stillest(start, limit)
                yield start, cut
                self.cut = self.rests_since = cut
                self.forget(cut, cut)
            elif has_ended:
                is_kept = is_cut_off or last - first >= rules.min_length
                if is_kept:
                    yield start, stop
                self.cut, self.rests_since = None, last
                self.forget(last + half / 2, stop if is_kept else last)
            else:
                self.open_since, self.is_moving = start, last == now
                return
        if self.moments:
            oldest = self.moments[-1][0] - REST_SECONDS
            self.cut = None if self.cut is not None and self.cut < oldest else self.cut
            self.forget(oldest, oldest - STEP_SECONDS - margin)

    def moving(self) -> list[Segment]:
        """Segments from where the level rises above `begins` to where it falls below `ends`, but for short rests."""
        parts: list[Segment] = []
        is_moving = self.cut is not None
        shortest = max(self.rules.min_pause, STEP_SECONDS / 2)
        for moment, level in self.moments:
            is_moving = level >= self.levels.ends if is_moving else level > self.levels.begins
            if not is_moving:
                continue
            first, last = moment - STEP_SECONDS / 2, moment + STEP_SECONDS / 2
            if parts and first - parts[-1][1] < shortest:
                first = parts.pop()[0]
            parts.append((first, last))
        return parts

    def limit(self, start: float) -> float:
        """Where a segment that begins at `start` must end."""
        limit = start + self.rules.max_length
        if self.max_frames:
            later = [seconds for seconds in self.times if seconds >= start]
            if len(later) > self.max_frames:
                limit = min(limit, later[self.max_frames])
        return limit

    def stillest(self, start: float, limit: float) -> float:
        """Where a segment that is too long is cut: its stillest moment near the limit."""
        earliest = max(limit - CUT_SECONDS, (start + limit) / 2)
        inside = [(level, moment) for moment, level in self.moments if earliest <= moment <= limit]
        return min(inside)[1] if inside else limit

    def forget(self, moment: float, settled: float) -> None:
        """Let moments before one go, and frames before `settled`."""
        self.moments = [known for known in self.moments if known[0] >= moment]
        self.settled = max(self.settled, settled)
        while self.times and self.times[0] < self.settled:
            self.times.popleft()
