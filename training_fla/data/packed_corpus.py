"""A packed corpus: Arrow shards whose frames are JPEG bytes, of which only the frames asked for are decoded.

A packed folder, which [`~training_fla.data.packing.pack`] writes and `datasets.load_dataset` opens too:

    manifest.json                   how it was packed; the hash and size of every shard
    train-00000-of-00056.arrow      Arrow IPC streams, one record batch a clip, with the columns of `SCHEMA`, and
                                    `glosses` where the corpus has them; `datasets` shows the frames as images
    train.index.arrow               the columns but the frames of all clips, and where each clip lies; 0.1.0 wrote none
    train.sentences.txt             one sentence a line
    skipped.tsv                     clips that could not be packed and why; absent where there are none
    README.md                       dataset card: which files are which split

Damage is an error: opening checks the manifest and compares the index with its hash, reading each frame with its
checksum. A folder may be a stranger's: whatever it says is checked before it is used.

Version 0.3.0 and older packed frames as bytes without a path, and did not store the size of the source's frames.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training_fla.console import progress
from training_fla.errors import InputError, first_line
from training_fla.tables import write_table

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

if TYPE_CHECKING:
    import torch

    from processing_fla import FlaVideoProcessor

MANIFEST = "manifest.json"
FORMAT = "fla-packed-2"
OLD_FORMAT = "fla-packed-1"
MAX_PIXELS = 4096 * 4096  # of a frame, as of a video's that is read
# Unstated: a shard of PHOENIX14T is then about 270 MB and a minute or two of a core, which is what a kill costs. A
# shard of features is held in memory while it is made.
MAX_SHARD_CLIPS = 128
MIN_SHARD_CLIPS = 2
SHARDS_OF_A_SPLIT = 16  # of a small one, so that all processes that encode it have some


def _with_features(schema: pa.Schema) -> pa.Schema:
    """A schema that says, as `datasets` writes it, what the columns are: the frames are images."""
    names = {pa.float32(): "float32"}
    features = {field.name: {"dtype": names.get(field.type, str(field.type)), "_type": "Value"} for field in schema}
    features["frame_crc32"] = {"feature": {"dtype": "uint32", "_type": "Value"}, "_type": "List"}
    features["frames"] = {"feature": {"_type": "Image"}, "_type": "List"}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


OLD_SCHEMA = pa.schema(
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
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SOURCE_SIZE = [pa.field("source_height", pa.int32()), pa.field("source_width", pa.int32())]
SCHEMA = _with_features(pa.schema([*list(OLD_SCHEMA)[:-1], pa.field("frames", pa.list_(IMAGE)), *SOURCE_SIZE]))
GLOSSES = pa.field("glosses", pa.string())
OLD_GLOSS_SCHEMA = OLD_SCHEMA.append(GLOSSES)
GLOSS_SCHEMA = _with_features(SCHEMA.append(GLOSSES))
SCHEMAS = {OLD_FORMAT: (OLD_SCHEMA, OLD_GLOSS_SCHEMA), FORMAT: (SCHEMA, GLOSS_SCHEMA)}

INDEX_COLUMNS = ["id", "sentence", "signer", "language", "num_frames", "height", "width"]
FRAME_COLUMNS = ["fps", "source_height", "source_width"]
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
        self.folder = Path(folder)
        self.split = split
        manifest = read_packed_manifest(self.folder)
        if split not in manifest["splits"]:
            raise InputError(f"{self.folder} has no split {split!r}, only {', '.join(manifest['splits'])}")
        self._entry = manifest["splits"][split]
        self._format: str = manifest["format"]
        self.corpus: str = manifest["corpus"]
        self.language: str = manifest["language"]  # MBart code; empty if rows differ or do not say
        self.frame_stride: int = manifest["parameters"]["frame_stride"]  # source frames to each packed frame
        self.feature_size: int | None = manifest["parameters"].get("feature_size")  # C of a corpus without frames
        self._size: list[int] | None = manifest["parameters"].get("size")  # height and width; None: each clip's own
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
                self._index = read_index(file)
            else:
                file = self.folder / MANIFEST
                self._index = read_shards(self.folder, self._entry["shards"], check)
            if check:
                columns = PLACE_COLUMNS.names if self.feature_size is None else []
                columns = columns + (FRAME_COLUMNS if columns and self._format == FORMAT else [])
                check_index(self._index, self._entry, file, INDEX_COLUMNS + columns)
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

    @property
    def schema(self) -> pa.Schema:
        """Of the shards."""
        without_glosses, with_glosses = SCHEMAS[self._format]
        return with_glosses if "glosses" in self._read_index().column_names else without_glosses

    @property
    def ids(self) -> Column:
        """The id of each clip, unique in the split."""
        return self.column("id")

    @property
    def sentences(self) -> Column:
        """The sentence of each clip."""
        return self.column("sentence")

    @property
    def signers(self) -> Column:
        """The signer of each clip; empty where nothing says it."""
        return self.column("signer")

    @property
    def num_frames(self) -> Column:
        """The stored frames of each clip, or the length N of its features."""
        return self.column("num_frames")

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
        jpegs = self.read_jpegs(index, frame_indices, clip)
        size = self.column("height")[index], self.column("width")[index]
        pixels = np.empty((len(frame_indices), *size, 3), dtype=np.uint8)
        for row, jpeg in enumerate(jpegs):
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
        checksums = clip.column("frame_crc32").flatten()
        frames = clip.column("frames").flatten()
        if isinstance(frames, pa.StructArray):
            frames = frames.field("bytes")
        num_frames = self.num_frames[index]
        is_whole = len(frames) == len(checksums) == num_frames and clip.num_rows == 1
        is_whole = is_whole and not frames.null_count and not checksums.null_count
        if not is_whole or clip.column("id")[0].as_py() != self.ids[index]:
            raise self._damaged(index, 0)
        checksums = checksums.to_numpy()
        jpegs = []
        for frame in map(int, frame_indices):
            if not 0 <= frame < num_frames:
                raise IndexError(f"{self.ids[index]!r} has {num_frames} frames, frame {frame} was asked for")
            jpeg = memoryview(frames[frame].as_buffer()).cast("B")
            if zlib.crc32(jpeg) != checksums[frame]:
                raise self._damaged(index, frame)
            jpegs.append(jpeg)
        return jpegs

    def size_before(self, video_processor: "FlaVideoProcessor") -> dict[str, int] | None:
        """The size of the packed frames where a processor scales them on; then it must bring videos to it first."""
        size = self._size and tuple(self._size)
        if not size or video_processor.target_size(*size) == size:
            return None
        return dict(zip(("height", "width"), size, strict=True))

    def source_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of a clip's frames before they were scaled; `None` where 0.3.0 or older packed it."""
        if "source_height" not in self._read_index().column_names:
            return None
        return self.column("source_height")[index], self.column("source_width")[index]

    @property
    def rates(self) -> np.ndarray:
        """Source frames a second of each clip, `(clips,)`; 0 where nothing says it."""
        if "fps" not in self._read_index().column_names:
            raise InputError(f"{self.folder} was packed by 0.3.0 or older, without frame rates: pack it again")
        return self.column("fps").array.to_numpy()

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
        except (pa.ArrowException, OSError, EOFError, IndexError) as error:
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
    if manifest.get("format") not in tuple(SCHEMAS) or stated != manifest_digest(manifest):
        raise InputError(f"{file} is damaged or of another version: pack the corpus again")
    check_manifest(manifest, file)
    return manifest


