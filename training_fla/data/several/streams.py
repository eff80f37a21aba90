"""Several streams as one, whose clips come in turn."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from training_fla.data.streaming import SignVideoStream

from .datasets import SeveralDatasets


class SeveralStreams(IterableDataset):
    """The examples of several streams; the next one is of a stream drawn in proportion to what an epoch has of it.

    An epoch reads a stream as often as the clips that are drawn of it need; of the last time only a part is kept.
    """

    def __init__(self, streams: Sequence[SignVideoStream], whole: SeveralDatasets, drawn: Sequence[int], seed: int):
        self.streams, self.whole, self.seed = streams, whole, seed
        self.ids, self.videos = whole.ids, whole.videos
        self.times = [count / len(part.clips) for count, part in zip(drawn, whole.parts, strict=True)]

    def __len__(self) -> int:
        return sum(round(len(stream) * times) for stream, times in zip(self.streams, self.times, strict=True))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn next, counted from 0."""
        for stream in self.streams:
            stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        generator = np.random.default_rng([self.seed, self.videos.epoch, worker.id if worker else 0])
        shares = np.array([len(stream) * times for stream, times in zip(self.streams, self.times, strict=True)])
        examples = [
            self.examples(place, np.random.default_rng(generator.integers(2**63))) for place in range(len(shares))
        ]
        while shares.any():
            place = generator.choice(len(shares), p=shares / shares.sum())
            example = next(examples[place], None)
            if example is None:
                shares[place] = 0
            else:
                yield example

    def examples(self, place: int, generator: np.random.Generator) -> Iterator[dict]:
        """The examples of one stream, read as often as an epoch has its clips."""
        first = self.whole.parts[place].clips.start
        left = self.times[place]
        while left > 0:
            for example in self.streams[place]:
                if left >= 1 or generator.random() < left:
                    yield example | {"index": first + example["index"]}
            left -= 1
