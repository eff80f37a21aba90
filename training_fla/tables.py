"""Tables: one reader of delimited files and JSON Lines, one writer; sentence files; cells."""

import csv
import json
import math
import os
import re
import statistics
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from training_fla.console import counted
from training_fla.errors import InputError, one_line
from training_fla.file_kinds import BEGINNING, kind_of_file
from training_fla.folders import atomic_file

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
NOT_A_SENTENCE = {"nan", "<na>", "#n/a"}  # how table programs write a missing value
ROWS_NAMED = 20
REASON_LENGTH = 600
csv.field_size_limit(2**31 - 1)  # of all tables in the process; ours is as long as the file


class BadRows:
    """What is wrong with the rows of annotation files, collected so that all bad rows are named at once."""

    def __init__(self):
        self.found: list[tuple[Path, str, str]] = []

    def add(self, file: Path, row: int | str, reason: str) -> None:
        """Note a bad row, by its line or by words; a cell of megabytes is not repeated whole."""
        if len(reason) > REASON_LENGTH:
            reason = f"{reason[: REASON_LENGTH // 2]} ... {reason[-REASON_LENGTH // 2 :]}"
        self.found.append((file, row_name(row), reason))

    @contextmanager
    def at(self, file: Path, row: int | str) -> Iterator[None]:
        """Note an `InputError` of the block as a bad row, and go on."""
        try:
            yield
        except InputError as error:
            self.add(file, row, str(error))

    def lines(self) -> list[str]:
        """One line a bad row."""
        return [f"{file}, {row}: {reason}" for file, row, reason in self.found]

    def refuse(self, remedy: str = "") -> None:
        """Raise one `InputError` that names the rows, if there are any."""
        if not self.found:
            return
        named, last = [], None
        for file, row, reason in self.found[:ROWS_NAMED]:
            named.append(f"{row}: {reason}" if file == last else f"{file}, {row}: {reason}")
            last = file
        if len(self.found) > 1:
            rest = len(self.found) - len(named)
            named.append(f"{f'and {rest} more, ' if rest else ''}{len(self.found)} bad rows in all")
        raise InputError("; ".join(named) + (f"; {remedy}" if remedy else ""))


def row_name(row: int | str) -> str:
    """`line 3` for a number, words as they are."""
    return f"line {row}" if isinstance(row, int) else row


def read_table(
    file: str | os.PathLike,
    columns: Sequence[str] = (),
    optional: Sequence[str] = (),
    bad: BadRows | None = None,
    aliases: Mapping[str, str] | None = None,
    rest_in_last: bool = False,
    remedy: str = "",
) -> list[tuple[int | str, dict[str, str]]]:
    """Line numbers and cells of a table, under the names asked for; optional columns that are absent are left out.

    A quote mark opens a quoted cell where a cell begins with it and the quote closes right before a delimiter or the
    end of a line; `""` within is one mark. Any other quote mark is text. Two limits: with commas or semicolons, whose
    writers always quote, a mark that opens a cell and does not close it makes a bad row; with tabs or `|`, a quoted
    cell of several lines holds no delimiter, so that two stray marks do not make one cell of the rows between them.

    Bad rows go to `bad`, or raise if there is none. A column that is absent may be there by its alias. With
    `rest_in_last` the last cell may hold bare delimiters.
    """
    file, found = Path(file), BadRows() if bad is None else bad
    text, wanted = read_text(file), _Wanted(columns, optional, aliases or {}, remedy)
    if file.suffix.lower() in JSON_SUFFIXES:
        rows = list(_json_rows(file, text, wanted, found))
    else:
        rows = list(_delimited_rows(file, text, wanted, found, rest_in_last))
    if bad is None:
        found.refuse()
    return rows


