"""The feature cache: a frozen visual encoder is run once over the corpus, and stage 2 never decodes a frame again.

A cache belongs to one encoder, one processor and one corpus: its folder is named by a fingerprint of all three, so a
changed encoder cannot meet stale features. Shards are written beside and renamed; a killed run goes on with the next.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from training_fla.data.collation import SignFeatureDataset, SignTranslationCollator, SignVideoDataset
from training_fla.data.feature_shards import (
    DTYPES,
    FORMAT,
    HEADER,
    FeatureCache,
    cut_into_shards,
    is_whole,
    shard_name,
    write_header,
    write_shard,
)
from training_fla.files import InputError, locked_folder

PARTS = ("visual_encoder", "light_t_encoder")


def fingerprint(model: nn.Module, videos: SignVideoDataset, dtype: str) -> str:
    """Name what stored features depend on.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): weights and config of its visual encoder.
        videos ([`SignVideoDataset`]): the clips and how their frames are chosen and cut.
        dtype (`str`): type of the stored features.

    Returns:
        `str`: 16 hexadecimal digits.
    """
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
        "clips": videos.ids,
        "max_source_frames": videos.max_source_frames,
        "dtype": dtype,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def store_features(
    model: nn.Module,
    videos: SignVideoDataset,
    folder: Path,
    accelerator,
    dtype: str,
    batch_size: int,
    num_workers: int = 0,
) -> FeatureCache:
    """Run the frozen visual encoder over a split, shard by shard, all processes sharing the work.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): wholly frozen visually.
        videos ([`SignVideoDataset`]): without augmentation.
        folder (`Path`): the cache, named by [`fingerprint`]; what it already holds is not computed again.
        accelerator ([`~accelerate.Accelerator`]): device, which shards are this process's, and the barrier.
        dtype (`str`): `float32` or `bfloat16`.
        batch_size (`int`): clips a forward.
        num_workers (`int`): processes that decode frames.

    Returns:
        [`FeatureCache`]: the whole split.

    Raises:
        InputError: `dtype` is neither, a shard cannot be written, or another run is writing this cache.
    """
    if dtype not in DTYPES:
        raise InputError(f"feature_dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    shards = dict(enumerate(cut_into_shards(len(videos))))
    is_complete = all((folder / name).exists() for name in (HEADER, *map(shard_name, shards)))
    accelerator.wait_for_everyone()  # all have looked before one changes anything
    if is_complete:
        return FeatureCache(folder)
    name = folder.name
    # Only one process locks: what it finds half written is of a run that was killed.
    with locked_folder(folder, folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            for half_written in folder.glob(".*.writing"):
                half_written.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        mine = list(shards)[accelerator.process_index :: accelerator.num_processes]
        missing = {n: shards[n] for n in mine if not is_whole(folder / shard_name(n), name, shards[n])}
        progress = tqdm(
            total=sum(map(len, missing.values())),
            desc=f"sign features of {videos.corpus.split}",
            unit="clip",
            disable=not accelerator.is_local_main_process,
        )
        with progress, encoder_on(model, accelerator.device), torch.inference_mode():
            encoded = encode_clips(model, videos, list(missing.values()), accelerator.device, batch_size, num_workers)
            for number, shard in missing.items():
                clips = take_shard(encoded, shard, DTYPES[dtype], progress)
                write_shard(folder / shard_name(number), clips, name, shard)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_header(folder, name, len(videos))
        accelerator.wait_for_everyone()
    return FeatureCache(folder)


def encode_clips(
    model: nn.Module, videos: SignVideoDataset, shards: list[range], device, batch_size: int, num_workers: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Encode the clips of shards, one shard after the other, in batches of similar length.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): its encoder in evaluation, on `device`.
        videos ([`SignVideoDataset`]): the clips.
        shards (`list[range]`): which of them.
        device (`torch.device`): where to encode.
        batch_size (`int`): clips a forward.
        num_workers (`int`): processes that decode frames.

    Yields:
        `tuple[int, torch.Tensor]`: a clip and its `(N, C)` features; of a shard in any order.
    """
    batches = []
    for shard in shards:
        by_length = sorted(shard, key=lambda index: videos.lengths[index])
        batches += [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]
    on_gpu = torch.device(device).type == "cuda"
    loader = DataLoader(
        videos,
        batch_sampler=batches,
        collate_fn=SignTranslationCollator(lambda labels: labels),
        num_workers=num_workers,
        pin_memory=on_gpu,
        # Its own, or the numbers drawn in training (dropout) would depend on whether the cache was there already.
        generator=torch.Generator(),
    )
    for batch in loader:
        mask = batch["attention_mask"].to(device, non_blocking=on_gpu)
        frames = batch["pixel_values_videos"].to(device, non_blocking=on_gpu)
        features = model.get_sign_features(frames, mask).cpu()  # (B, N, C)
        lengths = batch["attention_mask"].sum(1).tolist()
        for index, clip, length in zip(batch["indices"].tolist(), features, lengths, strict=True):
            yield index, clip[:length]


