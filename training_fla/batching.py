"""Batches of clips of similar length, as many as fit a budget of frames: memory stays flat where lengths vary."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from training_fla.errors import InputError

# Unstated: clips are sorted by length among about so many batches drawn at random, so that batches differ every epoch.
BATCHES_A_WINDOW = 50


class FrameBudgetSampler(Sampler[list[int]]):
    """Every clip once an epoch, in batches whose frames, padding included, stay within a budget.

    A batch sampler, for `DataLoader(batch_sampler=...)`. The order depends on seed and epoch alone.

    Args:
        lengths (`Sequence[int]`): frames of each clip, as sampled.
        max_frames (`int`): most frames in a batch: its clips times the longest of them.
        max_clips (`int`, *optional*): most clips in a batch.
        seed (`int`): of the order.
        shuffle (`bool`): false gives the clips in order of length, longest first: a lack of memory shows at once.

    Raises:
        InputError: if a clip is longer than the budget.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_frames: int,
        max_clips: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if len(self.lengths) and self.lengths.max() > max_frames:
            longest = int(self.lengths.argmax())
            raise InputError(
                f"clip {longest} has {self.lengths[longest]} frames, more than the budget of {max_frames} a batch"
            )
        if max_clips is not None and max_clips < 1:
            raise InputError(f"a batch needs at least one clip, not {max_clips}")
        self.max_frames, self.max_clips, self.seed, self.shuffle, self.epoch = max_frames, max_clips, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def __len__(self) -> int:
        return len(self._batches())

    def _batches(self) -> list[list[int]]:
        if not self.shuffle:
            return self._cut(np.argsort(-self.lengths, kind="stable"))
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        mean = max(1.0, float(self.lengths.mean())) if len(order) else 1.0
        clips_a_batch = min(self.max_clips or len(order), max(1, int(self.max_frames / mean)))
        window = max(1, BATCHES_A_WINDOW * clips_a_batch)
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            batches += self._cut(part[np.argsort(-self.lengths[part], kind="stable")])
        return [batches[index] for index in generator.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        """Cut clips, longest first, into batches: the first of each is its longest."""
        batches: list[list[int]] = []
        for clip in order.tolist():
            batch = batches[-1] if batches else None
            full = batch is None or (len(batch) + 1) * self.lengths[batch[0]] > self.max_frames
            if full or len(batch) == self.max_clips:
                batches.append([clip])
            else:
                batch.append(clip)
        return batches
