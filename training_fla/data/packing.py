"""Packing: the clips of any corpus become Arrow shards of JPEG frames, so that training decodes only what it samples.

The bytes depend on the clips and the parameters alone, not on how many processes and machines share the work.
A run that was killed goes on from its finished shards, which lie in `.<name>.packing` beside the output. A corpus that
is packed again takes over the shards whose clips are the same files with the same sentences.
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
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from training_fla.console import counted, note, progress, size_text
from training_fla.corpora.clips import VideoFile
from training_fla.corpora.manifest import manifest_fingerprint, read_manifest
from training_fla.corpora.row import SPLITS, CorpusRow, Reading
from training_fla.errors import InputError, disk_is_full, one_line
from training_fla.folders import (
    FolderInUseError,
    atomic_file,
    check_folder,
    check_not_inside,
    clear_folder,
    locked_folder,
    read_marker,
    replace_folder,
    write_marker,
)
from training_fla.tables import write_table

from .packed_corpus import (
    FORMAT,
    FRAME_COLUMNS,
    GLOSS_SCHEMA,
    MANIFEST,
    SCHEMA,
    file_sha256,
    index_digest,
    manifest_digest,
    read_packed_manifest,
    read_shards,
)
from .worker_processes import LOST, in_workers, still_working

# Unstated: a shard of PHOENIX14T is then about 270 MB and a minute or two of a core, which is what a kill costs.
MAX_SHARD_CLIPS = 128
MIN_SHARD_CLIPS, SHARDS_OF_A_SPLIT = 2, 16  # so that machines that share a small split all have something to do
MAX_CLIP_BYTES = 2**31 - 1  # Arrow's `binary` counts the bytes of a batch, which is a clip, in 32 bits
FRAMES_A_REPORT = 64
CLIPS_NAMED = 20  # of those that are missing
KINDS_NAMED = 6  # frame rates and sizes that a summary names
MIXED = 1.2  # unstated: rates or shapes that differ by so much are worth a remark; 24, 25 and 29 are not


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name and its clips."""

    file: str
    split: str
    rows: Sequence[CorpusRow]


