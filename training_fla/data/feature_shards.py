"""Stored sign features of one split: Arrow shards that say what they hold, and a header that says they are all there.

    features.json           written last: which shards, their sizes, type and width of a feature
    features-00000.arrow    Arrow IPC stream: a row a clip, its features as bytes and their CRC-32

Damage is an error that names the file, never a wrong feature: opening checks size, clips and belonging, reading a clip
its checksum.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from training_fla.files import InputError, atomic_file

FORMAT = "fla-features-2"
HEADER = "features.json"
MAX_SHARD_CLIPS = 128  # a shard is held in memory while it is made
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REMEDY = "; delete it, and the next run makes it anew"
SCHEMA = pa.schema([("features", pa.large_binary()), ("crc32", pa.uint32())])


def shard_name(number: int) -> str:
    """The file of a shard.

    Args:
        number (`int`): counted from 0.

    Returns:
        `str`: its name.
    """
    return f"features-{number:05d}.arrow"


def cut_into_shards(num_clips: int) -> list[range]:
    """Which clips go into which shard; small splits have small shards, so that every process has some to make.

    Args:
        num_clips (`int`): of the split.

    Returns:
        `list[range]`: equally many clips a shard, but for the last; the same for any number of processes.
    """
    size = min(max(8, num_clips // 64), MAX_SHARD_CLIPS)
    return [range(start, min(start + size, num_clips)) for start in range(0, num_clips, size)]


def write_shard(file: Path, clips: Sequence[torch.Tensor], belongs_to: str, places: range) -> None:
    """Write one shard beside its place and rename it.

    Args:
        file (`Path`): the shard.
        clips (`Sequence[torch.Tensor]`): `(N, C)` features in the type to be stored.
        belongs_to (`str`): fingerprint of the cache.
        places (`range`): of these clips in the split.

    Raises:
        InputError: it cannot be written; what is there already stays.
    """
    rows = [clip.contiguous().view(torch.uint8).numpy().tobytes() for clip in clips]
    notes = {"format": FORMAT, "belongs_to": belongs_to, "clips": [places.start, places.stop]}
    notes |= {"dtype": str(clips[0].dtype).removeprefix("torch."), "feature_size": clips[0].shape[1]}
    schema = SCHEMA.with_metadata({"fla": json.dumps(notes)})
    columns = [pa.array(rows, pa.large_binary()), pa.array(map(zlib.crc32, rows), pa.uint32())]
    try:
        with (
            atomic_file(file, overwrite=True) as work,
            pa.OSFile(str(work), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            writer.write_batch(pa.record_batch(columns, schema=schema))
    except OSError as error:
        raise InputError(
            f"cannot write {file}: {error}; make room, and the same command goes on with this shard"
        ) from error


def open_shard(file: Path, belongs_to: str, places: range) -> tuple[pa.RecordBatch, dict]:
    """Memory-map a shard.

    Args:
        file (`Path`): the shard.
        belongs_to (`str`): fingerprint of the cache it must be of.
        places (`range`): the clips it must hold.

    Returns:
        `tuple[pa.RecordBatch, dict]`: columns `features` and `crc32`; the notes of [`write_shard`].

    Raises:
        InputError: absent, cut off, damaged, or of another cache or place.
    """
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
        table.validate(full=True)
        notes = json.loads(table.schema.metadata[b"fla"])
        (batch,) = table.to_batches()
        if not batch.schema.equals(SCHEMA) or batch.num_rows != notes["clips"][1] - notes["clips"][0]:
            raise ValueError("its columns or number of clips are not what it says")
    except FileNotFoundError:
        raise InputError(f"{file} is missing") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {' '.join(str(error).split())[:200]}{REMEDY}") from None
    wanted = {"format": FORMAT, "belongs_to": belongs_to, "clips": [places.start, places.stop]}
    if any(notes.get(name) != value for name, value in wanted.items()):
        raise InputError(f"{file} is of another cache or place{REMEDY}")
    return batch, notes


def clip_bytes(file: Path, batch: pa.RecordBatch, row: int) -> np.ndarray:
    """The features of one clip where they lie in the mapped file, checked.

    Args:
        file (`Path`): the shard, for the message.
        batch (`pa.RecordBatch`): as [`open_shard`] returns it.
        row (`int`): which of its clips.

    Returns:
        `np.ndarray` of shape `(N * C * bytes of a number,)`: uint8, read-only.

    Raises:
        InputError: the bytes are not those that were written.
    """
    stored = np.frombuffer(batch.column(0)[row].as_buffer(), dtype=np.uint8)
    if zlib.crc32(stored) != batch.column(1)[row].as_py():
        raise InputError(f"{file} is damaged: its clip {row} has another checksum than when it was written{REMEDY}")
    return stored


def is_whole(file: Path, belongs_to: str, places: range) -> bool:
    """Whether every byte of a shard is as it was written; reads all of it.

    Args:
        file (`Path`): the shard, which need not exist.
        belongs_to (`str`): fingerprint of the cache it must be of.
        places (`range`): the clips it must hold.

    Returns:
        `bool`: false for one that is absent or of something else, too.
    """
    try:
        batch, _ = open_shard(file, belongs_to, places)
        for row in range(batch.num_rows):
            clip_bytes(file, batch, row)
    except InputError:
        return False
    return True


class FeatureCache:
    """Stored sign features of one split. Cheap to open, to pickle and to fork: they stay in the mapped shards.

    Args:
        folder (`Path`): a complete cache, as [`~training_fla.data.features.store_features`] leaves it.

    Attributes:
        dtype (`torch.dtype`): of the stored features.
        feature_size (`int`): their width C.

    Raises:
        InputError: the folder is no complete cache, or a shard is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.header = json.loads((folder / HEADER).read_text())
            if self.header.pop("crc32") != header_checksum(self.header) or self.header["format"] != FORMAT:
                raise ValueError("it is not as it was written, or of another version")
        except OSError as error:
            raise InputError(f"{folder} holds no complete feature cache: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{folder / HEADER} is damaged: {error}{REMEDY}") from None
        self.dtype, self.feature_size = DTYPES[self.header["dtype"]], self.header["feature_size"]
        self._shards: list[pa.RecordBatch] | None = None
        self.open()

    def open(self) -> list[pa.RecordBatch]:
        """Map the shards, once a process.

        Returns:
            `list[pa.RecordBatch]`: as [`cut_into_shards`] cuts.

        Raises:
            InputError: a shard is missing, damaged or of another cache.
        """
        if self._shards is None:
            self._shards = []
            places = cut_into_shards(len(self))
            for number, size in enumerate(self.header["bytes"]):
                file = self.folder / shard_name(number)
                batch, notes = open_shard(file, self.header["belongs_to"], places[number])
                here = file.stat().st_size
                if here != size:
                    raise InputError(f"{file} is damaged: {here} bytes instead of {size}{REMEDY}")
                if any(notes.get(name) != self.header[name] for name in ("dtype", "feature_size")):
                    raise InputError(f"{file} holds features of another kind{REMEDY}")
                self._shards.append(batch)
        return self._shards

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_shards": None}

    def __len__(self) -> int:
        return self.header["num_clips"]

    def __getitem__(self, index: int) -> torch.Tensor:
        shards = self.open()
        number, row = divmod(range(len(self))[index], shards[0].num_rows)
        stored = clip_bytes(self.folder / shard_name(number), shards[number], row)
        # A copy, because tensors of read-only memory are not to be had.
        return torch.from_numpy(stored.copy()).view(self.dtype).view(-1, self.feature_size)  # (N, C)


def header_checksum(header: dict) -> int:
    """The checksum that `features.json` holds of everything else in it.

    Args:
        header (`dict`): without that checksum.

    Returns:
        `int`: CRC-32.
    """
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def write_header(folder: Path, belongs_to: str, num_clips: int) -> None:
    """Say that a cache is complete.

    Args:
        folder (`Path`): holds all its shards.
        belongs_to (`str`): its fingerprint.
        num_clips (`int`): of the split.

    Raises:
        InputError: a shard is missing or damaged, or the header cannot be written.
    """
    files = {folder / shard_name(number): places for number, places in enumerate(cut_into_shards(num_clips))}
    notes = [open_shard(file, belongs_to, places)[1] for file, places in files.items()]
    header = {name: notes[0][name] for name in ("format", "belongs_to", "dtype", "feature_size")}
    header |= {"num_clips": num_clips, "bytes": [os.path.getsize(file) for file in files]}
    try:
        with atomic_file(folder / HEADER, overwrite=True) as work:
            Path(work).write_text(json.dumps(header | {"crc32": header_checksum(header)}))
    except OSError as error:
        raise InputError(f"cannot write {folder / HEADER}: {error}; make room, and run the same again") from error
