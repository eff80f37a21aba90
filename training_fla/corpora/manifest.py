"""Own data: video files and a table of their sentences (CSV, TSV or JSON Lines)."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from training_fla.corpora.row import SPLIT_SPELLINGS, SPLITS, CorpusRow, VideoFile, canonical_split, path_inside
from training_fla.files import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class ManifestColumns:
    """What the columns of a manifest are called. `video` and `sentence` must be there, the others may be absent.

    Args:
        video (`str`): path of the video file, relative to the manifest's folder or to its `<split>/` subfolder.
        sentence (`str`): the spoken-language sentence.
        split (`str`): `train`, `dev` or `test`, in any usual spelling.
        id (`str`): a name unique in its split; by default the video path without its suffix (and its times).
        signer (`str`): who signs.
        language (`str`): MBart code of the sentence's language.
        start (`str`): seconds at which the clip begins in the video.
        end (`str`): seconds at which it ends.
    """

    video: str = "video"
    sentence: str = "sentence"
    split: str = "split"
    id: str = "id"
    signer: str = "signer"
    language: str = "language"
    start: str = "start"
    end: str = "end"


def read_manifest(
    file: str | Path,
    video_column: str = "video",
    sentence_column: str = "sentence",
    video_root: str | Path | None = None,
    default_split: str = "train",
    language: str = "",
    **columns: str,
) -> list[CorpusRow]:
    """The rows of a table of videos and sentences.

    Args:
        file (`str` or `Path`):
            A `.csv` (comma or semicolon), `.tsv` or `.jsonl` file in UTF-8; or a folder that holds one such file, or
            one a split (`train.tsv`, `dev.tsv`, ...).
        video_column (`str`): the column with the video's path.
        sentence_column (`str`): the column with the sentence.
        video_root (`str` or `Path`, *optional*): the folder that paths are relative to; the file's own when absent.
        default_split (`str`): the split of a row that names none.
        language (`str`): the language of a row that names none.
        **columns (`str`): other names for the columns `split`, `id`, `signer`, `language`, `start`, `end`.

    Returns:
        `list[CorpusRow]`: in the order of the file. Whether the videos are there and decode is for packing to find.

    Raises:
        InputError: naming the file and line: an absent column, an unknown split, a bad time, a path out of the
            folder, an id that comes twice.
    """
    names = ManifestColumns(video=video_column, sentence=sentence_column, **columns)
    rows: list[CorpusRow] = []
    lines: dict[tuple[str, str], str] = {}
    for table, split_of_file in manifest_files(file):
        root = Path(video_root) if video_root is not None else table.parent
        for line, record in _records(table):
            where = f"{table}, line {line}"
            _require_columns(record, names, where)
            try:
                row = _row(record, names, root, split_of_file or default_split, language)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            first = lines.setdefault((row.split, row.id), where)
            if first != where:
                raise InputError(
                    f"{where}: id {row.id!r} came before, at {first}: give each row its own in column {names.id!r}"
                )
            rows.append(row)
    if not rows:
        raise InputError(f"{file} has no rows")
    return rows


def manifest_fingerprint(file: str | Path, **options: str | Path | None) -> str:
    """A short digest that changes when the table, the way it is read, or a video it names changes.

    Cheap: videos are looked at by name, size and time of change, not read.

    Args:
        file (`str` or `Path`): as for [`read_manifest`].
        **options: the other arguments of [`read_manifest`].

    Returns:
        `str`: 32 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(sorted((key, str(value)) for key, value in options.items())).encode())
    for table, _ in manifest_files(file):
        digest.update(table.name.encode() + b"\0" + table.read_bytes())
    for row in read_manifest(file, **options):
        path = Path(row.video.path)
        stat = path.stat() if path.is_file() else None
        digest.update(f"{row.id}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode() if stat else b"absent\n")
    return digest.hexdigest()[:32]


def manifest_files(file: str | Path) -> list[tuple[Path, str | None]]:
    """The tables that `file` means, each with the split that its name says, if it is a file a split.

    Args:
        file (`str` or `Path`): a table, or the folder that holds it.

    Returns:
        `list[tuple[Path, str or None]]`: tables and splits.

    Raises:
        InputError: if there is none, or a folder holds several that are not named after splits.
    """
    file = Path(file)
    if file.is_file():
        if file.suffix.lower() not in SUFFIXES:
            raise InputError(f"{file} is not a {', '.join(SUFFIXES)} file")
        return [(file, None)]
    if not file.is_dir():
        raise InputError(f"{file} does not exist")
    tables = sorted(path for path in file.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not tables:
        raise InputError(f"{file} holds no {', '.join(SUFFIXES)} file with a row a video")
    if len(tables) == 1:
        return [(tables[0], None)]
    splits = {table: SPLIT_SPELLINGS.get(table.stem.lower(), table.stem.lower()) for table in tables}
    if set(splits.values()) <= set(SPLITS) and len(set(splits.values())) == len(tables):
        return sorted(splits.items(), key=lambda item: SPLITS.index(item[1]))
    found = ", ".join(table.name for table in tables)
    raise InputError(f"{file} holds several tables ({found}): name one, or call them train, dev and test")


def _records(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and columns of each row; every value a string."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text: {error}") from error
    if "\0" in text:
        raise InputError(f"{table} is not a text file: it holds zero bytes")
    if table.suffix.lower() == ".jsonl":
        yield from _json_records(table, text)
    else:
        yield from _table_records(table, text)


def _json_records(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like, which that would break at.
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            record = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{table}, line {line} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{table}, line {line} is not a JSON object")
        yield line, {key: "" if value is None else str(value) for key, value in record.items()}


def _table_records(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    tabs = table.suffix.lower() == ".tsv"
    header = text.partition("\n")[0]
    delimiter = "\t" if tabs else ";" if header.count(";") > header.count(",") else ","
    # A quote mark in a TSV file is a quote mark: sentences hold unpaired ones, and no tab needs protection.
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    # strict: a quote that never closes is an error, not one field that swallows the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{table}, line {reader.line_num} has {len(cells)} fields, the header has {len(columns)}"
                )
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: {error}") from error


def _require_columns(record: dict[str, str], names: ManifestColumns, where: str) -> None:
    """The two columns without which there is no row, and every column that was given another name."""
    for field in fields(ManifestColumns):
        column = getattr(names, field.name)
        required = field.name in ("video", "sentence") or column != field.default
        if required and column not in record:
            option = f"--{field.name}-column"
            raise InputError(
                f"{where}: there is no column {column!r}, the columns are {', '.join(map(repr, record))}: "
                f"name the right one with {option}"
            )


def _row(record: dict[str, str], names: ManifestColumns, root: Path, split: str, language: str) -> CorpusRow:
    written = record[names.video].strip()
    split = canonical_split(record.get(names.split, "").strip() or split)
    start, end = _seconds(record, names.start), _seconds(record, names.end)
    if start is not None and end is not None and end <= start:
        raise InputError(f"the clip ends at {end} s, not after its start at {start} s")
    path = path_inside(root, written)
    in_split_folder = path_inside(root, f"{_split_folder(root, split)}/{written}")
    if not path.exists() and in_split_folder.exists():
        path = in_split_folder
    times = "" if start is None and end is None else f"_{record.get(names.start, '')}-{record.get(names.end, '')}"
    return CorpusRow(
        id=record.get(names.id, "").strip() or Path(written).with_suffix("").as_posix() + times,
        video=VideoFile(path, start, end),
        sentence=" ".join(record[names.sentence].split()),
        split=split,
        signer=record.get(names.signer, "").strip(),
        language=record.get(names.language, "").strip() or language,
    )


def _split_folder(root: Path, split: str) -> str:
    spellings = [split, *(spelling for spelling, meant in SPLIT_SPELLINGS.items() if meant == split)]
    return next((spelling for spelling in spellings if (root / spelling).is_dir()), split)


def _seconds(record: dict[str, str], column: str) -> float | None:
    written = record.get(column, "").strip()
    if not written:
        return None
    try:
        value = float(written)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"{written!r} in column {column!r} is not a time in seconds")
    return value
