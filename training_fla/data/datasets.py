"""The clips of a split as frames, augmented where the visual encoder is trained, or as stored features."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from processing_fla import FlaProcessor, normalize_text
from training_fla.console import note
from training_fla.errors import InputError
from training_fla.recipe import DataArguments, Recipe

from .augmentation import ClipAugmentation
from .feature_store import (
    FeatureEncoder,
    FeatureSplit,
    FeatureStore,
    UnstoredFeatures,
    open_features,
    write_feature_corpus,
)
from .packed_corpus import PackedCorpus, packed_splits, shard_ranges

# A token is at least a byte of its sentence, beside the special ones.
SPECIAL_TOKENS = 8


class Targets:
    """The sentences of a split as label ids, tokenised when asked for; bad ones are refused at once."""

    def __init__(
        self,
        corpus: PackedCorpus,
        count: int,
        processor: FlaProcessor,
        max_tokens: int,
        languages: Sequence[str] | None = None,  # of the clips, where a run has several
    ):
        self.corpus, self.processor, self.max_tokens, self.languages = corpus, processor, max_tokens, languages
        for index, sentence in enumerate(corpus.sentences[:count]):
            text = normalize_text(sentence)
            if not text.strip():
                raise InputError(f"clip {corpus.ids[index]} has an empty sentence")
            if len(text.encode()) > max_tokens - SPECIAL_TOKENS:
                self[index]

    def __getitem__(self, index: int) -> list[int]:
        language = None if self.languages is None else self.languages[index]
        ids = self.processor.labels([self.corpus.sentences[index]], language)[0]
        if len(ids) > self.max_tokens:
            clip, limit = self.corpus.ids[index], f"max_target_tokens {self.max_tokens}"
            raise InputError(f"clip {clip}: its sentence has {len(ids)} tokens, more than {limit}")
        return ids


class SignVideoDataset(Dataset):
    """The clips of one split as `uint8` frames.

    Every random choice is a function of (seed, epoch, clip), so a resumed run and any number of workers draw the same.
    """

    def __init__(
        self,
        corpus: PackedCorpus,
        processor: FlaProcessor,
        max_target_tokens: int = 128,
        augmentation: ClipAugmentation | None = None,
        random_frame_phase: bool = False,  # draw the kept frame of each window
        max_clips: int | None = None,  # keep only the first so many
        seed: int = 0,
        languages: Sequence[str] | None = None,  # of the clips, where a run has several
        crops_later: bool = False,  # give whole frames, and where a varied clip's pixels lie in them
    ):
        self.crops_later = crops_later
        self.corpus, self.video_processor, self.augmentation = corpus, processor.video_processor, augmentation
        self.random_frame_phase, self.seed = random_frame_phase, seed
        # A corpus may have been packed thinned already; what is left to thin is the rest.
        if (stride := self.video_processor.frame_stride) % corpus.frame_stride:
            kept = f"{corpus.folder} keeps one frame in {corpus.frame_stride}"
            raise InputError(f"{kept}, which does not fit frame_stride {stride}; pack it with every frame")
        self.count = len(corpus) if max_clips is None else min(max_clips, len(corpus))
        self.targets = Targets(corpus, self.count, processor, max_target_tokens, languages)
        self.lengths = self.sampled_frames()
        # Shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    ids = property(lambda self: self.corpus.ids[: self.count])
    sentences = property(lambda self: self.corpus.sentences[: self.count])
    languages = property(lambda self: self.targets.languages and self.targets.languages[: self.count])

    def __len__(self) -> int:
        return self.count

    def sampled_frames(self) -> np.ndarray:
        """The sampled frames of each clip, `(clips,)`."""
        counts = self.corpus.num_frames.array[: self.count].to_numpy()
        if self.video_processor.target_fps is None:
            counts, places = np.unique(counts, return_inverse=True)
            return np.array([len(self.kept(int(count))) for count in counts])[places]
        if self.corpus.frame_stride > 1:
            kept = f"{self.corpus.folder} keeps one frame in {self.corpus.frame_stride}"
            raise InputError(f"{kept}, which does not fit target_fps: pack it with every frame")
        kinds, places = np.unique(np.stack([counts, self.corpus.rates[: self.count]]), axis=1, return_inverse=True)
        return np.array([len(self.kept(int(count), fps=rate)) for count, rate in kinds.T])[places]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn next, counted from 0."""
        self._epoch.fill_(epoch)

    def kept(self, num_frames: int, generator: np.random.Generator | None = None, fps: float = 0.0) -> np.ndarray:
        """Which packed frames of a clip of so many are kept; `generator` draws their phase, which else is fixed."""
        return self.video_processor.sample_frame_indices(num_frames, generator, self.corpus.frame_stride, fps)

    epoch = property(lambda self: int(self._epoch))

    def __getitem__(self, index: int) -> dict:
        return self.example(index)

    def example(self, index: int, clip: pa.RecordBatch | None = None) -> dict:
        """A clip as the collator takes it; `clip` is its row of a shard, where a stream brought it."""
        generator = np.random.default_rng([self.seed, self.epoch, index])
        fps = 0.0 if self.video_processor.target_fps is None else float(self.corpus.rates[index])
        kept = self.kept(self.corpus.num_frames[index], generator if self.random_frame_phase else None, fps)
        frames = self.corpus.read_frames(index, kept, clip)  # (T, 3, H, W)
        if self.augmentation is None:
            frames = self.video_processor.scale_and_crop(frames)
        else:
            frames = self.video_processor.scale(frames)
            source_size = self.corpus.source_size(index)
            if self.crops_later:
                places = self.augmentation.places(tuple(frames.shape[-2:]), generator, source_size)
                labels = self.targets[index]
                return {"index": index, "pixel_values_videos": frames, "places": places, "labels": labels}
            frames = self.augmentation(frames, generator, source_size)
        return {"index": index, "pixel_values_videos": frames, "labels": self.targets[index]}


