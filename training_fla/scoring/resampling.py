"""Intervals and tests over clips, by drawing them again and again, and over the seeds of training runs.

A corpus score is a function of sums of sentence statistics, so a draw of clips is a weighted sum. `S` runs of a system
that differ in their seed, `n` clips and `K` statistics of a clip make an array of shape `(S, n, K)`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SAMPLES = 1000
SEED = 12345
EXACT_CLIPS = 12  # as many clips that differ have 4,096 ways to swap them: all are tried
MOST_DEGREES = 1000  # of freedom: beyond, Student's distribution is the normal one
Score = Callable[[np.ndarray], float]  # a corpus score of summed statistics, of shape (K,), not below 0


class Difference(NamedTuple):
    """Between mean scores over seeds: its 95 % interval, p, the least p that so few clips could show.

    `equivalence_p` is that of a difference as great as the margin or greater, either way: below 0.05, the two systems
    are equivalent within the margin. `None` without a margin.
    """

    difference: float
    interval: list[float]
    p_value: float
    smallest_p: float
    equivalence_p: float | None = None


def ratio_of(sums: np.ndarray) -> float:
    """The score of summed statistics `(2,)` that is the one sum over the other."""
    return float(sums[0] / sums[1])


def score_interval(statistics: np.ndarray, score: Score, samples: int = 0) -> list[float]:
    """The 95 % interval of a system's mean score over its seeds: over clips and, with several runs, seeds.

    Args:
        statistics (`np.ndarray` of shape `(S, n, K)`): sentence statistics of each run.
        score (`Callable`): the corpus score of summed statistics.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `SAMPLES`.

    Returns:
        `list[float]`: low, at least 0, and high.
    """
    side = _side_of(statistics, score, samples)
    low, high = _spread([side], statistics.shape[1]).interval()
    return [max(low, 0.0), high]


def score_difference(
    ours: np.ndarray, theirs: np.ndarray, score: Score, samples: int = 0, margin: float | None = None
) -> Difference:
    """The difference of two systems' mean scores over seeds, with an interval, a p, and a test of equivalence.

    With one run a side, the interval is of drawn clips, and p is of a permutation test: the sides of each clip are
    swapped or not, in all ways where few clips differ, else in `samples` ways. Ties count against a difference. With
    several, both are of Student's distribution: the standard error is of drawn clips and of the runs of both sides,
    its degrees of freedom are Satterthwaite's. `python -m tests.scoring.coverage` prints how often that is right.

    Args:
        ours (`np.ndarray` of shape `(S, n, K)`): sentence statistics of each run of a system.
        theirs (`np.ndarray` of shape `(S, n, K)`): of the other one, of the same clips and as many runs.
        score (`Callable`): the corpus score of summed statistics.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `SAMPLES`.
        margin (`float`, *optional*): the difference that matters; two one-sided tests ask if it is smaller.

    Returns:
        `Difference`: of ours minus theirs, both of the scale of `score`.
    """
    sides = [_side_of(statistics, score, samples) for statistics in (ours, theirs)]  # draw the same clips
    spread = _spread(sides, ours.shape[1])
    difference = float(sides[0].scores.mean() - sides[1].scores.mean())
    differing = int((ours != theirs).any(axis=(0, 2)).sum())
    smallest = 2.0 ** min(0, 1 - differing)
    if len(ours) > 1:
        p_value = max(smallest, 2 * min(spread.below(0), 1 - spread.below(0)))
    else:
        others = np.array(list(_swapped(ours[0], theirs[0], score, samples)))
        is_far = np.abs(others) >= abs(difference) - 1e-9
        is_exact = differing <= EXACT_CLIPS
        p_value = float(is_far.mean()) if is_exact else (1 + int(is_far.sum())) / (1 + len(others))
        smallest = smallest if is_exact else 1 / (1 + len(others))
    equivalence = None if margin is None else max(spread.below(-margin), 1 - spread.below(margin))
    return Difference(difference, spread.interval(), p_value, smallest, equivalence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests: each may be read alone, and one error in the family stays as rare."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


class _Side(NamedTuple):
    """A system: the scores `(S,)` of its runs, and those `(samples, S)` on drawn clips."""

    scores: np.ndarray
    drawn: np.ndarray


class _Spread(NamedTuple):
    """Where a score or a difference may lie: rising values, and the share of the distribution below each."""

    values: np.ndarray
    shares: np.ndarray

    def interval(self) -> list[float]:
        return [float(bound) for bound in np.interp((0.025, 0.975), self.shares, self.values)]

    def below(self, value: float) -> float:
        return float(np.interp(value, self.values, self.shares))


def _side_of(statistics: np.ndarray, score: Score, samples: int) -> _Side:
    """Score the runs on all clips and on drawn ones; the draws are the same for the same number of clips."""
    random, clips = np.random.default_rng(SEED), statistics.shape[1]
    drawn = []
    for _ in range(samples or SAMPLES):
        weights = np.bincount(random.integers(clips, size=clips), minlength=clips)
        drawn.append([score(summed) for summed in weights @ statistics])
    return _Side(np.array([score(run.sum(0)) for run in statistics]), np.array(drawn))


def _spread(sides: list[_Side], clips: int) -> _Spread:
    """Of a system's mean score, or of the difference of two."""
    first, *others = sides
    means = first.drawn.mean(axis=1) - sum(other.drawn.mean(axis=1) for other in others)
    runs = len(first.scores)
    if runs == 1:
        return _Spread(np.sort(means), np.arange(1, len(means) + 1) / (len(means) + 1))
    centre = first.scores.mean() - sum(other.scores.mean() for other in others)
    of_clips = means.var(ddof=1)
    of_seeds = [side.scores.var(ddof=1) / runs for side in sides]
    # That a run's clips are not those of all clips is in both of them, and counts once.
    of_both = [(side.drawn - side.drawn.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean() for side in sides]
    variance = of_clips + max(sum(of_seeds) - sum(of_both) / (runs - 1), 0)
    # Satterthwaite's: as many as a single part has that is the whole variance, more if several are.
    parts = [*((part, runs - 1) for part in of_seeds), (max(variance - sum(of_seeds), 0), max(clips - 1, 1))]
    inverse = sum((part / variance) ** 2 / degrees for part, degrees in parts) if variance else 1
    values, shares = _student(min(max(1 / inverse, runs - 1), MOST_DEGREES))
    return _Spread(centre + max(variance**0.5, np.finfo(float).tiny) * values, shares)


def _student(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of Student's distribution, and its share below each: at sqrt(d) tan(a), its density is cos(a)^(d-1)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angles) ** (degrees - 1)
    shares = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return degrees**0.5 * np.tan(angles), shares / shares[-1]


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
