"""Reading a packed corpus: Arrow shards whose frames are JPEG bytes, of which only the frames asked for are decoded.

A packed folder, which [`~training_fla.data.packing.pack`] writes and `datasets.load_dataset` opens too:

    manifest.json                   how it was packed; the hash and size of every shard
    train-00000-of-00056.arrow      Arrow IPC streams, one record batch a clip, with the columns of `SCHEMA` or
                                    `GLOSS_SCHEMA`
    train.index.arrow               the columns but the frames of all clips, and where each clip lies; 0.1.0 wrote none
    train.sentences.txt             one sentence a line
    skipped.tsv                     clips that could not be packed and why; absent where there are none
    README.md                       dataset card: which files are which split

Damage is an error: opening compares the index with its hash, reading each frame with its checksum.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from training_fla.files import InputError, progress

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

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
GLOSS_SCHEMA = SCHEMA.append(pa.field("glosses", pa.string()))  # of a corpus that has them
INDEX_COLUMNS = ["id", "sentence", "signer", "language", "num_frames", "height", "width"]
PLACE_COLUMNS = pa.schema([("shard", pa.int32()), ("offset", pa.int64()), ("length", pa.int64())])


class Column(Sequence):
    """A column of the index as Python values; it stays in Arrow's memory, which is the mapped file's."""

    def __init__(self, array: pa.Array):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index):
        return Column(self.array[index]) if isinstance(index, slice) else self.array[int(index)].as_py()

    def __iter__(self) -> Iterator:
        for start in range(0, len(self), 1024):
            yield from self.array[start : start + 1024].to_pylist()

    def __eq__(self, other) -> bool:
        return list(self) == list(other)


class PackedCorpus:
    """One split of a packed folder. Cheap to open, to pickle and to fork: index and pixels stay in mapped files."""

    def __init__(self, folder: str | os.PathLike, split: str, has_frames: bool = True):  # or they come from a stream
        self.folder, self.split = Path(folder), split
        manifest = read_packed_manifest(self.folder)
        if split not in manifest["splits"]:
            raise InputError(f"{self.folder} has no split {split!r}, only {', '.join(manifest['splits'])}")
        self._entry = manifest["splits"][split]
        self.corpus: str = manifest["corpus"]
        self.language: str = manifest["language"]  # MBart code; empty if rows differ or do not say
        self.frame_stride: int = manifest["parameters"]["frame_stride"]  # source frames to each packed frame
        self.feature_size: int | None = manifest["parameters"].get("feature_size")  # C of a corpus without frames
        self.extractor: str = manifest["parameters"].get("extractor", "")  # of its features
        self.fingerprint: str = self._entry["fingerprint"]  # changes when any packed byte of the split changes
        self.shard_clips: list[int] = [shard["clips"] for shard in self._entry["shards"]]
        for shard in self._entry["shards"] if has_frames else ():
            _check_size(self.folder, shard)
        index = self._entry.get("index")
        if index and file_sha256(_check_size(self.folder, index)) != index["sha256"]:
            raise InputError(f"{self.folder / index['file']} is damaged: pack the corpus again")
        self._shards: dict[int, pa.Buffer] = {}
        self._index: pa.Table | None = None
        self._index = self._read_index(check=True)

    def _read_index(self, check: bool = False) -> pa.Table:
        if self._index is None:
            if "index" in self._entry:
                file = self.folder / self._entry["index"]["file"]
                self._index = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
            else:
                self._index = read_shards(self.folder, self._entry["shards"], check)
        return self._index

    def __len__(self) -> int:
        return self._entry["clips"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_shards": {}}

    def column(self, name: str) -> Column:
        """One of `INDEX_COLUMNS`, or `glosses` where the corpus has them; a value a clip."""
        if name == "glosses" and name not in self._read_index().column_names:
            raise InputError(f"{self.folder} holds no glosses")
        chunked = self._read_index().column(name)
        return Column(chunked.chunk(0) if chunked.num_chunks else chunked.combine_chunks())

    schema = property(lambda self: GLOSS_SCHEMA if "glosses" in self._read_index().column_names else SCHEMA)
    ids = property(lambda self: self.column("id"))
    sentences = property(lambda self: self.column("sentence"))
    signers = property(lambda self: self.column("signer"))
    num_frames = property(lambda self: self.column("num_frames"))

    def read_frames(
        self, index: int, frame_indices: Sequence[int], clip: pa.RecordBatch | None = None
    ) -> "torch.Tensor":
        """Decode some frames of a clip.

        Args:
            index (`int`): which clip.
            frame_indices (`Sequence[int]`): which of its frames, in the order wanted, each in `0 .. num_frames - 1`.
            clip (`pyarrow.RecordBatch`, *optional*): its row of a shard, where it need not be read.

        Returns:
            `torch.Tensor` of shape `(T, 3, H, W)`: uint8 RGB, 0 to 255, channels last in memory.

        Raises:
            InputError: if the shard is damaged, naming it and the frame.
            IndexError: if the clip has no such frame.
        """
        import torch

        if not len(frame_indices):
            raise IndexError("no frame was asked for")
        size = self.column("height")[index], self.column("width")[index]
        pixels = np.empty((len(frame_indices), *size, 3), dtype=np.uint8)
        for row, jpeg in enumerate(self.read_jpegs(index, frame_indices, clip)):
            try:
                decode_jpeg_into(jpeg, pixels[row])
            except InputError as error:
                raise self._damaged(index, frame_indices[row]) from error
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def read_jpegs(
        self, index: int, frame_indices: Sequence[int], clip: pa.RecordBatch | None = None
    ) -> list[memoryview]:
        """The JPEG bytes of some frames of a clip, where they lie, checked."""
        clip = self._read_clip(index) if clip is None else clip
        checksums, frames = (clip.column(name).flatten() for name in ("frame_crc32", "frames"))
        num_frames, jpegs = self.num_frames[index], []
        is_whole = len(frames) == len(checksums) == num_frames and clip.num_rows == 1
        if not is_whole or clip.column("id")[0].as_py() != self.ids[index]:
            raise self._damaged(index, 0)
        checksums = checksums.to_numpy()
        for frame in map(int, frame_indices):
            if not 0 <= frame < num_frames:
                raise IndexError(f"{self.ids[index]!r} has {num_frames} frames, frame {frame} was asked for")
            jpeg = memoryview(frames[frame].as_buffer()).cast("B")
            if zlib.crc32(jpeg) != checksums[frame]:
                raise self._damaged(index, frame)
            jpegs.append(jpeg)
        return jpegs

    def fps(self, index: int) -> float:
        """Source frames a second of a clip; 0 where nothing says it."""
        return self._read_clip(index).column("fps")[0].as_py() or 0.0

    def _read_clip(self, index: int) -> pa.RecordBatch:
        number, offset, length = (self.column(name)[index] for name in PLACE_COLUMNS.names)
        if number not in self._shards:
            file = _check_size(self.folder, self._entry["shards"][number])
            self._shards[number] = pa.memory_map(str(file)).read_buffer()
        try:
            clip = pa.ipc.read_record_batch(self._shards[number].slice(offset, length), self.schema)
            clip.validate(full=True)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._damaged(index, 0) from error
        return clip

    def _damaged(self, index: int, frame: int) -> InputError:
        clip = f"{self.split} clip {self.ids[index]!r}"
        return InputError(f"{self.folder}: frame {frame} of {clip} is damaged: pack it again")


def _check_size(folder: Path, entry: dict[str, Any]) -> Path:
    """A file that the manifest names, which is there and as long as it says."""
    file = folder / entry["file"]
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"{file} is missing: pack the corpus again") from error
    if size != entry["bytes"]:
        raise InputError(f"{file} is damaged: {size} bytes instead of {entry['bytes']}: pack the corpus again")
    return file


def packed_splits(folder: str | os.PathLike) -> list[str]:
    """The splits of a packed folder, in the order train, dev, test."""
    return list(read_packed_manifest(folder)["splits"])


def read_packed_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of a packed folder's `manifest.json`, checked, without its own hash."""
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
    """The hash that `manifest.json` holds of everything else in it."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_shards(folder: Path, shards: Sequence[dict[str, Any]], check: bool) -> pa.Table:
    """The index of some shards, from the shards themselves, compared with their hashes if asked."""
    parts = []
    for number, shard in enumerate(shards):
        file = _check_size(folder, shard)
        source, places = pa.memory_map(str(file)), []
        try:
            schema, batches = pa.ipc.read_schema(source), []
            for _ in range(shard["clips"]):
                offset = source.tell()
                batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(source), schema))
                places.append({"shard": number, "offset": offset, "length": source.tell() - offset})
            table = pa.Table.from_batches(batches, GLOSS_SCHEMA if "glosses" in schema.names else SCHEMA)
            table.validate(full=True)
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            raise InputError(f"{file} is damaged: {error}: pack the corpus again") from error
        if check and index_digest(table) != shard["index_sha256"]:
            raise InputError(f"{file} is damaged: its index does not match {MANIFEST}: pack the corpus again")
        columns = [name for name in (*INDEX_COLUMNS, "glosses") if name in table.column_names]
        index, where = table.select(columns).combine_chunks(), pa.Table.from_pylist(places, PLACE_COLUMNS)
        for name in PLACE_COLUMNS.names:
            index = index.append_column(name, where.column(name))
        parts.append(index)
    return pa.concat_tables(parts).combine_chunks()


def index_digest(table: pa.Table) -> str:
    """Hash of every column of a shard but `frames`, and of the number of frames there are."""
    digest = hashlib.sha256()
    for batch in table.to_batches():
        frames, checksums = batch.column("frames"), batch.column("frame_crc32")
        counts = (batch.column("num_frames")[0].as_py(), len(frames.values), len(checksums.values), frames.null_count)
        digest.update(repr(counts).encode() + checksums.values.to_numpy(zero_copy_only=False).tobytes())
    rows = table.drop_columns(["frames", "frame_crc32"]).to_pydict()
    digest.update(json.dumps(rows, sort_keys=True).encode())
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """Hash of the bytes of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_packed(folder: str | os.PathLike) -> list[str]:
    """Compare every byte of a packed folder with the manifest's hashes; what is wrong, a line each."""
    folder, wrong = Path(folder), []
    splits = read_packed_manifest(folder)["splits"].values()
    entries = [entry for split in splits for entry in split["shards"]]
    entries += [split["index"] for split in splits if "index" in split]
    for entry in progress(entries, desc="verifying", unit="file"):
        file = folder / entry["file"]
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif file_sha256(file) != entry["sha256"]:
            wrong.append(f"{file} is damaged: its hash is not the one in {MANIFEST}")
    return wrong


def decode_jpeg_into(jpeg: bytes | memoryview, pixels: np.ndarray) -> None:
    """Decode a frame as RGB into `pixels`, uint8 `(H, W, 3)`; refused if it is no JPEG or of another size.

    simplejpeg decodes in place; torchvision takes a third longer for the same pixels.
    """
    try:
        if simplejpeg is None:
            import torch
            from torchvision.io import ImageReadMode, decode_jpeg

            image = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)
            image = image.permute(1, 2, 0).numpy()
            size = image.shape[:2]
        else:
            size = simplejpeg.decode_jpeg_header(jpeg)[:2]
        if size == pixels.shape[:2] and simplejpeg is None:
            np.copyto(pixels, image)
        elif size == pixels.shape[:2]:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False, buffer=pixels)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"not a JPEG: {error}") from error
    if size != pixels.shape[:2]:
        raise InputError("{} x {} pixels instead of {} x {}".format(*size, *pixels.shape))
