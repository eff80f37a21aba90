"""Check a corpus before it is packed: what is missing, extra, unreadable, empty or double."""

import os
import statistics
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.row import SPLITS, CorpusRow
from training_fla.files import InputError, one_line, progress
from training_fla.scoring.conventions import convention_for

from .worker_processes import LOST, in_workers

# Times in annotations are rounded, and a video's last frame is shown for a while.
END_TOLERANCE_SECONDS = 0.2
NAMES_SHOWN = 20


def _findings(title: str) -> Any:
    return field(default_factory=list, metadata={"title": title})


@dataclass
class CorpusReport:
    """What [`check_corpus`] found: numbers by split, and a line for each thing that is amiss."""

    rows: dict[str, int] = field(default_factory=dict)
    frames: dict[str, list[int]] = field(default_factory=dict)  # source frames of each readable clip
    words: dict[str, list[int]] = field(default_factory=dict)  # of each sentence; characters where it has no spaces
    bad_rows: list[str] = _findings("rows that cannot be used")
    count_differences: list[str] = _findings("splits not as long as expected")
    missing: list[str] = _findings("clips missing on disk")
    unreadable: list[str] = _findings("clips unreadable")
    empty_sentences: list[str] = _findings("clips without a sentence")
    duplicates: list[str] = _findings("ids double")
    length_differences: list[str] = _findings("clips of another length than annotated")
    extra: list[str] = _findings("clips on disk without annotation")
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
            parts = [f"{split}: {count} rows"]
            for what, numbers in (("frames", self.frames.get(split)), ("words", self.words.get(split))):
                if numbers:
                    parts.append(f"{what} {min(numbers)} to {max(numbers)}, median {statistics.median(numbers):.0f}")
            lines.append("; ".join(parts))
        for title, found in self.findings().items():
            lines.append(f"{title}: {len(found) or 'none'}")
            lines += [f"  {line}" for line in found[:NAMES_SHOWN]]
            if len(found) > NAMES_SHOWN:
                lines.append(f"  ... and {len(found) - NAMES_SHOWN} more")
        lines += [f"warning: {warning}" for warning in self.warnings[:NAMES_SHOWN]]
        if len(self.warnings) > NAMES_SHOWN:
            lines.append(f"... and {len(self.warnings) - NAMES_SHOWN} more warnings")
        return lines + [f"note: {note}" for note in self.notes]


def check_corpus(
    rows: Sequence[CorpusRow],
    expected: Mapping[str, int] | None = None,
    on_disk: Sequence[Path] = (),
    num_workers: int | None = None,
) -> CorpusReport:
    """Compare a corpus with its annotation, what it should hold and what lies on disk; nothing is written."""
    report = CorpusReport()
    _check_annotation(rows, expected or {}, report)
    report.missing = [f"{row.split} {row.id}: {row.video.path}" for row in rows if row.video.is_missing]
    named = {os.path.abspath(row.video.path) for row in rows if isinstance(row.video, FrameFolder | VideoFile)}
    report.extra = [str(path) for path in on_disk if os.path.abspath(path) not in named]
    present = [row for row in rows if not row.video.is_missing]
    findings = in_workers(examine, present, num_workers, lost=lambda _: Finding(fault=LOST))
    findings = progress(findings, total=len(present), desc="checking", unit="clip")
    for row, found in zip(present, findings, strict=True):
        if found.fault:
            report.unreadable.append(f"{row.split} {row.id}: {found.fault}")
            continue
        report.frames.setdefault(row.split, []).append(found.num_frames)
        if found.difference:
            report.length_differences.append(f"{row.split} {row.id}: {found.difference}")
        if found.warning:
            report.warnings.append(found.warning)
    return report


def _check_annotation(rows: Sequence[CorpusRow], expected: Mapping[str, int], report: CorpusReport) -> None:
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        if expected.get(split, len(of_split)) != len(of_split):
            report.count_differences.append(f"{split}: {len(of_split)} rows instead of {expected[split]}")
        if of_split:
            report.rows[split] = len(of_split)
            report.words[split] = [_num_words(row.sentence) for row in of_split if row.sentence]
            report.empty_sentences += [f"{split} {row.id}" for row in of_split if not row.sentence]
            counts = Counter(row.id for row in of_split)
            report.duplicates += [f"{split} {id_}: {count} times" for id_, count in counts.items() if count > 1]


def _num_words(sentence: str) -> int:
    words = len(sentence.split())
    return len(sentence) if words == 1 and convention_for(None, [sentence]) == "characters" else words


@dataclass(frozen=True)
class Finding:
    """What is found in one clip: its source frames, why it cannot be read, how its length differs, what is odd."""

    num_frames: int = 0
    fault: str = ""
    difference: str = ""
    warning: str = ""


def examine(row: CorpusRow) -> Finding:
    """Open a clip, decode its first frame and count its frames."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(row.video, VideoFile):
                num_frames, difference = _examined_video(row.video)
            else:
                next(row.video.frames())
                files = row.video.files() if isinstance(row.video, FrameFolder) else row.video.frames()
                num_frames, difference = sum(1 for _ in files), ""
    except Exception as error:  # decoders raise errors of many kinds at a damaged file
        return Finding(fault=one_line(error) or type(error).__name__)
    if row.num_frames is not None and row.num_frames != num_frames:
        difference = f"{num_frames} frames instead of {row.num_frames}"
    return Finding(num_frames, difference=difference, warning="; ".join({str(warning.message) for warning in caught}))


def _examined_video(video: VideoFile) -> tuple[int, str]:
    times = _frame_times(video.path)
    length = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
    start, end = video.start_seconds or 0.0, video.end_seconds
    if start > times[-1] and start >= length:
        raise InputError(f"it starts at {start} s, after the end of its video at {length:.2f} s")
    num_frames = (len(times) if end is None else bisect_left(times, end - 1e-3)) - bisect_left(times, start - 1e-3)
    if end is not None and end > length + END_TOLERANCE_SECONDS:
        return num_frames, f"it ends at {end} s, its video at {length:.2f} s"
    return num_frames, ""


@lru_cache(maxsize=64)  # many clips are cut from one video
def _frame_times(path: Path) -> list[float]:
    """Seconds at which frames are shown, by an MP4 file's index or else by all packets; the first frame is decoded."""
    from processing_fla.video_reading_fla import VideoDecodeError, decodable_packets, open_video

    with open_video(path, num_threads=1) as video:
        index = list(video.stream.index_entries) if "mov" in video.formats else []
        index = [entry.timestamp for entry in index if not entry.is_discard] * (len(index) == video.stream.frames)
        frame, ticks = None, []
        for packet in decodable_packets(video.packets()):
            frame = frame or next(iter(packet.decode()), None)
            if packet.pts is not None and not packet.is_discard:
                ticks.append(packet.pts)
            if frame and index:  # which counts in decoding order
                ticks = [tick - index[0] + (video.stream.start_time or 0) for tick in index]
                break
        if frame is None or frame.is_corrupt or not ticks:
            raise VideoDecodeError(f"`{path}` is damaged or cut off: its first frame cannot be decoded")
        return sorted(float(tick * video.stream.time_base) - video.start for tick in ticks)