def check_manifest(manifest: dict[str, Any], file: Path) -> None:
    """Refuse a manifest in which something is missing, of another type, or names a file outside its folder.

    Its hash shows damage; this is for one that was not written by `fla prepare`.
    """
    is_count, is_text = "a whole number of 0 or more", "a text"
    parameters = {"frame_stride": "a whole number of 1 or more"}
    if _checked(manifest, "parameters", "an object", file, "").get("size") is not None:
        parameters |= {"size": "a height and a width"}
    if "feature_size" in manifest["parameters"]:
        parameters |= {"feature_size": "a whole number of 1 or more", "extractor": is_text}
    for key, kind in parameters.items():
        _checked(manifest["parameters"], key, kind, file, "parameters.")
    for key in ("corpus", "language", "source", "plan"):
        _checked(manifest, key, is_text, file, "")
    stored = {"file": "the name of a file in the folder", "bytes": is_count, "sha256": is_text}
    for name, split in _checked(manifest, "splits", "an object", file, "").items():
        place = f"splits.{name}."
        if not PLAIN_NAME.fullmatch(name):
            raise InputError(f"{file}: `splits` holds {name!r}, which is not a plain name: pack the corpus again")
        _checked(manifest["splits"], name, "an object", file, "splits.")
        for key, kind in {"clips": is_count, "fingerprint": is_text, "shards": "a list"}.items():
            _checked(split, key, kind, file, place)
        entries = {f"shards.{number}": shard for number, shard in enumerate(split["shards"])}
        if "index" in split:
            entries["index"] = split["index"]
        for where, entry in entries.items():
            _checked({where: entry}, where, "an object", file, place)
            for key, kind in stored.items():
                _checked(entry, key, kind, file, f"{place}{where}.")
            if where != "index":
                _checked(entry, "clips", is_count, file, f"{place}{where}.")
            if "index" not in split:
                _checked(entry, "index_sha256", is_text, file, f"{place}{where}.")
        if sum(shard["clips"] for shard in split["shards"]) != split["clips"]:
            raise InputError(f"{file}: `{place}clips` is not the sum of its shards: pack the corpus again")


