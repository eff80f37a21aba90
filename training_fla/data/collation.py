"""From examples to a padded batch."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import get_worker_info

from processing_fla.processing_fla import IGNORED_LABEL, real_positions


def empty_batch(clips: list[torch.Tensor]) -> torch.Tensor:
    """Memory for a padded batch of clips; frames lie in it channels last, as the decoder gives them.

    Args:
        clips (`list[torch.Tensor]`): `(T, 3, H, W)` frames or `(N, C)` features, of one type and size.

    Returns:
        `torch.Tensor` of shape `(B, T, 3, H, W)` or `(B, N, C)`: of the longest clip's length, not yet filled.
    """
    clip, are_frames = clips[0], clips[0].dim() == 4
    size = clip.permute(0, 2, 3, 1).shape[1:] if are_frames else clip.shape[1:]
    shape = (len(clips), max(map(len, clips)), *size)
    if get_worker_info() is not None:
        # Shared with the process that trains: else the worker copies the filled batch there, which takes as long.
        shared = torch.UntypedStorage._new_shared(math.prod(shape) * clip.element_size())
        batch = torch.empty(0, dtype=clip.dtype).set_(shared).view(shape)
    elif clip.dtype == torch.uint8:
        # numpy asks for large memory pages, torch does not: filling the batch takes a third of the time.
        batch = torch.from_numpy(np.empty(shape, dtype=np.uint8))
    else:
        batch = clip.new_empty(shape)
    return batch.permute(0, 1, 4, 2, 3) if are_frames else batch


class SignTranslationCollator:
    """Pads examples into a batch: those of our datasets, or rows that a `FlaProcessor` made one at a time.

    Args:
        prepare_decoder_input_ids (`Callable`, *optional*): the model's `prepare_decoder_input_ids_from_labels`; a
            Trainer that smooths labels takes them away from the model. Workers that are not forked get a copy of the
            model with it.
    """

    def __init__(self, prepare_decoder_input_ids: Callable[[torch.Tensor], torch.Tensor] | None = None):
        self.prepare_decoder_input_ids = prepare_decoder_input_ids

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
            `indices` int64 `(B,)` and `positions` int64 `(R,)`, the places in `B * T` of real positions.

        Raises:
            ValueError: an example has neither frames nor features, or more than one clip.
        """
        name = "sign_features" if "sign_features" in examples[0] else "pixel_values_videos"
        clips = [real_positions(example, name) for example in examples]
        lengths = torch.tensor([len(clip) for clip in clips])
        batch = empty_batch(clips)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)], row[len(clip) :] = clip, 0
        label_ids = [torch.as_tensor(example["labels"]).flatten() for example in examples]
        label_ids = [ids[ids != IGNORED_LABEL] for ids in label_ids]
        labels = torch.nn.utils.rnn.pad_sequence(label_ids, batch_first=True, padding_value=IGNORED_LABEL)
        inputs = {
            name: batch,
            "attention_mask": (torch.arange(batch.shape[1]) < lengths[:, None]).long(),
            "labels": labels,
        }
        if self.prepare_decoder_input_ids is not None:
            inputs["decoder_input_ids"] = self.prepare_decoder_input_ids(labels)
        if all("index" in example for example in examples):
            inputs["indices"] = torch.tensor([example["index"] for example in examples])
            # Known here, so that the model need not ask its device.
            inputs["positions"] = inputs["attention_mask"].flatten().nonzero().squeeze(1)
        return inputs
