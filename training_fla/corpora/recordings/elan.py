"""ELAN's files by pympi: the annotations of a tier, and a new file with one tier beside a video.

pympi does not find the times of an annotation that refers to one of a tier that is included in another, nor does it
use the offset of a video; [`_Times`] and [`_offset`] do. In time zones of half hours it writes dates that are none.
"""

import mimetypes
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from training_fla.console import counted
from training_fla.errors import InputError, first_line, one_line
from training_fla.names import plain_name
from training_fla.tables import BadRows

if TYPE_CHECKING:
    import pympi

TIER = "Translation"


def import_pympi(need: str) -> ModuleType:
    """The library, or an error that begins with what needs it."""
    try:
        import pympi
    except ImportError:
        raise InputError(f'{need}: `pip install "fla-llm[recordings]"`') from None
    return pympi


def read_annotations(file: Path, video: Path, tier: str, bad: BadRows) -> list[tuple[float, float, str, str]]:
    """Start and end in seconds of `video`, text and id of the annotations of one tier."""
    eaf = _open_elan(file)
    filled = {name: len(aligned) + len(referring) for name, (aligned, referring, *_) in eaf.tiers.items()}
    names = [name for name, count in filled.items() if (plain_name(name) == plain_name(tier) if tier else count)]
    if len(names) != 1:
        listed = "; ".join(f"{name!r} with {counted(count, 'annotation')}" for name, count in filled.items() if count)
        what = f"no tier {tier!r}" if tier else "several tiers, name one with --tier"
        raise InputError(f"{file} has {what}: {listed}" if any(filled.values()) else f"{file} holds no annotation")
    offset = _offset(eaf, video)
    times = _Times(eaf)
    aligned, referring, *_ = eaf.tiers[names[0]]
    texts = {name: text for name, (_, _, text, *_) in aligned.items()}
    texts |= {name: text for name, (_, text, *_) in referring.items()}
    found = []
    for name, text in texts.items():
        with bad.at(file, f"annotation {name}"):
            start, end = times.of(name)
            found.append((round(start + offset, 3), round(end + offset, 3), text, name))
    return found


class _Times:
    """Seconds at which annotations begin and end, or those that they refer to, directly or by way of others."""

    def __init__(self, eaf: "pympi.Eaf"):
        self.slots = eaf.timeslots
        self.aligned = {name: parts[:2] for tier in eaf.tiers.values() for name, parts in tier[0].items()}
        self.referred = {name: parts[0] for tier in eaf.tiers.values() for name, parts in tier[1].items()}

    def of(self, name: str) -> tuple[float, float]:
        seen = set()
        while name in self.referred and name not in seen:
            seen.add(name)
            name = self.referred[name]
        times = [self.slots.get(slot) for slot in self.aligned.get(name, ())]
        if not times or None in times:
            raise InputError("it has no times, nor has what it refers to: choose another tier with --tier")
        return times[0] / 1000, times[1] / 1000


def _open_elan(file: Path) -> "pympi.Eaf":
    pympi = import_pympi(f"{file} needs pympi to be read")
    try:
        return pympi.Eaf(str(file), suppress_version_warning=True)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # pympi's own, and KeyError or IndexError at what it does not expect
        position = getattr(error.__context__, "position", None)  # of xml.etree's error
        where = f"{file}, line {position[0]}" if position else str(file)
        reason = first_line(error.__context__ or error)
        raise InputError(f"{where}: not an ELAN file ({reason}); save it in ELAN") from error


def _offset(eaf: "pympi.Eaf", video: Path) -> float:
    """Seconds of a recording that lie before the start of ELAN's time line."""
    for media in eaf.media_descriptors:
        links = (media.get("MEDIA_URL"), media.get("RELATIVE_MEDIA_URL"))
        if plain_name(video.name) in {plain_name(PureWindowsPath(unquote(link)).name) for link in links if link}:
            return int(media.get("TIME_ORIGIN") or 0) / 1000
    return 0.0


def elan_text(video: Path, annotations: Iterable[tuple[float, float, str]]) -> str:
    """An ELAN file with a video and one tier; `annotations` are start and end in seconds, and text."""
    pympi = import_pympi("--format eaf needs pympi")
    eaf = pympi.Eaf(author="fla-llm")
    eaf.adocument["DATE"] = datetime.now().astimezone().isoformat(timespec="seconds")
    eaf.header |= {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}  # as ELAN writes
    eaf.remove_tier("default")
    eaf.add_tier(TIER)
    path = video.resolve().as_posix()
    kind = mimetypes.guess_type(video.name)[0] or "unknown"
    # Spaces are written as they are, as ELAN does.
    eaf.add_linked_file(f"file://{'' if path.startswith('/') else '/'}{path}", f"./{video.name}", kind)
    for start, end, text in annotations:
        eaf.add_annotation(TIER, round(1000 * start), round(1000 * end), one_line(text))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + pympi.Elan.to_string(eaf)
