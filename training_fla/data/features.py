"""The feature cache: a frozen visual encoder runs once over the corpus, and stage 2 decodes no frames.

    <fingerprint>/features-00000-of-00002.safetensors      a tensor (N, C) a clip, named by its place in the split

The fingerprint names encoder, processor, corpus and precision, so a changed encoder never reads stale features. A
killed run goes on with the shards that are missing.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from training_fla.files import InputError, atomic_file, locked_folder, progress, write_marker

from .collation import SignTranslationCollator

FORMAT = "fla-features-3"
MAX_SHARD_CLIPS = 128  # a shard is held in memory while it is made
CHECKED_CLIPS = 10
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
REMEDY = "delete it, and the next run makes it again"
PARTS = ("visual_encoder", "light_t_encoder")


class FeatureCache:
    """Stored sign features of one split; cheap to open, to pickle and to fork, because they stay in mapped files."""

    def __init__(self, folder: Path, num_clips: int):
        self.folder, self.shards = folder, cut_into_shards(num_clips)
        self._files: dict[int, tuple[safe_open, dict[str, int]]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def __len__(self) -> int:
        return self.shards[-1].stop

    def __getitem__(self, index: int) -> torch.Tensor:
        """Read the features of a clip.

        Args:
            index (`int`): its place in the split.

        Returns:
            `torch.Tensor` of shape `(N, C)`: in the stored type.

        Raises:
            InputError: they are not as they were written.
        """
        number = index // len(self.shards[0])
        stored, checksums = self.open(number)
        try:
            features = stored.get_tensor(str(index))
        except SafetensorError:
            features = None
        if features is None or checksum(features) != checksums.get(str(index)):
            raise InputError(f"{self.file(number)} is damaged at clip {index}; {REMEDY}")
        return features

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
                raise InputError(f"{file} is damaged ({error}); {REMEDY}") from None
            if notes.get("cache") != self.folder.name or list(map(int, checksums)) != list(self.shards[number]):
                raise InputError(f"{file} is of another cache or place; {REMEDY}")
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
        """Write a shard, which appears when it is whole.

        Args:
            number (`int`): of the shard.
            clips (`dict[int, torch.Tensor]`): `(N, C)` features in the type to store, by place in the split.

        Raises:
            InputError: it cannot be written.
        """
        tensors = {str(index): clips[index].contiguous() for index in self.shards[number]}
        checksums = json.dumps({name: checksum(features) for name, features in tensors.items()})
        try:
            with atomic_file(self.file(number), overwrite=True) as work:
                save_file(tensors, work, {"cache": self.folder.name, "checksums": checksums})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"cannot write {self.file(number)}: {error}; make room, and the same command goes on with this shard"
            ) from error


def checksum(features: torch.Tensor) -> int:
    """CRC-32 of a tensor's type, shape and bytes.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): contiguous, on the CPU.

    Returns:
        `int`: below 2 to the power of 32.
    """
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
    model: nn.Module,
    videos,
    folder: Path,
    state: PartialState,
    *,
    dtype: str = "float32",
    precision: str = "fp32",
    batch_size: int = 8,
    num_workers: int = 0,
) -> FeatureCache:
    """Run the frozen visual encoder over a split, shard by shard, all processes sharing the work."""
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
                encoded = encode_clips(model, videos, shards, state.device, precision, batch_size, num_workers)
                write_shards(cache, numbers, encoded, getattr(torch, dtype), videos.corpus.split, state)
            state.wait_for_everyone()
    for number in range(len(cache.shards)):
        cache.open(number)
    return cache


def write_shards(
    cache: FeatureCache,
    numbers: list[int],
    encoded: Iterator[tuple[int, torch.Tensor]],
    dtype: torch.dtype,
    split: str,
    state: PartialState,
) -> None:
    """Write shards as their clips come.

    Args:
        cache ([`FeatureCache`]): where to.
        numbers (`list[int]`): of the shards.
        encoded (`Iterator`): each clip and its `(N, C)` features, as [`encode_clips`] yields them.
        dtype (`torch.dtype`): type to store.
        split (`str`): name of the split, for the progress bar.
        state ([`~accelerate.PartialState`]): which process shows the bar.
    """
    total = sum(len(cache.shards[number]) for number in numbers)
    quiet = not state.is_local_main_process
    with progress(total=total, desc=f"sign features of {split}", unit="clip", disable=quiet) as bar:
        for number in numbers:
            clips = {}
            for index, clip in islice(encoded, len(cache.shards[number])):
                clips[index] = clip.to(dtype, copy=True)  # a view would keep the padded batch
                bar.update()
            cache.write(number, clips)


@torch.inference_mode()
def encode_clips(
    model: nn.Module,
    videos,
    shards: Iterable[Iterable[int]],
    device,
    precision: str,
    batch_size: int,
    num_workers: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Encode the clips of shards, one shard after the other, in batches of similar length.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): frozen visually.
        videos ([`~training_fla.data.datasets.SignVideoDataset`]): the clips.
        shards (`Iterable[Iterable[int]]`): which of them.
        device (`torch.device`): where to encode.
        precision (`str`): `fp32`, `bf16` or `fp16`.
        batch_size (`int`): clips a forward.
        num_workers (`int`): processes that decode frames.

    Yields:
        `tuple[int, torch.Tensor]`: a clip and its `(N, C)` features, on the CPU; of a shard in any order.
    """
    batches = []
    for shard in shards:
        by_length = sorted(shard, key=lambda index: videos.lengths[index])
        batches += [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]
    device = torch.device(device)
    loader = DataLoader(
        videos,
        batch_sampler=batches,
        collate_fn=SignTranslationCollator(lambda labels: labels),
        num_workers=num_workers,
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
        for index, now in encode_clips(model, videos, [clips], state.device, precision, batch_size, num_workers=0):
            stored = cache[index].to(now)
            atol = tolerance * float(now.abs().max())
            if stored.shape != now.shape or not torch.allclose(stored, now, rtol=tolerance, atol=atol):
                raise InputError(
                    f"the feature cache {cache.folder} does not match the visual encoder at clip {videos.ids[index]}; "
                    "delete it"
                )
