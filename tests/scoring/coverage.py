"""How often intervals and tests over clips and seeds are right, by simulation: `python -m tests.scoring.coverage`.

Two systems have 81 clips in common and runs of their own. The first differs from the second by 0 or by the margin.
"""

import sys
from typing import NamedTuple

import numpy as np

from training_fla.scoring.resampling import ratio_of, score_difference

CLIPS = 81
# The deviation of a run's mean, and of a clip in a run; the mean of 81 such clips deviates by a ninth of it.
CASES = {
    "seeds vary, clips do not": (0.4, 0.0),
    "seeds vary four times as much as clips": (0.4, 0.9),
    "seeds vary as much as clips": (0.4, 3.6),
    "clips vary, seeds do not": (0.0, 3.6),
}
MARGIN = 1.0


class Rightness(NamedTuple):
    """Shares, in percent, of simulated comparisons."""

    held: float  # 95 % intervals that hold the true difference
    found: float  # equal systems that differ at p <= 0.05
    equated: float  # systems that differ by the margin and are found equivalent within it


def rightness(runs: int, of_seeds: float, of_clips: float, times: int, samples: int = 200) -> Rightness:
    """Simulate comparisons of two systems with so many runs each."""
    random = np.random.default_rng([runs, int(10 * of_seeds), int(10 * of_clips)])
    held = found = equated = 0
    for _ in range(times):
        clips = random.normal(20, 3, CLIPS)  # what makes a clip easy or hard for both
        ours, theirs = (
            clips + random.normal(0, of_seeds, (runs, 1)) + random.normal(0, of_clips, (runs, CLIPS)) for _ in range(2)
        )
        test = score_difference(statistics_of(ours), statistics_of(theirs), ratio_of, samples)
        held += test.interval[0] <= 0 <= test.interval[1]
        found += test.p_value <= 0.05
        far = score_difference(statistics_of(ours + MARGIN), statistics_of(theirs), ratio_of, samples, MARGIN)
        equated += far.equivalence_p <= 0.05
    return Rightness(*(100 * count / times for count in (held, found, equated)))


def statistics_of(values: np.ndarray) -> np.ndarray:
    """Statistics `(S, n, 2)` whose ratio is the mean of values `(S, n)`."""
    return np.stack([values, np.ones_like(values)], axis=-1)


def main(times: int = 1000) -> None:
    """Print the table of docs/scoring.md."""
    print("| | seeds | intervals that hold, % | equal, but p <= 0.05, % | apart by the margin, but equivalent, % |")
    print("|---|---|---|---|---|")
    for name, deviations in CASES.items():
        for runs in (2, 3, 5, 10):
            figures = " | ".join(f"{share:.0f}" for share in rightness(runs, *deviations, times))
            print(f"| {name} | {runs} | {figures} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
