"""How2Sign: instructional videos in American sign language, sentence by sentence.

    .../how2sign_realigned_{train,val,test}.csv   VIDEO_ID VIDEO_NAME SENTENCE_ID SENTENCE_NAME START_REALIGNED
                                                  END_REALIGNED SENTENCE, between tabs or commas
    .../{VIDEO_NAME}.mp4                          full videos, to be cut at the realigned times
    .../{SENTENCE_NAME}.mp4                       released clips, cut at the unaligned times

Both kinds of video are found by name wherever they lie below the root.
"""

import math
import re
from pathlib import Path

from training_fla.corpora.release import Note, files_below, no_note, one_line, read_lines
from training_fla.corpora.row import SPLITS, CorpusRow, VideoFile, canonical_split, path_inside
from training_fla.files import InputError

# The realigned files' own counts, of which val and test were counted here and train is the literature's.
EXPECTED = {"train": 31165, "dev": 1741, "test": 2357}
PAPER_COUNTS_NOTE = (
    "the paper (Table 1) counts 31164, 1740 and 2356: one less than each file has rows, "
    "as happens when the header is taken off twice"
)

LANGUAGE = "en_XX"
COLUMNS = ("VIDEO_NAME", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE")


def read_how2sign(root: str | Path, note: Note = no_note, released_clips: bool = False) -> list[CorpusRow]:
    """The rows of the realigned annotation.

    Args:
        root (`str` or `Path`): a folder with the CSV files and the videos somewhere below.
        note (`Callable[[str], None]`): told what is odd in the release.
        released_clips (`bool`): use the clips as released, which are cut at other times than the sentences are said.

    Returns:
        `list[CorpusRow]`: train, dev, test, each in the order of its file.

    Raises:
        InputError: naming the file, and the line, that cannot be used.
    """
    root = Path(root)
    videos: dict[str, list[Path]] = {}
    for path in files_below(root, ".mp4"):
        videos.setdefault(path.stem, []).append(path)
    rows = []
    for file in _annotation_files(root):
        split = canonical_split(file.stem.rpartition("_")[2])
        for line, record in _records(file):
            try:
                rows.append(_row(root, split, record, videos, released_clips))
            except InputError as error:
                raise InputError(f"{file}, line {line}: {error}") from error
    if released_clips:
        note("the released clips are cut at the unaligned times: sentences and signs do not match, scores are worse")
    elif any(row.id in videos and not row.video.path.exists() for row in rows):
        note("full videos are missing whose clips are there; --released-clips takes those, cut at the unaligned times")
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            note(f"{root} has no how2sign_realigned file for {split}")
    return sorted(rows, key=lambda row: SPLITS.index(row.split))


def media(root: str | Path) -> list[Path]:
    """Every video of the release.

    Args:
        root (`str` or `Path`): the unpacked release.

    Returns:
        `list[Path]`: files.
    """
    return list(files_below(Path(root), ".mp4"))


def _annotation_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    found: dict[str, Path] = {}
    for file in files_below(root, ".csv"):
        if re.fullmatch(r"how2sign_realigned_(train|val|dev|test)", file.stem):
            if file.stem in found:
                raise InputError(f"{file.name} is there twice: {found[file.stem]} and {file}")
            found[file.stem] = file
    if not found:
        raise InputError(f"{root} holds no how2sign_realigned_{{train,val,test}}.csv")
    return list(found.values())


def _records(file: Path):
    lines = read_lines(file)
    delimiter = "\t" if "\t" in lines[0] else ","
    header = [name.strip().strip('"') for name in lines[0].split(delimiter)]
    for column in COLUMNS:
        if column not in header:
            raise InputError(f"{file} has no column {column}, only {', '.join(header)}")
    if header[-1] != "SENTENCE":
        raise InputError(f"{file}: SENTENCE must be the last column, because sentences hold commas")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split(delimiter, len(header) - 1)
        if len(cells) != len(header):
            raise InputError(f"{file}, line {number} has {len(cells)} fields, the header has {len(header)}")
        yield number, dict(zip(header, map(_unquoted, cells), strict=True))


def _unquoted(cell: str) -> str:
    """The field without a spreadsheet's quotes, where they are such; any other quote mark is the sentence's own."""
    cell = cell.strip()
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _row(
    root: Path, split: str, record: dict[str, str], videos: dict[str, list[Path]], released_clips: bool
) -> CorpusRow:
    name = record["SENTENCE_NAME"] if released_clips else record["VIDEO_NAME"]
    written = {column: record[column] for column in ("START_REALIGNED", "END_REALIGNED")}
    try:
        start, end = map(float, written.values())
    except ValueError:
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise InputError(f"START_REALIGNED and END_REALIGNED are no times: {written}")
    places = videos.get(name, [])
    # The same name in several folders: that of the split, else the first.
    in_split = [path for path in places if _names_split(path.relative_to(root), split)]
    path = (in_split or places or [path_inside(root, f"{name}.mp4")])[0]
    path_inside(root, str(path.relative_to(root)))
    signer = re.search(r"-(\d+)-rgb_front$", record["VIDEO_NAME"])
    video = VideoFile(path) if released_clips else VideoFile(path, max(0.0, start), end)
    sentence = one_line(record["SENTENCE"])
    return CorpusRow(record["SENTENCE_NAME"], video, sentence, split, signer[1] if signer else "", LANGUAGE)


def _names_split(path: Path, split: str) -> bool:
    spellings = ("dev", "val") if split == "dev" else (split,)
    return any(part == word or part.startswith(f"{word}_") for part in path.parts for word in spellings)
