"""A linear CTC probe: how well glosses can be read from what a visual encoder makes of clips, frame by frame.

The encoder stays as it is. Recognition by one linear layer measures what its features hold, not what a language model
makes of them.
"""

from pathlib import Path

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

# Unstated: the paper has no probe. Chosen on the dev split of one encoder.
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 160, 32, 2e-2, 5e-2
BLANKS = range(-4, 21)  # added to the score of CTC's blank, which balances inserted and missed glosses


def probe_glosses(run: Path, dataset: Path, features: Path, seed: int = 0) -> dict[str, dict[str, list[str]]]:
    """What the probe reads in dev, which chooses from `BLANKS`, and in test; `features` keeps the encoder's."""
    with loading(str(run)):
        model = FlaForConditionalGeneration.from_pretrained(run).requires_grad_(False)
        processor = FlaProcessor.from_pretrained(run)
    clips, glosses = {}, {}
    for split in ("train", "dev", "test"):
        corpus = PackedCorpus(dataset, split)
        glosses[split] = list(corpus.column("glosses"))
        videos = SignVideoDataset(corpus, processor, max_target_tokens=10**9)
        encoder = FeatureEncoder(model, batch_size=32)
        stored = FeatureStore(features / encoder.fingerprint(videos), shard_ranges(len(videos)))
        stored.encode_missing(encoder, videos, PartialState())
        clips[split] = [stored[index] for index in range(len(stored))]
    names = ["", *sorted({gloss for line in glosses["train"] for gloss in line.split()})]  # CTC's blank is 0
    probe = train_probe(clips["train"], [[names.index(g) for g in line.split()] for line in glosses["train"]], seed)

    def read(split: str, blank: float) -> dict[str, list[str]]:
        shift = blank * torch.eye(len(names))[0]
        best = [(probe(clip) + shift).argmax(-1).unique_consecutive().tolist() for clip in clips[split]]
        predictions = [" ".join(names[index] for index in line if index) for line in best]
        return {"predictions": predictions, "references": glosses[split]}

    blank = min(BLANKS, key=lambda blank: gloss_error_rate(**read("dev", blank)))
    return {split: read(split, blank) for split in ("dev", "test")}


def train_probe(clips: list[torch.Tensor], targets: list[list[int]], seed: int) -> nn.Sequential:
    """Train one linear layer by CTC on features that have mean 0 and deviation 1 over the training split.

    Args:
        clips (`list[torch.Tensor]`): features `(N, C)` of each training clip, float32.
        targets (`list[list[int]]`): its glosses, from 1 on; 0 is CTC's blank.
        seed (`int`): of weights and order.

    Returns:
        `nn.Sequential`: from features `(N, C)` to scores `(N, glosses + 1)`.
    """
    torch.manual_seed(seed)
    frames = torch.cat(clips)
    scaling = nn.BatchNorm1d(frames.shape[1], affine=False).eval()
    scaling.running_mean, scaling.running_var = frames.mean(0), frames.var(0)
    layer = nn.Linear(frames.shape[1], 1 + max(index for line in targets for index in line))
    optimizer = torch.optim.AdamW(layer.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(clips) // BATCH_SIZE))
    criterion = nn.CTCLoss(zero_infinity=True)  # of a clip with fewer frames than its glosses need
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(clips)).split(BATCH_SIZE):
            inputs = [scaling(clips[index]) for index in batch]
            labels = [torch.tensor(targets[index]) for index in batch]
            scores = layer(nn.utils.rnn.pad_sequence(inputs)).log_softmax(-1)  # (N, B, glosses + 1)
            lengths = (torch.tensor([len(each) for each in side]) for side in (inputs, labels))
            loss = criterion(scores, torch.cat(labels), *lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return nn.Sequential(scaling, layer)
