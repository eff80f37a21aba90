"""Sentence files: plain text, one sentence a line, or one column of a table."""

import csv
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from training_fla.files import InputError
from training_fla.scoring.predictions import read_text

DELIMITERS = ("\t", "|", ",")


def read_sentences(files: Iterable[str | os.PathLike], column: str | None = None) -> list[str]:
    """Read the sentences of some files, blank lines left out.

    Args:
        files (`Iterable[str | os.PathLike]`): UTF-8 files, one sentence a line.
        column (`str`, *optional*):
            The files are tables whose header names this column: tab-separated, CSV, or with `|` (as PHOENIX14T's).

    Returns:
        `list[str]`

    Raises:
        InputError: if a file is missing, empty, not UTF-8, lacks the column, or has a control character in a sentence.
    """
    sentences = []
    for file in map(Path, files):
        rows = _column(file, column) if column else list(enumerate(read_text(file).split("\n"), start=1))
        found = [(row, sentence.strip()) for row, sentence in rows if sentence.strip()]
        if not found:
            raise InputError(f"{file} has no sentences")
        for row, sentence in found:
            _refuse_control_characters(file, row, sentence, column)
            sentences.append(sentence)
    return sentences


def _column(file: Path, column: str) -> list[tuple[int, str]]:
    """The row numbers and cells of one column; the header is row 1."""
    lines = read_text(file).split("\n")
    header = lines[0].rstrip("\r")
    delimiter = next((d for d in DELIMITERS if column in header.split(d)), None)
    if delimiter is None:
        raise InputError(f"{file}, row 1: no column {column!r} in the header {header[:200]!r}")
    if delimiter == ",":
        rows = csv.reader(line + "\n" for line in lines)
        table = [(rows.line_num, cells) for cells in rows]
    else:  # corpora have bare quotation marks in such files
        table = [(number, line.rstrip("\r").split(delimiter)) for number, line in enumerate(lines, start=1)]
    place = table[0][1].index(column)
    cells = []
    for number, row in table[1:]:
        if not any(row):
            continue
        if len(row) <= place:
            raise InputError(f"{file}, row {number}, column {column!r}: the row has only {len(row)} cells")
        cells.append((number, row[place]))
    return cells


def _refuse_control_characters(file: Path, row: int, sentence: str, column: str | None) -> None:
    found = next((character for character in sentence if unicodedata.category(character) == "Cc"), None)
    if found is None:
        return
    remedy = "; for a table name its column with --column" if found == "\t" and not column else ""
    raise InputError(f"{file}, row {row}: the sentence has the control character {found!r}{remedy}")
