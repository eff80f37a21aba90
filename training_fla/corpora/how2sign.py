"""How2Sign: instructional videos in American sign language, sentence by sentence.

    .../how2sign_realigned_{train,val,test}.csv   VIDEO_ID VIDEO_NAME SENTENCE_ID SENTENCE_NAME START_REALIGNED
                                                  END_REALIGNED SENTENCE, between tabs or commas
    .../{VIDEO_NAME}.mp4                          full videos, to be cut at the realigned times
    .../{SENTENCE_NAME}.mp4                       released clips, cut at the unaligned times

Both kinds of video are found by name wherever they lie below the root.
"""

import re
from pathlib import Path

from training_fla.corpora.clips import VideoFile
from training_fla.corpora.row import SPLITS, CorpusRow, Reading, canonical_split, clip_times, files_below, path_inside
from training_fla.errors import InputError, one_line
from training_fla.names import plain_name
from training_fla.tables import read_table

LANGUAGE = "en_XX"
COLUMNS = ("VIDEO_NAME", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE")


def read_how2sign(root: str | Path, reading: Reading | None = None, released_clips: bool = False) -> list[CorpusRow]:
    """The rows of the realigned annotation; `released_clips` are cut at other times than the sentences are said."""
    reading, root = reading or Reading(), Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    videos: dict[str, list[Path]] = {}
    for path in files_below(root, ".mp4", reading.follow_links):
        videos.setdefault(plain_name(path.stem), []).append(path)
    rows = []
    for file in _annotation_files(root):
        split = canonical_split(file.stem.rpartition("_")[2])
        # Sentences hold bare commas.
        for line, cells in read_table(file, COLUMNS, bad=reading.bad, rest_in_last=True):
            with reading.bad.at(file, line):
                rows.append(_row(root, split, cells, videos, reading.follow_links, released_clips))
    if released_clips:
        reading.notes.append(
            "the released clips are cut at the unaligned times: sentences and signs do not match, scores are worse"
        )
    elif any(plain_name(row.id) in videos and not row.video.path.exists() for row in rows):
        reading.notes.append(
            "full videos are missing whose clips are there; --released-clips takes those, cut at the unaligned times"
        )
    for split in sorted(set(SPLITS) - {row.split for row in rows}, key=SPLITS.index):
        reading.notes.append(f"{root} has no how2sign_realigned file for {split}")
    return reading.finished(rows)


def media(root: str | Path) -> list[Path]:
    """Every video of the release."""
    return list(files_below(Path(root), ".mp4"))


def _annotation_files(root: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for file in files_below(root, ".csv"):
        if re.fullmatch(r"how2sign_realigned_(train|val|dev|test)", file.stem):
            if file.stem in found:
                raise InputError(f"{file.name} is there twice: {found[file.stem]} and {file}")
            found[file.stem] = file
    if not found:
        raise InputError(f"{root} holds no how2sign_realigned_{{train,val,test}}.csv")
    return list(found.values())


def _row(root: Path, split: str, cells: dict, videos: dict, follow_links: bool, released_clips: bool) -> CorpusRow:
    name = cells["SENTENCE_NAME" if released_clips else "VIDEO_NAME"]
    # Some sentences are realigned to begin a little before their video.
    begins = "0" if cells["START_REALIGNED"].strip().startswith("-") else cells["START_REALIGNED"]
    start, end = clip_times(begins, cells["END_REALIGNED"])
    if start is None or end is None:
        raise InputError("START_REALIGNED or END_REALIGNED is empty")
    places = videos.get(plain_name(name), [])
    # The same name in several folders: that of the split, else the first.
    in_split = [path for path in places if _names_split(path.relative_to(root), split)]
    path = (in_split or places or [path_inside(root, f"{name}.mp4")])[0]
    path_inside(root, str(path.relative_to(root)), follow_links)
    signer = re.search(r"-(\d+)-rgb_front$", cells["VIDEO_NAME"])
    video = VideoFile(path) if released_clips else VideoFile(path, start, end)
    sentence = one_line(cells["SENTENCE"])
    return CorpusRow(cells["SENTENCE_NAME"], video, sentence, split, signer[1] if signer else "", LANGUAGE)


def _names_split(path: Path, split: str) -> bool:
    spellings = ("dev", "val") if split == "dev" else (split,)
    return any(part == word or part.startswith(f"{word}_") for part in path.parts for word in spellings)
