"""The error that means "the input is wrong, not the program", and outputs that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where two runs on one folder go unnoticed
    fcntl = None


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


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to fill; when the block ends well it takes its place at `path`, else it vanishes.

    What a killed run left behind is cleared by the next one.

    Args:
        path (`str` or `os.PathLike`): the folder to appear. An empty one may exist.
        overwrite (`bool`): whether something at `path` may be replaced.

    Yields:
        `Path`: an empty folder beside `path`.

    Raises:
        InputError: if `path` exists and `overwrite` is false, if it cannot be made, or if another run is writing it.
    """
    path = Path(path).absolute()
    refuse_existing(path, overwrite)
    work = path.with_name(f".{path.name}.writing")
    with locked_folder(work, path):
        _clear(work)
        try:
            yield work
            sync_folder(work)
            replace_folder(work, path)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Give a file name to write to; when the block ends well the file takes its place at `path`, else it vanishes.

    Args:
        path (`str` or `os.PathLike`): the file to appear; its folder is made.
        overwrite (`bool`): whether a file at `path` may be replaced.

    Yields:
        `Path`: a name beside `path` that no other process uses.

    Raises:
        InputError: if `path` exists and `overwrite` is false, or its folder cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, a file is to be written there")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name or pass --overwrite")
    _make_folder(path.parent)
    work = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        yield work
        sync_file(work)
        os.replace(work, path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Stop before work whose result would replace something.

    Args:
        path (`Path`): the folder to write.
        overwrite (`bool`): whether it may be replaced.

    Raises:
        InputError: `path` is a file, or a folder that is not empty and may not be replaced.
    """
    if path.is_file():
        raise InputError(f"{path} is a file, a folder is to be written there")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} exists and is not empty: choose another folder or pass --overwrite")


@contextlib.contextmanager
def locked_folder(work: Path, path: Path) -> Iterator[None]:
    """Make the folder `work` and hold it against other runs that want to write `path`.

    Args:
        work (`Path`): beside `path`.
        path (`Path`): what is written.

    Raises:
        InputError: if it cannot be made, or another process holds it.
    """
    _make_folder(work)
    descriptor = os.open(work, os.O_RDONLY)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{path} is being written by another run") from error
            except OSError:  # a network file system without locks
                pass
        yield
    finally:
        os.close(descriptor)


def replace_folder(work: Path, path: Path) -> None:
    """Put the finished folder `work` in the place of `path`, which is never half one and half the other.

    Args:
        work (`Path`): finished, on the same disk.
        path (`Path`): may exist.
    """
    if not path.exists():
        os.rename(work, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    os.rename(path, old)
    os.rename(work, path)
    shutil.rmtree(old, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Have the bytes on the disk before the name is, so that a power cut leaves no empty file under a good name.

    Args:
        path (`Path`): of a file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """[`sync_file`] for every file of a folder.

    Args:
        folder (`Path`): with its subfolders.
    """
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            sync_file(file)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
