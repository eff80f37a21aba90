"""From a corpus to batches: what one training example is, and how several become padded tensors.

packed corpus --SignVideoDataset-->   {"index", "pixel_values_videos" uint8 (T, 3, H, W), "labels"}  --+
feature cache --SignFeatureDataset--> {"index", "sign_features" (N, C), "labels"}                      --+--> collator
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from processing_fla import normalize_text
from processing_fla.video_decoding_fla import sample_frame_indices
from training_fla.data.augmentation import ClipAugmentation
from training_fla.files import InputError


class Targets:
    """The sentences of a split as label ids.

    Args:
        sentences (`Sequence[str]`): raw sentences.
        processor ([`~processing_fla.FlaProcessor`]): normalises and tokenises them.
        max_tokens (`int`): a longer target is refused.
        names (`Sequence[str]`): clip ids, for the message.

    Raises:
        InputError: a sentence that is empty or longer than `max_tokens`, naming the clip.
    """

    def __init__(self, sentences: Sequence[str], processor, max_tokens: int, names: Sequence[str]):
        texts = [normalize_text(sentence) for sentence in sentences]
        self.label_ids = processor.tokenizer(text_target=texts)["input_ids"] if texts else []
        for name, text, ids in zip(names, texts, self.label_ids, strict=True):
            if not text.strip():
                raise InputError(f"clip {name} has an empty sentence")
            if len(ids) > max_tokens:
                raise InputError(
                    f"clip {name}: its sentence has {len(ids)} tokens, more than max_target_tokens {max_tokens}"
                )

    def __getitem__(self, index: int) -> list[int]:
        return self.label_ids[index]


class SignVideoDataset(Dataset):
    """The clips of one split as `uint8` frames.

    Every random choice is a function of (seed, epoch, clip), so a resumed run and any number of workers draw the same.

    Args:
        corpus ([`~training_fla.data.packing.PackedCorpus`]): one split.
        processor ([`~processing_fla.FlaProcessor`]): says which frames are kept and how large they are.
        max_target_tokens (`int`): longest target.
        augmentation ([`~training_fla.data.augmentation.ClipAugmentation`], *optional*): training only.
        random_frame_phase (`bool`): draw the kept frame of each window; training only.
        max_source_frames (`int`, *optional*): longer clips are thinned evenly first.
        max_clips (`int`, *optional*): keep only the first so many clips.
        seed (`int`): of the random choices.
    """

    def __init__(
        self,
        corpus,
        processor,
        max_target_tokens: int = 128,
        augmentation: ClipAugmentation | None = None,
        random_frame_phase: bool = False,
        max_source_frames: int | None = None,
        max_clips: int | None = None,
        seed: int = 0,
    ):
        self.corpus, self.video_processor, self.augmentation = corpus, processor.video_processor, augmentation
        self.random_frame_phase, self.max_source_frames, self.seed = random_frame_phase, max_source_frames, seed
        # A corpus may have been packed thinned already; what is left to thin is the rest.
        self.stride, rest = divmod(self.video_processor.frame_stride, corpus.frame_stride)
        if rest or not self.stride:
            raise InputError(
                f"{corpus.folder} keeps one frame in {corpus.frame_stride}, which does not fit "
                f"frame_stride {self.video_processor.frame_stride}; pack it with every frame"
            )
        count = len(corpus) if max_clips is None else min(max_clips, len(corpus))
        self.ids, self.sentences = list(corpus.ids[:count]), list(corpus.sentences[:count])
        self.targets = Targets(self.sentences, processor, max_target_tokens, self.ids)
        self.lengths = [len(self.frame_indices(index)) for index in range(count)]
        # Shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn next.

        Args:
            epoch (`int`): counted from 0.
        """
        self._epoch.fill_(epoch)

    def frame_indices(self, index: int, generator: np.random.Generator | None = None) -> np.ndarray:
        """Which source frames of a clip are kept.

        Args:
            index (`int`): the clip.
            generator (`np.random.Generator`, *optional*): draws the phase; without it the phase is fixed.

        Returns:
            `np.ndarray` of shape `(T,)`, int64: source frames, ascending.
        """
        source_frames = np.arange(self.corpus.num_frames[index])
        limit = self.max_source_frames and -(-self.max_source_frames // self.corpus.frame_stride)
        if limit and len(source_frames) > limit:
            source_frames = np.linspace(0, len(source_frames) - 1, limit).round().astype(np.int64)
        return source_frames[sample_frame_indices(len(source_frames), self.stride, generator)]

    def __getitem__(self, index: int) -> dict:
        generator = np.random.default_rng([self.seed, int(self._epoch), index])
        kept = self.frame_indices(index, generator if self.random_frame_phase else None)
        frames = self.corpus.read_frames(index, kept)  # (T, 3, H, W)
        if self.augmentation is not None:
            frames = self.augmentation(frames, generator)
        else:
            frames = evaluation_frames(frames, self.video_processor)
        return {"index": index, "pixel_values_videos": frames, "labels": self.targets[index]}


class SignFeatureDataset(Dataset):
    """The clips of one split as stored sign features; no frame is decoded.

    Args:
        features ([`~training_fla.data.features.FeatureCache`]): stored sign features, clip by clip.
        videos ([`SignVideoDataset`]): the same clips, for their sentences.
    """

    def __init__(self, features, videos: SignVideoDataset):
        self.features, self.targets = features, videos.targets
        self.ids, self.sentences, self.lengths = videos.ids, videos.sentences, videos.lengths

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        return {"index": index, "sign_features": self.features[index], "labels": self.targets[index]}


def evaluation_frames(frames: torch.Tensor, video_processor) -> torch.Tensor:
    """Resize and crop frames exactly as the processor does with a video file.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8 RGB as packed.
        video_processor ([`~processing_fla.FlaVideoProcessor`]): the sizes.

    Returns:
        `torch.Tensor` of shape `(T, 3, crop, crop)`: uint8 RGB; a view where the packed size is the right one already.
    """
    H, W = frames.shape[-2:]
    size, crop = video_processor.size, video_processor.crop_size
    if [size["height"], size["width"]] != [H, W]:
        raw = {"do_sample_frames": False, "do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
        return video_processor(frames, **raw)["pixel_values_videos"][0]
    top, left = round((H - crop["height"]) / 2), round((W - crop["width"]) / 2)
    return frames[..., top : top + crop["height"], left : left + crop["width"]]


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
        # Where the process that trains can see it: else the worker copies the filled batch there, which takes as long.
        shared = torch.UntypedStorage._new_shared(math.prod(shape) * clip.element_size())
        batch = torch.empty(0, dtype=clip.dtype).set_(shared).view(shape)
    elif clip.dtype == torch.uint8:
        # numpy asks for large memory pages, torch does not: filling the batch takes a third of the time.
        batch = torch.from_numpy(np.empty(shape, dtype=np.uint8))
    else:
        batch = clip.new_empty(shape)
    return batch.permute(0, 1, 4, 2, 3) if are_frames else batch


class SignTranslationCollator:
    """Pads examples into a batch.

    Args:
        prepare_decoder_input_ids (`Callable`): the model's `prepare_decoder_input_ids_from_labels`.

    Returns (when called with a list of examples):
        `dict`: `pixel_values_videos` uint8 `(B, T, 3, H, W)` or `sign_features` `(B, N, C)`, zero where padded;
        `attention_mask` int64 `(B, T)`, 1 for real; `labels` int64 `(B, L)`, -100 where padded; `decoder_input_ids`
        `(B, L)`; `indices` int64 `(B,)`, the place of each clip in its split.
    """

    def __init__(self, prepare_decoder_input_ids: Callable[[torch.Tensor], torch.Tensor]):
        self.prepare_decoder_input_ids = prepare_decoder_input_ids

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Pad a list of examples; see the class."""
        door = "sign_features" if "sign_features" in examples[0] else "pixel_values_videos"
        clips = [example[door] for example in examples]
        lengths = torch.tensor([len(clip) for clip in clips])
        batch = empty_batch(clips)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)], row[len(clip) :] = clip, 0
        label_ids = [torch.tensor(example["labels"]) for example in examples]
        labels = torch.nn.utils.rnn.pad_sequence(label_ids, batch_first=True, padding_value=-100)
        return {
            door: batch,
            "attention_mask": (torch.arange(batch.shape[1]) < lengths[:, None]).long(),
            "labels": labels,
            "decoder_input_ids": self.prepare_decoder_input_ids(labels),
            "indices": torch.tensor([example["index"] for example in examples]),
        }


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
