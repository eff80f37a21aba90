"""Check a corpus before it is packed: what is missing, extra, unreadable, empty or double."""

import hashlib
import os
import statistics
import warnings
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from training_fla.console import counted, progress
from training_fla.corpora.clips import (
    END_TOLERANCE_SECONDS,
    EmbeddedVideo,
    FrameFolder,
    TargetSize,
    VideoFile,
    check_reaches_end,
    frame_times,
)
from training_fla.corpora.row import SPLITS, CorpusRow
from training_fla.errors import InputError, one_line
from training_fla.scoring.conventions import convention_for

from .packed_corpus import file_sha256
from .worker_processes import LOST, in_workers, watched

NAMES_SHOWN = 20
# Unstated: signers need a second or two a word; what is longer is most likely a recording that was not cut.
LONG_SECONDS = 10.0
LONG_SECONDS_A_WORD = 5.0
KINDS_NAMED = 6  # frame rates and sizes that a summary names
MIXED = 1.2  # unstated: rates or shapes that differ by so much are worth a warning; 24, 25 and 29 are not


def _findings(title: str) -> Any:
    return field(default_factory=list, metadata={"title": title})


@dataclass
class CorpusReport:
    """What [`check_corpus`] found: numbers by split, and a line for each thing that is amiss."""

    rows: dict[str, int] = field(default_factory=dict)
    frames: dict[str, list[int]] = field(default_factory=dict)  # source frames of each readable clip
    words: dict[str, list[int]] = field(default_factory=dict)  # of each sentence; characters where it has no spaces
    # Frames a second, height and width of each clip that was decoded.
    pictures: list[tuple[float, tuple[int, int]]] = field(default_factory=list)
    bad_rows: list[str] = _findings("rows that cannot be used")
    count_differences: list[str] = _findings("splits not as long as expected")
    missing: list[str] = _findings("clips missing on disk")
    unreadable: list[str] = _findings("clips unreadable")
    empty_sentences: list[str] = _findings("clips without a sentence")
    duplicates: list[str] = _findings("ids double")
    length_differences: list[str] = _findings("clips of another length than annotated")
    extra: list[str] = _findings("clips on disk without annotation")
    refused: list[tuple[CorpusRow, str]] = field(default_factory=list)  # what cannot be packed, and why
    warnings: list[str] = field(default_factory=list)  # of clips that can be used
    notes: list[str] = field(default_factory=list)

    def findings(self) -> dict[str, list[str]]:
        """What is amiss, by its title."""
        return {part.metadata["title"]: getattr(self, part.name) for part in fields(self) if part.metadata}

    @property
    def is_clean(self) -> bool:
        """Whether nothing is amiss; warnings and notes do not count."""
        return not any(self.findings().values())

    def lines(self) -> list[str]:
        """The report, to be printed."""
        lines = []
        for split, count in self.rows.items():
            parts = [f"{split}: {counted(count, 'row')}"]
            for what, numbers in (("frames", self.frames.get(split)), ("words", self.words.get(split))):
                if numbers:
                    parts.append(f"{what} {min(numbers)} to {max(numbers)}, median {statistics.median(numbers):.0f}")
            lines.append("; ".join(parts))
        lines += rates_and_shapes([rate for rate, _ in self.pictures], [size for _, size in self.pictures])
        for title, amiss in self.findings().items():
            lines.append(f"{title}: {len(amiss) or 'none'}")
            lines += [f"  {line}" for line in amiss[:NAMES_SHOWN]]
            if len(amiss) > NAMES_SHOWN:
                lines.append(f"  ... and {len(amiss) - NAMES_SHOWN} more")
        lines += [f"warning: {warning}" for warning in self.warnings[:NAMES_SHOWN]]
        if len(self.warnings) > NAMES_SHOWN:
            lines.append(f"... and {len(self.warnings) - NAMES_SHOWN} more warnings")
        return lines + [f"note: {note}" for note in self.notes]


