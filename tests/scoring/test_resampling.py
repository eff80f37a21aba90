"""Intervals and tests over clips and seeds: what can be counted by hand, and what simulated systems give."""

import itertools

import numpy as np
import pytest

from training_fla.scoring.resampling import holm, score_difference, score_interval


def rate(summed: np.ndarray) -> float:
    """A sum over another one, as ROUGE-L of a split."""
    return float(summed[0] / summed[1])


def of(*runs) -> np.ndarray:
    """Statistics of runs by a value a clip."""
    return np.stack([np.stack([np.array(run, float), np.ones(len(run))], axis=1) for run in runs])


def test_the_smallest_p_is_one_in_half_of_all_swaps():
    """Four clips of which one is translated alike: 2 of 8 swaps are as far, those of none and of all."""
    test = score_difference(of([1, 2, 3, 4]), of([0, 0, 0, 4]), rate)
    assert test.difference == 1.5 and test.p_value == test.smallest_p == 0.25
    four = score_difference(of([1, 2, 3, 4]), of([0, 0, 0, 0]), rate)
    assert four.p_value == four.smallest_p == 0.125
    assert score_difference(of([1, 2]), of([1, 2]), rate).p_value == 1


def test_few_clips_are_swapped_in_all_ways_and_ties_count():
    random = np.random.default_rng(0)
    ours, theirs = random.integers(0, 4, 9), random.integers(0, 4, 9)
    signs = np.array(list(itertools.product((1, -1), repeat=9)))
    means = (signs * (ours - theirs)).mean(axis=1)
    expected = np.mean(np.abs(means) >= abs(np.mean(ours - theirs)) - 1e-9)
    assert score_difference(of(ours), of(theirs), rate).p_value == pytest.approx(expected)


def test_many_clips_are_swapped_at_random():
    random = np.random.default_rng(1)
    clips = random.normal(size=200)
    better = score_difference(of(clips + 1), of(clips), rate, samples=99)
    assert better.p_value == better.smallest_p == 0.01 and better.difference == pytest.approx(1)
    assert score_difference(of(clips), of(random.permutation(clips)), rate, samples=99).p_value > 0.9


def test_seeds_that_disagree_widen_the_interval_and_raise_p():
    """Every clip is better by 1 on average, but only in two seeds of three."""
    random = np.random.default_rng(2)
    clips = random.normal(size=100)
    theirs = of(*[clips] * 3)
    steady, unsteady = of(*[clips + 1] * 3), of(clips + 3, clips + 0.5, clips - 0.5)
    one, other = score_difference(steady, theirs, rate), score_difference(unsteady, theirs, rate)
    assert one.difference == pytest.approx(1) and other.difference == pytest.approx(1)
    assert one.p_value < 0.01 and other.p_value > 0.1
    assert one.interval[0] > 0.9 and other.interval[0] < 0
    low, high = score_interval(unsteady, rate)
    assert high - low > np.diff(score_interval(unsteady[:1], rate))[0]


def test_a_clip_counts_once_however_many_seeds_translated_it():
    random = np.random.default_rng(3)
    ours, theirs = random.normal(0.1, 1, 50), random.normal(0, 1, 50)
    one = score_interval(of(ours), rate)
    assert score_interval(of(*[ours] * 10), rate) == pytest.approx(one, abs=0.05), "ten equal seeds say no more"
    tenfold = score_difference(of(*[ours] * 10), of(*[theirs] * 10), rate)
    assert tenfold.p_value == pytest.approx(score_difference(of(ours), of(theirs), rate).p_value, abs=0.05)


def test_intervals_over_clips_and_seeds_hold_the_truth_about_as_often_as_they_say():
    """Clips differ by 1, seeds by 0.3: intervals of 5 seeds and 60 clips; those over clips alone are too narrow."""
    random = np.random.default_rng(4)
    both, clips_alone = 0, 0
    for _ in range(100):
        clips, seeds = random.normal(size=60), random.normal(0, 0.3, 5)
        runs = [clips + seed + random.normal(0, 0.3, 60) for seed in seeds]
        low, high = score_interval(of(*runs), rate, samples=200)
        both += low <= 0 <= high
        low, high = score_interval(of(runs[0]), rate, samples=200)
        clips_alone += low <= 0 <= high
    assert 88 <= both <= 100 and clips_alone < both


def test_three_seeds_that_vary_more_than_clips_are_a_little_too_few():
    """What docs/scoring.md says: equal systems differ at p <= 0.05 more often than in one case of twenty."""
    random, found = np.random.default_rng(5), []
    for _ in range(60):
        clips = random.normal(size=81)
        sides = [of(*(clips + random.normal(0, 0.7, 81) + random.normal(0, 0.4) for _ in range(3))) for _ in range(2)]
        found.append(score_difference(*sides, rate, samples=200))
    holds = np.mean([test.interval[0] <= 0 <= test.interval[1] for test in found])
    assert 0.7 < holds < 0.95 and 0.05 < np.mean([test.p_value <= 0.05 for test in found]) < 0.3


def test_holm_multiplies_by_the_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