class SignFeatureDataset(Dataset):
    """The clips of one split as stored sign features; no frame is decoded."""

    def __init__(self, features: "FeatureStore | UnstoredFeatures", targets: Targets, lengths: np.ndarray):
        self.features, self.targets, self.lengths = features, targets, lengths  # lengths (clips,): N of each
        corpus, count = targets.corpus, len(lengths)
        self.ids, self.sentences = corpus.ids[:count], corpus.sentences[:count]
        self.languages = targets.languages and targets.languages[:count]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        return {"index": index, "sign_features": self.features[index], "labels": self.targets[index]}


def clip_augmentation(data: DataArguments, learns: bool) -> tuple[ClipAugmentation | None, bool]:
    """What varies a training clip from epoch to epoch, and whether the phase of its frames does."""
    phase = learns if data.random_frame_phase is None else data.random_frame_phase
    probability = data.augmentation_probability
    if probability is None:
        probability = ClipAugmentation.probability if learns else 0.0
    if data.crop_size > data.frame_size:
        raise InputError(f"crop_size {data.crop_size} is more than frame_size {data.frame_size}")
    given = {name: getattr(data, name) for name in ("rotate_degrees", "resize_factor", "translate_pixels")}
    given = {name: value for name, value in given.items() if value is not None}
    augmentation = ClipAugmentation(data.crop_size, probability=probability, **given)
    return augmentation if probability or phase else None, phase


def make_datasets(
    recipe: Recipe,
    args,
    splits,
    processor: FlaProcessor,
    model,
    languages: Mapping[str, Sequence[str] | None] | None = None,  # of the clips of each split, where a run has several
) -> dict[str, Dataset]:
    """The splits `train`, varied where the visual encoder learns, `dev` and `test`: as frames or stored features."""
    data, are_features = recipe.data, splits.train.feature_size is not None
    if splits.train.feature_size != model.config.sign_feature_size:
        raise InputError(f"{splits.train.folder} holds features, no frames: stage 2 trains on it, stage 1 cannot")
    # Only training refuses a long sentence; dev and test score it.
    options = {"train": {"max_target_tokens": recipe.text.max_target_tokens, "max_clips": data.max_train_clips}}
    options |= dict.fromkeys(("dev", "test"), {"max_target_tokens": sys.maxsize, "max_clips": data.max_eval_clips})
    if not are_features:
        augmentation, phase = clip_augmentation(data, learns=not model.visual_encoder_is_frozen)
        if augmentation is not None and augmentation.probability and args.process_index == 0:
            note_unknown_source(splits.train)
        options["train"] |= {"augmentation": augmentation, "random_frame_phase": phase, "seed": args.seed}
        # A GPU crops in no time, and workers need not; a zoom is resized, which they do.
        is_on_gpu = args.device.type == "cuda" and augmentation is not None
        options["train"] |= {"crops_later": is_on_gpu and not augmentation.resize_factor}
    for name, codes in (languages or {}).items():
        options[name] = options[name] | {"languages": codes}
    make = prepared if are_features else SignVideoDataset
    datasets = {name: make(getattr(splits, name), processor, **given) for name, given in options.items()}
    check_lengths(datasets, model)
    if not are_features and uses_feature_cache(recipe, model):
        return {name: stored(recipe, args, model, videos) for name, videos in datasets.items()}
    return datasets


