"""One clip of a corpus before packing, and what the readers of all corpora share."""

import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from training_fla.corpora.clips import ClipSource, frame_seconds
from training_fla.errors import InputError
from training_fla.names import name_on_disk
from training_fla.tables import BadRows

MAX_PATH_BYTES, MAX_NAME_BYTES = 4096, 255  # of Linux; no system that we know opens longer ones

SPLITS = ("train", "dev", "test")
SPLIT_SPELLINGS = {
    "val": "dev", "valid": "dev", "validation": "dev", "development": "dev", "training": "train", "testing": "test"
}  # fmt: skip
UNITS = ("seconds", "milliseconds", "frames")  # of the times in a table


@dataclass(frozen=True)
class CorpusRow:
    """One clip and its sentence."""

    id: str  # unique in its split
    video: ClipSource
    sentence: str
    split: str
    signer: str = ""
    language: str = ""  # MBart's code
    num_frames: int | None = None  # by the annotation
    glosses: str = ""  # the signs in their order, where a corpus says; nothing is trained on them
    place: tuple[Path, int | str] | None = field(default=None, compare=False)  # table and line


@dataclass
class Reading:
    """What a reader is asked for, besides where the corpus is, and what it notices on the way."""

    follow_links: bool = False  # symbolic links may lead out of the corpus folder
    skip_bad_rows: bool = False  # they are collected, and the rows without them returned
    times: str = "seconds"  # or another of `UNITS`; the releases that we know have seconds
    notes: list[str] = field(default_factory=list)
    bad: BadRows = field(default_factory=BadRows)

    def left_out(self) -> list[tuple[str, str, str]]:
        """The bad rows as rows of a packed folder's `skipped.tsv`: split, id and reason."""
        return [("", f"{file}, {row}", reason) for file, row, reason in self.bad.found]

    def finished(self, rows: list[CorpusRow], nothing: str = "") -> list[CorpusRow]:
        """The rows split by split; raises `nothing` for no rows, and one error for all bad rows, unless skipped."""
        if nothing and not rows and not self.bad.found:
            raise InputError(nothing)
        if not self.skip_bad_rows:
            self.bad.refuse("`--on-error skip` goes on without them")
        return sorted(rows, key=lambda row: SPLITS.index(row.split))


def canonical_split(name: str) -> str:
    """`train`, `dev` or `test` for any usual spelling of it (`val`, `valid`, `validation` are `dev`)."""
    word = name.strip().lower()
    word = SPLIT_SPELLINGS.get(word, word)
    if word not in SPLITS:
        raise InputError(f"unknown split {name!r}: use train, dev (or val, valid, validation) or test")
    return word


def clip_times(
    start: str, end: str, unit: str = "seconds", clock: Callable[[int], float] | None = None
) -> tuple[float | None, float | None]:
    """Seconds at which a clip begins and ends, from what tables write: `1.5`, `1,5`, `00:01:25.480` or nothing.

    A number without colons is of `unit`, one of `UNITS`; `clock` gives the seconds of the n-th frame, from 0.
    """
    begins, ends = (_seconds(written, unit, clock) for written in (start, end))
    if ends is not None and ends <= (begins or 0.0):
        raise InputError(f"the clip ends at {end.strip()}, not after its start at {start.strip() or 0}")
    return begins, ends


def cut(video: ClipSource, start: str, end: str, unit: str = "seconds") -> ClipSource:
    """The part of a video between two times as a table writes them."""
    if unit == "frames" and video.is_missing:  # it is going to be named as missing
        return video
    begins, ends = clip_times(start, end, unit, partial(frame_seconds, video))
    return replace(video, start_seconds=begins, end_seconds=ends)


def _seconds(written: str, unit: str, clock: Callable[[int], float] | None) -> float | None:
    written = written.strip()
    if not written:
        return None
    if unit == "frames" and ":" not in written:
        number = re.fullmatch(r"(\d{1,9})(?:[.,]0*)?", written)
        if not number:
            raise InputError(f"{written!r} is not the number of a frame")
        return clock(int(number[1]))
    parts = re.fullmatch(r"(?:(?:(\d{1,6}):)?([0-5]?\d):)?(\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?|[.,]\d+)", written)
    seconds = float(parts[3].replace(",", ".")) if parts else math.inf
    if math.isinf(seconds) or (parts[2] and seconds >= 60):
        raise InputError(f"{written!r} is not a time: write seconds (85.48) or hours:minutes:seconds (0:01:25.48)")
    if unit == "milliseconds" and ":" not in written:
        return seconds / 1000
    return int(parts[1] or 0) * 3600 + int(parts[2] or 0) * 60 + seconds


_resolved = lru_cache(Path.resolve)  # of an absolute path: a corpus has many rows and one root


def path_inside(root: Path, written: str, follow_links: bool = False) -> Path:
    """The path below `root` that an annotation file means: relative, or absolute below `root`; it need not exist."""
    if not written.strip() or "\0" in written:
        raise InputError(f"{written!r} is not a path")
    # Before anything follows it: looking up a path of a million parts takes minutes.
    parts = re.split(r"[/\\]", written) if len(written) <= MAX_PATH_BYTES else [written]
    if max(len(part.encode(errors="replace")) for part in parts) > MAX_NAME_BYTES:
        raise InputError(f"{written[:60]!r}... is too long for a path")
    if re.match(r"[A-Za-z]:[\\/]", written):
        raise InputError(f"path {written!r} is one of Windows: write paths relative to {root}")
    if "\\" in written and not os.path.lexists(root / written):
        written = written.replace("\\", "/")
    path = Path(written)
    try:
        if path.is_absolute() and ".." not in path.parts:
            roots = (root.absolute(), root.resolve())
            path = next((path.relative_to(place) for place in roots if path.is_relative_to(place)), path)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"path {written!r} leaves the corpus folder {root}: only paths below it are read")
        inside = follow_links or (root / path).resolve().is_relative_to(_resolved(root.absolute()))
    except (OSError, RuntimeError) as error:  # a name too long, or links in a circle
        raise InputError(f"path {written!r} cannot be followed in {root}: {error}") from error
    if not inside:
        raise InputError(
            f"path {written!r} leads out of the corpus folder {root} through a symbolic link: "
            f"pass --follow-links if you trust it"
        )
    return root / path


def find_inside(root: Path, written: str, follow_links: bool = False, suffixes: Collection[str] = ()) -> Path:
    """[`path_inside`] as the disk spells it, or as it is written where nothing is there.

    A name that ends in none of `suffixes` may lack its suffix.
    """
    path = path_inside(root, written, follow_links)
    if path.exists():
        return path
    found = name_on_disk(root, path.relative_to(root), suffixes)
    return path_inside(root, str(found), follow_links) if found else path


def release_folder(root: str | Path, marker: str) -> Path:
    """The folder of a release: `root`, or the only one to two levels below it (`Name-v3/Name/`), that has `marker`."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    depth = len(Path(marker).parts)
    for pattern in ("", "*/", "*/*/"):
        found = sorted({path.parents[depth - 1] for path in root.glob(pattern + marker)})
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{root} holds several releases: name one of {', '.join(map(str, found))}")
    raise InputError(f"{root} does not hold {marker}: is it the folder of the release?")


def files_below(root: Path, suffix: str, follow_links: bool = False) -> Iterator[Path]:
    """Every file below `root` with this suffix, in the order of paths."""
    for folder, subfolders, names in os.walk(root, followlinks=follow_links):
        subfolders.sort()
        yield from (Path(folder, name) for name in sorted(names) if name.lower().endswith(suffix))
