"""Which recording goes with which subtitle or annotation file, and into which split."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from processing_fla.video_reading_fla import VIDEO_SUFFIXES, is_visible_file
from training_fla.corpora.row import canonical_split, files_below, find_inside
from training_fla.errors import InputError
from training_fla.names import plain_name
from training_fla.tables import BadRows, read_table

from .cue_files import CUE_SUFFIXES


@dataclass(frozen=True)
class Recording:
    """A video and the file that says what is signed in it."""

    video: Path
    cues: Path
    split: str = ""  # as a table of pairs gives it
    tier: str = ""


def find_pairs(root: Path, suffix: str = "", follow_links: bool = False) -> tuple[list[Recording], list[str]]:
    """The recordings below a folder with the files of their names, and what has no counterpart.

    A file is of the recording whose name, without suffix, it begins with: `talk.srt`, `talk.de.srt` of `talk.mp4`; of
    one in its folder first. `suffix` is how the files' names end, with or without their own suffix.
    """
    files = [file for file in files_below(root, "", follow_links) if follow_links or not _leads_out(file, root)]
    videos = [file for file in files if is_visible_file(file, VIDEO_SUFFIXES)]
    of_name: dict[object, list[Path]] = defaultdict(list)
    for video in videos:
        of_name[plain_name(video.stem)].append(video)
        of_name[video.parent, plain_name(video.stem)].append(video)
    found: dict[Path, list[Path]] = defaultdict(list)
    alone, bad = [], BadRows()
    for file in files:
        names = plain_name(file.name), plain_name(file.stem)
        ends_so = any(name.endswith(plain_name(suffix)) for name in names)
        if not ends_so or not is_visible_file(file, set(CUE_SUFFIXES)):
            continue
        its = _recordings_of(file, of_name)
        if not its:
            alone.append(f"{file} has no recording of its name")
        elif len(its) > 1:
            listed = ", ".join(str(video.relative_to(root)) for video in its)
            bad.add(file.parent, file.name, f"it may be of {listed}: name the pairs with --pairs")
        else:
            found[its[0]].append(file)
    for video, its in found.items():
        if len(its) > 1:
            listed = ", ".join(file.name for file in its)
            remedy = "say how the right one's name ends with --suffix, or name the pairs with --pairs"
            bad.add(video.parent, video.name, f"it has several files, {listed}: {remedy}")
    bad.refuse()
    alone += [f"{video} has no subtitles or annotations" for video in videos if not found[video]]
    pairs = [Recording(video, its[0]) for video, its in found.items() if its]
    if not pairs:
        kinds = ", ".join(CUE_SUFFIXES)
        what = f"of {len(videos)} videos" if videos else "of a video"
        raise InputError(f"{root} holds no {kinds} file with the name {what}" + (f" and {suffix}" if suffix else ""))
    return sorted(pairs, key=lambda pair: pair.video), alone


def _leads_out(file: Path, root: Path) -> bool:
    return file.is_symlink() and not file.resolve().is_relative_to(root.resolve())


def _recordings_of(file: Path, of_name: Mapping[object, list[Path]]) -> list[Path]:
    """The recordings with the longest name that a file's begins with, in its folder or else anywhere."""
    parts = plain_name(file.stem).split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    for name in [*((file.parent, name) for name in names), *names]:
        if of_name.get(name):
            return of_name[name]
    return []


def read_pairs(table: Path, root: Path, follow_links: bool, bad: BadRows) -> list[Recording]:
    """The rows of a table with the columns `video` and `subtitles`, and `split` and `tier` where it has them."""
    recordings: list[Recording] = []
    of_video: dict[Path, Path] = {}
    for line, cells in read_table(table, ["video", "subtitles"], ["split", "tier"], bad):
        with bad.at(table, line):
            video, cues = (
                find_inside(root, cells[name].strip(), follow_links, suffixes)
                for name, suffixes in (("video", VIDEO_SUFFIXES), ("subtitles", CUE_SUFFIXES))
            )
            for file, suffixes in ((video, VIDEO_SUFFIXES), (cues, CUE_SUFFIXES)):
                if not file.is_file():
                    raise InputError(f"there is no file {file}")
                if file.suffix.lower() not in suffixes:
                    raise InputError(f"{file} is no {', '.join(sorted(suffixes))} file")
            if of_video.setdefault(video, cues) != cues:
                raise InputError(f"{video} has another file above, {of_video[video].name}: give each video one")
            split = cells.get("split", "").strip()
            split = canonical_split(split) if split else ""
            recordings.append(Recording(video, cues, split, cells.get("tier", "").strip()))
    return recordings


def with_splits(
    recordings: Sequence[Recording], kept: Mapping[Path, str], shares: Mapping[str, float], seed: int
) -> list[Recording]:
    """Each recording with its split, the one it has or had, or else drawn; those that share a file get the same.

    `kept` are the splits that videos had, `shares` those of all recordings that dev and test get.
    """
    splits: dict[Path, set[str]] = defaultdict(set)  # of each file of subtitles
    for recording in recordings:
        splits[recording.cues] |= {recording.split or kept.get(recording.video, "")} - {""}
    for file, of_file in splits.items():
        if len(of_file) > 1:
            raise InputError(f"recordings of {file} are in {' and '.join(sorted(of_file))}: give them one split")

    def drawn(file: Path) -> bytes:
        return hashlib.sha256(f"{seed} {plain_name(file.name)}".encode()).digest()

    free = sorted((file for file in splits if not splits[file]), key=drawn)
    for split, share in shares.items():
        # At least one, where two or more are left for the others.
        wanted = max(round(share * len(splits)), bool(share) and len(splits) > 2)
        wanted -= sum(of_file == {split} for of_file in splits.values())
        for file in free[: max(0, wanted)]:
            splits[file] = {split}
        free = free[max(0, wanted) :]
    chosen = {file: next(iter(of_file), "train") for file, of_file in splits.items()}
    return [replace(recording, split=chosen[recording.cues]) for recording in recordings]