def note_unknown_source(corpus: PackedCorpus) -> None:
    """Say how frames are varied whose shape before packing is unknown."""
    if len(corpus) and corpus.source_size(0) is None:
        packed = f"{corpus.folder} was packed by 0.3.0 or older, which did not store the size of the source's frames"
        note(
            f"note: {packed}: they are turned and shifted as if the stored ones were the source's; pack again to mend"
        )


def prepared(
    corpus: PackedCorpus,
    processor: FlaProcessor,
    max_target_tokens: int,
    max_clips: int | None,
    languages: Sequence[str] | None = None,
) -> Dataset:
    """A split of a feature corpus."""
    count = len(corpus) if max_clips is None else min(max_clips, len(corpus))
    targets = Targets(corpus, count, processor, max_target_tokens, languages)
    return SignFeatureDataset(open_features(corpus), targets, corpus.num_frames.array[:count].to_numpy())


def check_lengths(datasets: dict[str, Dataset], model) -> None:
    """Refuse an empty split, and a clip longer than the language model's position table, if it has one."""
    limit = model.max_sign_positions
    for name, dataset in datasets.items():
        if not len(dataset):
            raise InputError(f"the {name} split holds no clip")
        place = int(np.argmax(dataset.lengths))
        if limit is not None and dataset.lengths[place] > limit:
            clip = f"{name} clip {dataset.ids[place]} has {dataset.lengths[place]} sampled frames"
            raise InputError(f"{clip}, the language model {limit} positions: set frame_stride or max_source_frames")


def uses_feature_cache(recipe: Recipe, model) -> bool:
    """Whether the recipe asks for stored features and nothing visual is trained or varied."""
    setting = getattr(recipe.model, "feature_cache", None)
    augmentation, _ = clip_augmentation(recipe.data, learns=False)
    is_given = setting not in (None, "auto")
    if is_given and not model.visual_encoder_is_frozen:
        reason = "features can be stored only where the whole visual encoder is frozen"
        raise InputError(f"feature_cache {setting}: {reason}")
    if is_given and augmentation is not None:
        remedy = "drop `random_frame_phase` and `augmentation_probability`, or set feature_cache: null"
        raise InputError(f"feature_cache {setting}: features are stored once, so clips cannot vary; {remedy}")
    is_possible = model.visual_encoder_is_frozen and augmentation is None and not recipe.data.streaming
    return setting is not None and is_possible


def feature_folder(recipe: Recipe) -> Path:
    """Where a recipe's features are stored."""
    setting = recipe.model.feature_cache
    return recipe.output_dir.parent / "features" if setting == "auto" else Path(setting)


def stored(recipe: Recipe, args, model, videos: SignVideoDataset) -> SignFeatureDataset:
    """A split as stored features, which are made where they are missing."""
    encoder = FeatureEncoder(
        model,
        dtype=recipe.model.feature_dtype,
        precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        batch_size=args.per_device_eval_batch_size,
    )
    store = FeatureStore(feature_folder(recipe) / encoder.fingerprint(videos), shard_ranges(len(videos)))
    if recipe.run.check and store.missing():
        return SignFeatureDataset(UnstoredFeatures(encoder, videos), videos.targets, videos.lengths)
    store.encode_missing(encoder, videos, args.distributed_state, args.dataloader_num_workers)
    encoder.check(store, videos, args.distributed_state.device)
    return SignFeatureDataset(store, videos.targets, videos.lengths)


def write_encoded_corpus(
    encoder: FeatureEncoder,
    processor: FlaProcessor,
    folder: Path,
    out: Path,
    *,
    extractor: str,
    num_workers: int,
    overwrite: bool,
) -> None:
    """Write what a visual encoder makes of all splits of a packed corpus."""
    model = encoder.model.eval()
    splits = {}
    for split in packed_splits(folder):
        corpus = PackedCorpus(folder, split)
        if corpus.feature_size is not None:
            raise InputError(f"{folder} holds features already, no frames")
        videos = SignVideoDataset(corpus, processor, sys.maxsize)
        splits[split] = FeatureSplit(
            corpus.ids,
            corpus.sentences,
            corpus.signers,
            corpus.column("language"),
            videos.lengths,
            encoder.encode(videos, shard_ranges(len(corpus)), model.device, num_workers),
        )
    write_feature_corpus(
        out,
        splits,
        feature_size=model.config.adapter_input_size,
        extractor=extractor,
        dtype=encoder.dtype,
        frame_stride=processor.video_processor.frame_stride,
        corpus=corpus.corpus,
        overwrite=overwrite,
    )
