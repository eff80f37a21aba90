"""How well can glosses be read from what a frozen visual encoder makes of a clip? A small network reads them by CTC.

Recognition by a linear layer, alone, behind a hidden layer or of five positions together, measures what the sign
features hold, not what a language model makes of them. A probe is trained until the dev split stops improving.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from experiments.gloss_errors import gloss_error_rate
from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.feature_store import FeatureEncoder, FeatureStore
from training_fla.data.packed_corpus import PackedCorpus, shard_ranges
from training_fla.loading import loading

KINDS = ("linear", "hidden", "five")
# Unstated: the paper has no probe.
HIDDEN_SIZE = 256
POSITIONS = 5  # that the probe `five` reads together, as many before as after
BATCH_SIZE = 32
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 5e-2
# The rate falls each time that dev has not improved for so many epochs; below the last rate the probe has converged.
EPOCHS_TO_DEV = 10
PATIENCE = 100
RATE_FACTOR = 0.3
LAST_RATE = 1e-4
MOST_EPOCHS = 10_000
# Added to the score of CTC's blank, chosen on dev: it balances inserted and missed glosses.
BLANKS = range(-4, 21)


@dataclass
class EncodedSplit:
    """Sign features of each clip of a split, `(N, C)` float32, and its glosses, separated by spaces."""

    features: list[torch.Tensor]
    glosses: list[str]


def encode_splits(run: Path, dataset: Path, cache: Path) -> dict[str, EncodedSplit]:
    """The visual encoder's features of train, dev and test; they are stored below `cache`."""
    with loading(str(run)):
        model = FlaForConditionalGeneration.from_pretrained(run).requires_grad_(False)
        processor = FlaProcessor.from_pretrained(run)
    splits = {}
    for split in ("train", "dev", "test"):
        corpus = PackedCorpus(dataset, split)
        videos = SignVideoDataset(corpus, processor, max_target_tokens=10**9)
        encoder = FeatureEncoder(model, batch_size=32)
        stored = FeatureStore(cache / encoder.fingerprint(videos), shard_ranges(len(videos)))
        stored.encode_missing(encoder, videos, PartialState())
        features = [stored[index] for index in range(len(stored))]
        splits[split] = EncodedSplit(features, list(corpus.column("glosses")))
    return splits


def probe_glosses(splits: dict[str, EncodedSplit], kind: str, seed: int) -> dict[str, Any]:
    """Train a probe, and read dev and test with it: predictions and references of each, and how it was trained."""
    probe = GlossProbe(kind, splits["train"], seed)
    blank = probe.train_until_dev_stops(splits["train"], splits["dev"])
    result: dict[str, Any] = {"probe": kind, "seed": seed, "epochs": probe.epochs, "converged": probe.has_converged}
    for name in ("dev", "test"):
        references = splits[name].glosses
        result[name] = {"predictions": probe.read(splits[name].features, blank), "references": references}
    return result