@dataclass
class Packing:
    """One packing, by this process and others: what is packed, how, and where."""

    plans: Sequence[ShardPlan]
    out: Path
    size: int | tuple[int, int] | None = 256  # height and width, or both at once; `None` keeps the source's
    quality: int = 95  # Unstated: this and 4:2:0; GFSLT-VLP reads the frames as released
    frame_stride: int = 1
    on_error: str = "fail"  # or "skip": leave bad clips out and list them in `skipped.tsv`
    corpus: str = ""
    source: str = ""  # fingerprint of what the rows were read from; another one packs anew
    left_out: Sequence[tuple[str, str, str]] = ()  # more for `skipped.tsv`: rows that no clip could be made of

    def __post_init__(self):
        if isinstance(self.size, int):
            self.size = (self.size, self.size)
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise InputError(f"size must be 1 to 4096 pixels, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"JPEG quality must be 1 to 100, not {self.quality}")
        if self.frame_stride < 1:
            raise InputError(f"frame_stride must be at least 1, not {self.frame_stride}")

    @property
    def parameters(self) -> dict[str, Any]:
        """How frames are stored, for the manifest."""
        size = list(self.size) if self.size else None
        return {"size": size, "quality": self.quality, "frame_stride": self.frame_stride}

    @property
    def work(self) -> Path:
        """Holds the shards until they are whole."""
        return self.out.with_name(f".{self.out.name}.packing")

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the shards: with glosses where a clip has some."""
        return GLOSS_SCHEMA if any(row.glosses for shard in self.plans for row in shard.rows) else SCHEMA

    @cached_property
    def plan(self) -> str:
        """Changes when a finished shard of an earlier run could not be used in this one."""
        digest = hashlib.sha256(json.dumps([FORMAT, self.parameters, self.source]).encode())
        for shard in self.plans:
            for row in shard.rows:
                digest.update(json.dumps([shard.file, *_said_of(row)]).encode())
        return digest.hexdigest()[:32]

    def content(self, shard: ShardPlan) -> str | None:
        """Changes with anything that the bytes of a shard depend on; `None` where its clips are no video files."""
        digest = hashlib.sha256(json.dumps([FORMAT, self.parameters, "glosses" in self.schema.names]).encode())
        for row in shard.rows:
            if not isinstance(row.video, VideoFile) or row.video.is_missing:
                return None
            state = os.stat(row.video.path)
            fields = [
                shard.split,
                *_said_of(row),
                str(Path(row.video.path).resolve()),
                state.st_size,
                state.st_mtime_ns,
            ]
            digest.update(json.dumps(fields).encode())
        return digest.hexdigest()[:32]

    @cached_property
    def earlier(self) -> dict[str, dict[str, Any]]:
        """Whole shards of the corpus that `out` holds now, by their content."""
        try:
            splits = read_packed_manifest(self.out)["splits"].values()
        except InputError:
            return {}
        return {shard["content"]: shard for split in splits for shard in split["shards"] if "content" in shard}

    def is_done(self) -> bool:
        """Whether `out` holds it already."""
        try:
            return read_packed_manifest(self.out)["plan"] == self.plan
        except InputError:
            return False

    def entry(self, shard: ShardPlan) -> dict[str, Any] | None:
        """What is known of a finished shard; `None` if it is still to be written."""
        try:
            entry = json.loads((self.work / "notes" / f"{shard.file}.json").read_text(encoding="utf-8"))
            whole = entry["plan"] == self.plan
            whole = whole and (self.work / "folder" / shard.file).stat().st_size == entry["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if whole else None


def pack(
    rows: Sequence[CorpusRow],
    out: str | os.PathLike,
    *,
    num_workers: int | None = None,  # processes; 0 works in this one, `None` takes one a core
    shard_clips: int | None = None,
    overwrite: bool = False,
    wait: bool = False,  # for another process that writes `out`, instead of failing
    # (i, n): pack the i-th of n parts; the run that finds all parts done makes `out`
    machine: tuple[int, int] = (1, 1),
    add_files: Callable[[Path], None] | None = None,  # called with the folder before it appears
    **how,
) -> Path | None:
    """Write a packed folder, or the part of this machine (then `None` while others are missing), by [`Packing`]."""
    plans = plan_shards(rows, shard_clips)
    packing = Packing(plans, Path(out).resolve(), **how)
    if not packing.is_done():
        _check_before(packing, rows, overwrite)
        is_alone = machine == (1, 1)
        # Parts are written side by side, on machines that share the disk: whole shards of the same bytes cannot clash.
        with _locked(packing, wait) if is_alone else contextlib.nullcontext():
            mine = plans[machine[0] - 1 :: machine[1]]
            if not (packing.is_done() or _write_shards(packing, mine, num_workers) or packing.is_done()):
                return None
            with contextlib.nullcontext() if is_alone else _locked(packing, wait=True):
                _finish(packing, add_files)
    if packing.work.exists():
        with contextlib.suppress(FolderInUseError, OSError), locked_folder(packing.work, packing.out, temporary=True):
            if read_marker(packing.work):
                clear_folder(packing.work)
    return packing.out


def ensure_packed(
    manifest: str | os.PathLike,
    packed_dir: str | os.PathLike,
    *,
    pack_options: dict[str, Any],
    follow_links: bool = False,
    **options,
) -> Path:
    """The packed folder of a manifest, by its fingerprint; packed first where it is missing, by one of all callers."""
    kept = {name: value for name, value in pack_options.items() if name != "num_workers"}
    reading = Reading(follow_links, skip_bad_rows=kept.get("on_error") == "skip")
    rows = read_manifest(manifest, reading=reading, **options)
    source = f"{manifest_fingerprint(manifest, rows, **options)} {sorted(kept.items())!r}"
    source = hashlib.sha256(source.encode()).hexdigest()[:32]
    out = Path(packed_dir) / f"{Path(manifest).resolve().stem}-{source[:16]}"
    if (out / MANIFEST).is_file() and read_packed_manifest(out)["source"] == source:
        return out
    return pack(rows, out, source=source, left_out=reading.left_out(), wait=True, corpus="manifest", **pack_options)


def plan_shards(rows: Sequence[CorpusRow], shard_clips: int | None = None) -> list[ShardPlan]:
    """Cut the rows of each split into shards, in their order."""
    if not rows:
        raise InputError("there are no clips to pack")
    if shard_clips is not None and shard_clips < 1:
        raise InputError(f"a shard needs at least one clip, not {shard_clips}")
    plans = []
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        twice = [id_ for id_, count in Counter(row.id for row in of_split).items() if count > 1]
        if twice:
            raise InputError(f"split {split}: {counted(len(twice), 'id')} more than once, the first is {twice[0]!r}")
        clips = shard_clips or min(MAX_SHARD_CLIPS, max(MIN_SHARD_CLIPS, len(of_split) // SHARDS_OF_A_SPLIT))
        num_shards = -(-len(of_split) // clips)
        for number in range(num_shards):
            part = of_split[number * clips : (number + 1) * clips]
            plans.append(ShardPlan(f"{split}-{number:05d}-of-{num_shards:05d}.arrow", split, part))
    return plans


def _check_before(packing: Packing, rows: Sequence[CorpusRow], overwrite: bool) -> None:
    """Refuse what can be known to fail before hours of work."""
    try:
        check_folder(packing.out, "corpus", overwrite)
    except InputError as error:
        if packing.is_done():  # by another process, just now
            return
        if packing.earlier:
            raise InputError(f"{error}; shards whose videos and sentences are unchanged are taken over") from None
        raise
    check_folder(packing.work, "corpus", overwrite=True)
    check_not_inside({Path(row.video.path).parent for row in rows if hasattr(row.video, "path")}, packing.out)
    missing = [row for row in rows if row.video.is_missing]
    if missing and packing.on_error == "fail":
        named = "; ".join(f"{_where(row)}: {row.video.path} is not there" for row in missing[:CLIPS_NAMED])
        named += f"; and {len(missing) - CLIPS_NAMED} more" if len(missing) > CLIPS_NAMED else ""
        counts = f"{len(missing)} of {len(rows)} clips are missing"
        raise InputError(f"{counts}; {named}; --on-error skip leaves them out")


def _said_of(row: CorpusRow) -> list:
    """What a table says of a clip."""
    times = [getattr(row.video, name, None) for name in ("start_seconds", "end_seconds")]
    times = times if isinstance(row.video, VideoFile) or times != [None, None] else ()
    fields = [row.id, row.sentence, row.signer, row.language, row.video.name, *times]
    return fields + ([row.glosses] if row.glosses else [])


def _where(row: CorpusRow) -> str:
    return f"{row.split} clip {row.id!r} ({row.video.name})"


@contextlib.contextmanager
def _locked(packing: Packing, wait: bool) -> Iterator[None]:
    """Hold the work folder against other processes."""
    with locked_folder(packing.work, packing.out, wait=wait):
        try:
            yield
        except OSError as error:
            if packing.is_done():  # where a file system has no locks, another process may have been first
                return
            reason = f"cannot write {packing.work}: {error.strerror or error}"
            if disk_is_full(error):
                free = size_text(shutil.disk_usage(packing.work).free)
                reason = f"the disk of {packing.out.parent} is full ({free} free): make room"
            remedy = "run the same command again, it goes on from the shards that are finished"
            raise InputError(f"{reason}; {remedy}") from error


def _write_shards(packing: Packing, shards: Sequence[ShardPlan], num_workers: int | None) -> bool:
    """Write those of the shards that are missing; whether no shard of the packing is missing then."""
    for name in ("folder", "notes"):
        (packing.work / name).mkdir(parents=True, exist_ok=True)
    write_marker(packing.work, "corpus")
    shards = [shard for shard in shards if packing.entry(shard) is None and not _take_over(packing, shard)]
    rows = [row for shard in shards for row in shard.rows]
    if any(isinstance(row.video, VideoFile) for row in rows):  # once here, not in every process that is forked
        import av.video.reformatter  # noqa: F401

        import processing_fla.video_reading_fla  # noqa: F401
    num_bytes = num_clips = 0
    bar = progress(total=len(rows), desc="packing", unit="clip", disable=not shards)
    clips = in_workers(partial(_encoded, packing), rows, num_workers, lost=lambda row: f"{_where(row)}: {LOST}")
    with bar, contextlib.closing(clips):
        for shard in shards:
            entry = _write_shard(packing, shard, clips, bar)
            num_bytes, num_clips = num_bytes + entry["bytes"], num_clips + len(shard.rows)
            _check_room(packing, num_bytes / num_clips * (len(rows) - num_clips), bar)
    return all(packing.entry(shard) is not None for shard in packing.plans)


def _take_over(packing: Packing, shard: ShardPlan) -> bool:
    """Copy a shard from the corpus that is replaced, where it holds one of the same clips, whole."""
    entry = packing.earlier.get(packing.content(shard) or "")
    file = packing.out / entry["file"] if entry else None
    if file is None or entry["clips"] != len(shard.rows) or not file.is_file() or file_sha256(file) != entry["sha256"]:
        return False
    with atomic_file(packing.work / "folder" / shard.file, overwrite=True) as work:
        shutil.copyfile(file, work)
    _write_note(packing, shard, entry | {"file": shard.file}, [])
    return True


def _write_note(packing: Packing, shard: ShardPlan, entry: dict[str, Any], skipped: list) -> None:
    """Say of a shard in the work folder what it is, which is what makes it count."""
    text = json.dumps(entry | {"plan": packing.plan, "skipped": skipped})
    (packing.work / "notes" / f"{shard.file}.json").write_text(text, encoding="utf-8")


def _write_shard(packing: Packing, shard: ShardPlan, clips: Iterator[pa.RecordBatch | str], bar) -> dict[str, Any]:
    """Write a shard, which appears when it is whole, and a note of its hash, which is what makes it count."""
    num_clips = num_frames = 0
    skipped: list[tuple[str, str]] = []
    with atomic_file(packing.work / "folder" / shard.file, overwrite=True) as work:
        with pa.OSFile(str(work), "wb") as sink, pa.ipc.new_stream(sink, packing.schema) as stream:
            for row in shard.rows:
                clip = next(clips)
                bar.update()
                if isinstance(clip, pa.RecordBatch):
                    stream.write_batch(clip)
                    num_clips, num_frames = num_clips + 1, num_frames + clip.column("num_frames")[0].as_py()
                elif packing.on_error == "fail":
                    remedy = f"--on-error skip leaves such clips out, and goes on from what {packing.work} holds"
                    raise InputError(f"{clip}; {remedy}")
                else:
                    skipped.append((row.id, clip))
        entry = {"file": shard.file, "bytes": os.path.getsize(work), "sha256": file_sha256(work)}
        entry |= {"index_sha256": _index_digest_of(work), "clips": num_clips, "frames": num_frames}
    if skipped:
        bar.set_description(f"packing, {counted(len(skipped), 'bad clip')} in {shard.file}", refresh=False)
    content = packing.content(shard)
    _write_note(packing, shard, entry | ({"content": content} if content else {}), skipped)
    return entry


def _index_digest_of(shard: Path) -> str:
    """The hash of a shard's index; when this returns the file is no longer mapped, so Windows lets it be renamed."""
    with pa.memory_map(str(shard), "r") as source:
        return index_digest(pa.ipc.open_stream(source).read_all())


def _check_room(packing: Packing, needed: float, bar) -> None:
    """Refuse to go on where what is still to be written, by the clips so far, clearly does not fit."""
    free = shutil.disk_usage(packing.work).free
    bar.set_postfix_str(f"{size_text(needed)} to write, {size_text(free)} free", refresh=False)
    if needed > 1.5 * free:
        there = f"{packing.work.parent} has {size_text(free)} free"
        remedy = "choose another disk, a smaller --size or --quality, or a larger --frame-stride"
        raise InputError(f"packing needs about {size_text(needed)} more and {there}: {remedy}")


def _encoded(packing: Packing, row: CorpusRow) -> pa.RecordBatch | str:
    """A clip as a row of its shard, or what is wrong with it."""
    if not row.sentence:
        return f"{_where(row)}: its sentence is empty"
    if row.video.is_missing:
        return f"{_where(row)}: {row.video.path} is missing"
    try:
        return _record(packing, row)
    # Decoders raise errors of many kinds at a damaged file.
    except (ValueError, OSError, ArithmeticError, LookupError, MemoryError, RuntimeError) as error:
        if disk_is_full(error):
            raise
        return f"{_where(row)}: {one_line(error) or type(error).__name__}"


def _record(packing: Packing, row: CorpusRow) -> pa.RecordBatch:
    jpegs: list[bytes] = []
    num_bytes, source = 0, (0, 0)

    def size(height: int, width: int) -> tuple[int, int]:
        nonlocal source
        source = height, width
        return packing.size or source

    with row.video.opened(packing.frame_stride, size) as clip:
        for frame in clip:
            jpegs.append(encode_frame(frame, packing.quality))
            num_bytes += len(jpegs[-1])
            if num_bytes > MAX_CLIP_BYTES:
                raise InputError("more than 2 GiB of JPEG: cut it into clips or raise the frame stride")
            if len(jpegs) % FRAMES_A_REPORT == 0:
                still_working()
    if not jpegs:
        raise InputError("it has no frames")
    refuse_cut_off(row.video, clip)
    values = {name: getattr(row, name) for name in ("id", "sentence", "signer", "language", "split", "glosses")}
    values |= {"num_frames": len(jpegs), "fps": clip.fps, "height": frame.shape[0], "width": frame.shape[1]}
    values |= {"source_height": source[0], "source_width": source[1], "frame_stride": packing.frame_stride}
    values |= {"frame_crc32": list(map(zlib.crc32, jpegs)), "frames": [{"bytes": jpeg} for jpeg in jpegs]}
    return pa.RecordBatch.from_pylist([values], schema=packing.schema)


def refuse_cut_off(video: Any, clip: Any) -> None:
    """Annotated times may lie a little beyond a video's end, but half a sentence is none."""
    if isinstance(video, VideoFile) and video.end_seconds is not None:
        middle = ((video.start_seconds or 0.0) + video.end_seconds) / 2
        if clip.last_seconds + 1 / (clip.fps or 25) < middle:
            where = f"{clip.last_seconds:.2f} s, but it is to end at {video.end_seconds} s, after the end of its video"
            raise InputError(f"its frames end at {where}")


def encode_frame(frame: np.ndarray, quality: int) -> bytes:
    """JPEG of a uint8 RGB frame `(H, W, 3 or 4)`, chroma at half size: a quarter fewer bytes and a faster decode."""
    height, width, channels = frame.shape
    mode = "RGBX" if channels == 4 else "RGB"  # four bytes a pixel is how Pillow has it, so nothing is copied
    image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(frame), "raw", mode, 0, 1)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _finish(packing: Packing, add_files: Callable[[Path], None] | None) -> None:
    """Write what belongs beside the shards, clear away what does not, and put the folder in its place."""
    if packing.is_done():
        return
    folder = packing.work / "folder"
    _describe(packing, folder)  # its shards are mapped in there alone: Windows renames no folder with a mapped file
    if add_files is not None:
        add_files(folder)
    replace_folder(folder, packing.out, "corpus")


