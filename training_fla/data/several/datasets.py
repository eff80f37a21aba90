"""The examples of several corpora as one dataset, and how many of each corpus an epoch has."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from torch.utils.data import Dataset

from training_fla.recipe import CorpusEntry


@dataclass(frozen=True)
class DatasetPart:
    """One corpus of several in a dataset: its name, the convention of its scores, and which clips are its."""

    name: str
    convention: str
    clips: range


class SeveralDatasets(Dataset):
    """The examples of several corpora, one corpus after the other; `index` is a clip's place in the whole."""

    def __init__(self, datasets: Sequence[Dataset], entries: Sequence[CorpusEntry], conventions: Sequence[str]):
        self.datasets = datasets
        self.stops = list(accumulate(map(len, datasets)))
        ranges = map(range, [0, *self.stops], self.stops)
        rows = zip(entries, conventions, ranges, strict=True)
        self.parts = [DatasetPart(entry.name, convention, clips) for entry, convention, clips in rows]
        self.lengths = np.concatenate([np.asarray(dataset.lengths) for dataset in datasets])
        self.mixture: EpochMixture | None = None  # of a split that is trained on; `None`: every clip once an epoch

    @property
    def ids(self) -> list[str]:
        """The id of each clip behind the name of its corpus."""
        pairs = zip(self.parts, self.datasets, strict=True)
        return [f"{part.name}/{name}" for part, dataset in pairs for name in dataset.ids]

    @property
    def sentences(self) -> list[str]:
        """The sentence of each clip."""
        return [sentence for dataset in self.datasets for sentence in dataset.sentences]

    @property
    def languages(self) -> list[str] | None:
        """The language of each clip; `None` where all have one."""
        if self.datasets[0].languages is None:
            return None
        return [code for dataset in self.datasets for code in dataset.languages]

    @property
    def videos(self) -> Dataset:
        """The first corpus: what varies its clips varies those of the others."""
        return self.datasets[0]

    def __len__(self) -> int:
        return self.stops[-1]

    def __getitem__(self, index: int) -> dict:
        place = bisect_right(self.stops, index)
        return self.datasets[place][index - self.parts[place].clips.start] | {"index": index}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn next, counted from 0."""
        for dataset in self.datasets:
            if hasattr(dataset, "set_epoch"):
                dataset.set_epoch(epoch)

    def clips_of_epoch(self, epoch: int) -> np.ndarray | None:
        """Which clips an epoch has, in no order; `None`: every clip once."""
        return None if self.mixture is None else self.mixture.clips(epoch)


def epoch_counts(counts: Sequence[int], weights: Sequence[float], temperature: float) -> list[int]:
    """How many clips of each corpus an epoch has; together they are as many as there are clips.

    A corpus of n clips is drawn in proportion to weight x n^(1 / temperature): at 1, as its clips are; the higher, the
    more alike are small and large corpora.
    """
    # Unstated: the paper trains on one corpus; Arivazhagan et al. 2019, Sec. 4.2, draw languages so.
    shares = np.array(weights) * np.array(counts, dtype=float) ** (1 / temperature)
    exact = shares / shares.sum() * sum(counts)
    drawn = np.maximum(1, np.floor(exact)).astype(int)
    for place in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, sum(counts) - drawn.sum())]:
        drawn[place] += 1
    while drawn.sum() > sum(counts):  # a corpus of less than one clip an epoch has one
        drawn[drawn.argmax()] -= 1
    return drawn.tolist()


class EpochMixture:
    """Which clips an epoch has where corpora are drawn more or less often than their clips are many.

    Of each corpus all clips as often as they fit in, and of one shuffled order so many more, the next epoch the next
    ones: after some epochs each clip was seen as often as the others.
    """

    def __init__(self, parts: Sequence[range], drawn: Sequence[int], seed: int):
        self.parts, self.drawn = parts, drawn
        self.orders = [np.random.default_rng([seed, n]).permutation(part) for n, part in enumerate(parts)]

    def clips(self, epoch: int) -> np.ndarray:
        """Places in the dataset, in no order; some twice, some not at all."""
        chosen = []
        for order, drawn in zip(self.orders, self.drawn, strict=True):
            whole, more = divmod(drawn, len(order))
            chosen += [np.tile(order, whole), order.take(epoch * more + np.arange(more), mode="wrap")]
        return np.concatenate(chosen)

    def longest(self, lengths: np.ndarray) -> np.ndarray:
        """An epoch of which no other is longer; `lengths` are the sampled frames of each clip."""
        by_length = [order[np.argsort(-lengths[order], kind="stable")] for order in self.orders]
        return np.concatenate([np.resize(order, drawn) for order, drawn in zip(by_length, self.drawn, strict=True)])