class GlossProbe:
    """A small network from sign features `(N, C)` to scores of glosses `(N, glosses + 1)`; 0 is CTC's blank.

    Args:
        kind (`str`): `"linear"`, `"hidden"` for one hidden layer before it, `"five"` for five positions together.
        train (`EncodedSplit`): its features are scaled to mean 0 and deviation 1; its glosses are those that are read.
        seed (`int`): of weights and order.
    """

    def __init__(self, kind: str, train: EncodedSplit, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.names = ["", *sorted({gloss for line in train.glosses for gloss in line.split()})]
        frames = torch.cat(train.features)
        self.mean, self.deviation = frames.mean(0), frames.std(0) + 1e-5
        size = frames.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if kind not in KINDS:
                raise ValueError(f"a probe is one of {', '.join(KINDS)}, got {kind!r}")
            if kind == "linear":
                self.network = nn.Linear(size, len(self.names))
            elif kind == "five":
                self.network = nn.Sequential(Neighbours(), nn.Linear(POSITIONS * size, len(self.names)))
            else:
                hidden, output = nn.Linear(size, HIDDEN_SIZE), nn.Linear(HIDDEN_SIZE, len(self.names))
                self.network = nn.Sequential(hidden, nn.ReLU(), output)
        self.epochs, self.has_converged = 0, False

    def train_until_dev_stops(self, train: EncodedSplit, dev: EncodedSplit) -> float:
        """Train, keep the weights with the fewest gloss errors on dev, and return the weight of CTC's blank there."""
        clips, targets = self.scaled(train.features), self.targets_of(train.glosses)
        optimizer = torch.optim.AdamW(self.network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=RATE_FACTOR, patience=PATIENCE // EPOCHS_TO_DEV
        )
        fewest, best_blank, best_weights = float("inf"), 0.0, {}
        while self.epochs < MOST_EPOCHS and not self.has_converged:
            for _ in range(EPOCHS_TO_DEV):
                self.train_epoch(clips, targets, optimizer)
            errors, blank = self.errors_on(dev)
            if errors < fewest:
                fewest, best_blank, best_weights = errors, blank, copy.deepcopy(self.network.state_dict())
            schedule.step(errors)
            self.has_converged = schedule.get_last_lr()[0] < LAST_RATE
        self.network.load_state_dict(best_weights)
        return best_blank

    def train_epoch(
        self, clips: list[torch.Tensor], targets: list[torch.Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Take one step a batch; `clips` are scaled features `(N, C)`, `targets` their glosses `(L,)`, from 1 on."""
        criterion = nn.CTCLoss(zero_infinity=True)  # of a clip with fewer positions than its glosses need
        for batch in torch.randperm(len(clips), generator=self.generator).split(BATCH_SIZE):
            inputs = [clips[index] for index in batch]
            labels = [targets[index] for index in batch]
            scores = self.network(nn.utils.rnn.pad_sequence(inputs)).log_softmax(-1)  # (N, B, glosses + 1)
            input_lengths = torch.tensor([len(clip) for clip in inputs])
            label_lengths = torch.tensor([len(line) for line in labels])
            loss = criterion(scores, torch.cat(labels), input_lengths, label_lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.epochs += 1

    def errors_on(self, dev: EncodedSplit) -> tuple[float, float]:
        """The fewest gloss errors on dev, in percent, and the weight of CTC's blank that gives them."""
        scores = self.scores(dev.features)
        errors = {blank: gloss_error_rate(self.best_lines(scores, blank), dev.glosses) for blank in BLANKS}
        best = min(errors, key=errors.__getitem__)
        return errors[best], best

    def read(self, features: list[torch.Tensor], blank: float) -> list[str]:
        """The glosses of each clip of features `(N, C)`."""
        return self.best_lines(self.scores(features), blank)

    @torch.no_grad()
    def scores(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Scores `(N, glosses + 1)` of each clip of features `(N, C)`."""
        return [self.network(clip) for clip in self.scaled(features)]

    def best_lines(self, scores: list[torch.Tensor], blank: float) -> list[str]:
        """The best gloss of each position, repetitions and blanks removed; `blank` is added to the blank's score."""
        lines = []
        for clip in scores:
            shifted = clip.clone()
            shifted[:, 0] += blank
            best = shifted.argmax(-1).unique_consecutive().tolist()
            lines.append(" ".join(self.names[index] for index in best if index))
        return lines

    def scaled(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Features `(N, C)` as the network reads them."""
        return [(clip - self.mean) / self.deviation for clip in features]

    def targets_of(self, lines: list[str]) -> list[torch.Tensor]:
        """Glosses by their numbers, `(L,)` each."""
        return [torch.tensor([self.names.index(gloss) for gloss in line.split()]) for line in lines]


class Neighbours(nn.Module):
    """Each position with those beside it; beyond the ends there are zeros."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(N, ..., C)`, as of one clip or of a batch, become `(N, ..., POSITIONS * C)`."""
        beyond = features.new_zeros(POSITIONS // 2, *features.shape[1:])
        windows = torch.cat([beyond, features, beyond]).unfold(0, POSITIONS, 1)  # (N, ..., C, POSITIONS)
        return windows.flatten(-2)
