"""Two rules of Windows imitated on Linux: `fsync` wants a handle that may write, and what is open or mapped stays."""

import os
import sys
from pathlib import Path

import pytest


def in_use(path: str | os.PathLike) -> list[str]:
    """Files at or below a path that this process has open or mapped."""
    path = os.path.realpath(path)
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # the descriptor of the listing itself
            continue
    for line in Path("/proc/self/maps").read_text().splitlines():
        names.update(line.split(None, 5)[5:])
    return sorted(name for name in names if name == path or name.startswith(f"{path}/"))


def refusing(function, num_paths: int):
    def call(*paths, **options):
        for path in paths[:num_paths]:
            if isinstance(path, str | os.PathLike) and (names := in_use(path)):
                raise PermissionError(13, "The process cannot access the file", names[0])
        if function is rename and os.path.exists(paths[1]):
            raise FileExistsError(17, "Cannot create a file when that file already exists", os.fspath(paths[1]))
        return function(*paths, **options)

    return call


rename = os.rename
fsync = os.fsync


def fsync_of_windows(descriptor):
    descriptor = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
    if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    return fsync(descriptor)


@pytest.fixture
def windows_rules(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("what a process has open is read from /proc")
    for name, num_paths in {"rename": 2, "replace": 2, "unlink": 1, "remove": 1, "rmdir": 1}.items():
        monkeypatch.setattr(os, name, refusing(getattr(os, name), num_paths))
    monkeypatch.setattr(os, "fsync", fsync_of_windows)