def _describe(packing: Packing, folder: Path) -> None:
    for leftover in set(folder.iterdir()) - {folder / shard.file for shard in packing.plans}:  # of a killed run
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    splits, skipped = _summary(packing)
    if not any(split["clips"] for split in splits.values()):
        raise InputError(f"every clip was bad, the first: {skipped[0][2]}")
    indexes = {name: read_shards(folder, split["shards"], check=False) for name, split in splits.items()}
    skipped = [*packing.left_out, *skipped]
    facts = {"corpus": packing.corpus, "source": packing.source, "plan": packing.plan}
    describe_corpus(folder, indexes, splits, skipped, _card(splits), parameters=packing.parameters, **facts)
    counts = ", ".join(f"{name} {split['clips']:,}" for name, split in splits.items())
    note(f"packed clips: {counts}" + (f"; {len(skipped)} skipped, see skipped.tsv" if skipped else ""))
    columns = ([value for index in indexes.values() for value in index[name].to_pylist()] for name in FRAME_COLUMNS)
    rates, heights, widths = columns
    for line in rates_and_shapes(rates, list(zip(heights, widths, strict=True))):
        note(line)


def rates_and_shapes(rates: Sequence[float], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Which frame rates and sizes clips have, a line each, and what that means where they are mixed.

    `rates` are frames a second, 0 where nothing says it, and `sizes` heights and widths in pixels.
    """
    of_rate = Counter(f"{rate:.0f}" if rate > 0 else "unknown" for rate in rates)
    of_size = Counter(f"{width} x {height}" for height, width in sizes)
    lines = []
    for what, counts in (("frames a second", of_rate), ("width x height", of_size)):
        shown = [f"{kind} ({counted(count, 'clip')})" for kind, count in counts.most_common(KINDS_NAMED)]
        more = len(counts) - KINDS_NAMED
        lines += [f"{what}: {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")] if counts else []
    known = [rate for rate in rates if rate > 0]
    if known and max(known) > MIXED * min(known):
        lines.append(
            f"note: clips of {min(known):.0f} to {max(known):.0f} frames a second are mixed, and one frame in so many "
            "is kept whatever the rate: convert them to one rate"
        )
    shapes = [width / height for height, width in sizes]
    if shapes and max(shapes) > MIXED * min(shapes):
        lines.append(
            f"note: clips of {min(shapes):.2f} to {max(shapes):.2f} times as wide as high are mixed, and all are "
            "squashed to one shape: crop or pad them to one before packing"
        )
    return lines


def _summary(packing: Packing) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, str]]]:
    """What the manifest says of each split, and the clips that were skipped."""
    splits: dict[str, dict[str, Any]] = {}
    skipped: list[tuple[str, str, str]] = []
    for shard in packing.plans:
        entry = packing.entry(shard)
        skipped += [(shard.split, id_, reason) for id_, reason in entry.pop("skipped")]
        del entry["plan"]
        split = splits.setdefault(shard.split, {"clips": 0, "frames": 0, "shards": []})
        split["shards"].append(entry)
        split["clips"] += entry["clips"]
        split["frames"] += entry["frames"]
    return splits, skipped


def describe_corpus(
    folder: Path, indexes: dict[str, pa.Table], splits: dict[str, dict], skipped: Sequence, card: str, **facts
) -> None:
    """Write what lies beside the shards of a packed folder: indexes, sentences, bad rows, card and manifest."""
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
    manifest = {"format": FORMAT, "splits": splits, "skipped": len(skipped), **facts}
    manifest["language"] = languages.pop() if len(languages) == 1 else ""
    text = json.dumps({**manifest, "sha256": manifest_digest(manifest)}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _card(splits: dict[str, dict[str, Any]]) -> str:
    """A dataset card that tells `datasets.load_dataset` which files are which split."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name in splits:
        lines += [f"  - split: {name}", f'    path: "{name}-*.arrow"']
    return "\n".join([*lines, "---", "", "Sign language clips as JPEG frames, packed by `fla prepare`.", ""])
