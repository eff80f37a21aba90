"""Packing: the clips of any corpus become Arrow shards of JPEG frames, so that training decodes only what it samples.

[`Packer`] works in this order: rows are cut into shards, processes encode their clips, a shard is written as its clips
come, and the folder is described and put in its place.

The bytes depend on the clips and the options alone, not on how many processes share the work. A run that was killed
goes on from its finished shards, which lie in `.<name>.packing` beside the output. A corpus that is packed again takes
over the shards whose clips are the same files with the same sentences.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from training_fla.console import counted, note, progress, size_text
from training_fla.corpora.clips import FRAME_SIZE, JPEG_QUALITY, TargetSize, VideoFile, check_reaches_end
from training_fla.corpora.manifest import manifest_fingerprint, read_manifest
from training_fla.corpora.row import SPLITS, CorpusRow, Reading
from training_fla.errors import InputError, disk_is_full, one_line
from training_fla.folders import (
    atomic_file,
    check_folder,
    check_not_inside,
    clear_folder,
    locked_folder,
    read_marker,
    replace_folder,
    write_marker,
)

from .checking import rates_and_shapes
from .packed_corpus import (
    FORMAT,
    FRAME_COLUMNS,
    GLOSS_SCHEMA,
    MANIFEST,
    SCHEMA,
    describe_folder,
    file_sha256,
    index_digest,
    read_packed_manifest,
    read_shards,
    shard_ranges,
)
from .worker_processes import LOST, in_workers, watched

MAX_CLIP_BYTES = 2**31 - 1  # Arrow's `binary` counts the bytes of a batch, which is a clip, in 32 bits
CLIPS_NAMED = 20  # of those that are missing


def pack(
    rows: Sequence[CorpusRow],
    out: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = FRAME_SIZE,
    quality: int = JPEG_QUALITY,
    frame_stride: int = 1,
    shard_clips: int | None = None,
    on_error: str = "fail",
    overwrite: bool = False,
    wait: bool = False,
    num_workers: int | None = None,
    corpus: str = "",
    source: str = "",
    left_out: Sequence[tuple[str, str, str]] = (),
    add_files: Callable[[Path], None] | None = None,
) -> Path:
    """Write the clips of a corpus as a packed folder.

    Args:
        rows (`Sequence[CorpusRow]`): the clips.
        out (`str` or `PathLike`): the folder to write.
        size (`int` or `tuple[int, int]`, *optional*): height and width of the stored frames, or both at once; `None`
            keeps the source's.
        quality (`int`): of the JPEGs, 1 to 100.
        frame_stride (`int`): store one source frame in so many.
        shard_clips (`int`, *optional*): clips of a shard; by the size of the split when absent.
        on_error (`str`): `"fail"` at a bad clip, or `"skip"` it and list it in `skipped.tsv`.
        overwrite (`bool`): replace a packed corpus at `out`.
        wait (`bool`): for another process that writes `out`, instead of failing.
        num_workers (`int`, *optional*): processes; 0 works in this one, `None` takes one a core.
        corpus (`str`): name of the corpus, for the manifest.
        source (`str`): fingerprint of what the rows were read from; another one packs anew.
        left_out (`Sequence[tuple[str, str, str]]`): more for `skipped.tsv`: split, id and reason of rows that no clip
            could be made of.
        add_files (`Callable`, *optional*): called with the folder before it appears at `out`.

    Returns:
        `Path`: the folder.

    Raises:
        InputError: the folder may not be written, an option or a clip is bad, or the disk is full.
    """
    get_preparation_data(
        ""
    )  # fails in a worker that is not forked and imports its parent's script, which would wait here
    frames = StoredFrames((size, size) if isinstance(size, int) else size, quality, frame_stride)
    packer = Packer(
        rows,
        Path(out),
        frames,
        shard_clips=shard_clips,
        on_error=on_error,
        corpus=corpus,
        source=source,
        left_out=left_out,
    )
    return packer.run(overwrite=overwrite, wait=wait, num_workers=num_workers, add_files=add_files)


def ensure_packed(
    manifest: str | os.PathLike,
    packed_dir: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = FRAME_SIZE,
    on_error: str = "fail",
    num_workers: int | None = None,
    video_column: str = "video",
    sentence_column: str = "sentence",
    no_times: bool = False,  # leave the columns `start` and `end` unread
    follow_links: bool = False,
    only_look: bool = False,
) -> Path:
    """The packed folder of a manifest, by its fingerprint; packed first where it is missing, by one of all callers.

    With `only_look` a missing one is refused.
    """
    columns = {"video_column": video_column, "sentence_column": sentence_column}
    if no_times:
        columns |= {"start_column": "", "end_column": ""}
    reading = Reading(follow_links, skip_bad_rows=on_error == "skip")
    rows = read_manifest(manifest, reading=reading, **columns)
    frames = [("on_error", on_error), ("size", size)]
    source = f"{manifest_fingerprint(manifest, rows, **columns)} {frames!r}"
    source = hashlib.sha256(source.encode()).hexdigest()[:32]
    out = Path(packed_dir) / f"{Path(manifest).resolve().stem}-{source[:16]}"
    if (out / MANIFEST).is_file() and read_packed_manifest(out)["source"] == source:
        return out
    if only_look:
        remedy = f"`fla prepare manifest --root {manifest} --out FOLDER` does, then give --dataset FOLDER"
        raise InputError(f"{manifest} is not packed yet, and --check packs nothing: {remedy} in place of the table")
    return pack(
        rows,
        out,
        size=size,
        on_error=on_error,
        wait=True,
        num_workers=num_workers,
        corpus="manifest",
        source=source,
        left_out=reading.left_out(),
    )


@dataclass(frozen=True)
class StoredFrames:
    """How frames are stored."""

    size: tuple[int, int] | None  # height and width; `None` keeps the source's
    quality: int
    frame_stride: int

    def __post_init__(self):
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise InputError(f"size must be 1 to 4096 pixels, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"JPEG quality must be 1 to 100, not {self.quality}")
        if self.frame_stride < 1:
            raise InputError(f"frame_stride must be at least 1, not {self.frame_stride}")

    def parameters(self) -> dict[str, Any]:
        """The same for the manifest."""
        size = list(self.size) if self.size else None
        return {"size": size, "quality": self.quality, "frame_stride": self.frame_stride}


@dataclass(frozen=True)
class Shard:
    """One shard to be written: its file name and its clips."""

    file: str
    split: str
    rows: Sequence[CorpusRow]


class Packer:
    """Packs the rows of a corpus: [`run`] calls the methods below it in their order."""

    def __init__(
        self,
        rows: Sequence[CorpusRow],
        out: Path,
        frames: StoredFrames,
        *,
        shard_clips: int | None,
        on_error: str,
        corpus: str,
        source: str,
        left_out: Sequence[tuple[str, str, str]],
    ):
        self.rows = rows
        self.out = out.resolve()
        self.frames = frames
        self.on_error = on_error
        self.corpus = corpus
        self.source = source
        self.left_out = left_out
        self.work = work_folder(self.out)
        self.folder = self.work / "folder"  # takes the place of `out` when it is whole
        self.entries = self.work / "entries"  # what is known of each finished shard
        self.schema = GLOSS_SCHEMA if any(row.glosses for row in rows) else SCHEMA
        self.shards = cut_into_shards(rows, shard_clips)
        self.plan = self._plan_digest()
        self.earlier_shards: dict[str, dict[str, Any]] = {}  # of the corpus that `out` holds, by their content

    def run(
        self,
        *,
        overwrite: bool,
        wait: bool,
        num_workers: int | None,
        add_files: Callable[[Path], None] | None,
    ) -> Path:
        """Pack what is not packed yet, while no other process does; the result is `out`."""
        with locked_folder(self.work, self.out, wait=wait, temporary=True):
            try:
                earlier = self.read_earlier()
                if earlier is None or earlier["plan"] != self.plan:
                    self.check(overwrite)
                    self.write_shards(num_workers)
                    self.finish(add_files)
                if read_marker(self.work):
                    clear_folder(self.work)
            except OSError as error:
                raise self._explained(error) from error
        return self.out

    def read_earlier(self) -> dict[str, Any] | None:
        """The manifest of the corpus that `out` holds, if it holds one; its shards may be taken over."""
        try:
            manifest = read_packed_manifest(self.out)
        except InputError:
            return None
        entries = [entry for split in manifest["splits"].values() for entry in split["shards"]]
        self.earlier_shards = {entry["content"]: entry for entry in entries if "content" in entry}
        return manifest

    def check(self, overwrite: bool) -> None:
        """Refuse what is known to fail, before hours of work."""
        try:
            check_folder(self.out, "corpus", overwrite)
        except InputError as error:
            if not self.earlier_shards:
                raise
            unchanged = "shards whose videos and sentences are unchanged are taken over"
            raise InputError(f"{error}; {unchanged}") from None
        check_folder(self.work, "corpus", overwrite=True)
        check_not_inside({Path(row.video.path).parent for row in self.rows if hasattr(row.video, "path")}, self.out)
        missing = [row for row in self.rows if row.video.is_missing]
        if missing and self.on_error == "fail":
            named = [f"{clip_name(row)}: {row.video.path} is not there" for row in missing[:CLIPS_NAMED]]
            if len(missing) > CLIPS_NAMED:
                named.append(f"and {len(missing) - CLIPS_NAMED} more")
            counts = f"{len(missing)} of {len(self.rows)} clips are missing"
            raise InputError(f"{counts}; {'; '.join(named)}; --on-error skip leaves them out")

    def write_shards(self, num_workers: int | None) -> None:
        """Write the shards that are missing, one after the other, while processes encode the clips of all."""
        self.folder.mkdir(exist_ok=True)
        self.entries.mkdir(exist_ok=True)
        write_marker(self.work, "corpus")
        missing = [shard for shard in self.shards if not self.read_entry(shard) and not self.take_over(shard)]
        rows = [row for shard in missing for row in shard.rows]
        if any(isinstance(row.video, VideoFile) for row in rows):  # once here, not in every process that is forked
            import av.video.reformatter  # noqa: F401

            import processing_fla.video_reading_fla  # noqa: F401
        encode = partial(encode_clip, frames=self.frames, schema=self.schema)
        clips = in_workers(encode, rows, num_workers, lost=lambda row: f"{clip_name(row)}: {LOST}")
        bar = progress(total=len(rows), desc="packing", unit="clip", disable=not missing)
        with bar, contextlib.closing(clips):
            for shard in missing:
                self.write_shard(shard, clips, bar)

    def read_entry(self, shard: Shard) -> dict[str, Any] | None:
        """What is known of a shard that is finished; `None` if it is still to be written."""
        try:
            entry = json.loads((self.entries / f"{shard.file}.json").read_text(encoding="utf-8"))
            is_ours = entry["plan"] == self.plan
            is_whole = (self.folder / shard.file).stat().st_size == entry["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if is_ours and is_whole else None

    def take_over(self, shard: Shard) -> bool:
        """Copy a shard from the corpus at `out`, where it holds one of the same clips, whole."""
        entry = self.earlier_shards.get(self._content_digest(shard) or "")
        if entry is None or entry["clips"] != len(shard.rows):
            return False
        file = self.out / entry["file"]
        if not file.is_file() or file_sha256(file) != entry["sha256"]:
            return False
        with atomic_file(self.folder / shard.file, overwrite=True) as work:
            shutil.copyfile(file, work)
        self.write_entry(shard, entry | {"file": shard.file}, [])
        return True

    def write_shard(self, shard: Shard, clips: Iterator[pa.RecordBatch | str], bar: Any) -> None:
        """Write the next clips as a shard, which appears when it is whole, and then its entry."""
        num_clips = 0
        num_frames = 0
        skipped: list[tuple[str, str]] = []
        with atomic_file(self.folder / shard.file, overwrite=True) as work:
            with pa.OSFile(str(work), "wb") as sink, pa.ipc.new_stream(sink, self.schema) as stream:
                for row in shard.rows:
                    clip = next(clips)
                    bar.update()
                    if isinstance(clip, pa.RecordBatch):
                        stream.write_batch(clip)
                        num_clips += 1
                        num_frames += clip.column("num_frames")[0].as_py()
                    elif self.on_error == "fail":
                        remedy = f"--on-error skip leaves such clips out, and goes on from what {self.work} holds"
                        raise InputError(f"{clip}; {remedy}")
                    else:
                        skipped.append((row.id, clip))
            entry = {
                "file": shard.file,
                "bytes": os.path.getsize(work),
                "sha256": file_sha256(work),
                "index_sha256": _index_digest_of(work),
                "clips": num_clips,
                "frames": num_frames,
            }
        if content := self._content_digest(shard):
            entry["content"] = content
        if skipped:
            bar.set_description(f"packing, {counted(len(skipped), 'bad clip')} in {shard.file}", refresh=False)
        self.write_entry(shard, entry, skipped)

    def write_entry(self, shard: Shard, entry: dict[str, Any], skipped: list[tuple[str, str]]) -> None:
        """Write what the manifest is going to say of a shard; with its entry a shard is finished."""
        text = json.dumps(entry | {"plan": self.plan, "skipped": skipped})
        (self.entries / f"{shard.file}.json").write_text(text, encoding="utf-8")

    def finish(self, add_files: Callable[[Path], None] | None) -> None:
        """Remove what a killed run left, describe the folder and put it in the place of `out`."""
        for leftover in set(self.folder.iterdir()) - {self.folder / shard.file for shard in self.shards}:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.describe()  # which maps the shards: Windows renames no folder while a file in it is mapped
        if add_files is not None:
            add_files(self.folder)
        replace_folder(self.folder, self.out, "corpus")

    def describe(self) -> None:
        """Write what lies beside the shards, and print what was packed."""
        splits, skipped = self.summary()
        if not any(split["clips"] for split in splits.values()):
            raise InputError(f"every clip was bad, the first: {skipped[0][2]}")
        indexes = {name: read_shards(self.folder, split["shards"], check=False) for name, split in splits.items()}
        skipped = [*self.left_out, *skipped]
        describe_folder(
            self.folder,
            splits,
            indexes,
            skipped=skipped,
            card=_card(splits),
            parameters=self.frames.parameters(),
            corpus=self.corpus,
            source=self.source,
            plan=self.plan,
        )
        counts = ", ".join(f"{name} {split['clips']:,}" for name, split in splits.items())
        note(f"packed clips: {counts}" + (f"; {len(skipped)} skipped, see skipped.tsv" if skipped else ""))
        sources = pa.concat_tables([index.select(FRAME_COLUMNS) for index in indexes.values()]).to_pydict()
        sizes = list(zip(sources["source_height"], sources["source_width"], strict=True))
        for line in rates_and_shapes(sources["fps"], sizes):
            note(line)

    def summary(self) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, str]]]:
        """What the manifest says of each split, and split, id and reason of the clips that were skipped."""
        splits: dict[str, dict[str, Any]] = {}
        skipped: list[tuple[str, str, str]] = []
        for shard in self.shards:
            entry = self.read_entry(shard)
            skipped += [(shard.split, id_, reason) for id_, reason in entry.pop("skipped")]
            del entry["plan"]
            split = splits.setdefault(shard.split, {"clips": 0, "frames": 0, "shards": []})
            split["clips"] += entry["clips"]
            split["frames"] += entry["frames"]
            split["shards"].append(entry)
        return splits, skipped

    def _plan_digest(self) -> str:
        """Changes when a finished shard of an earlier run could not be used in this one."""
        digest = hashlib.sha256(json.dumps([FORMAT, self.frames.parameters(), self.source]).encode())
        for shard in self.shards:
            for row in shard.rows:
                digest.update(json.dumps([shard.file, *_annotation(row)]).encode())
        return digest.hexdigest()[:32]

    def _content_digest(self, shard: Shard) -> str | None:
        """Changes with anything that the bytes of a shard depend on; `None` where its clips are no video files."""
        has_glosses = "glosses" in self.schema.names
        digest = hashlib.sha256(json.dumps([FORMAT, self.frames.parameters(), has_glosses]).encode())
        for row in shard.rows:
            if not isinstance(row.video, VideoFile) or row.video.is_missing:
                return None
            state = os.stat(row.video.path)
            file = [str(Path(row.video.path).resolve()), state.st_size, state.st_mtime_ns]
            digest.update(json.dumps([shard.split, *_annotation(row), *file]).encode())
        return digest.hexdigest()[:32]

    def _explained(self, error: OSError) -> InputError:
        reason = f"cannot write {self.work}: {error.strerror or error}"
        if disk_is_full(error):
            free = size_text(shutil.disk_usage(self.work).free)
            reason = f"the disk of {self.out.parent} is full ({free} free): make room"
        remedy = "run the same command again, it goes on from the shards that are finished"
        return InputError(f"{reason}; {remedy}")


def work_folder(out: Path) -> Path:
    """Where the shards lie until all are written: beside the folder that is to be written."""
    out = out.resolve()
    return out.with_name(f".{out.name}.packing")


def cut_into_shards(rows: Sequence[CorpusRow], shard_clips: int | None = None) -> list[Shard]:
    """Cut the rows of each split into shards, in their order."""
    if not rows:
        raise InputError("there are no clips to pack")
    shards = []
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        twice = [id_ for id_, count in Counter(row.id for row in of_split).items() if count > 1]
        if twice:
            raise InputError(f"split {split}: {counted(len(twice), 'id')} more than once, the first is {twice[0]!r}")
        ranges = shard_ranges(len(of_split), shard_clips)
        for number, clips in enumerate(ranges):
            file = f"{split}-{number:05d}-of-{len(ranges):05d}.arrow"
            shards.append(Shard(file, split, of_split[clips.start : clips.stop]))
    return shards


def encode_clip(row: CorpusRow, frames: StoredFrames, schema: pa.Schema) -> pa.RecordBatch | str:
    """A clip as a row of its shard, or what is wrong with it."""
    if not row.sentence:
        return f"{clip_name(row)}: its sentence is empty"
    if row.video.is_missing:
        return f"{clip_name(row)}: {row.video.path} is missing"
    try:
        return _packed_clip(row, frames, schema)
    # Decoders raise errors of many kinds at a damaged file.
    except (ValueError, OSError, ArithmeticError, LookupError, MemoryError, RuntimeError) as error:
        if disk_is_full(error):
            raise
        return f"{clip_name(row)}: {one_line(error) or type(error).__name__}"


def _packed_clip(row: CorpusRow, frames: StoredFrames, schema: pa.Schema) -> pa.RecordBatch:
    jpegs: list[bytes] = []
    num_bytes = 0
    size = TargetSize(frames.size)
    with row.video.opened(frames.frame_stride, size) as clip:
        for frame in watched(clip):
            jpeg = encode_frame(frame, frames.quality)
            jpegs.append(jpeg)
            num_bytes += len(jpeg)
            if num_bytes > MAX_CLIP_BYTES:
                raise InputError("more than 2 GiB of JPEG: cut it into clips or raise the frame stride")
    if not jpegs:
        raise InputError("it has no frames")
    check_reaches_end(row.video, clip.last_seconds, clip.fps)
    values = {
        "id": row.id,
        "sentence": row.sentence,
        "signer": row.signer,
        "language": row.language,
        "split": row.split,
        "glosses": row.glosses,
        "num_frames": len(jpegs),
        "fps": clip.fps,
        "height": frame.shape[0],
        "width": frame.shape[1],
        "source_height": size.source[0],
        "source_width": size.source[1],
        "frame_stride": frames.frame_stride,
        "frame_crc32": [zlib.crc32(jpeg) for jpeg in jpegs],
        "frames": [{"bytes": jpeg} for jpeg in jpegs],
    }
    return pa.RecordBatch.from_pylist([values], schema=schema)


def encode_frame(frame: np.ndarray, quality: int) -> bytes:
    """JPEG of a uint8 RGB frame `(H, W, 3 or 4)`, chroma at half size: a quarter fewer bytes and a faster decode."""
    height, width, channels = frame.shape
    mode = "RGBX" if channels == 4 else "RGB"  # four bytes a pixel is how Pillow has it, so nothing is copied
    image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(frame), "raw", mode, 0, 1)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def clip_name(row: CorpusRow) -> str:
    """How messages name a clip."""
    return f"{row.split} clip {row.id!r} ({row.video.name})"


def _annotation(row: CorpusRow) -> list:
    """What a table says of a clip, for a digest."""
    fields = [row.id, row.sentence, row.signer, row.language, row.video.name]
    times = [getattr(row.video, name, None) for name in ("start_seconds", "end_seconds")]
    if isinstance(row.video, VideoFile) or times != [None, None]:
        fields += times
    if row.glosses:
        fields.append(row.glosses)
    return fields


def _index_digest_of(shard: Path) -> str:
    """The hash of a shard's index; when this returns the file is no longer mapped, so Windows lets it be renamed."""
    with pa.memory_map(str(shard), "r") as source:
        return index_digest(pa.ipc.open_stream(source).read_all())


def _card(splits: dict[str, dict[str, Any]]) -> str:
    """A dataset card from which `datasets.load_dataset` takes which files are which split."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name in splits:
        lines += [f"  - split: {name}", f'    path: "{name}-*.arrow"']
    return "\n".join([*lines, "---", "", "Sign language clips as JPEG frames, packed by `fla prepare`.", ""])
