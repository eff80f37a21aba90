"""Intervals and tests by drawing clips, and the seeds of training runs, again and again from those there are.

A corpus score is a function of sums of sentence statistics, so a draw of clips is a weighted sum. `S` runs of a system
that differ in their seed, `n` clips and `K` statistics of a clip make an array of shape `(S, n, K)`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SAMPLES = 1000
SEED = 12345
EXACT_CLIPS = 12  # as many clips that differ have 4,096 ways to swap them: all are tried
Score = Callable[[np.ndarray], float]  # a corpus score of summed statistics, of shape (K,)


class Difference(NamedTuple):
    """Between mean scores over seeds: its 95 % interval, p, and the least p that so few clips could show."""

    difference: float
    interval: list[float]
    p_value: float
    smallest_p: float


def ratio_of(sums: np.ndarray) -> float:
    """The score of summed statistics `(2,)` that is the one sum over the other."""
    return float(sums[0] / sums[1])


def score_interval(statistics: np.ndarray, score: Score, samples: int = 0) -> list[float]:
    """The 95 % interval of a system's mean score over its seeds; clips and seeds are drawn together.

    Args:
        statistics (`np.ndarray` of shape `(S, n, K)`): sentence statistics of each run.
        score (`Callable`): the corpus score of summed statistics.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `SAMPLES`.

    Returns:
        `list[float]`: low and high.
    """
    return _interval([_mean_of_drawn_seeds(scores, draw) for scores, draw in _drawn(statistics, score, samples)])


def score_difference(ours: np.ndarray, theirs: np.ndarray, score: Score, samples: int = 0) -> Difference:
    """The difference of two systems' mean scores over seeds, with an interval and a p; run `i` of both is one seed.

    With one run a side, p is of a permutation test: the sides of each clip are swapped or not, in all ways where few
    clips differ, else in `samples` ways. With several, clips and seeds are drawn together, and p is the share of draws
    that lie as far from the difference as the difference lies from 0. Ties count against a difference.

    Args:
        ours (`np.ndarray` of shape `(S, n, K)`): sentence statistics of each run of a system.
        theirs (`np.ndarray` of shape `(S, n, K)`): of the other one, of the same clips and as many runs.
        score (`Callable`): the corpus score of summed statistics.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `SAMPLES`.

    Returns:
        `Difference`: of ours minus theirs, both of the scale of `score`.
    """
    sides = [[score(run.sum(0)) for run in side] for side in (ours, theirs)]
    difference = float(np.mean(sides[0]) - np.mean(sides[1]))
    pairs = zip(_drawn(ours, score, samples), _drawn(theirs, score, samples), strict=True)  # draw the same clips
    drawn = [_mean_of_drawn_seeds(first - second, runs) for (first, runs), (second, _) in pairs]
    differing = int((ours != theirs).any(axis=(0, 2)).sum())
    if len(ours) == 1:
        others = np.array(list(_swapped(ours[0], theirs[0], score, samples)))
        is_far = np.abs(others) >= abs(difference) - 1e-9
        is_exact = differing <= EXACT_CLIPS
        p_value = float(is_far.mean()) if is_exact else (1 + int(is_far.sum())) / (1 + len(others))
        smallest = 2.0 ** min(0, 1 - differing) if is_exact else 1 / (1 + len(others))
    else:
        smallest = max(1 / (1 + len(drawn)), 2.0 ** min(0, 1 - differing))
        is_far = np.abs(np.array(drawn) - difference) >= abs(difference) - 1e-9
        p_value = max(smallest, (1 + int(is_far.sum())) / (1 + len(drawn)))
    return Difference(difference, _interval(drawn), p_value, smallest)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests: each may be read alone, and one error in the family stays as rare."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _drawn(statistics: np.ndarray, score: Score, samples: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores `(S,)` of each run on drawn clips, and which runs are drawn; the same draws for the same sizes."""
    random = np.random.default_rng(SEED)
    runs, clips, _ = statistics.shape
    for _ in range(samples or SAMPLES):
        weights = np.bincount(random.integers(clips, size=clips), minlength=clips)
        yield np.array([score(summed) for summed in weights @ statistics]), random.integers(runs, size=runs)


def _mean_of_drawn_seeds(scores: np.ndarray, drawn: np.ndarray) -> float:
    """The mean of drawn runs. Of few runs a draw varies too little, by (S - 1) / S in variance: that is made good."""
    runs, mean = len(scores), scores.mean()
    return float(mean + (scores[drawn].mean() - mean) * (runs / max(runs - 1, 1)) ** 0.5)


def _interval(drawn: Sequence[float]) -> list[float]:
    return [float(bound) for bound in np.percentile(drawn, (2.5, 97.5))]


def _swapped(ours: np.ndarray, theirs: np.ndarray, score: Score, samples: int) -> Iterator[float]:
    """Differences with the sides of some clips swapped; of clips that do not differ a swap changes nothing."""
    change = (theirs - ours)[(ours != theirs).any(axis=1)]
    first, second, clips = ours.sum(0), theirs.sum(0), len(change)
    if clips <= EXACT_CLIPS:
        ways = (np.array([number >> place & 1 for place in range(clips)], int) for number in range(2**clips))
    else:
        random = np.random.default_rng(SEED)
        ways = (random.integers(2, size=clips) for _ in range(samples or SAMPLES))
    for swapped in ways:
        moved = swapped @ change if clips else 0
        yield score(first + moved) - score(second - moved)
