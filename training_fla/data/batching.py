"""Batches of clips of similar length, as many as fit a budget of frames: memory stays flat where lengths vary."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset, Sampler

from training_fla.files import InputError

# Unstated: clips are sorted by length among about so many batches drawn at random, so that batches differ every epoch.
BATCHES_A_WINDOW = 50
# Unstated: windows cut one by one fill some batches less than the corpus cut as a whole; so much is left for that.
SPARE_BATCHES = 0.02


class EpochSampler(Sampler[int]):
    """Every clip once an epoch, in an order that depends on nothing but (seed, epoch).

    transformers' own length sampler draws from the global generator, so a resumed run would see other batches.

    Args:
        lengths (`Sequence[int]`): of the clips, in sampled frames.
        seed (`int`): of the order.
        batch_size (`int`, *optional*): group clips of similar length: among every 50 batches drawn at random, batches
            are cut in order of length and then shuffled. Without it the order is a plain permutation.
    """

    def __init__(self, lengths: Sequence[int], seed: int, batch_size: int | None = None):
        self.lengths, self.seed, self.batch_size, self.epoch = np.asarray(lengths), seed, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next.

        Args:
            epoch (`int`): counted from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if self.batch_size is not None:
            window = 50 * self.batch_size
            order = np.concatenate(
                [
                    part[np.argsort(self.lengths[part], kind="stable")]
                    for part in np.split(order, range(window, len(order), window))
                ]
            )
            batches = np.split(order, range(self.batch_size, len(order), self.batch_size))
            full = [batch for batch in batches if len(batch) == self.batch_size]
            rest = [batch for batch in batches if len(batch) != self.batch_size]  # last, or it would shift the others
            order = np.concatenate([full[i] for i in generator.permutation(len(full))] + rest)
        return iter(order.tolist())


class FrameBudgetSampler(Sampler[list[int]]):
    """Every clip once an epoch, in batches whose frames, padding included, stay within a budget.

    A batch sampler, for `DataLoader(batch_sampler=...)`. The order depends on seed and epoch alone. Every epoch has
    the same number of batches, so that the length of a schedule is known, and every process has equally many; the
    batches of one step, on all processes and all accumulated ones, hold about equally many frames, so that none waits.

    Args:
        lengths (`Sequence[int]`): frames of each clip, as sampled.
        max_frames (`int`): most frames in a batch: its clips times the longest of them.
        max_clips (`int`, *optional*): most clips in a batch.
        seed (`int`): of the order.
        shuffle (`bool`): false gives the clips in order of length, longest first: a lack of memory shows at once.
        names (`Sequence[str]`, *optional*): of the clips, for messages; their places when absent.
        accumulation (`int`): batches a process takes to one step.
        num_processes (`int`): that share the batches.
        process_index (`int`): which of them this is.

    Raises:
        InputError: a clip is longer than the budget, or there are too few clips for a batch each.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_frames: int,
        max_clips: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        names: Sequence[str] | None = None,
        accumulation: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if max_frames < 1:
            raise InputError(f"a budget of {max_frames} frames a batch holds none")
        if len(self.lengths) and self.lengths.max() > max_frames:
            longest = int(self.lengths.argmax())
            raise InputError(
                f"clip {longest if names is None else names[longest]} has {self.lengths[longest]} frames, more than "
                f"the budget of {max_frames} a batch: raise it, or thin long clips with max_source_frames"
            )
        if max_clips is not None and max_clips < 1:
            raise InputError(f"a batch needs at least one clip, not {max_clips}")
        self.max_frames, self.max_clips, self.seed, self.shuffle, self.epoch = max_frames, max_clips, seed, shuffle, 0
        self.batches_a_step = accumulation * num_processes
        self.num_processes, self.process_index = num_processes, process_index
        self.num_batches = self._count()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches()[self.process_index :: self.num_processes])

    def __len__(self) -> int:
        return self.num_batches // self.num_processes

    def _count(self) -> int:
        """How many batches an epoch has on all processes: whole steps, and some more than the fewest possible."""
        fewest = len(self._cut(np.argsort(-self.lengths, kind="stable")))
        wanted = fewest + int(np.ceil(SPARE_BATCHES * fewest)) if self.shuffle else fewest
        steps = min(-(-wanted // self.batches_a_step), len(self.lengths) // self.batches_a_step)
        if steps * self.batches_a_step < fewest:
            raise InputError(
                f"{len(self.lengths)} clips make {fewest} batches of {self.max_frames} frames and cannot be dealt out "
                f"to steps of {self.batches_a_step}: give a larger budget, or take fewer batches to a step"
            )
        return steps * self.batches_a_step

    def _batches(self) -> list[list[int]]:
        if not self.shuffle:
            return self._split_largest(self._cut(np.argsort(-self.lengths, kind="stable")))
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        mean = max(1.0, float(self.lengths.mean())) if len(order) else 1.0
        clips_a_batch = min(self.max_clips or len(order), max(1, int(self.max_frames / mean)))
        window = max(1, BATCHES_A_WINDOW * clips_a_batch)
        batches = self._cut_windows(order, window)
        while len(batches) > self.num_batches:  # one window over all makes the fewest, so this ends
            window *= 2
            batches = self._cut_windows(order, window)
        batches = self._split_largest(batches)
        batches.sort(key=lambda batch: -len(batch) * self.lengths[batch[0]])
        steps = [batches[start : start + self.batches_a_step] for start in range(0, len(batches), self.batches_a_step)]
        return [batch for step in generator.permutation(len(steps)) for batch in steps[step]]

    def _cut_windows(self, order: np.ndarray, window: int) -> list[list[int]]:
        """Cut every `window` clips of an order by themselves."""
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            batches += self._cut(part[np.argsort(-self.lengths[part], kind="stable")])
        return batches

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

    def _split_largest(self, batches: list[list[int]]) -> list[list[int]]:
        """Halve the batches of most clips until there are as many as an epoch has."""
        while len(batches) < self.num_batches:
            largest = max(range(len(batches)), key=lambda place: len(batches[place]))
            batch = batches[largest]
            middle = -(-len(batch) // 2)
            batches[largest : largest + 1] = [batch[:middle], batch[middle:]]
        return batches


def check_batching(args, frames_per_batch: int | None) -> None:
    """Refuse lines of a recipe that say different things about what a batch is.

    Args:
        args ([`~transformers.Seq2SeqTrainingArguments`]): sampling, batch size, launcher.
        frames_per_batch (`int`, *optional*): the budget.

    Raises:
        InputError: a line that is not supported, or not together with a budget.
    """
    if args.train_sampling_strategy not in ("random", "group_by_length"):
        raise InputError(
            f"train_sampling_strategy must be random or group_by_length, got {args.train_sampling_strategy}"
        )
    if frames_per_batch is None:
        return
    config = args.accelerator_config
    contradicting = {
        "auto_find_batch_size": args.auto_find_batch_size,
        "dataloader_drop_last": args.dataloader_drop_last,
        "accelerator_config.split_batches": config.split_batches,
        "accelerator_config.dispatch_batches": config.dispatch_batches,
    }
    for name, value in contradicting.items():
        if value:
            raise InputError(
                f"{name} is for batches of equally many clips, not for frames_per_batch {frames_per_batch}"
            )
    if args.n_gpu > 1:
        raise InputError(f"frames_per_batch needs one process a GPU: start {args.n_gpu} with `accelerate launch`")


def budget_loader(
    dataset: Dataset, sampler: FrameBudgetSampler, collate: Callable, args, accelerator: Accelerator
) -> DataLoader:
    """Load the batches of a sampler onto this process's device.

    Args:
        dataset (`Dataset`): the training clips.
        sampler ([`FrameBudgetSampler`]): for this process.
        collate (`Callable`): pads a list of examples.
        args ([`~transformers.Seq2SeqTrainingArguments`]): workers and pinned memory.
        accelerator ([`~accelerate.Accelerator`]): the device.

    Returns:
        `DataLoader`: as Accelerate prepares one, which a trainer can resume in the middle of an epoch.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
        in_order=args.dataloader_in_order,
    )
    return prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,  # the sampler has dealt out the batches already
        process_index=0,
        put_on_device=True,
        rng_types=list(accelerator.rng_types),
        non_blocking=accelerator.non_blocking,
    )
