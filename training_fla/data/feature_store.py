"""Stored sign features, from which stage 2 trains without decoding a frame: our own encoder's, or another program's.

    <folder>/features-00000-of-00002.safetensors      a tensor `(N, C)` a clip, named by its place in the split

A feature corpus has such a folder for each split, and beside them index and manifest as a packed corpus has. The
feature cache of a training run is the same in another place: the folder's name is a fingerprint of encoder, processor,
corpus and precision, so a changed encoder never reads stale features. A killed run goes on with the shards that are
missing.
"""

import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from modeling_fla.visual_encoder_fla import FRAMES_AT_ONCE
from training_fla.console import progress
from training_fla.corpora.feature_files import load_features
from training_fla.corpora.row import CorpusRow
from training_fla.errors import InputError
from training_fla.folders import atomic_file, atomic_folder, locked_folder, write_marker

from .collation import RoundedSizes, SignTranslationCollator
from .packed_corpus import INDEX_COLUMNS, SCHEMA, PackedCorpus, describe_folder, file_sha256, shard_ranges
from .worker_processes import START_METHOD

if TYPE_CHECKING:
    from processing_fla import FlaVideoProcessor

FORMAT = "fla-features-4"  # of a cache; another one is made anew
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CACHE_REMEDY = "delete it, and the next run makes it again"
CORPUS_REMEDY = "prepare the features again"
INDEX_SCHEMA = pa.schema([SCHEMA.field(name) for name in INDEX_COLUMNS])
PARTS = ("visual_encoder", "light_t_encoder")
CHECKED_CLIPS = 10
# The distance of stored features from new ones, as a share of the new ones' norm. Unstated: of the tests' encoder,
# bfloat16 and other batches move features by 0.007; another clip is 0.2 away or more, another encoder 1.8.
TOLERANCE = 0.05


class SampledVideos(Protocol):
    """What is encoded: the clips of a split as frames, as `SignVideoDataset` has them."""

    corpus: PackedCorpus
    video_processor: "FlaVideoProcessor"
    ids: Sequence[str]
    lengths: Sequence[int]  # sampled frames of each clip

    def __len__(self) -> int:
        """The number of clips."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A clip as the collator takes it."""


