"""Batches of clips for each process of a run: every clip once an epoch, and equally many batches everywhere.

An epoch is a sequence of rounds. In a round every process has one batch: of equally many clips, or within a budget of
frames. So a step has the same clips on any number of processes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from training_fla.errors import InputError

# Unstated: clips are sorted by length among about so many batches drawn at random, so that batches differ every epoch.
BATCHES_A_WINDOW = 50
# Unstated: windows cut one by one fill some batches less than the corpus cut as a whole; so much is left for that.
SPARE_BATCHES = 0.02
# In place of a clip's index, where a process has no clip of its own: what it computes counts for nothing.
NO_CLIP = -1


def check_batching(args) -> None:
    """Refuse a recipe's line by which Accelerate would cut batches anew."""
    for name in ("split_batches", "dispatch_batches"):
        if getattr(args.accelerator_config, name):
            raise InputError(
                f"accelerator_config.{name} has no effect here: drop it; total_batch_size is of all processes"
            )


class ClipBatchSampler(Sampler[list[int]]):
    """The batches of one process, in an order that depends on seed and epoch alone.

    transformers' own length sampler draws from the global generator, so a resumed run would see other batches. In the
    last round a process may have fewer clips, or none: an empty batch, which [`FilledBatches`] fills.

    Args:
        dataset: has `lengths`, the sampled frames of each clip, and may have `set_epoch`, `ids` and, where an epoch
            has not every clip once, `mixture`.
        batch_size (`int`): clips of a batch; with `frames_per_batch`, the most.
        seed (`int`): of the order.
        by_length (`bool`): whether the clips of a step are of similar length.
        frames_per_batch (`int`, *optional*): the most frames of a batch, padding included; then batches are always of
            similar length.
        accumulation (`int`): batches a process takes to one step.
        num_processes (`int`): how many processes share the clips.
        process_index (`int`): which of them this one is.
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        seed: int,
        *,
        by_length: bool = False,
        frames_per_batch: int | None = None,
        accumulation: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.dataset = dataset
        self.lengths = np.asarray(dataset.lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.by_length = by_length
        self.num_processes = num_processes
        self.process_index = process_index
        self.clips_a_step = batch_size * accumulation * num_processes
        self.mixture = getattr(dataset, "mixture", None)
        self.budget = None
        if frames_per_batch is not None:
            ids = getattr(dataset, "ids", None)
            longest = None if self.mixture is None else self.mixture.longest(self.lengths)
            batches_a_step = accumulation * num_processes
            self.budget = FrameBudget(self.lengths, frames_per_batch, batch_size, batches_a_step, ids, longest)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next, counted from 0, also for the random numbers of the clips."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        """The rounds of an epoch."""
        if self.budget is not None:
            return self.budget.num_batches // self.num_processes
        return -(-len(self.lengths) // (self.batch_size * self.num_processes))

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        clips = len(self.lengths) if self.mixture is None else self.mixture.clips(self.epoch)
        order = generator.permutation(clips)
        if self.budget is not None:
            yield from self.budget.batches(order, generator)[self.process_index :: self.num_processes]
            return
        if self.by_length:
            order = self._steps_of_similar_length(order, generator)
        clips_a_round = self.batch_size * self.num_processes
        for start in range(0, len(order), clips_a_round):
            clips = order[start : start + clips_a_round]
            yield np.array_split(clips, self.num_processes)[self.process_index].tolist()

    def _steps_of_similar_length(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Clips of a step side by side, steps in any order; the last step, which may not be full, stays the last."""
        windows = windows_by_length(order, self.lengths, BATCHES_A_WINDOW * self.clips_a_step)
        order = np.concatenate(windows)
        num_full = len(order) // self.clips_a_step
        full, rest = np.split(order, [num_full * self.clips_a_step])
        steps = full.reshape(num_full, self.clips_a_step)[generator.permutation(num_full)]
        return np.concatenate([steps.flatten(), rest])


