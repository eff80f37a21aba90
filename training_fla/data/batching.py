"""The order of clips in an epoch, and batches of clips of similar length that fit a budget of frames."""

from collections.abc import Iterator, Sequence

import numpy as np
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Sampler

from training_fla.errors import InputError

# Unstated: clips are sorted by length among about so many batches drawn at random, so that batches differ every epoch.
BATCHES_A_WINDOW = 50
# Unstated: windows cut one by one fill some batches less than the corpus cut as a whole; so much is left for that.
SPARE_BATCHES = 0.02


def windows_by_length(order: np.ndarray, lengths: np.ndarray, window: int) -> list[np.ndarray]:
    """Cut an order of places into windows of so many clips, and sort each; `lengths` are in the order of places."""
    windows = np.split(order, range(window, len(order), window))
    return [part[np.argsort(lengths[part], kind="stable")] for part in windows]


class EpochSampler(Sampler[int]):
    """Every clip once an epoch, in an order that depends on seed and epoch alone.

    transformers' own length sampler draws from the global generator, so a resumed run would see other batches. With
    `batch_size`, clips of a batch are of similar length; without, the order is a plain permutation.
    """

    def __init__(self, lengths: Sequence[int], seed: int, batch_size: int | None = None):
        self.lengths, self.seed, self.batch_size, self.epoch = np.asarray(lengths), seed, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if self.batch_size is not None:
            order = np.concatenate(windows_by_length(order, self.lengths, BATCHES_A_WINDOW * self.batch_size))
            batches = np.split(order, range(self.batch_size, len(order), self.batch_size))
            full = [batch for batch in batches if len(batch) == self.batch_size]
            rest = [batch for batch in batches if len(batch) != self.batch_size]  # last, or it would shift the others
            order = np.concatenate([full[i] for i in generator.permutation(len(full))] + rest)
        return iter(order.tolist())


class FrameBudgetSampler(Sampler[list[int]]):
    """Every clip once an epoch, in batches whose frames, padding included, stay within a budget.

    For `DataLoader(batch_sampler=...)`. The order depends on seed and epoch alone. Every epoch has the same number of
    batches, so that the length of a schedule is known, and every process has equally many; the batches of one step, on
    all processes and all accumulated ones, hold about equally many frames, so that none waits.
    """

    def __init__(
        self,
        lengths: Sequence[int],  # sampled frames of each clip
        max_frames: int,  # of a batch: its clips times the longest of them
        max_clips: int | None = None,
        seed: int = 0,
        names: Sequence[str] | None = None,  # of the clips, for messages
        accumulation: int = 1,  # batches a process takes to one step
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if len(self.lengths) and self.lengths.max() > max_frames:
            longest = int(self.lengths.argmax())
            clip = f"clip {longest if names is None else names[longest]} has {self.lengths[longest]} frames"
            remedy = "raise it, or thin long clips with max_source_frames"
            raise InputError(f"{clip}, more than the budget of {max_frames} a batch: {remedy}")
        self.max_frames, self.max_clips, self.seed, self.epoch = max_frames, max_clips, seed, 0
        self.batches_a_step = accumulation * num_processes
        self.num_processes, self.process_index = num_processes, process_index
        self.num_batches = self._count()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches // self.num_processes

    def _count(self) -> int:
        """How many batches an epoch has on all processes: whole steps, and some more than the fewest possible."""
        fewest = len(self._cut(np.arange(len(self.lengths)), max(1, len(self.lengths))))
        wanted = fewest + int(np.ceil(SPARE_BATCHES * fewest))
        steps = min(-(-wanted // self.batches_a_step), len(self.lengths) // self.batches_a_step)
        if steps * self.batches_a_step < fewest:
            batches = f"{len(self.lengths)} clips make {fewest} batches of {self.max_frames} frames"
            remedy = "give a larger budget, or take fewer batches to a step"
            raise InputError(f"{batches} and cannot be dealt out to steps of {self.batches_a_step}: {remedy}")
        return steps * self.batches_a_step

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        mean = max(1.0, float(self.lengths.mean())) if len(order) else 1.0
        clips_a_batch = min(self.max_clips or len(order), max(1, int(self.max_frames / mean)))
        window = max(1, BATCHES_A_WINDOW * clips_a_batch)
        batches = self._cut(order, window)
        while len(batches) > self.num_batches:  # one window over all makes the fewest, so this ends
            window *= 2
            batches = self._cut(order, window)
        while len(batches) < self.num_batches:  # halve the batch of most clips
            largest = max(range(len(batches)), key=lambda place: len(batches[place]))
            middle = -(-len(batches[largest]) // 2)
            batches[largest : largest + 1] = [batches[largest][:middle], batches[largest][middle:]]
        batches.sort(key=lambda batch: -len(batch) * self.lengths[batch[0]])
        steps = [batches[start : start + self.batches_a_step] for start in range(0, len(batches), self.batches_a_step)]
        dealt = [batch for step in generator.permutation(len(steps)) for batch in steps[step]]
        return iter(dealt[self.process_index :: self.num_processes])

    def _cut(self, order: np.ndarray, window: int) -> list[list[int]]:
        """Cut each window of an order into batches, whose first clip is their longest."""
        batches: list[list[int]] = []
        for part in windows_by_length(order, -self.lengths, window):
            batch: list[int] = []
            for clip in part.tolist():
                is_full = batch and (len(batch) + 1) * self.lengths[batch[0]] > self.max_frames
                if not batch or is_full or len(batch) == self.max_clips:
                    batch = []
                    batches.append(batch)
                batch.append(clip)
        return batches


def check_batching(args, frames_per_batch: int | None) -> None:
    """Refuse a recipe's line by which Accelerate would cut batches anew."""
    for name in ("split_batches", "dispatch_batches"):
        if frames_per_batch is not None and getattr(args.accelerator_config, name):
            reason = f"is for batches of equally many clips, not for frames_per_batch {frames_per_batch}"
            raise InputError(f"accelerator_config.{name} {reason}")


def placed_loader(loader: DataLoader, accelerator: Accelerator) -> DataLoader:
    """Put batches that are dealt out to processes already on this one's device; a trainer can resume in an epoch."""
    undivided = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
    moved = {"device": accelerator.device, "put_on_device": True, "non_blocking": accelerator.non_blocking}
    return prepare_data_loader(loader, rng_types=list(accelerator.rng_types), **undivided, **moved)
