"""Files and folders that appear whole or not at all: our marker, what is refused, atomic writes, locks."""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from training_fla.console import note
from training_fla.errors import InputError

MARKER = ".fla-llm.json"
KINDS = {
    "corpus": "a packed corpus",
    "model": "a model",
    "run": "a training run",
    "features": "a feature cache",
    "demo": "a demo",
    "ablation": "an ablation",
    "space": "a Space",
    "export": "an exported model",
}
LOCK = ".lock"  # in a folder while a process holds it; a killed process leaves the file, but not the lock
POLL_SECONDS = 1.0  # between two tries to lock what another process holds
# Other programs leave these everywhere; the last is ours and stands in the way of nothing.
BYPRODUCTS = {"__pycache__", ".DS_Store", "Thumbs.db", "desktop.ini", LOCK}


class FolderInUseError(InputError):
    """Another process writes the folder."""


def write_marker(folder: Path, kind: str, files: Iterable[str] | None = None) -> None:
    """Mark a folder as made by us; with `files`, it may be replaced only while it holds nothing else."""
    marker = {"kind": kind, "version": 1} | ({} if files is None else {"files": sorted(files)})
    (folder / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")


def read_marker(folder: Path) -> dict | None:
    """The marker of a folder, or `None` where we did not make it."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("kind") in KINDS else None


def check_folder(path: str | os.PathLike, kind: str, overwrite: bool = False) -> None:
    """Refuse, before any work, a folder that holds something, unless it is ours, of this kind and may be replaced."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, a folder is to be written there")
    entries = {entry.name for entry in path.iterdir()} - BYPRODUCTS if path.is_dir() else set()
    if not entries:
        return
    marker = read_marker(path)
    if marker is None:
        raise InputError(
            f"{path} holds {_listed(entries)} and no whole {MARKER} of ours, so it is not replaced: "
            "choose another folder"
        )
    if marker["kind"] != kind:
        raise InputError(f"{path} holds {KINDS[marker['kind']]}, not {KINDS[kind]}: choose another folder")
    if not overwrite:
        remedies = {"run": "give --resume to go on, --overwrite to start anew"}
        remedy = remedies.get(kind, "choose another folder or pass --overwrite")
        raise InputError(f"{path} holds {KINDS[kind]} already: {remedy}")
    foreign = _files(path) - {MARKER, *marker["files"]} if "files" in marker else set()
    if foreign:
        raise InputError(f"{path} also holds {_listed(foreign)}, which we did not write: move it elsewhere first")


def check_file(path: Path, overwrite: bool = False) -> None:
    """Refuse, before any work, a file that may not be written."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, a file is to be written there")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name or pass --overwrite")


def check_not_inside(sources: Iterable[str | os.PathLike | None], out: str | os.PathLike) -> None:
    """Refuse to replace a folder that is, or holds, something the command reads."""
    out = Path(out)
    if not out.exists():
        return
    for source in filter(None, sources):
        # With links followed and without, and without `..`, whose folder is none of those that hold the source.
        for path in {Path(os.path.abspath(source)), Path(source).resolve()}:
            if path.exists() and any(place.samefile(out) for place in (path, *path.parents)):
                raise InputError(f"{out} holds {source}, which is read: choose another folder to write")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike, kind: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well it is marked and takes its place at `path`, else it vanishes."""
    check_folder(path, kind, overwrite)
    path = Path(path).resolve()
    work = path.with_name(f".{path.name}.writing")
    # Windows renames no folder in which a file is open, as the lock is, so what is renamed lies below.
    folder = work / "folder"
    with locked_folder(work, path, temporary=True):
        if _files(work) and read_marker(work) is None:
            raise InputError(f"{work} is in the way and not ours: move it elsewhere")
        clear_folder(work)  # what a killed run left
        try:
            write_marker(work, kind)
            folder.mkdir()
            yield folder
            replace_folder(folder, path, kind)
            clear_folder(work)
        except BaseException:
            with contextlib.suppress(OSError):
                clear_folder(work)
            raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yield a file name to write to; when the block ends well the file takes its place at `path`, else it vanishes."""
    path = Path(path)
    check_file(path, overwrite)
    _make_folder(path.parent)
    work = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        work.touch()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield work
        sync_file(work)
        with _not_open_elsewhere(path):
            os.replace(work, path)
    except BaseException:
        with contextlib.suppress(OSError):
            work.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in one step, in the place of one that is there."""
    with atomic_file(path, overwrite=True) as work:
        work.write_text(text, encoding="utf-8")