def take_shard(
    encoded: Iterator[tuple[int, torch.Tensor]], shard: range, dtype: torch.dtype, progress
) -> list[torch.Tensor]:
    """Gather the next clips into a shard.

    Args:
        encoded (`Iterator`): a clip and its `(N, C)` features, as [`encode_clips`] yields them.
        shard (`range`): the clips that come next, in any order.
        dtype (`torch.dtype`): type of the result.
        progress (`tqdm`): advanced by each clip.

    Returns:
        `list[torch.Tensor]`: their `(N, C)` features in order.
    """
    clips: dict[int, torch.Tensor] = {}
    while len(clips) < len(shard):
        index, clip = next(encoded)
        clips[index] = clip.to(dtype, copy=True)  # a view would keep the padded batch
        progress.update()
    return [clips[index] for index in shard]


@contextmanager
def encoder_on(model: nn.Module, device) -> Iterator[None]:
    """Have the frozen parts in evaluation on a device for a while.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): may itself wait on the processor to be cut into shards.
        device (`torch.device`): where frames are encoded.
    """
    parts = [part for part in (getattr(model, name, None) for name in PARTS) if part is not None]
    before = [next(part.parameters()).device for part in parts]
    modes = [part.training for part in parts]
    for part in parts:
        part.to(device).eval()
    try:
        yield
    finally:
        for part, where, training in zip(parts, before, modes, strict=True):
            part.to(where).train(training)


def check_against_pixels(
    model: nn.Module,
    videos: SignVideoDataset,
    features: SignFeatureDataset,
    batches: Iterable[list[int]],
    collate: Callable[[list[dict]], dict[str, torch.Tensor]],
    device,
) -> None:
    """Compare batches of stored features with what the encoder makes of the same clips' pixels now.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): wholly frozen visually.
        videos ([`SignVideoDataset`]): the clips as frames.
        features ([`SignFeatureDataset`]): the same as stored features.
        batches (`Iterable[list[int]]`): the clips of each batch.
        collate (`Callable`): pads a list of examples, as in training.
        device (`torch.device`): where to encode.

    Raises:
        InputError: masks, targets or features differ, the last by more than the stored type's rounding.
    """
    with encoder_on(model, device), torch.inference_mode():
        for indices in batches:
            stored = collate([features[index] for index in indices])
            pixels = collate([videos[index] for index in indices])
            frames, mask = pixels.pop("pixel_values_videos").to(device), pixels["attention_mask"].to(device)
            difference = differing_clip(stored.pop("sign_features"), model.get_sign_features(frames, mask).cpu())
            for name, value in pixels.items():
                if not torch.equal(stored[name], value):
                    raise InputError(
                        f"the feature cache gives other {name} than the frames of {videos.ids[indices[0]]}"
                    )
            if difference is not None:
                raise InputError(
                    f"the feature cache {features.features.folder} does not match the visual encoder at clip "
                    f"{videos.ids[indices[difference]]}; delete it"
                )


def differing_clip(stored: torch.Tensor, now: torch.Tensor) -> int | None:
    """The first clip whose stored features are not those of now.

    Args:
        stored (`torch.Tensor` of shape `(B, N, C)`): float32 or bfloat16, zero at padding.
        now (`torch.Tensor` of shape `(B, N, C)`): from the encoder, zero at padding.

    Returns:
        `int` or `None`: its row.
    """
    if stored.shape != now.shape:
        return 0
    # Relative to the largest feature: kernels of another batch shape add up in another order.
    tolerance = 2e-2 if stored.dtype == torch.bfloat16 else 1e-3
    close = torch.isclose(stored.to(now), now, rtol=tolerance, atol=tolerance * float(now.abs().max()))
    wrong = (~close).flatten(1).any(1).nonzero()
    return int(wrong[0]) if len(wrong) else None
