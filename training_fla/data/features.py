"""Stored sign features, from which stage 2 trains without decoding a frame: our own encoder's, or another program's.

    <folder>/features-00000-of-00002.safetensors      a tensor (N, C) a clip, named by its place in the split

In a cache that stage 2 makes the folder's name is a fingerprint of encoder, processor, corpus and precision, so a
changed encoder never reads stale features; a killed run goes on with the shards that are missing. In a feature corpus
the folders are `train`, `dev` and `test`, and beside them lie index and manifest as in a packed corpus.
"""

import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from training_fla.console import progress
from training_fla.corpora.row import CorpusRow, Reading
from training_fla.errors import InputError, first_line
from training_fla.folders import atomic_file, atomic_folder, locked_folder, write_marker

from .collation import SignTranslationCollator
from .packed_corpus import INDEX_COLUMNS, SCHEMA, PackedCorpus, describe_folder, file_sha256
from .worker_processes import START_METHOD

FORMAT = "fla-features-3"
FEATURE_SUFFIXES = (".npy", ".npz", ".pt", ".safetensors", ".h5", ".hdf5")
MAX_SHARD_CLIPS = 128  # a shard is held in memory while it is made
CHECKED_CLIPS = 10
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
REMEDY = "delete it, and the next run makes it again"
INDEX_SCHEMA = pa.schema([SCHEMA.field(name) for name in INDEX_COLUMNS])
PARTS = ("visual_encoder", "light_t_encoder")


class FeatureCache:
    """Stored sign features of one split; cheap to open, to pickle and to fork, because they stay in mapped files."""

    def __init__(self, folder: Path, num_clips: int, remedy: str = REMEDY):
        self.folder, self.shards, self.remedy = folder, cut_into_shards(num_clips), remedy
        self._files: dict[int, tuple[safe_open, dict[str, int]]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def __len__(self) -> int:
        return self.shards[-1].stop

    def __getitem__(self, index: int) -> torch.Tensor:
        """The features `(N, C)` of a clip, in the stored type; refused where they are not as they were written."""
        number = index // len(self.shards[0])
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
                notes = stored.metadata()
                checksums = json.loads(notes["checksums"])
            except FileNotFoundError:
                raise InputError(f"{file} is missing") from None
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file} is damaged ({error}); {self.remedy}") from None
            if notes.get("cache") != self.folder.name or list(map(int, checksums)) != list(self.shards[number]):
                raise InputError(f"{file} is of another cache or place; {self.remedy}")
            self._files[number] = stored, checksums
        return self._files[number]

    def has(self, number: int) -> bool:
        """Whether a shard is there, whole."""
        try:
            self.open(number)
        except InputError:
            return False
        return True

    def write(self, number: int, clips: dict[int, torch.Tensor]) -> None:
        """Write a shard, features `(N, C)` by place in the split; it appears when it is whole."""
        tensors = {str(index): clips[index].contiguous() for index in self.shards[number]}
        checksums = json.dumps({name: _checksum(features) for name, features in tensors.items()})
        try:
            with atomic_file(self.file(number), overwrite=True) as work:
                save_file(tensors, work, {"cache": self.folder.name, "checksums": checksums})
        except (OSError, SafetensorError) as error:
            remedy = "make room, then give the same command again"
            raise InputError(f"cannot write {self.file(number)}: {error}; {remedy}") from error


def _checksum(features: torch.Tensor) -> int:
    """CRC-32 of the type, shape and bytes of features `(N, C)`, which are contiguous and on the CPU."""
    return zlib.crc32(features.view(torch.uint8).numpy(), zlib.crc32(f"{features.dtype} {features.shape}".encode()))