class FeatureStore:
    """The sign features of one split; cheap to open, to pickle and to fork, because they stay in mapped files."""

    def __init__(self, folder: Path, shards: Sequence[range], remedy: str = CACHE_REMEDY):
        self.folder = folder
        self.shards = shards  # which clips of the split lie in which file
        self.remedy = remedy  # for damage
        self._stops = [shard.stop for shard in shards]
        self._files: dict[int, tuple[safe_open, dict[str, int]]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __getitem__(self, index: int) -> torch.Tensor:
        """The features `(N, C)` of a clip, in the stored type; refused where they are not as they were written."""
        number = bisect_right(self._stops, index)
        stored, checksums = self.open(number)
        with suppress(SafetensorError):
            features = stored.get_tensor(str(index))
            if _checksum(features) == checksums.get(str(index)):
                return features
        raise InputError(f"{self.file(number)} is damaged at clip {index}; {self.remedy}")

    def file(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"features-{number:05d}-of-{len(self.shards):05d}.safetensors"

    def open(self, number: int) -> tuple[safe_open, dict[str, int]]:
        """Map a shard, once a process: its file and the checksum of each clip."""
        if number not in self._files:
            file = self.file(number)
            try:
                stored = safe_open(file, "pt")
                metadata = stored.metadata()
                checksums = json.loads(metadata["checksums"])
            except FileNotFoundError:
                raise InputError(f"{file} is missing; {self.remedy}") from None
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file} is damaged ({error}); {self.remedy}") from None
            if metadata.get("cache") != self.folder.name or list(map(int, checksums)) != list(self.shards[number]):
                raise InputError(f"{file} is of another cache or place; {self.remedy}")
            self._files[number] = (stored, checksums)
        return self._files[number]

    def missing(self) -> list[int]:
        """The shards that are not there, whole."""
        numbers = []
        for number in range(len(self.shards)):
            try:
                self.open(number)
            except InputError:
                numbers.append(number)
        return numbers

    def write(self, number: int, clips: Mapping[int, torch.Tensor]) -> None:
        """Write a shard, features `(N, C)` by place in the split; it appears when it is whole."""
        tensors = {str(index): clips[index].contiguous() for index in self.shards[number]}
        checksums = json.dumps({name: _checksum(features) for name, features in tensors.items()})
        try:
            with atomic_file(self.file(number), overwrite=True) as work:
                save_file(tensors, work, {"cache": self.folder.name, "checksums": checksums})
        except (OSError, SafetensorError) as error:
            remedy = "make room, then give the same command again"
            raise InputError(f"cannot write {self.file(number)}: {error}; {remedy}") from error

    def write_shards(
        self,
        numbers: Sequence[int],
        encoded: Iterator[tuple[int, torch.Tensor]],
        dtype: torch.dtype,
        split: str,
        is_quiet: bool = False,
    ) -> None:
        """Write shards as their places and features `(N, C)` come, in the type to store."""
        total = sum(len(self.shards[number]) for number in numbers)
        with progress(total=total, desc=f"sign features of {split}", unit="clip", disable=is_quiet) as bar:
            for number in numbers:
                clips = {}
                for index, features in islice(encoded, len(self.shards[number])):
                    clips[index] = features.to(dtype, copy=True)  # a view would keep the padded batch
                    bar.update()
                self.write(number, clips)

    def encode_missing(
        self, encoder: "FeatureEncoder", videos: SampledVideos, state: PartialState, num_workers: int = 0
    ) -> None:
        """Encode the clips of the shards that are not there, all processes sharing the work."""
        missing = self.missing()
        state.wait_for_everyone()  # all have looked before one changes anything
        if missing:
            own = missing[state.process_index :: state.num_processes]
            with self._held(state), encoder.on_device(state.device):
                encoded = encoder.encode(videos, [self.shards[number] for number in own], state.device, num_workers)
                is_quiet = not state.is_local_main_process
                self.write_shards(own, encoded, getattr(torch, encoder.dtype), videos.corpus.split, is_quiet)
        for number in range(len(self.shards)):
            self.open(number)

    @contextmanager
    def _held(self, state: PartialState) -> Iterator[None]:
        """Keep other runs from writing the folder; the main process does so for all."""
        with ExitStack() as stack:
            if state.is_main_process:
                stack.enter_context(locked_folder(self.folder, self.folder))
                write_marker(self.folder, "features")
                for half_written in self.folder.glob(".*.writing"):  # by a run that was killed
                    half_written.unlink(missing_ok=True)
            state.wait_for_everyone()
            yield
            state.wait_for_everyone()


def open_features(corpus: PackedCorpus) -> FeatureStore:
    """The features of one split of a feature corpus."""
    places = accumulate(corpus.shard_clips, initial=0)
    shards = [range(start, stop) for start, stop in pairwise(places)]
    return FeatureStore(corpus.folder / corpus.split, shards, CORPUS_REMEDY)


def batches_by_frames(clips: Iterable[int], lengths: Sequence[int], most_clips: int) -> list[list[int]]:
    """Clips of similar length, as many as the backbone takes frames at once, padding included.

    What workers have ready lies in `/dev/shm`: batches of so many clips alone would fill it.
    """
    batches: list[list[int]] = []
    for clip in sorted(clips, key=lambda index: lengths[index]):
        is_full = batches and (len(batches[-1]) + 1) * lengths[clip] > FRAMES_AT_ONCE
        if not batches or is_full or len(batches[-1]) == most_clips:
            batches.append([])
        batches[-1].append(clip)
    return batches


def _checksum(features: torch.Tensor) -> int:
    """CRC-32 of the type, shape and bytes of features `(N, C)`, which are contiguous and on the CPU."""
    return zlib.crc32(features.view(torch.uint8).numpy(), zlib.crc32(f"{features.dtype} {features.shape}".encode()))


@dataclass(frozen=True)
class FeatureEncoder:
    """The visually frozen part of a model, and how it is run and what it makes is stored."""

    model: nn.Module
    dtype: str = "float32"  # to store, or `bfloat16`
    precision: str = "fp32"  # of the encoder, or `bf16` or `fp16`
    batch_size: int = 8  # most clips a forward

    def fingerprint(self, videos: SampledVideos) -> str:
        """16 hexadecimal digits that change with anything the stored features of `videos` depend on."""
        digest = hashlib.sha256()
        state = self.model.state_dict()
        for name in sorted(name for name in state if name.split(".")[0] in PARTS):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy())
        config = self.model.config
        configs = {"vision_config": config.vision_config.to_dict()}
        if config.input_features == "hidden":
            configs["light_t_config"] = config.light_t_config.to_dict()
        for values in configs.values():
            for own_to_the_run in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
                values.pop(own_to_the_run, None)
        settings = configs | {
            "format": FORMAT,
            "input_features": config.input_features,
            "light_t_input_embed_scale": getattr(config, "light_t_input_embed_scale", None),
            "processor": videos.video_processor.to_dict(),
            "corpus": videos.corpus.fingerprint,
            "clips": list(videos.ids),
            "dtype": self.dtype,
            "precision": self.precision,
        }
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Move the frozen parts to a device, in evaluation mode, for the length of the block."""
        parts = [part for part in (getattr(self.model, name, None) for name in PARTS) if part is not None]
        before = [(next(part.parameters()).device, part.training) for part in parts]
        for part in parts:
            part.to(device).eval()
        try:
            yield
        finally:
            for part, (device_before, was_training) in zip(parts, before, strict=True):
                part.to(device_before).train(was_training)

    @torch.inference_mode()
    def encode(
        self,
        videos: SampledVideos,
        shards: Iterable[Iterable[int]],  # which of its clips
        device: torch.device,
        num_workers: int = 0,  # processes that decode frames
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Encode clips shard by shard, in batches of similar length and of few frames.

        Yields:
            `tuple[int, torch.Tensor]`: the place of a clip in its split, and its features `(N, C)`, on the CPU.
        """
        batches = []
        for shard in shards:
            batches += batches_by_frames(shard, videos.lengths, self.batch_size)
        # A GPU is to see few sizes; no clip becomes longer than one of the split is.
        sizes = RoundedSizes(most_positions=int(max(videos.lengths))) if device.type == "cuda" else None
        loader = DataLoader(
            videos,
            batch_sampler=batches,
            collate_fn=SignTranslationCollator(sizes=sizes),
            num_workers=num_workers,
            multiprocessing_context=START_METHOD if num_workers else None,
            pin_memory=device.type == "cuda",
            # Its own, or the numbers drawn in training (dropout) would depend on whether the cache was there already.
            generator=torch.Generator(),
        )
        for batch in loader:
            frames = batch["pixel_values_videos"].to(device, non_blocking=True)
            mask = batch["attention_mask"].to(device, non_blocking=True)
            positions = batch["positions"].to(device, non_blocking=True)
            with torch.autocast(device.type, AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST):
                features = self.model.get_sign_features(frames, mask, positions).cpu()  # (B, N, C)
            lengths = batch["attention_mask"].sum(1).tolist()
            for index, clip, length in zip(batch["indices"].tolist(), features, lengths, strict=True):
                yield index, clip[:length]

    def check(self, store: FeatureStore, videos: SampledVideos, device: torch.device) -> None:
        """Compare the stored features of clips spread over a split with what their frames give now."""
        clips = sorted({round(place) for place in np.linspace(0, len(store) - 1, CHECKED_CLIPS)})
        with self.on_device(device):
            for index, features in self.encode(videos, [clips], device):
                now = features.float()
                stored = store[index].float()
                is_same = stored.shape == now.shape and (stored - now).norm() <= TOLERANCE * now.norm()
                if not is_same:
                    place = f"the visual encoder at clip {videos.ids[index]}"
                    raise InputError(f"the feature cache {store.folder} does not match {place}; delete it")


