"""Where clips lie while they are needed, and how they vanish: after use, after a time, and when the server stops."""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from training_fla.serving.limits import RefusedError

try:
    import fcntl
except ImportError:  # not on Windows, where what a killed server leaves stays
    fcntl = None

PREFIX = "fla-serve-"

SWEEP_EVERY_SECONDS = 30.0
logger = logging.getLogger(__name__)


class UploadFolder:
    """A folder that only this server's user may read. It is Gradio's folder for uploads and caches, so it must exist
    before Gradio is imported.

    Args:
        keep_seconds (`float`): files older than this are deleted, in use or not.
        sweep_every (`float`): seconds between two looks for them.
    """

    def __init__(self, keep_seconds: float, sweep_every: float = SWEEP_EVERY_SECONDS):
        clear_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self._lock = hold(self.path)
        self.keep_seconds = keep_seconds
        os.environ["GRADIO_TEMP_DIR"] = str(self.path)
        self._stopped = threading.Event()
        self._sweeper = threading.Thread(target=self._keep_sweeping, args=(sweep_every,), daemon=True)
        self._sweeper.start()

    def claim(self, name: Any) -> Path:
        """Check that a name that came over the network is that of a clip somebody sent.

        Args:
            name (`Any`): what the page says it sent; anything may come.

        Returns:
            `Path`: a regular file in this folder.

        Raises:
            RefusedError: it is not one.
        """
        try:
            path = Path(name).resolve()
            if self.path in path.parents and path.is_file():
                return path
        except (TypeError, ValueError, OSError):
            pass
        raise RefusedError("The clip is no longer on the server. Send it again.")

    def discard(self, path: Path) -> None:
        """Delete a clip and the folder that Gradio made for it.

        Args:
            path (`Path`): from [`claim`].
        """
        path.unlink(missing_ok=True)
        # Not a tree: somebody else may have sent the same bytes, and Gradio names the folder by them.
        if path.parent != self.path:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def sweep(self, now: float | None = None) -> None:
        """Delete what is too old: clips never asked to be translated, and pieces of uploads that broke off.

        Args:
            now (`float`, *optional*): seconds since the epoch; the present when absent.
        """
        now = time.time() if now is None else now
        for path in list(self.path.rglob("*")):
            with contextlib.suppress(OSError):  # gone meanwhile
                if not path.is_dir() and now - path.lstat().st_mtime > self.keep_seconds:
                    self.discard(path)

    def close(self) -> None:
        """Delete the folder with all that is in it."""
        self._stopped.set()
        self._sweeper.join()
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if os.environ.get("GRADIO_TEMP_DIR") == str(self.path):
            del os.environ["GRADIO_TEMP_DIR"]

    def _keep_sweeping(self, every: float) -> None:
        while not self._stopped.wait(every):
            try:
                self.sweep()
            except Exception:  # the next look may go well; a thread that ends would keep clips for good
                logger.exception("old clips were not deleted")


def clear_leftovers() -> None:
    """Delete the folders of servers that were killed: those that nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = hold(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def hold(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives.

    Args:
        folder (`Path`): of a server.

    Returns:
        `int` or `None`: a descriptor that holds it; `None` where another process does, or where there are no locks.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # gone, or another user's
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