PLAIN_NAME = re.compile(r"\w[\w.-]*")
KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a whole number of 0 or more": lambda value: type(value) is int and 0 <= value < 2**63,
    "a whole number of 1 or more": lambda value: type(value) is int and 1 <= value < 2**31,
    "a height and a width": lambda value: (
        isinstance(value, list) and len(value) == 2 and all(type(side) is int and 1 <= side <= 4096 for side in value)
    ),
    # Features lie one folder deeper.
    "the name of a file in the folder": lambda value: (
        isinstance(value, str) and value.count("/") <= 1 and all(map(PLAIN_NAME.fullmatch, value.split("/")))
    ),
}


def _checked(holder: dict[str, Any], key: str, kind: str, file: Path, place: str) -> Any:
    """The value of a key, which is there and of its kind."""
    if key not in holder:
        raise InputError(f"{file}: `{place}{key}` is missing: pack the corpus again")
    if not KINDS[kind](holder[key]):
        value = repr(holder[key])[:60]
        raise InputError(f"{file}: `{place}{key}` is not {kind} but {value}: pack the corpus again")
    return holder[key]


def read_index(file: Path) -> pa.Table:
    """The index of a split, which stays in the mapped file."""
    try:
        index = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        index.validate(full=True)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise InputError(f"{file} is damaged: {first_line(error)}: pack the corpus again") from error
    return index


def check_index(index: pa.Table, entry: dict[str, Any], file: Path, columns: list[str]) -> None:
    """Refuse an index whose columns are not those of its split, or that names clips which cannot be."""
    types = {field.name: field.type for field in [*SCHEMA, GLOSSES, *PLACE_COLUMNS]}
    has_frames = "shard" in columns
    for name in columns + ["glosses"] * ("glosses" in index.column_names):
        if index.schema.get_field_index(name) < 0:
            raise InputError(f"{file}: the column `{name}` is missing: pack the corpus again")
        if index.schema.field(name).type != types[name] or index.column(name).null_count:
            raise InputError(f"{file}: the column `{name}` is not {types[name]} throughout: pack the corpus again")
    if len(index) != entry["clips"]:
        raise InputError(f"{file} has {len(index)} clips instead of {entry['clips']}: pack the corpus again")
    # Numbers that a clip can have; the largest JPEG is 65,535 pixels wide.
    limits = {"num_frames": (1, 2**31 - 1), "height": (0, 0), "width": (0, 0)}
    if has_frames:
        limits |= dict.fromkeys(("height", "width", *FRAME_COLUMNS[1:]), (1, 65_535))
        limits |= {"shard": (0, len(entry["shards"]) - 1), "offset": (0, 2**63 - 1), "length": (1, 2**63 - 1)}
    for name in set(limits) & set(columns):
        low, high = limits[name]
        extremes = pc.min_max(index.column(name)).as_py()
        if len(index) and not (low <= extremes["min"] and extremes["max"] <= high):
            value = extremes["max"] if extremes["max"] > high else extremes["min"]
            raise InputError(f"{file}: `{name}` of a clip is {value}, not {low} to {high}: pack the corpus again")
    if has_frames and len(index):
        sizes = np.array([shard["bytes"] for shard in entry["shards"]])
        columns = ("shard", "offset", "length", "height", "width")
        shard, offset, length, height, width = (index.column(name).to_numpy() for name in columns)
        if (length > sizes[shard] - offset).any():
            raise InputError(f"{file}: a clip lies beyond the end of its shard: pack the corpus again")
        if (height.astype(np.int64) * width > MAX_PIXELS).any():
            raise InputError(f"{file}: frames of a clip are too large: `height` x `width` is more than {MAX_PIXELS}")