class UnstoredFeatures(dict):
    """The features `(N, C)` of some clips of a split by place, where `--check` writes no store."""

    def __init__(self, encoder: FeatureEncoder, videos: SampledVideos):
        super().__init__()
        self.encoder, self.videos = encoder, videos

    def __reduce__(self):
        return dict, (dict(self),)  # workers that are not forked need no encoder

    def encode(self, clips: Iterable[int], device: torch.device, num_workers: int) -> None:
        """Add the features of some clips."""
        with self.encoder.on_device(device):
            for index, features in self.encoder.encode(self.videos, [sorted(set(clips))], device, num_workers):
                self[index] = features.to(getattr(torch, self.encoder.dtype), copy=True)


@dataclass
class FeatureSplit:
    """One split of a feature corpus to be written: of each clip what the index holds, and its features."""

    ids: Sequence[str]
    sentences: Sequence[str]
    signers: Sequence[str]
    languages: Sequence[str]
    lengths: Sequence[int]  # N
    features: Iterator[tuple[int, torch.Tensor]]  # place in the split and `(N, C)`, shard by shard

    def index(self) -> pa.Table:
        """The index, in which frames have no size."""
        columns = [list(self.ids), list(self.sentences), list(self.signers), list(self.languages), list(self.lengths)]
        no_size = [0] * len(self.ids)
        return pa.table([*columns, no_size, no_size], schema=INDEX_SCHEMA)


