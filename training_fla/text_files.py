"""Files of sentences, one a line, as `fla trim` and `fla denoise` read them."""

import unicodedata
from pathlib import Path

from .errors import InputError


def read_sentences(file: Path) -> list[str]:
    """Read a UTF-8 text file, one sentence a line; blank lines are skipped.

    Args:
        file (`Path`): the file; a byte-order mark and any line ending are accepted.

    Returns:
        `list[str]`: sentences without surrounding spaces.

    Raises:
        InputError: not there, not UTF-8, a control character (with its line), or no sentence at all.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read sentence file {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"sentence file {file} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        ) from None
    sentences = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        wrong = next((c for c in line if unicodedata.category(c) == "Cc" and c != "\t"), None)
        if wrong is not None:
            raise InputError(f"sentence file {file}, line {number}: control character U+{ord(wrong):04X}")
        if line:
            sentences.append(line)
    if not sentences:
        raise InputError(f"sentence file {file} holds no sentence")
    return sentences