def shard_ranges(num_clips: int, shard_clips: int | None = None) -> list[range]:
    """Which clips of a split lie in which shard, of frames or of features; `shard_clips` is another number a shard."""
    if shard_clips is not None and shard_clips < 1:
        raise InputError(f"a shard needs at least one clip, not {shard_clips}")
    if shard_clips is None:
        shard_clips = min(MAX_SHARD_CLIPS, max(MIN_SHARD_CLIPS, num_clips // SHARDS_OF_A_SPLIT))
    return [range(start, min(start + shard_clips, num_clips)) for start in range(0, num_clips, shard_clips)]


def describe_folder(
    folder: Path,
    splits: dict[str, dict[str, Any]],
    indexes: dict[str, pa.Table],
    *,
    skipped: Sequence[Sequence[str]],
    card: str,
    parameters: dict[str, Any],
    corpus: str,
    source: str = "",
    plan: str = "",
) -> None:
    """Write what lies beside the shards of frames or features: indexes, sentences, bad rows, card and manifest.

    `splits` is what the manifest says of each split, where hash and index are added; `skipped` are split, id and
    reason of clips that were left out; the others are the manifest's fields.
    """
    for name, index in indexes.items():
        hashes = "".join(shard["sha256"] for shard in splits[name]["shards"])
        splits[name]["fingerprint"] = hashlib.sha256(hashes.encode()).hexdigest()[:32]
        file = folder / f"{name}.index.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, index.schema) as writer:
            writer.write_table(index)
        splits[name]["index"] = {"file": file.name, "bytes": file.stat().st_size, "sha256": file_sha256(file)}
        sentences = "".join(f"{sentence}\n" for sentence in index["sentence"].to_pylist())
        (folder / f"{name}.sentences.txt").write_text(sentences, encoding="utf-8")
    if skipped:
        write_table(folder / "skipped.tsv", ("split", "id", "reason"), skipped, overwrite=True)
    (folder / "README.md").write_text(card, encoding="utf-8")
    languages = {language for index in indexes.values() for language in index["language"].unique().to_pylist()}
    manifest = {
        "format": FORMAT,
        "splits": splits,
        "skipped": len(skipped),
        "parameters": parameters,
        "corpus": corpus,
        "source": source,
        "plan": plan,
        "language": languages.pop() if len(languages) == 1 else "",
    }
    text = json.dumps({**manifest, "sha256": manifest_digest(manifest)}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The hash that `manifest.json` holds of everything else in it."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_shards(folder: Path, shards: Sequence[dict[str, Any]], check: bool) -> pa.Table:
    """The index of some shards, from the shards themselves, compared with their hashes if asked."""
    parts = []
    for number, shard in enumerate(shards):
        file = _check_size(folder, shard)
        source = pa.memory_map(str(file))
        places = []
        batches = []
        try:
            schema = pa.ipc.read_schema(source)
            for _ in range(shard["clips"]):
                offset = source.tell()
                batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(source), schema))
                places.append({"shard": number, "offset": offset, "length": source.tell() - offset})
            without_glosses, with_glosses = SCHEMAS[FORMAT if "source_height" in schema.names else OLD_FORMAT]
            table = pa.Table.from_batches(batches, with_glosses if "glosses" in schema.names else without_glosses)
            table.validate(full=True)
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            raise InputError(f"{file} is damaged: {error}: pack the corpus again") from error
        if check and index_digest(table) != shard["index_sha256"]:
            raise InputError(f"{file} is damaged: its index does not match {MANIFEST}: pack the corpus again")
        columns = [name for name in (*INDEX_COLUMNS, *FRAME_COLUMNS, "glosses") if name in table.column_names]
        index = table.select(columns).combine_chunks()
        place_columns = pa.Table.from_pylist(places, PLACE_COLUMNS)
        for name in PLACE_COLUMNS.names:
            index = index.append_column(name, place_columns.column(name))
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
    folder = Path(folder)
    wrong = []
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