def check_corpus(
    rows: Sequence[CorpusRow],
    expected: Mapping[str, int] | None = None,
    on_disk: Sequence[Path] = (),
    num_workers: int | None = None,
    *,
    decode: bool = True,
    frame_stride: int = 1,
) -> CorpusReport:
    """Compare a corpus with its annotation, what it should hold and what lies on disk; nothing is written.

    Every frame that is to be packed is decoded, so that what packing would refuse is named; without `decode` only the
    first frame of each clip and the times of the others are looked at.
    """
    report = CorpusReport()
    _check_annotation(rows, expected or {}, report)
    report.refused += [(row, "its sentence is empty") for row in rows if not row.sentence]
    for row in rows:
        if row.video.is_missing:
            report.missing.append(f"{row.split} {row.id}: {row.video.path}")
            report.refused.append((row, f"{row.video.path} is not there"))
    named = {os.path.abspath(row.video.path) for row in rows if isinstance(row.video, FrameFolder | VideoFile)}
    report.extra = [str(path) for path in on_disk if os.path.abspath(path) not in named]
    report.warnings += shared_clips(rows)
    in_files = VideoFile | FrameFolder | EmbeddedVideo
    present = [row for row in rows if not row.video.is_missing and (decode or isinstance(row.video, in_files))]
    work = partial(examine, decode=decode, frame_stride=frame_stride)
    findings = in_workers(work, present, num_workers, lost=lambda _: Finding(fault=LOST))
    findings = progress(findings, total=len(present), desc="checking", unit="clip")
    for row, finding in zip(present, findings, strict=True):
        if finding.fault:
            report.unreadable.append(f"{row.split} {row.id}: {finding.fault}")
            report.refused.append((row, finding.fault))
            continue
        report.frames.setdefault(row.split, []).append(finding.num_frames)
        if finding.picture:
            report.pictures.append(finding.picture)
        if finding.difference:
            report.length_differences.append(f"{row.split} {row.id}: {finding.difference}")
        if finding.warning:
            report.warnings.append(finding.warning)
    return report


def _check_annotation(rows: Sequence[CorpusRow], expected: Mapping[str, int], report: CorpusReport) -> None:
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        if expected.get(split, len(of_split)) != len(of_split):
            report.count_differences.append(f"{split}: {counted(len(of_split), 'row')} instead of {expected[split]}")
        if of_split:
            report.rows[split] = len(of_split)
            report.words[split] = [_num_words(row.sentence) for row in of_split if row.sentence]
            report.empty_sentences += [f"{split} {row.id}" for row in of_split if not row.sentence]
            counts = Counter(row.id for row in of_split)
            report.duplicates += [f"{split} {id_}: {count} times" for id_, count in counts.items() if count > 1]


def _num_words(sentence: str) -> int:
    words = len(sentence.split())
    return len(sentence) if words == 1 and convention_for(None, [sentence]) == "characters" else words


def shared_clips(rows: Sequence[CorpusRow]) -> list[str]:
    """Clips of different splits that show the same moments of one recording, or a copy of it: a line each."""
    of_recording: dict[object, list[CorpusRow]] = defaultdict(list)
    stored = FrameFolder | VideoFile | EmbeddedVideo
    present = [row for row in rows if isinstance(row.video, stored) and not row.video.is_missing]
    for row, recording in zip(present, _recordings([row.video for row in present]), strict=True):
        of_recording[recording].append(row)
    return [line for rows in of_recording.values() for line in _overlaps(rows)]


def _recordings(videos: Sequence[FrameFolder | VideoFile | EmbeddedVideo]) -> list[object]:
    """Of each video something that is equal for equal files: its place, or a hash where another file is as long."""
    places = [
        place if isinstance(video, EmbeddedVideo) else os.path.realpath(video.path)
        for place, video in enumerate(videos)
    ]
    at_place = dict(zip(places, videos, strict=True))
    sizes = {place: _size(video) for place, video in at_place.items()}
    as_long = Counter(sizes.values())
    hashes = {place: _sha256(at_place[place]) for place, size in sizes.items() if as_long[size] > 1}
    return [hashes.get(place, place) for place in places]


def _size(video: FrameFolder | VideoFile | EmbeddedVideo) -> tuple[int, ...]:
    """Its bytes or, of a folder, the number of its files and the bytes of the first."""
    if isinstance(video, EmbeddedVideo):
        return (video.num_bytes,)
    if isinstance(video, VideoFile):
        return (os.path.getsize(video.path),)
    files = sorted(Path(video.path).iterdir())
    return (len(files), *(file.stat().st_size for file in files[:1]))


def _sha256(video: FrameFolder | VideoFile | EmbeddedVideo) -> str:
    if isinstance(video, EmbeddedVideo):
        return hashlib.sha256(video.load()).hexdigest()
    if isinstance(video, VideoFile):
        return file_sha256(Path(video.path))
    files = sorted(file for file in Path(video.path).iterdir() if file.is_file())
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def _overlaps(rows: Sequence[CorpusRow]) -> Iterator[str]:
    """A line for each clip of one recording that begins before a clip of another split has ended."""
    if len({row.split for row in rows}) < 2:
        return
    last: dict[str, tuple[float, CorpusRow]] = {}  # of each split: the clip that ends last, of those so far
    for row in sorted(rows, key=lambda row: row.video.start_seconds or 0.0):
        begins = row.video.start_seconds or 0.0
        ends = float("inf") if row.video.end_seconds is None else row.video.end_seconds
        for split, (end, other) in last.items():
            if split != row.split and min(end, ends) - begins > END_TOLERANCE_SECONDS:
                place = row.video.name if isinstance(row.video, EmbeddedVideo) else row.video.path
                yield f"{other.split} {other.id} and {row.split} {row.id} show the same frames of {place}"
        if ends >= last.get(row.split, (0.0, row))[0]:
            last[row.split] = ends, row


@dataclass(frozen=True)
class Finding:
    """What is found in one clip: its source frames, why it cannot be read, how its length differs, what is odd."""

    num_frames: int = 0
    fault: str = ""
    difference: str = ""
    warning: str = ""
    # Frames a second, height and width of a clip that was decoded.
    picture: tuple[float, tuple[int, int]] | None = None


def examine(row: CorpusRow, decode: bool = True, frame_stride: int = 1) -> Finding:
    """Look at one clip as [`check_corpus`] says; a fault is what packing refuses."""
    picture = None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            num_frames, seconds, difference = _lengths(row.video)
            if decode:
                decoded, fps, size = _decoded_frames(row.video, frame_stride)
                picture = (fps, size)
                if not isinstance(row.video, FrameFolder):
                    num_frames = decoded
    except Exception as error:  # decoders raise errors of many kinds at a damaged file
        return Finding(fault=one_line(error) or type(error).__name__)
    if row.num_frames is not None and row.num_frames != num_frames:
        difference = f"{counted(num_frames, 'frame')} instead of {row.num_frames}"
    odd = {str(warning.message) for warning in caught}
    words = _num_words(row.sentence)
    if seconds > max(LONG_SECONDS, LONG_SECONDS_A_WORD * words):
        ends = getattr(row.video, "end_seconds", None) is not None
        why = ": are its times seconds?" if ends else ": no `end` is given"
        odd.add(f"{row.split} {row.id}: {num_frames:,} frames, {seconds:.0f} s, for {counted(words, 'word')}{why}")
    return Finding(num_frames, difference=difference, warning="; ".join(sorted(odd)), picture=picture)


def _lengths(video: Any) -> tuple[int, float, str]:
    """Frames and seconds of a clip, by the times in its file, and how they differ from those asked for."""
    if isinstance(video, FrameFolder):
        num_frames = len(video.files())
        next(video.frames())
        return num_frames, num_frames / video.fps, ""
    if not isinstance(video, VideoFile | EmbeddedVideo):
        return 0, 0.0, ""
    times = frame_times(video)
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    length = times[-1] + step
    start = video.start_seconds or 0.0
    end = video.end_seconds
    if start > times[-1] and start >= length:
        raise InputError(f"it starts at {start} s, after the end of its video at {length:.2f} s")
    first = bisect_left(times, start - 1e-3)
    stop = len(times) if end is None else bisect_left(times, end - 1e-3)
    if stop <= first:
        raise InputError(f"it has no frame between {start} s and {end} s")
    check_reaches_end(video, times[stop - 1], 1 / step if step else 0.0)
    late = end is not None and end > length + END_TOLERANCE_SECONDS
    difference = f"it ends at {end} s, its video at {length:.2f} s" if late else ""
    return stop - first, times[stop - 1] - times[first] + step, difference


def _decoded_frames(video: Any, frame_stride: int) -> tuple[int, float, tuple[int, int]]:
    """The number of frames of a clip, each decoded as packing does it, but small; their rate, height and width."""
    num_frames = 0
    size = TargetSize((16, 16))
    with video.opened(frame_stride if isinstance(video, FrameFolder) else 1, size) as clip:
        for _ in watched(clip):
            num_frames += 1
    check_reaches_end(video, clip.last_seconds, clip.fps)
    return num_frames, clip.fps, size.source


def rates_and_shapes(rates: Sequence[float], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Which frame rates and sizes clips have, a line each, and what that means where they are mixed.

    `rates` are frames a second, 0 where nothing says it, and `sizes` heights and widths in pixels.
    """
    clips_by_rate = Counter(f"{rate:.0f}" if rate > 0 else "unknown" for rate in rates)
    clips_by_size = Counter(f"{width} x {height}" for height, width in sizes)
    lines = []
    for title, clips in (("frames a second", clips_by_rate), ("width x height", clips_by_size)):
        if clips:
            named = [f"{kind} ({counted(count, 'clip')})" for kind, count in clips.most_common(KINDS_NAMED)]
            more = len(clips) - KINDS_NAMED
            lines.append(f"{title}: {', '.join(named)}" + (f" and {more} more" if more > 0 else ""))
    stated = [rate for rate in rates if rate > 0]
    if stated and max(stated) > MIXED * min(stated):
        lines.append(
            f"note: clips of {min(stated):.0f} to {max(stated):.0f} frames a second are mixed, and one frame in so "
            "many is kept whatever the rate: convert them to one rate"
        )
    shapes = [width / height for height, width in sizes]
    if shapes and max(shapes) > MIXED * min(shapes):
        lines.append(
            f"note: clips of {min(shapes):.2f} to {max(shapes):.2f} times as wide as high are mixed, and all are "
            "squashed to one shape: crop or pad them to one before packing"
        )
    return lines
