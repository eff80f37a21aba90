"""Where clips lie while they are needed; they are deleted after use, after a time, and when the server stops."""

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from training_fla.folders import lock_file, unlock_file
from training_fla.serving.limits import RefusedError

PREFIX = "fla-serve-"
SWEEP_EVERY_SECONDS = 30.0
logger = logging.getLogger(__name__)


class UploadFolder:
    """A folder that only this server's user may read, and that is deleted at the end of a `with` block.

    It is Gradio's folder for uploads and caches, so it must exist before Gradio is imported. Files older than
    `keep_seconds` are deleted, in use or not.
    """

    def __init__(self, keep_seconds: float, sweep_every: float = SWEEP_EVERY_SECONDS):
        clear_leftovers()
        self.path = Path(tempfile.gettempdir()).resolve() / f"{PREFIX}{secrets.token_hex(8)}"
        self.lock = lock_file(lock_of(self.path))  # before the folder is there, or another server would delete it
        self.path.mkdir(mode=0o700)
        self.keep_seconds = keep_seconds
        os.environ["GRADIO_TEMP_DIR"] = str(self.path)
        self.stopped = threading.Event()
        self.sweeper = threading.Thread(target=self.keep_sweeping, args=(sweep_every,), daemon=True)
        self.sweeper.start()

    def __enter__(self) -> "UploadFolder":
        return self

    def __exit__(self, *exception) -> None:
        self.stopped.set()
        self.sweeper.join()
        shutil.rmtree(self.path, ignore_errors=True)
        unlock_file(self.lock, lock_of(self.path))
        os.environ.pop("GRADIO_TEMP_DIR", None)

    def claim(self, name: Any) -> Path:
        """The file that a name from the network stands for; anything but a file in this folder is refused."""
        with contextlib.suppress(TypeError, ValueError, OSError):
            path = Path(name).resolve()
            if self.path in path.parents and path.is_file():
                return path
        raise RefusedError("The clip is no longer on the server. Send it again.")

    def discard(self, path: Path) -> None:
        """Delete a clip and the folder that Gradio made for it."""
        path.unlink(missing_ok=True)
        # Only if it is empty: Gradio names the folder by the bytes, and another visitor may have sent the same.
        if path.parent != self.path:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def sweep(self, now: float | None = None) -> None:
        """Delete what is too old: clips never asked to be translated, and pieces of uploads that broke off."""
        now = time.time() if now is None else now
        for path in list(self.path.rglob("*")):
            with contextlib.suppress(OSError):  # gone meanwhile
                if not path.is_dir() and now - path.lstat().st_mtime > self.keep_seconds:
                    self.discard(path)

    def keep_sweeping(self, every: float) -> None:
        while not self.stopped.wait(every):
            try:
                self.sweep()
            except Exception:  # the next try may succeed; without this thread clips would stay
                logger.exception("old clips were not deleted")


def lock_of(folder: Path) -> Path:
    """The file that a running server holds; beside its folder, whose old files are deleted."""
    return folder.with_name(f"{folder.name}.lock")


def clear_leftovers() -> None:
    """Delete the folders of servers that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            lock = lock_file(lock_of(folder)) if folder.is_dir() else None
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                unlock_file(lock, lock_of(folder))
