"""The one error that means "the input is wrong, not the program"; command lines print it as a line and exit with 2."""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a column, a recipe line, a value.

    The message is one line that names the culprit and, where there is one, the remedy. `fla`, `run_stage1.py` and
    `run_stage2.py` print it without a traceback and exit with status 2.
    """
