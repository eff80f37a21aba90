"""Own data: a table of videos or folders of frames and their sentences."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.row import (
    SPLIT_SPELLINGS,
    SPLITS,
    CorpusRow,
    Reading,
    canonical_split,
    clip_times,
    one_line,
    path_inside,
)
from training_fla.files import InputError
from training_fla.tables import NOT_A_SENTENCE, SPREADSHEET_SUFFIXES, read_table, row_name

SUFFIXES = (".csv", ".tsv", ".jsonl")  # of the tables that are looked for in a folder


@dataclass(frozen=True)
class ManifestColumns:
    """What the columns are called; `video` (or `file_name`) and `sentence` must be there, "" leaves one unread."""

    video: str = "video"  # a path relative to the table or to its folder `<split>/`
    sentence: str = "sentence"
    split: str = "split"  # in any usual spelling
    id: str = "id"  # unique in its split; by default the video's path without suffix, and the times
    signer: str = "signer"
    language: str = "language"  # MBart's code
    start: str = "start"  # seconds, or hours:minutes:seconds
    end: str = "end"
    fps: str = "fps"  # of a folder of frames


def read_manifest(
    file: str | Path,
    video_column: str = "video",
    sentence_column: str = "sentence",
    video_root: str | Path | None = None,  # what paths are relative to; the table's own folder when absent
    default_split: str = "train",
    language: str = "",
    reading: Reading | None = None,
    **columns: str,
) -> list[CorpusRow]:
    """The rows of a table, or of a folder that holds one or one a split; `columns` are of [`ManifestColumns`]."""
    reading = reading or Reading()
    names = ManifestColumns(video=video_column, sentence=sentence_column, **columns)
    rows: dict[tuple[str, str], CorpusRow] = {}
    places: dict[tuple[str, str], str] = {}
    repeated: list[str] = []
    for table, split_of_file in manifest_files(file):
        root = Path(video_root) if video_root is not None else table.parent
        for line, cells in _cells(table, names, reading):
            with reading.bad.at(table, line):
                where = f"{table}, {row_name(line)}"
                row = _row(cells, root, split_of_file or default_split, language, reading)
                before = rows.get((row.split, row.id))
                if before == row and not cells["id"]:
                    repeated.append(f"{where}, repeats {places[row.split, row.id]}")
                    row = replace(row, id=f"{row.id}#{len(repeated) + 1}")
                elif before:
                    raise InputError(
                        f"id {row.id!r} came before, at {places[row.split, row.id]}: "
                        f"give each row its own in column {names.id or 'id'!r}"
                    )
                rows[row.split, row.id], places[row.split, row.id] = row, where
    if repeated:
        reading.notes.append(f"{len(repeated)} rows repeat others and are kept; the first, {repeated[0]}")
    if not rows and not reading.bad.found:
        raise InputError(f"{file} has no rows")
    return reading.finished(list(rows.values()))


def manifest_fingerprint(file: str | Path, rows: Sequence[CorpusRow], **options: object) -> str:
    """A digest that changes with the table, the way it is read, and the name, size or time of change of its videos."""
    digest = hashlib.sha256(repr(sorted((key, str(value)) for key, value in options.items())).encode())
    for table, _ in manifest_files(file):
        digest.update(table.name.encode() + b"\0" + table.read_bytes())
    for row in rows:
        stat = Path(row.video.path).stat() if not row.video.is_missing else None
        digest.update(f"{row.id}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode() if stat else b"absent\n")
    return digest.hexdigest()[:32]


def manifest_files(file: str | Path) -> list[tuple[Path, str | None]]:
    """The tables that `file` means, each with the split that its name says, if it is a file a split."""
    file = Path(file)
    if file.is_file():
        return [(file, None)]
    if not file.is_dir():
        raise InputError(f"{file} does not exist")
    inside = sorted(path for path in file.iterdir() if path.is_file() and not path.name.startswith("."))
    tables = [path for path in inside if path.suffix.lower() in SUFFIXES]
    if not tables:
        sheets = [path.name for path in inside if path.suffix.lower() in SPREADSHEET_SUFFIXES]
        remedy = f"; save {sheets[0]} as 'CSV UTF-8' (.csv)" if sheets else ""
        raise InputError(f"{file} holds no {', '.join(SUFFIXES)} file with a row a video{remedy}")
    if len(tables) == 1:
        return [(tables[0], None)]
    splits = {table: SPLIT_SPELLINGS.get(table.stem.lower(), table.stem.lower()) for table in tables}
    if set(splits.values()) <= set(SPLITS) and len(set(splits.values())) == len(tables):
        return sorted(splits.items(), key=lambda item: SPLITS.index(item[1]))
    found = ", ".join(table.name for table in tables)
    raise InputError(f"{file} holds several tables ({found}): name one, or call them train, dev and test")


def _cells(table: Path, names: ManifestColumns, reading: Reading) -> list[tuple[int, dict[str, str]]]:
    """Cells by the names of the fields of `ManifestColumns`; a column that was given another name must be there."""
    asked = {field.name: getattr(names, field.name).strip() for field in fields(names)}
    required = [
        asked[field.name]
        for field in fields(names)
        if field.name in ("video", "sentence") or asked[field.name] not in ("", field.default)
    ]
    found = read_table(
        table,
        required,
        [name for name in asked.values() if name and name not in required],
        reading.bad,
        {"video": "file_name"},  # of the `metadata.csv` of `datasets`
        remedy="name the right one with --video-column, --sentence-column and so on",
    )
    return [(line, {field: cells.get(name, "").strip() for field, name in asked.items()}) for line, cells in found]


def _row(cells: dict[str, str], root: Path, split: str, language: str, reading: Reading) -> CorpusRow:
    split = canonical_split(cells["split"] or split)
    times = clip_times(cells["start"], cells["end"])
    path = path_inside(root, cells["video"], reading.follow_links)
    in_split = path_inside(root, f"{_split_folder(root, split)}/{path.relative_to(root)}", reading.follow_links)
    name = path.relative_to(root)
    path = in_split if in_split.exists() and not path.exists() else path
    sentence = one_line(cells["sentence"])
    if not sentence or sentence.lower() in NOT_A_SENTENCE:
        raise InputError(f"{sentence!r} is not a sentence" if sentence else "the sentence is empty")
    if path.is_dir():
        video = FrameFolder(path, _fps(cells["fps"]), *times)
    else:
        video, name = VideoFile(path, *times), name.with_suffix("")
    suffix = "" if times == (None, None) else f"_{cells['start']}-{cells['end']}"
    return CorpusRow(
        id=cells["id"] or name.as_posix() + suffix,
        video=video,
        sentence=sentence,
        split=split,
        signer=cells["signer"],
        language=cells["language"] or language,
    )


def _fps(written: str) -> float:
    if not written:
        return FrameFolder.fps
    rate, _ = clip_times(written, "")
    if not rate:
        raise InputError(f"{written!r} in column 'fps' is not a rate of frames")
    return rate


def _split_folder(root: Path, split: str) -> str:
    spellings = [split, *(spelling for spelling, meant in SPLIT_SPELLINGS.items() if meant == split)]
    return next((spelling for spelling in spellings if (root / spelling).is_dir()), split)
