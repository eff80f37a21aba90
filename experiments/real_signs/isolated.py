"""Which sign is a clip of a single one? A linear layer says it from what a frozen visual encoder makes of the clip.

The features of the positions at which hands move are averaged over each third of that time. The three means, side by
side, are what the linear layer reads. How strongly its weights are drawn to zero is chosen on dev.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.feature_store import FeatureEncoder, FeatureStore
from training_fla.data.packed_corpus import shard_ranges
from training_fla.dictionary.lexicon import Signs
from training_fla.loading import loading

PARTS = 3  # of the time in which hands move
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
STEPS = 60  # of L-BFGS, which then has converged


@dataclass
class SingleSigns:
    """Pooled features `(n, PARTS * C)` float32 of clips by their ids."""

    ids: list[str]
    features: torch.Tensor


def pool_signs(run: Path, signs: Signs, cache: Path) -> SingleSigns:
    """What the visual encoder of a run makes of each sign of a dictionary; it is stored below `cache`."""
    with loading(str(run)):
        model = FlaForConditionalGeneration.from_pretrained(run).requires_grad_(False)
        processor = FlaProcessor.from_pretrained(run)
    videos = SignVideoDataset(signs.corpus, processor, max_target_tokens=10**9)
    encoder = FeatureEncoder(model, batch_size=16)
    stored = FeatureStore(cache / encoder.fingerprint(videos), shard_ranges(len(videos)))
    stored.encode_missing(encoder, videos, PartialState())
    pooled = []
    for index, id_ in enumerate(videos.ids):
        seconds = videos.kept(signs.corpus.num_frames[index]) / signs.fps(id_)
        pooled.append(pool(stored[index].float(), seconds, *signs.moving[id_]))
    return SingleSigns(list(videos.ids), torch.stack(pooled))


def pool(features: torch.Tensor, seconds: np.ndarray, start: float, end: float) -> torch.Tensor:
    """Means `(PARTS * C,)` of features `(N, C)` at rising `seconds`, over each part of the time from start to end."""
    moving = np.flatnonzero((seconds >= start) & (seconds <= end))
    moving = moving if len(moving) >= PARTS else np.arange(len(features))
    return torch.cat([features[part].mean(0) for part in np.array_split(moving, min(PARTS, len(moving)))])


def read_signs(splits: dict[str, tuple[torch.Tensor, Sequence[str]]]) -> tuple[list[str], float]:
    """Read the test split by a linear layer, and how strongly its weights were drawn to zero.

    Args:
        splits (`dict[str, tuple[torch.Tensor, Sequence[str]]]`): of train, dev and test the features `(n, F)` float32,
            and the glosses of the clips.

    Returns:
        `tuple[list[str], float]`: a gloss for each test clip, and the weight decay that reads most of dev.
    """
    features, glosses = splits["train"]
    names = sorted(set(glosses))
    mean, deviation = features.mean(0), features.std(0) + 1e-5
    targets = torch.tensor([names.index(gloss) for gloss in glosses])
    scaled = {split: (values - mean) / deviation for split, (values, _) in splits.items()}
    best = (-1, None, 0.0)
    for weight_decay in WEIGHT_DECAYS:
        layer = trained_layer(scaled["train"], targets, len(names), weight_decay)
        read = {split: [names[index] for index in layer(scaled[split]).argmax(-1)] for split in ("dev", "test")}
        right = sum(one == other for one, other in zip(read["dev"], splits["dev"][1], strict=True))
        best = max(best, (right, read["test"], weight_decay), key=lambda found: found[0])
    return best[1], best[2]


def trained_layer(features: torch.Tensor, targets: torch.Tensor, size: int, weight_decay: float) -> nn.Linear:
    """A linear layer from features `(n, F)` to `size` scores, by the least penalised cross-entropy."""
    layer = nn.Linear(features.shape[1], size)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(features), targets) + weight_decay * layer.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer.requires_grad_(False)
