"""What a command prints: its last line, notes and progress on stderr, and numbers as text."""

import io
import os
import sys
from collections.abc import Iterable
from typing import NamedTuple

QUIET = "FLA_QUIET"  # in the environment, so that commands that a command starts obey too


class Done(NamedTuple):
    """What a command made, what to type next, and its exit status; printed as its last line."""

    made: str
    next: str = ""
    status: int = 0


def is_quiet() -> bool:
    """Whether `--quiet` was given, to this command or to the one that started it."""
    return os.environ.get(QUIET) == "1"


def note(text: str) -> None:
    """Print a line that is no result on stderr; `--quiet` leaves it out."""
    if not is_quiet():
        print(text, file=sys.stderr, flush=True)


def progress(
    items: Iterable | None = None,
    *,
    total: int | None = None,
    desc: str | None = None,
    unit: str = "it",
    leave: bool = True,
    disable: bool = False,
):
    """A `tqdm` bar on stderr; where that is no terminal, a line after 2, 4, 8, 16 and every 30 seconds."""
    from tqdm import tqdm

    class Lines(tqdm):
        due = 0.0

        def display(self, msg=None, pos=None):  # `pos` is given when the bar is closed
            elapsed = self.format_dict["elapsed"]
            if msg is None and (elapsed >= self.due or pos is not None):
                self.due = elapsed + min(elapsed, 30.0)
                self.bar_format = of_unknown if self.total is None else of_total
                print(self, file=sys.stderr, flush=True)

    options = {"total": total, "desc": desc, "unit": unit, "leave": leave, "disable": disable or is_quiet()}
    if sys.stderr.isatty():
        return tqdm(items, dynamic_ncols=True, **options)
    of_total = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    of_unknown = "{desc}: {n_fmt} [{elapsed}, {rate_fmt}{postfix}]"
    return Lines(items, file=io.StringIO(), delay=2, mininterval=2, miniters=1, **options)


def counted(number: int, thing: str) -> str:
    """`1 clip`, `2,000 clips`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def size_text(num_bytes: float) -> str:
    """`812 bytes`, `4.5 MB`, `1.2 GB`; 1 MB is 10^6 bytes, as on a disk's label."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def time_text(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
