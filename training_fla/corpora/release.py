"""What the readers of released corpora share: text files as their owners ship them, and lists of what lies on disk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from training_fla.files import InputError

Note = Callable[[str], None]
"""Takes a remark on a release that the user should see, one line."""


def no_note(remark: str) -> None:
    """Drops a remark.

    Args:
        remark (`str`): of a reader.
    """


def release_folder(root: str | Path, *markers: str) -> Path:
    """The folder that holds a release: `root`, or the only one below it, to two levels, that has one of `markers`.

    Archives unpack to `Name-release-v3/Name/`, and either of the two is what people point to.

    Args:
        root (`str` or `Path`): what the user points to.
        *markers: names of files or folders that a release has.

    Returns:
        `Path`: the folder.

    Raises:
        InputError: if there is none, or more than one.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    for pattern in ("", "*/", "*/*/"):
        found = {folder for marker in markers for folder in _holders(root, pattern, marker)}
        if len(found) == 1:
            return found.pop()
        if found:
            raise InputError(f"{root} holds several releases: name one of {', '.join(map(str, sorted(found)))}")
    raise InputError(f"{root} holds neither {' nor '.join(markers)}: is it the folder of the release?")


def _holders(root: Path, pattern: str, marker: str) -> set[Path]:
    depth = len(Path(marker).parts)
    return {path.parents[depth - 1] for path in root.glob(pattern + marker)}


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends, LF or CRLF; empty ones at its end are left out.

    Args:
        file (`Path`): of text.

    Returns:
        `list[str]`: lines.

    Raises:
        InputError: if it is missing or no UTF-8 text.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{file}, line {line}: not UTF-8 text") from error
    # Not splitlines(), which would also break at characters that sentences may hold.
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) == 1 and not lines[0].strip():
        raise InputError(f"{file} is empty")
    return lines


def read_unquoted_table(file: Path, delimiter: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a delimited file in which a quote mark is a quote mark.

    Args:
        file (`Path`): UTF-8, with a header line.
        delimiter (`str`): between fields; more of it than the header has belongs to the last field.
        columns (`tuple[str, ...]`): those that must be there.

    Yields:
        `tuple[int, dict[str, str]]`: line number, from 1, and fields by column.

    Raises:
        InputError: naming the missing column or the line with too few fields.
    """
    lines = read_lines(file)
    header = [name.strip() for name in lines[0].split(delimiter)]
    for column in columns:
        if column not in header:
            raise InputError(f"{file} has no column {column!r}, only {', '.join(map(repr, header))}")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split(delimiter, len(header) - 1)
        if len(cells) != len(header):
            raise InputError(f"{file}, line {number} has {len(cells)} fields, the header has {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def files_below(root: Path, suffix: str) -> Iterator[Path]:
    """Every file below `root` with this suffix, in the order of paths; links to folders are not followed.

    Args:
        root (`Path`): a folder.
        suffix (`str`): with its point, in lower case.

    Yields:
        `Path`: files.
    """
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffix):
                yield Path(folder, name)


def one_line(sentence: str) -> str:
    """Make every run of white space one space, and those at the ends none.

    Args:
        sentence (`str`): any.

    Returns:
        `str`: on one line.
    """
    return " ".join(sentence.split())
