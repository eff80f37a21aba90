"""Cues of subtitle files: SubRip, WebVTT, SubStation Alpha, SBV; and annotations of ELAN as if they were cues.

pysubs2 reads times and markup of all four kinds of subtitles; webvtt-py knows no SubStation and passes over cues that
it cannot read without a word. pysubs2 is given one cue at a time: it names no lines, a cue of WebVTT that ends in a
number loses it, times within one become cues, and comments become text.
"""

import html
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from training_fla.console import counted
from training_fla.errors import InputError, first_line
from training_fla.tables import BadRows, read_text

from .elan import read_annotations

if TYPE_CHECKING:
    import pysubs2

ELAN_SUFFIX = ".eaf"
CUE_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".sbv", ELAN_SUFFIX)
SUBSTATION = (".ass", ".ssa")
# The lines that begin a cue; what else looks like one is named.
TIMINGS = {
    ".srt": re.compile(r"\s*({0})\s*-->\s*({0})(?:\s.*)?".format(r"\d{1,2}:\d{1,2}:\d{1,2}[.,]\d{1,3}")),
    ".vtt": re.compile(r"\s*({0})\s+-->\s+({0})(?:\s.*)?".format(r"(?:\d{2,4}:)?\d{2}:\d{2}\.\d{3}")),
    ".sbv": re.compile(r"\s*({0}),({0})\s*".format(r"\d{1,2}:\d{1,2}:\d{1,2}\.\d{3}")),
}
ALMOST_TIMING = re.compile(r"\s*-?\d[\d:.,]*\s*-->")
FIELDS = ("start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")  # after the first


@dataclass(frozen=True)
class TimedText:
    """What is said in a part of a recording, as a file has it."""

    start: float  # seconds
    end: float
    text: str  # without markup; a line feed between its lines
    place: int | str  # line of the file, or id of the annotation


def read_cues(file: Path, video: Path, tier: str, bad: BadRows) -> list[TimedText]:
    """The cues of a file in their order; what cannot be read of it goes to `bad`, by its line.

    `tier` is of an ELAN file, `video` the recording whose offset in it counts.
    """
    suffix = file.suffix.lower()
    if suffix == ELAN_SUFFIX:
        return [TimedText(*annotation) for annotation in read_annotations(file, video, tier, bad)]
    lines = read_text(file, save_as="UTF-8", suffixes=CUE_SUFFIXES).split("\n")
    cues = list(_events(file, lines, bad) if suffix in SUBSTATION else _timed_lines(file, lines, bad))
    if not cues and not bad.found:
        raise InputError(f"{file} holds no cue")
    return cues


def _timed_lines(file: Path, lines: Sequence[str], bad: BadRows) -> Iterator[TimedText]:
    """Cues that are a line with two times and the lines below it."""
    suffix = file.suffix.lower()
    if suffix == ".vtt" and not lines[0].startswith("WEBVTT"):
        bad.add(file, 1, "a WebVTT file begins with WEBVTT; is it SubRip? then name it .srt")
        return
    begins = []
    for number, (above, line) in enumerate(pairwise(["", *lines])):
        if timing := TIMINGS[suffix].fullmatch(line):
            begins.append((number, f"{timing[1]} --> {timing[2]}"))
        elif ALMOST_TIMING.match(line) or (suffix == ".sbv" and line.strip() and not above.strip()):
            bad.add(file, number + 1, f"{line.strip()!r} is no line of two times as {suffix} files have them")
    for (begin, timing), (stop, _) in pairwise([*begins, (len(lines), "")]):
        yield _cue(file, timing, _body(lines[begin + 1 : stop], suffix, stop == len(lines)), begin + 1)


def _body(lines: Sequence[str], suffix: str, is_last: bool) -> str:
    """The text of a cue, of the lines up to the times of the next one."""
    if suffix == ".srt":
        # Its text may hold empty lines; the number of the next cue is right above that one's times.
        is_numbered = not is_last and bool(lines) and lines[-1].strip().isdigit()
        return "\n".join(lines[:-1] if is_numbered else lines)
    body = "\n".join(takewhile(str.strip, lines))
    if suffix == ".sbv":
        return body.replace("[br]", "\n")
    return re.sub(r"<[\d:.]+>", "", body).replace("{", "&lbrace;")


def _cue(file: Path, timing: str, body: str, line: int) -> TimedText:
    form = file.suffix.lower()[1:].replace("sbv", "srt")  # whose times pysubs2 reads in either form
    # It takes a number at the end for that of the next cue.
    (event,) = _pysubs2(file).SSAFile.from_string(f"{timing}\n{body.strip()}\n\n1\n", form)[:1]
    return TimedText(event.start / 1000, event.end / 1000, html.unescape(event.plaintext), line)


def _events(file: Path, lines: Sequence[str], bad: BadRows) -> Iterator[TimedText]:
    """Cues of SubStation Alpha, which are lines; comments and drawings are none."""
    in_events = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        in_events = line == "[Events]" if line.startswith("[") else in_events
        kind, _, rest = line.partition(":")
        if not in_events or kind not in ("Format", "Dialogue"):
            continue
        if kind == "Format":
            fields = [field.strip().lower() for field in rest.split(",")]
            fields = ["name" if field == "actor" else field for field in fields]
            if tuple(fields[1:]) != FIELDS:
                bad.add(file, number, "its columns are in another order than Aegisub's: save it there")
                return
        elif rest.count(",") < len(FIELDS):
            bad.add(file, number, f"it has {counted(rest.count(',') + 1, 'column')}, not {len(FIELDS) + 1}")
        else:
            with bad.at(file, number):
                event = _event(file, line)
                if event.is_text:
                    yield TimedText(event.start / 1000, event.end / 1000, event.plaintext, number)


def _event(file: Path, line: str) -> "pysubs2.SSAEvent":
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that are no numbers
            return _pysubs2(file).SSAFile.from_string(f"[Events]\n{line}\n", file.suffix.lower()[1:])[0]
    except ValueError as error:
        raise InputError(first_line(error)) from None


def _pysubs2(file: Path) -> ModuleType:
    try:
        import pysubs2
    except ImportError:
        raise InputError(f'{file} needs pysubs2 to be read: `pip install "fla-llm[recordings]"`') from None
    return pysubs2
