"""Sign features on disk: a frozen visual encoder is run once over the corpus, and stage 2 never decodes a frame again.

A cache belongs to one encoder, one processor and one corpus: its folder is named by a fingerprint of all three, so a
changed encoder cannot meet stale features. Shards are written beside and renamed; a killed run goes on with the next.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from tqdm.auto import tqdm

from .collation import SignTranslationCollator, SignVideoDataset
from .errors import InputError

SHARD_CLIPS = 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    for name in sorted(name for name in state if name.startswith(("visual_encoder.", "light_t_encoder."))):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    settings = {
        "vision_config": model.config.vision_config.to_dict(),
        "input_features": model.config.input_features,
        "processor": videos.video_processor.to_dict(),
        "corpus": videos.corpus.fingerprint,
        "clips": videos.ids,
        "max_source_frames": videos.max_source_frames,
        "dtype": dtype,
    }
    for own_to_the_run in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        settings["vision_config"].pop(own_to_the_run, None)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


class FeatureCache:
    """Stored sign features of one split.

    Args:
        folder (`Path`): a complete cache, as [`store_features`] leaves it.

    Raises:
        InputError: the folder is no complete cache.
    """

    def __init__(self, folder: Path):
        try:
            header = json.loads((folder / "features.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{folder} holds no complete feature cache: {error}") from None
        self.dtype, self.feature_size = DTYPES[header["dtype"]], header["feature_size"]
        tables = [pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in header["shards"]]
        self.column = pa.chunked_array([chunk for table in tables for chunk in table["features"].chunks])
        if len(self.column) != header["num_clips"]:
            raise InputError(f"{folder} holds {len(self.column)} clips where its header says {header['num_clips']}")

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> torch.Tensor:
        stored = np.frombuffer(self.column[index].as_buffer(), dtype=np.uint8).copy()
        return torch.from_numpy(stored).view(self.dtype).view(-1, self.feature_size)  # (N, C)


@torch.inference_mode()
def store_features(
    model: nn.Module, videos: SignVideoDataset, folder: Path, accelerator, dtype: str, batch_size: int
) -> FeatureCache:
    """Run the frozen visual encoder over a split, shard by shard, all processes sharing the work.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): on its device, wholly frozen visually.
        videos ([`SignVideoDataset`]): without augmentation.
        folder (`Path`): the cache; what it already holds is not computed again.
        accelerator ([`~accelerate.Accelerator`]): which shards are this process's, and the barrier.
        dtype (`str`): `float32` or `bfloat16`.
        batch_size (`int`): clips a forward.

    Returns:
        [`FeatureCache`]: the whole split.

    Raises:
        InputError: `dtype` is neither.
    """
    if dtype not in DTYPES:
        raise InputError(f"feature_dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if (folder / "features.json").exists():
        return FeatureCache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(videos), SHARD_CLIPS)
    names = [f"features-{number:05d}.arrow" for number in range(len(starts))]
    mine = list(zip(names, starts, strict=True))[accelerator.process_index :: accelerator.num_processes]
    missing = [(name, start) for name, start in mine if not (folder / name).exists()]
    clips = sum(min(SHARD_CLIPS, len(videos) - start) for _, start in missing)
    training = model.training
    model.eval()
    with tqdm(
        total=clips, desc="sign features", unit="clip", disable=not accelerator.is_local_main_process
    ) as progress:
        for name, start in missing:
            rows = encode_clips(
                model, videos, range(start, min(start + SHARD_CLIPS, len(videos))), dtype, batch_size, progress
            )
            write_shard(folder / name, rows)
    model.train(training)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        size = model.get_sign_features(*first_clip(model, videos)).shape[-1]
        header = {"num_clips": len(videos), "dtype": dtype, "feature_size": size, "shards": names}
        temporary = folder / "features.json.partial"
        temporary.write_text(json.dumps(header))
        os.replace(temporary, folder / "features.json")
    accelerator.wait_for_everyone()
    return FeatureCache(folder)


def encode_clips(
    model, videos: SignVideoDataset, indices: range, dtype: str, batch_size: int, progress
) -> list[bytes]:
    """Encode clips in batches of similar length.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): in eval mode.
        videos ([`SignVideoDataset`]): the clips.
        indices (`range`): which of them.
        dtype (`str`): type of the result.
        batch_size (`int`): clips a forward.
        progress (`tqdm`): advanced by each clip.

    Returns:
        `list[bytes]`: for each clip in order, its `(N, C)` features.
    """
    collate = SignTranslationCollator(lambda labels: labels)
    by_length = sorted(indices, key=lambda index: videos.lengths[index])
    rows: dict[int, bytes] = {}
    for begin in range(0, len(by_length), batch_size):
        chosen = by_length[begin : begin + batch_size]
        batch = collate([videos[index] for index in chosen])
        mask = batch["attention_mask"].to(model.device)
        features = model.get_sign_features(batch["pixel_values_videos"].to(model.device), mask)  # (B, N, C)
        for index, clip, length in zip(chosen, features.to(DTYPES[dtype]).cpu(), mask.sum(1).tolist(), strict=True):
            rows[index] = clip[:length].contiguous().view(torch.uint8).numpy().tobytes()
            progress.update()
    return [rows[index] for index in indices]


def first_clip(model, videos: SignVideoDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The first frame of the first clip as a batch of one.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): for its device.
        videos ([`SignVideoDataset`]): the clips.

    Returns:
        `tuple`: uint8 `(1, 1, 3, H, W)` and a mask `(1, 1)`.
    """
    frame = videos[0]["pixel_values_videos"][None, :1].to(model.device)
    return frame, torch.ones(1, 1, dtype=torch.long, device=model.device)


def write_shard(file: Path, rows: list[bytes]) -> None:
    """Write one shard beside and rename it.

    Args:
        file (`Path`): the shard.
        rows (`list[bytes]`): features of its clips in order.
    """
    temporary = file.with_suffix(f".partial-{os.getpid()}")
    table = pa.table({"features": pa.array(rows, pa.large_binary())})
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    os.replace(temporary, file)


def check_against_pixels(model, videos: SignVideoDataset, cache: FeatureCache, num_clips: int = 10) -> None:
    """Compare the first stored clips with what the encoder gives now.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): in eval mode or frozen.
        videos ([`SignVideoDataset`]): the clips.
        cache ([`FeatureCache`]): what is stored of them.
        num_clips (`int`): how many are compared.

    Raises:
        InputError: they differ by more than the stored type's rounding.
    """
    tolerance = 2e-2 if cache.dtype == torch.bfloat16 else 1e-3
    for index in range(min(num_clips, len(videos))):
        frames = videos[index]["pixel_values_videos"][None].to(model.device)
        with torch.inference_mode():
            now = model.get_sign_features(frames, torch.ones(frames.shape[:2], dtype=torch.long, device=model.device))[
                0
            ]
        stored = cache[index].to(now)
        if stored.shape != now.shape or not torch.allclose(
            stored, now, rtol=tolerance, atol=tolerance * float(now.abs().max())
        ):
            raise InputError(
                f"the feature cache does not match the visual encoder at clip {videos.ids[index]}; delete it"
            )
