"""Prediction files: tables with the columns `prediction`, `reference` and, optionally, `id`."""

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from training_fla.files import InputError

NOT_A_SENTENCE = {"nan", "<na>", "#n/a"}  # how table programs write a missing value


@dataclasses.dataclass
class PredictionFile:
    """A system's sentences beside the references.

    Args:
        path (`Path`): where they were read.
        ids (`list[str]`): the `id` column, or the row numbers from 1.
        predictions (`list[str]`): as written in the file, spaces at the ends included; may be empty strings.
        references (`list[str]`): as written in the file.
        has_ids (`bool`): whether the file has an `id` column.
    """

    path: Path
    ids: list[str]
    predictions: list[str]
    references: list[str]
    has_ids: bool = False


def read_predictions(path: str | os.PathLike) -> PredictionFile:
    """Read a prediction file: CSV where the name ends in `.csv`, else tab-separated; UTF-8 with a header row.

    Args:
        path (`str` or `os.PathLike`): the file.

    Returns:
        [`PredictionFile`]

    Raises:
        InputError: if the file, a column or a cell cannot be used; the message names file, row (the header is row 1)
            and column. An empty prediction is no error, an empty reference is.
    """
    path = Path(path)
    rows = read_table(path)
    header = next(rows, (1, []))[1]
    for column in ("prediction", "reference"):
        if header.count(column) != 1:
            count = header.count(column)
            problem = f"no column {column!r}" if not count else f"{count} columns named {column!r}"
            raise InputError(f"{path}, row 1: {problem}; the header has {', '.join(map(repr, header))}")
    has_ids = "id" in header
    table = PredictionFile(path, [], [], [], has_ids)
    for number, cells in rows:
        if len(cells) != len(header):
            column = header[len(cells)] if len(cells) < len(header) else header[-1]
            raise InputError(
                f"{path}, row {number}, column {column!r}: the row has {len(cells)} cells, the header {len(header)}"
            )
        row = dict(zip(header, cells, strict=True))
        for column in ("prediction", "reference"):
            if row[column].strip().lower() in NOT_A_SENTENCE:
                raise InputError(f"{path}, row {number}, column {column!r}: {row[column]!r} is not a sentence")
        if not row["reference"].strip():
            raise InputError(f"{path}, row {number}, column 'reference': the cell is empty")
        table.ids.append(row["id"] if has_ids else str(len(table.ids) + 1))
        table.predictions.append(row["prediction"])
        table.references.append(row["reference"])
    if not table.ids:
        raise InputError(f"{path} has a header and no rows")
    return table


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a `.csv` or tab-separated file with their line numbers, the header first.

    In tab-separated files a quotation mark is text, as corpora have bare ones, except where a cell can only have been
    written by a CSV writer: quoted, with the quotation marks inside doubled.

    Args:
        path (`Path`): `.csv`, or tab-separated by any other name.

    Yields:
        `tuple[int, list[str]]`: line number and cells.

    Raises:
        InputError: if the file is missing, empty or not UTF-8.
    """
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        reader = csv.reader(text.splitlines(keepends=True), strict=True)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise InputError(f"{path}, row {reader.line_num}: {error}") from error
        return
    for number, line in enumerate(text.rstrip("\r\n").split("\n"), start=1):
        yield number, [_unquote(cell) for cell in line.removesuffix("\r").split("\t")]


def read_text(path: Path) -> str:
    """A text file's content, without a byte order mark.

    Args:
        path (`Path`): of a text file.

    Returns:
        `str`: with its line ends.

    Raises:
        InputError: if the file is missing, empty or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise InputError(f"{path} is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, row {line}: not UTF-8 (byte 0x{content[error.start]:02x}); convert the file, e.g. with iconv"
        ) from error


def pair_up(table: PredictionFile, other: PredictionFile) -> PredictionFile:
    """The rows of `other` in the order of `table`: by id where both files have ids, else by row.

    Args:
        table ([`PredictionFile`]): whose order counts.
        other ([`PredictionFile`]): of the same sentences.

    Returns:
        [`PredictionFile`]: `other`, reordered.

    Raises:
        InputError: if the files do not hold the same sentences.
    """
    if len(table.ids) != len(other.ids):
        raise InputError(
            f"{other.path} has {len(other.ids)} rows and {table.path} has {len(table.ids)}: they must match"
        )
    order = list(range(len(table.ids)))
    if table.has_ids and other.has_ids and len(set(other.ids)) == len(other.ids):
        place = {identifier: index for index, identifier in enumerate(other.ids)}
        if missing := [identifier for identifier in table.ids if identifier not in place]:
            raise InputError(f"{other.path}, column 'id': no row with the id {missing[0]!r} of {table.path}")
        order = [place[identifier] for identifier in table.ids]
    for row, index in enumerate(order):
        if table.references[row].split() != other.references[index].split():
            raise InputError(
                f"{other.path}, row {index + 2}, column 'reference': {other.references[index]!r} differs from "
                f"{table.references[row]!r} in {table.path}"
            )
    return PredictionFile(
        other.path,
        table.ids,
        [other.predictions[i] for i in order],
        [other.references[i] for i in order],
        table.has_ids,
    )


def _unquote(cell: str) -> str:
    inner = cell[1:-1]
    quoted = len(cell) >= 4 and cell[0] == cell[-1] == '"'
    if quoted and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell
