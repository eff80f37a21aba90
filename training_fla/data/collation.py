"""From examples to a padded batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad
from torch.utils.data import get_worker_info

from processing_fla.processing_fla import IGNORED_LABEL, real_positions

MULTIPLE = 16  # of sizes that are rounded up; attention kernels copy masks whose rows begin elsewhere


@dataclass(frozen=True)
class RoundedSizes:
    """Batches of few sizes, for a GPU, which plans its convolutions and attention anew for each size.

    N and L are rounded up to multiples of 16, as far as the language model has positions. Frames come alone, without
    those that pad a video, and their number is rounded up likewise.
    """

    most_positions: int | None = None  # of the language model's encoder
    most_tokens: int | None = None  # of its decoder

    def positions(self, longest: int) -> int:
        """N of a batch whose longest clip has so many."""
        return rounded(longest, self.most_positions)

    def tokens(self, longest: int) -> int:
        """L of a batch whose longest sentence has so many."""
        return rounded(longest, self.most_tokens)


def rounded(number: int, most: int | None = None) -> int:
    """A number rounded up to a multiple of 16, or to `most` where that is less; never less than the number."""
    up = -(-number // MULTIPLE) * MULTIPLE
    return up if most is None else max(number, min(up, most))


def empty_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory for a batch.

    Args:
        shape (`tuple[int, ...]`): of the batch.
        dtype (`torch.dtype`): of the batch.

    Returns:
        `torch.Tensor` of that shape: not yet filled.
    """
    if get_worker_info() is not None:
        # Shared with the process that trains: else the worker copies the filled batch there, which takes as long.
        shared = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
        return torch.empty(0, dtype=dtype).set_(shared).view(shape)
    if dtype == torch.uint8:
        # numpy asks for large memory pages, torch does not: filling the batch takes a third of the time.
        return torch.from_numpy(np.empty(shape, dtype=np.uint8))
    return torch.empty(shape, dtype=dtype)


def padded(clips: list[torch.Tensor], length: int) -> torch.Tensor:
    """Clips beside each other; frames lie channels last, as the decoder gives them.

    Args:
        clips (`list[torch.Tensor]`): `(T, 3, H, W)` frames or `(N, C)` features, of one type and size.
        length (`int`): of the longest clip, or more.

    Returns:
        `torch.Tensor` of shape `(B, length, 3, H, W)` or `(B, length, C)`: zero at padding.
    """
    clip, are_frames = clips[0], clips[0].dim() == 4
    size = clip.permute(0, 2, 3, 1).shape[1:] if are_frames else clip.shape[1:]
    batch = empty_memory((len(clips), length, *size), clip.dtype)
    batch = batch.permute(0, 1, 4, 2, 3) if are_frames else batch
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)], row[len(clip) :] = clip, 0
    return batch


def one_after_the_other(clips: list[torch.Tensor]) -> torch.Tensor:
    """The frames of all clips, and zeros up to a multiple of 16; they lie channels last.

    Args:
        clips (`list[torch.Tensor]`): `(T, 3, H, W)` frames of one type and size.

    Returns:
        `torch.Tensor` of shape `(P, 3, H, W)`: the frames of the first clip, of the second, and so on.
    """
    size = clips[0].permute(0, 2, 3, 1).shape[1:]
    number = sum(map(len, clips))
    batch = empty_memory((rounded(number), *size), clips[0].dtype).permute(0, 3, 1, 2)
    for row, clip in zip(batch[:number].split([len(clip) for clip in clips]), clips, strict=True):
        row.copy_(clip)
    batch[number:] = 0
    return batch


class SignTranslationCollator:
    """Pads examples into a batch: those of our datasets, or rows that a `FlaProcessor` made one at a time.

    Args:
        prepare_decoder_input_ids (`Callable`, *optional*): the model's `prepare_decoder_input_ids_from_labels`; a
            Trainer that smooths labels takes them away from the model. Workers that are not forked get a copy of the
            model with it.
        sizes ([`RoundedSizes`], *optional*): how sizes are rounded up; batches are as long as they must be without.
    """

    def __init__(
        self,
        prepare_decoder_input_ids: Callable[[torch.Tensor], torch.Tensor] | None = None,
        sizes: RoundedSizes | None = None,
    ):
        self.prepare_decoder_input_ids = prepare_decoder_input_ids
        self.sizes = sizes

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Pad a list of examples.

        Args:
            examples (`list[dict]`): each with `pixel_values_videos` `(T, 3, H, W)` or `sign_features` `(N, C)`, and
                `labels`; maybe `attention_mask` `(T,)`, whose zeros are left out, and `index`, the place in the split.
                A batch of one, as a processor returns it, is taken for its only row.

        Returns:
            `dict`: `pixel_values_videos` `(B, T, 3, H, W)` or `sign_features` `(B, N, C)` in the dtype of the
            examples, zero at padding; `attention_mask` int64 `(B, T)`, 1 for real; `labels` int64 `(B, L)`, -100 at
            padding; `decoder_input_ids` `(B, L)` if it was told how to make them; where the examples have an `index`,
            `indices` int64 `(B,)` and `positions` int64 `(R,)`, the places in `B * T` of real positions. With `sizes`
            the frames are `(P, 3, H, W)`, and `positions` `(P,)` are `B * T` for those beyond the real ones; then
            the examples may have `places`, which are `(B, H, W)` here.

        Raises:
            ValueError: an example has neither frames nor features, or more than one clip.
        """
        name = "sign_features" if "sign_features" in examples[0] else "pixel_values_videos"
        clips = [real_positions(example, name) for example in examples]
        lengths = torch.tensor([len(clip) for clip in clips])
        label_ids = [torch.as_tensor(example["labels"]).flatten() for example in examples]
        label_ids = [ids[ids != IGNORED_LABEL] for ids in label_ids]
        labels = torch.nn.utils.rnn.pad_sequence(label_ids, batch_first=True, padding_value=IGNORED_LABEL)
        longest = int(lengths.max())
        if self.sizes is not None:
            longest = self.sizes.positions(longest)
            labels = pad(labels, (0, self.sizes.tokens(labels.shape[1]) - labels.shape[1]), value=IGNORED_LABEL)
        are_alone = self.sizes is not None and name == "pixel_values_videos"
        inputs = {
            name: one_after_the_other(clips) if are_alone else padded(clips, longest),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "labels": labels,
        }
        if self.prepare_decoder_input_ids is not None:
            inputs["decoder_input_ids"] = self.prepare_decoder_input_ids(labels)
        if "places" in examples[0]:
            inputs["places"] = torch.stack([example["places"] for example in examples])
        if all("index" in example for example in examples):
            inputs["indices"] = torch.tensor([example["index"] for example in examples])
            # Known here, so that the model need not ask its device.
            positions = inputs["attention_mask"].flatten().nonzero().squeeze(1)
            if are_alone:
                beyond = len(inputs[name]) - len(positions)
                positions = pad(positions, (0, beyond), value=inputs["attention_mask"].numel())
            inputs["positions"] = positions
        return inputs