def write_table(
    file: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]], overwrite: bool = False
) -> None:
    """Write a table that `read_table` reads, with tabs or, as .csv, with commas; white space becomes single spaces."""
    if Path(file).suffix.lower() == ".csv":
        # The mark at its beginning tells spreadsheets that it is UTF-8.
        with atomic_file(file, overwrite) as work, open(work, "w", encoding="utf-8-sig", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows([map(one_line, row) for row in (header, *rows)])
        return
    with atomic_file(file, overwrite) as work, open(work, "w", encoding="utf-8", newline="") as out:
        for row in (header, *rows):
            cells = [one_line(cell) for cell in row]
            for number, cell in enumerate(cells):
                if cell.startswith('"'):  # would be taken for a quoted cell
                    cells[number] = '"' + cell.replace('"', '""') + '"'
            out.write("\t".join(cells) + "\n")


def moments(values: list[float]) -> tuple[float, float]:
    """The mean and the sample deviation, which is 0 for one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def mean_and_deviation(values: list[float]) -> str:
    """The mean, and the sample deviation where there are at least two seeds."""
    mean, deviation = moments(values)
    return f"{mean:.2f}" + (f" ± {deviation:.2f}" if len(values) > 1 else "")


def p_text(p_value: float) -> str:
    """Three digits; no p is 0."""
    return "< 0.001" if p_value < 0.0005 else f"{p_value:.3f}"


def read_sentences(files: Iterable[str | os.PathLike], column: str | None = None) -> list[str]:
    """The sentences of text files, one a line, or of one column of tables; blank lines are left out."""
    sentences = []
    for file in map(Path, files):
        if column:
            rows = [(line, cells[column]) for line, cells in read_table(file, [column])]
        else:
            rows = list(enumerate(read_text(file).split("\n"), start=1))
        found = [(line, sentence.strip()) for line, sentence in rows if sentence.strip()]
        if not found:
            raise InputError(f"{file} has no sentences")
        bad = BadRows()
        for line, sentence in found:
            sentence = " ".join(sentence.split("\n")) if column else sentence
            control = next((c for c in sentence if unicodedata.category(c) == "Cc"), None)
            if control:
                remedy = "; for a table name its column with --column" if control == "\t" and not column else ""
                bad.add(file, line, f"the sentence has the control character {control!r}{remedy}")
            sentences.append(sentence)
        bad.refuse()
    return sentences


def read_text(file: Path, save_as: str = "'CSV UTF-8'", suffixes: Collection[str] = ()) -> str:
    """The text of a UTF-8 file, or of a UTF-16 one with a byte order mark; every line ends in a line feed.

    `suffixes` are of files that are no tables and are read all the same.
    """
    try:
        with open(file, "rb") as opened:
            beginning = opened.read(BEGINNING)
            other = kind_of_file(file.name, beginning)
            if other and file.suffix.lower() not in suffixes:
                raise InputError(f"{file} is {other}")
            content = beginning + opened.read()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    try:
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise InputError(f"{file}, line {line}: not UTF-8 (byte 0x{byte:02x}); save it as {save_as}") from error
    if not text.strip():
        raise InputError(f"{file} is empty")
    if "\0" in text:
        raise InputError(f"{file} is not a text file: it holds zero bytes; save it as {save_as}")
    text = text.replace("\r\n", "\n")
    # Spreadsheets on a Mac may end rows by \r alone, and have \n within cells.
    return text.replace("\r", "\n") if 0 <= text.find("\r") < (text.find("\n") % (len(text) + 1)) else text


class _Wanted(NamedTuple):
    columns: Sequence[str]
    optional: Sequence[str]
    aliases: Mapping[str, str]
    remedy: str

    def among(self, present: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """What is asked for, of what is present by names in lower case; and a column that is required and absent."""
        found = {}
        for name in (*self.columns, *self.optional):
            keys = [key.casefold() for key in (name, self.aliases.get(name, name)) if key.casefold() in present]
            found |= {name: present[keys[0]]} if keys else {}
        return found, next((column for column in self.columns if column not in found), None)

    def error(self, file: Path, row: int | str, column: str, names: Iterable[str]) -> InputError:
        """The error for a column that is absent from a file."""
        names = [name for name in names if name]
        named = ", ".join(map(repr, names))
        named = named if len(named) <= 300 else f"{named[:300]} ..."
        remedy = f"; {self.remedy}" if self.remedy else ""
        if any(re.fullmatch(r"[\d:.,]+", name) for name in names):  # as ELAN exports tables
            remedy = f"; that is a row: put a line with the names of the columns above it, {column!r} among them"
        return InputError(f"{file}, {row_name(row)}: no column {column!r}, only {named}{remedy}")


def _delimited_rows(
    file: Path, text: str, wanted: _Wanted, bad: BadRows, rest_in_last: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter, place = _delimiter(text, wanted.columns)
    quotes = delimiter in ",;" and not rest_in_last
    header, named, places = [], 0, {}
    lines, number = text.split("\n"), text.count("\n", 0, place)
    while number < len(lines):
        line = number + 1
        cells, num_lines, fault = _row(lines, number, delimiter, quotes, len(header) if rest_in_last else 0)
        number += num_lines
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            places = _places(file, line, header, wanted)
            named = max(number for number, name in enumerate(header, start=1) if name)
            continue
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if not fault and not named <= len(cells) <= len(header):
            fault = f"the row has {counted(len(cells), 'cell')}, the header {len(header)}"
            if len(cells) > len(header) and quotes:
                fault += f": put double quotes round a cell that holds {delimiter!r}"
        if fault:
            bad.add(file, line, fault)
        else:
            yield line, {name: cells[index] for name, index in places.items()}


def _delimiter(text: str, columns: Sequence[str]) -> tuple[str, int]:
    """What is between cells, by a first line `sep=;` or by the header, and where the header begins."""
    stated = re.match(r'\s*"?sep=(.)"?[\s;,]*?\n', text, re.IGNORECASE)
    if stated:
        return stated[1], stated.end()
    header = text.lstrip("\n").partition("\n")[0]
    header = re.sub(r'"([^"]*)"', lambda quoted: re.sub("[\t;,|]", " ", quoted[1]), header)

    def fit(delimiter: str) -> tuple[int, int]:
        names = {name.strip().casefold() for name in header.split(delimiter)}
        return sum(column.casefold() in names for column in columns), header.count(delimiter)

    return max("\t;,|", key=fit), 0


def _places(file: Path, line: int, header: Sequence[str], wanted: _Wanted) -> dict[str, int]:
    indices: dict[str, int] = {}
    for index, name in enumerate(header):
        if name and indices.setdefault(name.casefold(), index) != index:
            raise InputError(f"{file}, line {line}: column {name!r} comes twice in the header: rename one of them")
    places, missing = wanted.among(indices)
    if missing:
        raise wanted.error(file, line, missing, header)
    return places


def _row(lines: list[str], number: int, delimiter: str, quotes: bool, limit: int) -> tuple[list[str], int, str]:
    """The cells of the row that begins in a line, over how many lines it goes, and what is wrong with it."""
    bare = lines[number].split(delimiter, limit - 1 if limit else -1)
    if '"' not in lines[number]:
        return bare, 1, ""
    following = (f"{line}\n" for line in map(lines.__getitem__, range(number, len(lines))))
    if quotes:  # people write `a.mp4, "Hello, you" `: a mark that closes a cell is one of an odd number
        closing = rf'(?<!")((?:"")*") +(?=\n|{re.escape(delimiter)})'
        following = (re.sub(closing, r"\1", line) for line in following)
    reader = csv.reader(following, delimiter=delimiter, strict=True, skipinitialspace=quotes)
    try:
        cells = next(reader)
        stray = not quotes and any("\n" in cell and delimiter in cell for cell in cells)
        if not stray and (not limit or len(cells) <= limit):
            return cells, reader.line_num, ""
    except csv.Error:
        pass
    return _cells_of_one_line(bare, quotes)


def _cells_of_one_line(bare: list[str], quotes: bool) -> tuple[list[str], int, str]:
    """What [`_row`] gives for a line that is not as a CSV writer makes it: only whole cells are quoted."""
    cells, fault = [], ""
    for number, cell in enumerate(bare, start=1):
        marked = cell.strip(" ") if quotes else cell
        if re.fullmatch(r'"[^"]*(?:""[^"]*)*"', marked):
            cell = marked[1:-1].replace('""', '"')
        elif quotes and marked.startswith('"'):
            fault = f"cell {number} begins with a quote mark that does not close it: double those inside"
        cells.append(cell)
    return cells, 1, fault


class _Object(list):
    """The pairs of a JSON object, in which a name may come twice."""


def _json_rows(file: Path, text: str, wanted: _Wanted, bad: BadRows) -> Iterator[tuple[int | str, dict[str, str]]]:
    some = False
    for row, record in _json_records(file, text, bad):
        missing = None
        with bad.at(file, row):
            if not isinstance(record, _Object):
                raise InputError("not a JSON object")
            present = {name.casefold(): value for name, value in record}
            if len(present) < len(record):
                raise InputError(f"a column comes twice: {', '.join(repr(name) for name, _ in record)}")
            values, missing = wanted.among(present)
            some = some or not missing
            if missing and some:
                raise InputError(f"no column {missing!r}")
            cells = {name: _json_text(name, value) for name, value in values.items()}
            if not missing:
                yield row, cells
        if missing and not some:  # in the first row: most likely in the whole file
            raise wanted.error(file, row, missing, [name for name, _ in record])


def _json_records(file: Path, text: str, bad: BadRows) -> Iterator[tuple[int | str, object]]:
    """The values of JSON Lines by line, or of one JSON list by number."""
    if text.lstrip().startswith("["):
        with bad.at(file, "its list"):
            yield from ((f"entry {n}", record) for n, record in enumerate(_parsed(text), start=1))
        return
    # Not splitlines(): JSON strings may hold U+2028 and its like, which that would break at.
    for line, source in enumerate(text.split("\n"), start=1):
        if source.strip():
            with bad.at(file, line):
                yield line, _parsed(source)


def _parsed(source: str) -> Any:
    try:
        return json.loads(source, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def _json_text(column: str, value: object) -> str:
    if isinstance(value, str):
        half = next((character for character in value if "\ud800" <= character <= "\udfff"), None)
        if half:
            raise InputError(f"column {column!r} holds half a character (\\u{ord(half):04x})")
        return value
    if value is None:
        return ""
    if isinstance(value, bool | list) or (isinstance(value, float) and not math.isfinite(value)):
        kind = "an object" if isinstance(value, _Object) else "a list" if isinstance(value, list) else str(value)
        raise InputError(f"column {column!r} holds {kind}, not text")
    return str(value)