def cut_into_shards(num_clips: int) -> list[range]:
    """Which clips go into which shard; small splits have small shards, so that every process has some to make."""
    size = min(max(8, num_clips // 64), MAX_SHARD_CLIPS)
    return [range(start, min(start + size, num_clips)) for start in range(0, num_clips, size)]


def fingerprint(model: nn.Module, videos, dtype: str, precision: str) -> str:
    """16 hexadecimal digits that change with anything the stored features of `videos` depend on."""
    digest = hashlib.sha256()
    state = model.state_dict()
    for name in sorted(name for name in state if name.split(".")[0] in PARTS):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    config = model.config
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
        "dtype": dtype,
        "precision": precision,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def store_features(
    model: nn.Module, videos, folder: Path, state: PartialState, *, dtype: str = "float32", **how
) -> FeatureCache:
    """Run the frozen visual encoder over a split, all processes sharing the work; `how` is of [`encode_clips`]."""
    cache = FeatureCache(folder, len(videos))
    missing = [number for number in range(len(cache.shards)) if not cache.has(number)]
    state.wait_for_everyone()  # all have looked before one changes anything
    if missing:
        # Only one process locks: what it finds half written is of a run that was killed.
        with locked_folder(folder, folder) if state.is_main_process else nullcontext():
            if state.is_main_process:
                write_marker(folder, "features")
                for half_written in folder.glob(".*.writing"):
                    half_written.unlink(missing_ok=True)
            state.wait_for_everyone()
            numbers = missing[state.process_index :: state.num_processes]
            shards = [cache.shards[number] for number in numbers]
            with encoder_on(model, state.device):
                encoded = encode_clips(model, videos, shards, state.device, **how)
                quiet = not state.is_local_main_process
                write_shards(cache, numbers, encoded, getattr(torch, dtype), videos.corpus.split, quiet)
            state.wait_for_everyone()
    for number in range(len(cache.shards)):
        cache.open(number)
    return cache


def write_shards(
    cache: FeatureCache, numbers: list[int], encoded: Iterator, dtype: torch.dtype, split: str, quiet=False
):
    """Write shards as their places and features `(N, C)` come, in the type to store."""
    total = sum(len(cache.shards[number]) for number in numbers)
    with progress(total=total, desc=f"sign features of {split}", unit="clip", disable=quiet) as bar:
        for number in numbers:
            clips = {}
            for index, clip in islice(encoded, len(cache.shards[number])):
                clips[index] = clip.to(dtype, copy=True)  # a view would keep the padded batch
                bar.update()
            cache.write(number, clips)


@torch.inference_mode()
def encode_clips(
    model: nn.Module,  # frozen visually
    videos,  # a `SignVideoDataset`
    shards: Iterable[Iterable[int]],  # which of its clips
    device: torch.device,
    precision: str = "fp32",  # or `bf16` or `fp16`
    batch_size: int = 8,  # clips a forward
    num_workers: int = 0,  # processes that decode frames
) -> Iterator[tuple[int, torch.Tensor]]:
    """Encode clips shard by shard, in batches of similar length: their places and features `(N, C)`, on the CPU."""
    batches = []
    for shard in shards:
        by_length = sorted(shard, key=lambda index: videos.lengths[index])
        batches += [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]
    device = torch.device(device)
    loader = DataLoader(
        videos,
        batch_sampler=batches,
        collate_fn=SignTranslationCollator(),
        num_workers=num_workers,
        multiprocessing_context=START_METHOD if num_workers else None,
        pin_memory=device.type == "cuda",
        # Its own, or the numbers drawn in training (dropout) would depend on whether the cache was there already.
        generator=torch.Generator(),
    )
    for batch in loader:
        frames = batch["pixel_values_videos"].to(device, non_blocking=True)
        mask = batch["attention_mask"].to(device, non_blocking=True)
        with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            features = model.get_sign_features(frames, mask).cpu()  # (B, N, C)
        lengths = batch["attention_mask"].sum(1).tolist()
        for index, clip, length in zip(batch["indices"].tolist(), features, lengths, strict=True):
            yield index, clip[:length]


@contextmanager
def encoder_on(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the frozen parts to a device, in evaluation mode, for the length of the block."""
    parts = [part for part in (getattr(model, name, None) for name in PARTS) if part is not None]
    before = [(next(part.parameters()).device, part.training) for part in parts]
    for part in parts:
        part.to(device).eval()
    try:
        yield
    finally:
        for part, (where, training) in zip(parts, before, strict=True):
            part.to(where).train(training)


def check_against_pixels(
    model: nn.Module, videos, cache: FeatureCache, state: PartialState, *, dtype: str, precision: str, batch_size: int
) -> None:
    """Compare the stored features of clips spread over a split with what the encoder makes of their frames now."""
    clips = sorted({round(place) for place in np.linspace(0, len(cache) - 1, CHECKED_CLIPS)})
    # Kernels of another batch shape add up in another order; a GPU's have 11 bits of precision (TF32), bfloat16 has 8.
    tolerance = 1e-3 if state.device.type == "cpu" else 2e-2
    if dtype == "bfloat16" or precision in AUTOCAST:
        tolerance = 5e-2
    with encoder_on(model, state.device):
        for index, now in encode_clips(model, videos, [clips], state.device, precision, batch_size):
            stored = cache[index].to(now)
            atol = tolerance * float(now.abs().max())
            if stored.shape != now.shape or not torch.allclose(stored, now, rtol=tolerance, atol=atol):
                place = f"the visual encoder at clip {videos.ids[index]}"
                raise InputError(f"the feature cache {cache.folder} does not match {place}; delete it")


def load_features(file: Path, stride: int = 1) -> torch.Tensor:
    """Read the features of one clip that another program saved.

    Args:
        file (`Path`): of one of `FEATURE_SUFFIXES`, with one array or one called `features`. Axes of length 1 are
            dropped.
        stride (`int`): keep one position in so many.

    Returns:
        `torch.Tensor` of shape `(N, C)`: float32, finite, not empty.

    Raises:
        InputError: it holds no such array.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    suffix = file.suffix.lower()
    if suffix not in FEATURE_SUFFIXES:
        *others, last = FEATURE_SUFFIXES
        raise InputError(f"{file} is not a {', '.join(others)} or {last} file")
    try:
        if suffix in (".h5", ".hdf5"):
            content = _read_hdf5(file)
        elif suffix == ".safetensors":
            content = load_file(file)
        elif suffix == ".pt":
            content = torch.load(file, "cpu", weights_only=True)
        else:
            content = np.load(file, allow_pickle=False)
        if isinstance(content, Mapping):
            names = list(content)
            if len(names) != 1 and "features" not in names:
                named = ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
                raise InputError(f"{file} holds {named or 'nothing'}: call one array `features`")
            content = content["features" if "features" in names else names[0]]
        features = torch.as_tensor(content)
    except InputError:
        raise
    except UnpicklingError:  # torch's own words advise to load it all the same
        raise InputError(f"{file} holds more than tensors: save its array alone") from None
    except Exception as error:  # zip, zlib, pickle, numpy and torch raise errors of many kinds at a damaged file
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    shape = tuple(features.shape)
    if features.is_meta or features.layout != torch.strided or features.is_quantized:
        raise InputError(f"{file} holds no numbers that can be read: save a plain array")
    features = torch.atleast_2d(features.squeeze()) if features.dim() > 2 else features
    if features.dim() != 2 or not features.numel():
        N, *rest = features.shape or (0,)
        remedy = f": reshape to {(N, math.prod(rest))}" if len(rest) > 1 else ""  # such as (T, V * 3) for keypoints
        raise InputError(f"{file} has shape {shape}, not (N, C){remedy}")
    if features.is_complex() or not features.float().isfinite().all():
        raise InputError(f"{file} holds NaN, infinity or complex numbers")
    return features[::stride].float()


def _read_hdf5(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file, whatever groups they lie in."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{file} needs h5py to be read: `pip install h5py`, or save it as .npy") from None
    found: dict[str, h5py.Dataset] = {}
    with h5py.File(file, "r") as opened:
        opened.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        wanted = found if len(found) == 1 else {"features"} & set(found)
        return {name: item[()] if name in wanted else None for name, item in found.items()}


def check_feature_files(
    rows: Sequence[CorpusRow], reading: Reading, stride: int
) -> tuple[list[tuple[CorpusRow, int]], int]:
    """The rows whose files hold features of one size, with their lengths N, and C; others go to `reading.bad`."""
    shapes: dict[CorpusRow, torch.Size] = {}
    for row in progress(rows, desc="checking", unit="clip"):
        with reading.bad.at(*row.place):
            shapes[row] = load_features(row.video.path, stride).shape
    size = Counter(C for _, C in shapes.values()).most_common(1)[0][0] if shapes else 0
    for row, (_, C) in shapes.items():
        if size != C:
            reading.bad.add(*row.place, f"{row.video.path} has C = {C}, most have {size}")
    return [(row, N) for row, (N, C) in shapes.items() if size == C], size


def write_feature_table(out: Path, clips: Sequence[tuple[CorpusRow, int]], parameters: dict, **options) -> None:
    """Write the features of rows, whose lengths are known; `options` are of [`write_feature_corpus`]."""
    if not clips:
        raise InputError("there are no features to store")
    splits = {}
    for split in dict.fromkeys(row.split for row, _ in clips):
        rows = [(row, N) for row, N in clips if row.split == split]
        columns = zip(*((row.id, row.sentence, row.signer, row.language, N) for row, N in rows), strict=True)
        loaded = (load_features(row.video.path, parameters["frame_stride"]) for row, _ in rows)
        splits[split] = columns, enumerate(loaded)
    write_feature_corpus(out, splits, parameters, **options)


def write_feature_corpus(
    out: Path,
    splits: Mapping[str, tuple[Iterable[Iterable], Iterator[tuple[int, torch.Tensor]]]],
    parameters: dict[str, Any],  # `feature_size`, `extractor`, `dtype`, `frame_stride`
    *,
    corpus: str,
    skipped: Sequence[Sequence[str]] = (),
    overwrite: bool = False,
) -> None:
    """Write a feature corpus: of each split ids, sentences, signers, languages and lengths, and what is encoded."""
    entries, indexes = {}, {}
    with atomic_folder(out, "corpus", overwrite) as work:
        for split, (columns, encoded) in splits.items():
            columns = [list(column) for column in columns]
            no_size = [0] * len(columns[0])
            index = indexes[split] = pa.table([*columns, no_size, no_size], schema=INDEX_SCHEMA)
            (work / split).mkdir()
            cache = FeatureCache(work / split, len(index))
            write_shards(cache, list(range(len(cache.shards))), encoded, getattr(torch, parameters["dtype"]), split)
            entries[split] = {"clips": len(index), "frames": int(sum(columns[-1])), "shards": []}
            for number, clips in enumerate(cache.shards):
                file = cache.file(number)
                shard = {"file": f"{split}/{file.name}", "bytes": file.stat().st_size, "sha256": file_sha256(file)}
                entries[split]["shards"].append(shard | {"clips": len(clips)})
        card = f"Sign features made by {parameters['extractor'] or 'an extractor that is not named'}.\n"
        describe_folder(work, entries, indexes, skipped=skipped, card=card, parameters=parameters, corpus=corpus)


def open_features(corpus: PackedCorpus) -> FeatureCache:
    """The features of one split of a feature corpus."""
    return FeatureCache(corpus.folder / corpus.split, len(corpus), "prepare the features again")
