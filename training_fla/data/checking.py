"""Looking a corpus over before hours are spent on it: what is missing, extra, unreadable, empty or double."""

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from training_fla.corpora.row import SPLITS, CorpusRow, FrameFolder, VideoFile

from .worker_processes import SILENCE_SECONDS, in_workers

# Times in annotations are rounded, and a video's last frame is shown for a while.
END_TOLERANCE_SECONDS = 0.2
NAMES_SHOWN = 5


@dataclass
class CorpusReport:
    """What [`check_corpus`] found, by split where it belongs to one; lists hold one line a clip.

    Args:
        rows (`dict[str, int]`): rows of the annotation.
        count_differences (`list[str]`): splits whose rows are not as many as expected.
        missing (`list[str]`): clips of the annotation that are not on disk.
        extra (`list[str]`): clips on disk that the annotation does not name.
        unreadable (`list[str]`): clips on disk whose beginning cannot be decoded, with the reason.
        empty_sentences (`list[str]`): clips without a sentence.
        duplicates (`list[str]`): ids that come twice in a split.
        length_differences (`list[str]`): clips shorter or longer than the annotation says, or cut off by their video's
            end.
        frames (`dict[str, list[float]]`): source frames of each readable clip.
        words (`dict[str, list[int]]`): words of each sentence; characters where it has no spaces.
        notes (`list[str]`): remarks of the reader.
    """

    rows: dict[str, int] = field(default_factory=dict)
    count_differences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    empty_sentences: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    length_differences: list[str] = field(default_factory=list)
    frames: dict[str, list[float]] = field(default_factory=dict)
    words: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    FINDINGS = (
        ("count_differences", "splits not as long as expected"),
        ("missing", "clips missing on disk"),
        ("unreadable", "clips unreadable"),
        ("empty_sentences", "clips without a sentence"),
        ("duplicates", "ids double"),
        ("length_differences", "clips of another length than annotated"),
        ("extra", "clips on disk without annotation"),
    )

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found amiss."""
        return not any(getattr(self, name) for name, _ in self.FINDINGS)

    def lines(self) -> list[str]:
        """The report, to be printed.

        Returns:
            `list[str]`: lines.
        """
        lines = []
        for split, count in self.rows.items():
            parts = [f"{split}: {count} rows"]
            for what, numbers in (("frames", self.frames.get(split)), ("words", self.words.get(split))):
                if numbers:
                    parts.append(
                        f"{what} {min(numbers):.0f} to {max(numbers):.0f}, median {statistics.median(numbers):.0f}"
                    )
            lines.append("; ".join(parts))
        for name, title in self.FINDINGS:
            found = getattr(self, name)
            lines.append(f"{title}: {len(found) or 'none'}")
            lines += [f"  {line}" for line in found[:NAMES_SHOWN]]
            if len(found) > NAMES_SHOWN:
                lines.append(f"  ... and {len(found) - NAMES_SHOWN} more")
        return lines + [f"note: {note}" for note in self.notes]


def check_corpus(
    rows: Sequence[CorpusRow],
    expected: Mapping[str, int] | None = None,
    on_disk: Sequence[Path] = (),
    num_workers: int | None = None,
    progress: bool = True,
) -> CorpusReport:
    """Compare a corpus with its annotation and with what it should hold. Nothing is written.

    Args:
        rows (`Sequence[CorpusRow]`): as a reader gives them.
        expected (`Mapping[str, int]`, *optional*): rows that each split should have.
        on_disk (`Sequence[Path]`): every clip that lies in the release.
        num_workers (`int`, *optional*): processes that open clips; 0 works in this one, by default one a core.
        progress (`bool`): whether to show a progress bar on stderr.

    Returns:
        [`CorpusReport`]: what was found.
    """
    report = CorpusReport()
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        wanted = (expected or {}).get(split)
        if wanted is not None and wanted != len(of_split):
            report.count_differences.append(f"{split}: {len(of_split)} rows instead of {wanted}")
        if not of_split:
            continue
        report.rows[split] = len(of_split)
        report.words[split] = [_num_words(row.sentence) for row in of_split if row.sentence]
        report.empty_sentences += [f"{split} {row.id}" for row in of_split if not row.sentence]
        counts = Counter(row.id for row in of_split)
        report.duplicates += [f"{split} {id_}: {count} times" for id_, count in counts.items() if count > 1]
    present = []
    for row in rows:
        if row.video.is_missing:
            report.missing.append(f"{row.split} {row.id}: {row.video.path}")
        else:
            present.append(row)
    named = {os.path.abspath(row.video.path) for row in rows if isinstance(row.video, FrameFolder | VideoFile)}
    report.extra = [str(path) for path in on_disk if os.path.abspath(path) not in named]
    for row, (num_frames, reason, difference) in zip(present, _examined(present, num_workers, progress), strict=True):
        if reason:
            report.unreadable.append(f"{row.split} {row.id}: {reason}")
            continue
        report.frames.setdefault(row.split, []).append(num_frames)
        if difference:
            report.length_differences.append(f"{row.split} {row.id}: {difference}")
    return report


def _num_words(sentence: str) -> int:
    words = len(sentence.split())
    return words if words > 1 else len(sentence)


def _examined(rows: Sequence[CorpusRow], num_workers: int | None, progress: bool) -> list[tuple[float, str, str]]:
    """For each clip its frames, why it cannot be read, and how its length differs from the annotation's."""
    workers = os.cpu_count() or 1 if num_workers is None else num_workers
    findings = tqdm(
        in_workers(examine, rows, workers, _lost), total=len(rows), desc="checking", unit="clip", disable=not progress
    )
    return list(findings)


def _lost(row: CorpusRow) -> tuple[float, str, str]:
    return 0.0, f"the process that decodes it crashes, or makes no progress in {SILENCE_SECONDS} seconds", ""


def examine(row: CorpusRow) -> tuple[float, str, str]:
    """Open a clip and decode its first frame.

    Args:
        row ([`~training_fla.corpora.row.CorpusRow`]): the clip.

    Returns:
        `tuple[float, str, str]`: source frames by folder or header; why it cannot be read, or empty; how its length
            differs from the annotation's, or empty.
    """
    try:
        if isinstance(row.video, FrameFolder):
            next(row.video.frames())
            num_frames = len(row.video.files())
        elif isinstance(row.video, VideoFile):
            return _examined_video(row.video)
        else:
            num_frames = sum(1 for _ in row.video.frames())
    except Exception as error:  # whatever a decoder makes of a damaged file
        return 0.0, " ".join(str(error).split()) or type(error).__name__, ""
    if row.num_frames is not None and row.num_frames != num_frames:
        return num_frames, "", f"{num_frames} frames instead of {row.num_frames}"
    return num_frames, "", ""


@lru_cache(maxsize=64)  # many clips are cut from one video
def _video_info(path: Path):
    from processing_fla.video_decoding_fla import probe_video

    return probe_video(path)


def _examined_video(video: VideoFile) -> tuple[float, str, str]:
    info = _video_info(video.path)
    start, duration = video.start_seconds or 0.0, info.duration
    end = video.end_seconds if video.end_seconds is not None else duration
    if end is None:
        return info.num_frames or 0, "", ""
    if end <= start:
        return 0.0, f"it ends at {end} s, not after its start at {start} s", ""
    frames = (end - start) * (info.fps or 25)
    if duration is None or end <= duration + END_TOLERANCE_SECONDS:
        return frames, "", ""
    if start >= duration:
        return 0.0, f"it starts at {start} s, after the end of its video at {duration:.2f} s", ""
    return frames, "", f"it ends at {end} s, its video at {duration:.2f} s"
