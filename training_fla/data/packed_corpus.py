"""Reading a packed corpus: Arrow shards whose frames are JPEG bytes, of which only the frames asked for are decoded.

A packed folder, which [`~training_fla.data.packing.pack`] writes and `datasets.load_dataset` opens too:

    manifest.json                   how it was packed; the hash and size of every shard
    train-00000-of-00056.arrow      Arrow IPC streams, one record batch a clip, with the columns of `SCHEMA`
    train.sentences.txt             one sentence a line
    skipped.tsv                     clips that could not be packed and why; absent where there are none
    README.md                       dataset card: which files are which split
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from training_fla.data.jpeg_decoding import decode_jpeg_into
from training_fla.files import InputError

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
FORMAT = "fla-packed-1"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sentence", pa.string()),
        ("signer", pa.string()),
        ("language", pa.string()),
        ("split", pa.string()),
        ("num_frames", pa.int32()),  # frames kept here, not those of the source
        ("fps", pa.float32()),  # of the source
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("frame_stride", pa.int32()),  # source frames to each frame kept
        ("frame_crc32", pa.list_(pa.uint32())),
        ("frames", pa.list_(pa.binary())),
    ]
)


class PackedCorpus:
    """One split of a packed folder. Cheap to open, to pickle and to fork: pixels stay in the memory-mapped shards.

    Damage is an error, never a wrong pixel or sentence: opening checks the hash of everything but the frames, reading
    checks each frame's checksum.

    Args:
        folder (`str` or `os.PathLike`): a packed folder.
        split (`str`): `train`, `dev` or `test`.

    Attributes:
        ids, sentences, signers, languages (`list[str]`): by clip.
        num_frames (`list[int]`): packed frames of each clip.
        frame_strides (`list[int]`): source frames to each packed frame, by clip.
        heights, widths (`list[int]`): of the frames of each clip, in pixels.
        corpus (`str`): name of the corpus (`phoenix14t`, `demo`, ...).
        language (`str`): MBart code of the corpus's language, empty if rows differ or do not say.
        fingerprint (`str`): changes when any packed byte of the split changes.
        frame_stride (`int`): source frames to each packed frame.

    Raises:
        InputError: if the folder is not a packed one, lacks the split, or is damaged.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        self.folder, self.split = Path(folder), split
        manifest = read_packed_manifest(self.folder)
        if split not in manifest["splits"]:
            raise InputError(f"{self.folder} has no split {split!r}, only {', '.join(manifest['splits'])}")
        self._shards = manifest["splits"][split]["shards"]
        self.corpus: str = manifest["corpus"]
        self.language: str = manifest["language"]
        self.frame_stride: int = manifest["parameters"]["frame_stride"]
        self.fingerprint: str = manifest["splits"][split]["fingerprint"]
        self._clips: list[pa.RecordBatch] | None = None
        tables = [open_shard(self.folder, shard, check_index=True) for shard in self._shards]
        self._clips = [clip for table in tables for clip in table.to_batches()]
        index = pa.concat_tables([table.drop_columns(["frames", "frame_crc32"]) for table in tables]).to_pydict()
        self.ids: list[str] = index["id"]
        self.sentences: list[str] = index["sentence"]
        self.signers: list[str] = index["signer"]
        self.languages: list[str] = index["language"]
        self.num_frames: list[int] = index["num_frames"]
        self.frame_strides: list[int] = index["frame_stride"]
        self.heights: list[int] = index["height"]
        self.widths: list[int] = index["width"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clips": None}

    def read_frames(self, index: int, frame_indices: Sequence[int]) -> "torch.Tensor":
        """Decode some frames of a clip.

        Args:
            index (`int`): which clip.
            frame_indices (`Sequence[int]`): which of its frames, in the order wanted, each in `0 .. num_frames - 1`.

        Returns:
            `torch.Tensor` of shape `(T, 3, H, W)`: uint8 RGB, 0 to 255, channels last in memory.

        Raises:
            InputError: if the shard is damaged, naming it and the frame.
            IndexError: if the clip has no such frame.
        """
        import torch

        if not len(frame_indices):
            raise IndexError("no frame was asked for")
        pixels = np.empty((len(frame_indices), self.heights[index], self.widths[index], 3), dtype=np.uint8)
        for row, jpeg in enumerate(self.read_jpegs(index, frame_indices)):
            try:
                decode_jpeg_into(jpeg, pixels[row])
            except InputError as error:
                frame, clip = frame_indices[row], f"{self.split} clip {self.ids[index]!r}"
                raise InputError(f"{self.folder}: frame {frame} of {clip} is damaged: {error}") from error
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def read_jpegs(self, index: int, frame_indices: Sequence[int]) -> list[memoryview]:
        """The JPEG bytes of some frames of a clip, where they lie, checked.

        Args:
            index (`int`): of the clip.
            frame_indices (`Sequence[int]`): among its stored frames, in the order wanted.

        Returns:
            `list[memoryview]`: a JPEG each.

        Raises:
            IndexError: the clip has no such frame.
            InputError: a frame is damaged.
        """
        if self._clips is None:  # unpickled in another process
            tables = [open_shard(self.folder, shard, check_index=False) for shard in self._shards]
            self._clips = [clip for table in tables for clip in table.to_batches()]
        clip = self._clips[index]
        checksums = clip.column("frame_crc32").values.to_numpy()
        frames = clip.column("frames").values
        _, offsets, data = frames.buffers()
        offsets = np.frombuffer(offsets, dtype=np.int32)
        data = memoryview(data).cast("B")
        jpegs = []
        for frame in map(int, frame_indices):
            if not 0 <= frame < self.num_frames[index]:
                raise IndexError(
                    f"{self.ids[index]!r} has {self.num_frames[index]} frames, frame {frame} was asked for"
                )
            jpeg = data[offsets[frame] : offsets[frame + 1]]
            if zlib.crc32(jpeg) != checksums[frame]:
                raise InputError(
                    f"{self.folder}: frame {frame} of {self.split} clip {self.ids[index]!r} is damaged: pack it again"
                )
            jpegs.append(jpeg)
        return jpegs


def packed_splits(folder: str | os.PathLike) -> list[str]:
    """The splits of a packed folder, in the order train, dev, test.

    Args:
        folder (`str` or `os.PathLike`): a packed folder.

    Returns:
        `list[str]`: names.

    Raises:
        InputError: if the folder is not a packed one.
    """
    return list(read_packed_manifest(folder)["splits"])


def read_packed_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of a packed folder's `manifest.json`.

    Args:
        folder (`str` or `os.PathLike`): a packed folder.

    Returns:
        `dict`: checked, without its own hash.

    Raises:
        InputError: if there is none or it is damaged.
    """
    file = Path(folder) / MANIFEST
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "make one with `fla prepare`" if Path(folder).is_dir() else "the folder does not exist"
        raise InputError(f"{folder} is not a packed corpus (no {MANIFEST}): {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    try:
        manifest = json.loads(text)
        stated = manifest.pop("sha256")
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{file} is damaged: pack the corpus again") from error
    if manifest.get("format") != FORMAT or stated != manifest_digest(manifest):
        raise InputError(f"{file} is damaged or of another version: pack the corpus again")
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The hash that `manifest.json` holds of itself.

    Args:
        manifest (`dict`): without that hash.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def open_shard(folder: Path, shard: dict[str, Any], check_index: bool) -> pa.Table:
    """Memory-map a shard.

    Args:
        folder (`Path`): the packed folder.
        shard (`dict`): its entry in the manifest: `file`, `bytes`, `clips`, `index_sha256`.
        check_index (`bool`): whether to compare everything but the frames with its hash.

    Returns:
        `pa.Table`: one clip a batch.

    Raises:
        InputError: if it is absent or damaged.
    """
    file = folder / shard["file"]
    try:
        size = file.stat().st_size
        if size != shard["bytes"]:
            raise InputError(f"{file} is damaged: {size} bytes instead of {shard['bytes']}: pack the corpus again")
        table = pa.ipc.open_stream(pa.memory_map(str(file), "r")).read_all()
        table.validate(full=True)
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing: pack the corpus again") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is damaged: {error}") from error
    if not table.schema.equals(SCHEMA) or table.num_rows != shard["clips"]:
        raise InputError(f"{file} is damaged: its columns or number of clips are not those of {MANIFEST}")
    if check_index and index_digest(table) != shard["index_sha256"]:
        raise InputError(f"{file} is damaged: its index does not match {MANIFEST}: pack the corpus again")
    return table


def index_digest(table: pa.Table) -> str:
    """Hash of every column but `frames`, and of the number of frames there are; frames have checksums of their own.

    Args:
        table (`pa.Table`): a shard.

    Returns:
        `str`: 64 hexadecimal digits; a remark that equals no hash where the table is not cut as it should be.
    """
    digest = hashlib.sha256()
    for batch in table.to_batches():
        if batch.num_rows != 1:  # the reader counts on it
            return "not one clip a batch"
        frames, checksums = batch.column("frames"), batch.column("frame_crc32")
        counts = (batch.column("num_frames")[0].as_py(), len(frames.values), len(checksums.values), frames.null_count)
        digest.update(repr(counts).encode() + checksums.values.to_numpy(zero_copy_only=False).tobytes())
    rows = table.drop_columns(["frames", "frame_crc32"]).to_pydict()
    digest.update(json.dumps(rows, sort_keys=True).encode())
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """Hash of the bytes of a file.

    Args:
        file (`Path`): of any size.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    with open(file, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)
        )


def _sha256(stream) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def verify_packed(folder: str | os.PathLike, progress: bool = True) -> list[str]:
    """Read every byte of a packed folder and compare it with the manifest's hashes.

    Args:
        folder (`str` or `os.PathLike`): a packed folder.
        progress (`bool`): show a progress bar.

    Returns:
        `list[str]`: what is wrong, a line each; empty if all is well.
    """
    from tqdm import tqdm

    folder = Path(folder)
    manifest = read_packed_manifest(folder)
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    wrong = []
    for shard in tqdm(shards, desc="verifying", unit="shard", disable=not progress):
        file = folder / shard["file"]
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file_sha256(file) != shard["sha256"]:
            wrong.append(f"{file} is damaged: its hash is not the one in {MANIFEST}")
    return wrong
