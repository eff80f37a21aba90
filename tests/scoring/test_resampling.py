"""Intervals and tests over clips and seeds: what can be counted by hand, and what simulated systems give."""

import itertools

import numpy as np
import pytest

from tests.scoring.coverage import CASES, rightness
from training_fla.scoring.resampling import _student, holm, score_difference, score_interval


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


def test_students_distribution_is_that_of_tables():
    for degrees, quantile in ((1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)):
        values, shares = _student(degrees)
        assert np.interp(0.975, shares, values) == pytest.approx(quantile, abs=0.001)
        assert np.interp(0, values, shares) == pytest.approx(0.5)


def test_runs_that_alone_differ_are_tested_as_by_welch():
    """Every clip is alike, so that nothing but two times three runs counts: Welch's t of textbooks, 4 degrees."""
    ours, theirs = (of(*(np.full(40, value) for value in runs)) for runs in ((21, 22, 23), (18, 19, 20)))
    test = score_difference(ours, theirs, rate)
    error = (1 / 3 + 1 / 3) ** 0.5
    assert test.difference == 3 and test.interval == pytest.approx([3 - 2.776 * error, 3 + 2.776 * error], abs=0.001)
    assert test.p_value == pytest.approx(0.02131, abs=1e-4)
    assert score_interval(ours, rate) == pytest.approx([22 - 4.303 / 3**0.5, 22 + 4.303 / 3**0.5], abs=0.001)


@pytest.mark.parametrize("runs", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_intervals_and_tests_of_few_seeds_are_as_right_as_they_say(case, runs):
    """About 95 % of intervals hold, about 5 % of tests find what is not there; docs/scoring.md has more draws."""
    share = rightness(runs, *CASES[case], times=50, samples=50)
    assert share.held >= 88 and share.found <= 12 and share.equated <= 12, share


def test_equivalence_is_two_one_sided_tests():
    """The 90 % interval lies within the margin, or it does not."""
    random = np.random.default_rng(6)
    clips = random.normal(20, 3, 300)
    for runs in (1, 3):
        near, theirs = (of(*(clips + random.normal(0, 1, 300) for _ in range(runs))) for _ in range(2))
        assert score_difference(near, theirs, rate, margin=1).equivalence_p < 0.01
        assert score_difference(near, theirs, rate, margin=0.001).equivalence_p > 0.4
        assert score_difference(near + [1, 0], theirs, rate, margin=1).equivalence_p > 0.1
        assert score_difference(near, theirs, rate).equivalence_p is None


def test_holm_multiplies_by_the_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
