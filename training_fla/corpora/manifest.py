"""Own data: a table of videos or folders of frames and their sentences."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.row import (
    SPLIT_SPELLINGS,
    SPLITS,
    CorpusRow,
    Reading,
    canonical_split,
    clip_times,
    cut,
    find_inside,
    path_inside,
)
from training_fla.errors import InputError, one_line
from training_fla.file_kinds import kind_of_file
from training_fla.tables import NOT_A_SENTENCE, read_table, row_name

SUFFIXES = (".csv", ".tsv", ".jsonl")  # of the tables that are looked for in a folder


# `video` is a path relative to the table or to its folder `<split>/`; an absent `id` is that path without its suffix,
# and the times; `fps` is of folders of frames.
COLUMNS = ("video", "sentence", "split", "id", "signer", "language", "start", "end", "fps")


def read_manifest(
    file: str | Path,
    reading: Reading | None = None,
    *,
    video_root: str | Path | None = None,  # what paths are relative to; the table's own folder when absent
    default_split: str = "train",
    language: str = "",
    suffixes: Collection[str] | None = None,  # of the files that rows name, which may lack them; those of videos
    **columns: str,
) -> list[CorpusRow]:
    """The rows of a table, or of a folder with one table or one a split.

    `columns` are other names, `video_column="file"` and so on; "" leaves an optional column unread.
    """
    if suffixes is None:
        from processing_fla.video_reading_fla import VIDEO_SUFFIXES

        suffixes = VIDEO_SUFFIXES
    reading, names = reading or Reading(), {name: columns.pop(f"{name}_column", name).strip() for name in COLUMNS}
    if columns:
        raise TypeError(f"a manifest has no {', '.join(columns)}")
    rows: dict[tuple[str, str], CorpusRow] = {}
    places: dict[tuple[str, str], str] = {}
    repeated: list[str] = []
    for table, split_of_file in manifest_files(file):
        root = Path(video_root) if video_root is not None else table.parent
        for line, cells in _cells(table, names, reading):
            with reading.bad.at(table, line):
                where = f"{table}, {row_name(line)}"
                row = _row(cells, root, split_of_file or default_split, language, reading, suffixes)
                row = replace(row, place=(table, line))
                before = rows.get((row.split, row.id))
                if before == row and not cells["id"]:
                    repeated.append(f"{where}, repeats {places[row.split, row.id]}")
                    row = replace(row, id=f"{row.id}#{len(repeated) + 1}")
                elif before:
                    raise InputError(
                        f"id {row.id!r} came before, at {places[row.split, row.id]}: "
                        f"give each row its own in column {names['id'] or 'id'!r}"
                    )
                rows[row.split, row.id], places[row.split, row.id] = row, where
    if repeated:
        what = "row repeats another and is" if len(repeated) == 1 else "rows repeat others and are"
        reading.notes.append(f"{len(repeated)} {what} kept; the first, {repeated[0]}")
    return reading.finished(list(rows.values()), f"{file} has no rows")


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
        others = [(path.name, kind_of_file(path.name)) for path in inside]
        remedy = next((f"; {name} is {kind}" for name, kind in others if kind), "")
        raise InputError(f"{file} holds no {', '.join(SUFFIXES)} file with a row a video{remedy}")
    if len(tables) == 1:
        return [(tables[0], None)]
    splits = {table: SPLIT_SPELLINGS.get(table.stem.lower(), table.stem.lower()) for table in tables}
    if set(splits.values()) <= set(SPLITS) and len(set(splits.values())) == len(tables):
        return sorted(splits.items(), key=lambda item: SPLITS.index(item[1]))
    found = ", ".join(table.name for table in tables)
    raise InputError(f"{file} holds several tables ({found}): name one, or call them train, dev and test")


def _cells(table: Path, names: dict[str, str], reading: Reading) -> list[tuple[int | str, dict[str, str]]]:
    """Cells by the names of `COLUMNS`; a column that was given another name must be there."""
    required = [name for kind, name in names.items() if kind in ("video", "sentence") or name not in ("", kind)]
    found = read_table(
        table,
        required,
        [name for name in names.values() if name and name not in required],
        reading.bad,
        {"video": "file_name"},  # of the `metadata.csv` of `datasets`
        remedy="name the right one with its option, such as --sentence-column",
    )
    return [(line, {kind: cells.get(name, "").strip() for kind, name in names.items()}) for line, cells in found]


def _row(
    cells: dict[str, str], root: Path, split: str, language: str, reading: Reading, suffixes: Collection[str]
) -> CorpusRow:
    split = canonical_split(cells["split"] or split)
    path = find_inside(root, cells["video"], reading.follow_links, suffixes)
    if not path.exists():
        in_split = f"{_split_folder(root, split)}/{path.relative_to(root)}"
        in_split = find_inside(root, in_split, reading.follow_links, suffixes)
        path = in_split if in_split.exists() else path
    name = path_inside(root, cells["video"], reading.follow_links).relative_to(root)
    sentence = one_line(cells["sentence"])
    if not sentence or sentence.lower() in NOT_A_SENTENCE:
        raise InputError(f"{sentence!r} is not a sentence" if sentence else "the sentence is empty")
    if path.is_dir():
        video = FrameFolder(path, _fps(cells["fps"]))
    else:
        video = VideoFile(path)
        if name.suffix == path.suffix:  # else the table gives the name without one
            name = name.with_suffix("")
    video = cut(video, cells["start"], cells["end"], reading.times)
    suffix = f"_{cells['start']}-{cells['end']}" if cells["start"] or cells["end"] else ""
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
