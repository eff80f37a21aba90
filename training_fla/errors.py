"""Errors of the input, and what libraries raise as one line."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and the remedy."""


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, is a full disk, an exceeded quota or a file over the size limit."""
    while error is not None:
        words = str(error)
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        # Libraries raise errors of their own, which keep only the words.
        if any(f"os error {number})" in words or f"[Errno {number}]" in words for number in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(text: object) -> str:
    """A text, such as a sentence or an error's message, on one line with single spaces."""
    return " ".join(str(text).split())


def first_line(error: BaseException) -> str:
    """The first line of a library's message that says something."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    # transformers takes what is no folder for a name on the Hub, and then complains of the name.
    return "there is no such folder" if line.startswith("Repo id must be") else line