def write_feature_corpus(
    out: Path,
    splits: Mapping[str, FeatureSplit],
    *,
    feature_size: int,  # C
    extractor: str,  # what made them, for the cards
    dtype: str,
    frame_stride: int,
    corpus: str,
    skipped: Sequence[Sequence[str]] = (),
    overwrite: bool = False,
) -> None:
    """Write a feature corpus, which takes its place at `out` when it is whole."""
    entries = {}
    indexes = {}
    with atomic_folder(out, "corpus", overwrite) as work:
        for name, split in splits.items():
            index = indexes[name] = split.index()
            (work / name).mkdir()
            store = FeatureStore(work / name, shard_ranges(len(index)))
            store.write_shards(range(len(store.shards)), split.features, getattr(torch, dtype), name)
            entries[name] = {"clips": len(index), "frames": int(sum(split.lengths)), "shards": []}
            for number, clips in enumerate(store.shards):
                file = store.file(number)
                shard = {"file": f"{name}/{file.name}", "bytes": file.stat().st_size, "sha256": file_sha256(file)}
                entries[name]["shards"].append(shard | {"clips": len(clips)})
        describe_folder(
            work,
            entries,
            indexes,
            skipped=skipped,
            card=f"Sign features made by {extractor or 'an extractor that is not named'}.\n",
            parameters={
                "feature_size": feature_size,
                "extractor": extractor,
                "dtype": dtype,
                "frame_stride": frame_stride,
            },
            corpus=corpus,
        )


def splits_of_files(
    clips: Sequence[tuple[CorpusRow, int]], frame_stride: int, shoulders: Sequence[int] | None = None
) -> dict[str, FeatureSplit]:
    """The splits of feature files that another program made: of the rows that name them, and their lengths N."""
    load = partial(load_features, stride=frame_stride, shoulders=shoulders)
    if not clips:
        raise InputError("there are no features to store")
    splits = {}
    for name in dict.fromkeys(row.split for row, _ in clips):
        of_split = [(row, N) for row, N in clips if row.split == name]
        rows = [row for row, _ in of_split]
        splits[name] = FeatureSplit(
            ids=[row.id for row in rows],
            sentences=[row.sentence for row in rows],
            signers=[row.signer for row in rows],
            languages=[row.language for row in rows],
            lengths=[N for _, N in of_split],
            features=enumerate(map(load, (row.video.path for row in rows))),
        )
    return splits
