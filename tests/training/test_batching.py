import numpy as np
import pytest

from training_fla.batching import FrameBudgetSampler
from training_fla.errors import InputError

LENGTHS = np.random.default_rng(0).integers(1, 60, 333).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_clips", [None, 4])
def test_every_clip_comes_once_and_no_batch_exceeds_the_budget(shuffle, max_clips):
    sampler = FrameBudgetSampler(LENGTHS, 128, max_clips, seed=3, shuffle=shuffle)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(clip for batch in batches for clip in batch) == list(range(333))
    assert all(len(batch) * max(LENGTHS[clip] for clip in batch) <= 128 for batch in batches)
    assert max_clips is None or max(map(len, batches)) <= max_clips


def test_little_of_a_batch_is_padding():
    batches = list(FrameBudgetSampler(LENGTHS, 240, seed=1))
    padded = sum(len(batch) * max(LENGTHS[clip] for clip in batch) for batch in batches)
    assert sum(LENGTHS) / padded > 0.85
    assert padded / len(batches) > 0.8 * 240  # and the budget is used


def test_the_order_follows_from_seed_and_epoch():
    first, again = (FrameBudgetSampler(LENGTHS, 128, seed=5) for _ in range(2))
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)
    first.set_epoch(1)
    assert list(first) == list(again)


def test_the_longest_clips_come_first_without_shuffling():
    batches = list(FrameBudgetSampler([3, 9, 5], 9, shuffle=False))
    assert batches == [[1], [2], [0]]


def test_a_clip_beyond_the_budget_is_named():
    with pytest.raises(InputError, match="clip 1 has 9 frames, more than the budget of 8"):
        FrameBudgetSampler([3, 9, 5], 8)


def test_no_clips_make_no_batches():
    assert list(FrameBudgetSampler([], 8)) == []
