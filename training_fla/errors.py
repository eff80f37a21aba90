"""The one error that means "the input is wrong, not the program"; command lines print it as a line and exit with 2."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, says that there is no room for a file.

    Args:
        error (`BaseException`, *optional*): Python's own, or what a library makes of it, which keeps only the words.

    Returns:
        `bool`: true for a full disk, an exceeded quota and a file over the limit.
    """
    while error is not None:
        words = str(error)
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(f"os error {number})" in words or f"[Errno {number}]" in words for number in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a column, a recipe line, a value.

    The message is one line that names the culprit and, where there is one, the remedy. `fla`, `run_stage1.py` and
    `run_stage2.py` print it without a traceback and exit with status 2.
    """