HELD: set[int] = set()  # descriptors of locked files


def _let_go_in_child() -> None:
    """A forked worker holds no lock, or the next run could not begin while workers of a killed one still end."""
    while HELD:
        os.close(HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def locked_folder(folder: Path, path: Path, *, wait: bool = False, temporary: bool = False) -> Iterator[None]:
    """Make a folder and hold it against other runs that want to write `path`; a temporary one is removed if empty."""
    lock, announced = folder / LOCK, False
    while True:
        _make_folder(folder)
        try:
            descriptor = lock_file(lock)
        except FileNotFoundError:  # the process that held it has just removed it
            continue
        except OSError as error:
            raise InputError(f"{folder} cannot be written to: {error.strerror}") from error
        if descriptor is not None:
            break
        if not wait:
            raise FolderInUseError(f"{path} is being written by another run")
        if not announced:
            note(f"waiting for the process that writes {path}")
            announced = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        unlock_file(descriptor, lock)
        if temporary:
            with contextlib.suppress(OSError):  # it holds something, or another process has locked it
                folder.rmdir()


def lock_file(file: Path) -> int | None:
    """Make a file and lock it until [`unlock_file`] or the end of this process; `None` where another one holds it."""
    from filelock import lock_descriptor

    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        HELD.add(descriptor)
        try:
            is_locked = lock_descriptor(descriptor, blocking=False)
        except OSError:  # a network file system without locks
            is_locked = True
        if not is_locked:
            _close(descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        _close(descriptor)  # the process that held it has removed it since it was opened


def unlock_file(descriptor: int, file: Path) -> None:
    """Remove a file that [`lock_file`] made, and its lock."""
    if descriptor not in HELD:  # in a forked process, whose lock it is not
        return
    try:
        file.unlink(missing_ok=True)
    except PermissionError:  # Windows removes no open file
        _close(descriptor)
        with contextlib.suppress(OSError):
            file.unlink()
    else:
        _close(descriptor)


def _close(descriptor: int) -> None:
    HELD.remove(descriptor)
    os.close(descriptor)


def replace_folder(work: Path, path: Path, kind: str) -> None:
    """Mark the finished folder `work` and put it in the place of `path` in one step."""
    write_marker(work, kind, _files(work) - {MARKER})
    for file in work.rglob("*"):
        if file.is_file() and not file.is_symlink():
            sync_file(file)
    if not path.exists():
        os.rename(work, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    with _not_open_elsewhere(path):
        os.rename(path, old)
    os.rename(work, path)
    shutil.rmtree(old, ignore_errors=True)


def clear_folder(folder: Path) -> None:
    """Remove what a folder of ours holds, but its lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Have the bytes on the disk before the name is, so that a power cut leaves no empty file under a good name."""
    # Windows syncs no file that is open for reading alone.
    descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EBADF:  # a file that nobody may write
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _not_open_elsewhere(path: Path) -> Iterator[None]:
    """Name what is not replaced, on Windows because a program has it open."""
    try:
        yield
    except PermissionError as error:
        remedy = "close the programs that have it open" if os.name == "nt" else "change its permissions"
        raise InputError(f"cannot replace {path}: {error.strerror}; {remedy}, then try again") from error


def _files(folder: Path) -> set[str]:
    """Names of all files below a folder, and of its empty folders."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or not any(path.iterdir()))
    names = (path.relative_to(folder) for path in found)
    return {name.as_posix() for name in names if BYPRODUCTS.isdisjoint(name.parts)}


def _listed(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
