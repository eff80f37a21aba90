"""The table of a folder of recordings: one row a sentence, as `fla prepare manifest` packs it."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from training_fla.console import progress
from training_fla.corpora.clips import VideoFile, frame_times
from training_fla.corpora.row import canonical_split
from training_fla.errors import InputError
from training_fla.names import plain_name
from training_fla.tables import ROWS_NAMED, BadRows, read_table

from .cue_files import TimedText, read_cues
from .pairs import Recording
from .sentences import CueRules, Findings, sentences_of

# `line` is the first line of the sentence in `file`, or the annotation's id.
COLUMNS = ("video", "start", "end", "sentence", "split", "file", "line")


def read_recordings(
    recordings: Sequence[Recording], tier: str, rules: CueRules, findings: Findings
) -> list[tuple[Recording, TimedText]]:
    """The sentences of all recordings; one error names all files that cannot be read."""
    from processing_fla.video_reading_fla import VideoDecodeError

    rows, faults = [], []
    for recording in progress(recordings, desc="reading", unit="recording"):
        bad = BadRows()
        try:
            cues = read_cues(recording.cues, recording.video, recording.tier or tier, bad)
            times = frame_times(VideoFile(recording.video))
        except (InputError, VideoDecodeError) as error:
            faults.append(str(error))
        if bad.found:
            faults += bad.lines()
        elif not faults:
            sentences = sentences_of(recording.cues, cues, recording.video, times, rules, findings)
            rows += [(recording, sentence) for sentence in sentences]
    if faults:
        more = [f"and {len(faults) - ROWS_NAMED} more faults"] if len(faults) > ROWS_NAMED else []
        raise InputError("; ".join([*faults[:ROWS_NAMED], *more]))
    return rows


def table_rows(rows: Sequence[tuple[Recording, TimedText]], root: Path, prefix: PurePath) -> list[tuple[object, ...]]:
    """The cells of each row; paths are relative to `root`, and `prefix` is put before them."""
    return [
        (
            (prefix / recording.video.relative_to(root)).as_posix(),
            f"{sentence.start:.3f}",
            f"{sentence.end:.3f}",
            sentence.text,
            recording.split,
            (prefix / recording.cues.relative_to(root)).as_posix(),
            sentence.place,
        )
        for recording, sentence in rows
    ]


def earlier_splits(table: Path, recordings: Sequence[Recording]) -> dict[Path, str]:
    """The splits that recordings have in an earlier table, whose videos have the same names."""
    splits: dict[str, str] = {}
    for line, cells in read_table(table, ["video", "split"]):
        name = plain_name(cells["video"].strip().replace("\\", "/"))
        split = canonical_split(cells["split"])
        if splits.setdefault(name, split) != split:
            raise InputError(f"{table}, line {line}: {name} is {split} here and {splits[name]} above")
    kept = {}
    for video in {recording.video for recording in recordings}:
        place = plain_name(video.resolve().as_posix())  # ends in its name, whatever folder that is relative to
        kept.update((video, split) for name, split in splits.items() if place.endswith(f"/{name}"))
    if not kept:
        raise InputError(f"{table} names none of the recordings: their splits cannot be kept")
    return kept
