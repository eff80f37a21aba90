"""Names that a table gives and a disk answers: in Unicode one name has several spellings, and some lack a suffix."""

import unicodedata
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from training_fla.errors import InputError


def plain_name(name: str) -> str:
    """A name in the form in which all spellings of it are equal; a Mac stores `ü` as a `u` and two dots (NFD)."""
    return unicodedata.normalize("NFC", name)


def name_on_disk(root: Path, name: Path, suffixes: Collection[str] = ()) -> Path | None:
    """The entry below `root` that `name` means, relative to it as the disk spells it; `None` where there is none.

    A last part that ends in none of `suffixes` may lack its suffix, where one entry alone has that stem.
    """
    folder = root
    for part in name.parts[:-1]:
        if not (folder / part).is_dir():
            part = next(iter(_entries(folder).get(plain_name(part), ())), None)
        if part is None:
            return None
        folder /= part
    entries = _entries(folder)
    same = entries.get(plain_name(name.name), [])[:1]
    if not same and suffixes and name.suffix.lower() not in suffixes:
        same = [entry for suffix in suffixes for entry in entries.get(plain_name(name.name) + suffix, [])]
    if len(same) > 1:
        raise InputError(f"{str(name)!r} may be {' or '.join(sorted(same))}: write the suffix")
    return (folder / same[0]).relative_to(root) if same else None


def _entries(folder: Path) -> dict[str, list[str]]:
    """The entries of a folder by their plain names, and by those with the suffix in lower case."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=256)  # a corpus has many rows and few folders
def _listed(folder: Path, changed: int) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    for entry in sorted(folder.iterdir()):
        plain = Path(plain_name(entry.name))
        for name in {plain.name, plain.stem + plain.suffix.lower()}:
            listed.setdefault(name, []).append(entry.name)
    return listed