class FrameBudget:
    """Cuts an epoch into batches whose frames, padding included, stay within a budget.

    Every epoch has the same number of batches, so that the length of a schedule is known: whole steps of
    `batches_a_step`. The batches of one step hold about equally many frames, so that no process waits.
    """

    def __init__(
        self,
        lengths: np.ndarray,  # sampled frames of each clip
        max_frames: int,  # of a batch: its clips times the longest of them
        max_clips: int,  # of a batch
        batches_a_step: int = 1,  # on all processes
        ids: Sequence[str] | None = None,  # of the clips, for messages
        longest_epoch: np.ndarray | None = None,  # places of the clips of the longest epoch; each once where absent
    ):
        if len(lengths) and lengths.max() > max_frames:
            longest = int(lengths.argmax())
            clip = f"clip {longest if ids is None else ids[longest]} has {lengths[longest]} frames"
            remedy = "raise it, or thin long clips with max_source_frames"
            raise InputError(f"{clip}, more than the budget of {max_frames} a batch: {remedy}")
        self.lengths = lengths
        self.max_frames = max_frames
        self.max_clips = max_clips
        self.batches_a_step = batches_a_step
        self.num_batches = self._count(np.arange(len(lengths)) if longest_epoch is None else longest_epoch)

    def _count(self, clips: np.ndarray) -> int:
        """How many batches an epoch of these clips has: whole steps, and some more than the fewest possible."""
        fewest = len(self._cut(clips, max(1, len(clips))))
        wanted = fewest + int(np.ceil(SPARE_BATCHES * fewest))
        steps = min(-(-wanted // self.batches_a_step), len(self.lengths) // self.batches_a_step)
        if steps * self.batches_a_step < fewest:
            batches = f"{len(self.lengths)} clips make {fewest} batches of {self.max_frames} frames"
            remedy = "give a larger budget, or take fewer batches to a step"
            raise InputError(f"{batches} and cannot be dealt out to steps of {self.batches_a_step}: {remedy}")
        return steps * self.batches_a_step

    def batches(self, order: np.ndarray, generator: np.random.Generator) -> list[list[int]]:
        """The batches of an epoch, of all processes in turn; `generator` draws the order of the steps."""
        batches = self._as_many_as_counted(order)
        batches.sort(key=lambda batch: -len(batch) * self.lengths[batch[0]])
        steps = [batches[start : start + self.batches_a_step] for start in range(0, len(batches), self.batches_a_step)]
        return [batch for step in generator.permutation(len(steps)) for batch in steps[step]]

    def _as_many_as_counted(self, order: np.ndarray) -> list[list[int]]:
        """Cut an order into `num_batches`."""
        mean = max(1.0, float(self.lengths.mean())) if len(order) else 1.0
        clips_a_batch = min(self.max_clips, max(1, int(self.max_frames / mean)))
        window = max(1, BATCHES_A_WINDOW * clips_a_batch)
        batches = self._cut(order, window)
        while len(batches) > self.num_batches:  # one window over all makes the fewest, so this ends
            window *= 2
            batches = self._cut(order, window)
        while len(batches) < self.num_batches:  # halve the batch of most clips
            largest = max(range(len(batches)), key=lambda place: len(batches[place]))
            middle = -(-len(batches[largest]) // 2)
            batches[largest : largest + 1] = [batches[largest][:middle], batches[largest][middle:]]
        return batches

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


def windows_by_length(order: np.ndarray, lengths: np.ndarray, window: int) -> list[np.ndarray]:
    """Cut an order of places into windows of so many clips, and sort each; `lengths` are in the order of places."""
    windows = np.split(order, range(window, len(order), window))
    return [part[np.argsort(lengths[part], kind="stable")] for part in windows]


class FilledBatches(Dataset):
    """A dataset in which no batch is empty: in its place there is one clip that counts for nothing.

    A process without a clip must compute something, because the others wait for its gradients.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, clip: int) -> dict:
        return self.dataset[clip]

    def __getitems__(self, clips: list[int]) -> list[dict]:
        """The examples of a batch, as PyTorch asks for them."""
        if not clips:
            return [self.dataset[0] | {"index": NO_CLIP}]
        return [self.dataset[clip] for clip in clips]


class ClipLoader(DataLoader):
    """A loader with `len(loader)` batches in every epoch, of a stream too."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; transformers calls it."""
        for part in (self.batch_sampler, self.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        count = 0
        for batch in super().__iter__():
            count += 1
            yield batch
        if count == 0 and len(self):
            raise InputError(
                "a process got no clip: the stream has fewer clips than there are processes, launch fewer"
            )
        # A stream may end before that of another process: then its last clips again, which count for nothing.
        for _ in range(count, len(self)):
            yield batch | {"indices": torch.full_like(batch["indices"], NO_CLIP)}
