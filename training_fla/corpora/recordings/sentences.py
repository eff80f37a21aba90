"""From the cues of a recording to sentences with times: what is dropped, joined and moved, and which cues are bad."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from training_fla.corpora.clips import END_TOLERANCE_SECONDS, VideoFile, check_reaches_end
from training_fla.errors import InputError, one_line
from training_fla.tables import BadRows

from .cue_files import TimedText

# Brackets and notes with what is between them, and asterisks as German television has them.
SOUNDS = re.compile(r"\[[^\]]*\]|\([^)]*\)|（[^）]*）|【[^】]*】|\*[^*]*\*|[♪♫][^♪♫]*[♪♫]?")
# A dash or `>>` before who speaks, and the name in capitals before a colon.
TURN = re.compile(r"\s*(?:[-–—]\s|>>+)\s*")
NAME = re.compile(r"\s*([^\W\d_][\w .'’&-]{0,39}?)\s*:(?:\s+|$)")
SENTENCE_END = re.compile(r"[.?!…。？！؟।]['\"’”»›“)\]」』]*$")


@dataclass(frozen=True)
class CueRules:
    """What is done with cues; times in seconds."""

    merge: float | None = None  # the longest gap over which cues are joined into a sentence; `None` joins none
    drop_sounds: bool = False
    drop_speakers: bool = False
    shortest: float = 0.0  # of the clips
    longest: float = float("inf")
    shift: float = 0.0  # added to all times
    margin: float = 0.0  # before and after a sentence


@dataclass
class Findings:
    """What is noticed on the way."""

    left_out: BadRows = field(default_factory=BadRows)  # cues that cannot be used
    odd: BadRows = field(default_factory=BadRows)  # cues that are used
    dropped: int = 0  # cues that say nothing but sounds
    too_short: int = 0
    too_long: int = 0


def sentences_of(
    file: Path, cues: Iterable[TimedText], video: Path, times: Sequence[float], rules: CueRules, findings: Findings
) -> list[TimedText]:
    """The sentences of a recording in the order of their times, which lie within it; `times` are of its frames."""
    kept = []
    for cue in cues:
        with findings.left_out.at(file, place_name(cue)):
            text = cleaned(cue, rules)
            if not text:
                findings.dropped += 1
                continue
            moved = replace(cue, start=cue.start + rules.shift, end=cue.end + rules.shift, text=text)
            kept.append(within(moved, video, times, file, findings.odd))
    kept.sort(key=lambda cue: (cue.start, cue.end))
    name_overlaps(file, kept, findings.odd)
    if rules.merge is not None:
        kept = joined(file, kept, rules, findings.odd)
    length = end_of(times)
    sentences = []
    for cue in kept:
        start = max(0.0, cue.start - rules.margin)
        end = min(length, cue.end + rules.margin)
        findings.too_short += end - start < rules.shortest
        findings.too_long += end - start > rules.longest
        if rules.shortest <= end - start <= rules.longest:
            sentences.append(replace(cue, start=round(start, 3), end=round(end, 3)))
    return sentences


def place_name(cue: TimedText) -> int | str:
    """A line as it is, an annotation by its name."""
    return cue.place if isinstance(cue.place, int) else f"annotation {cue.place}"


def cleaned(cue: TimedText, rules: CueRules) -> str:
    """The text of a cue on one line; empty where it says nothing but sounds. Reversed and empty cues are refused."""
    if cue.end <= cue.start:
        raise InputError(f"it ends at {cue.end:.3f} s, not after its start at {cue.start:.3f} s")
    if not one_line(cue.text):
        raise InputError("it is empty")
    text = SOUNDS.sub(" ", cue.text) if rules.drop_sounds else cue.text
    if rules.drop_speakers:
        text = "\n".join(map(without_speaker, text.split("\n")))
    return one_line(text)


def without_speaker(line: str) -> str:
    """A line of a cue without the dash or the name in capitals that says who speaks."""
    turn = TURN.match(line)
    line = line[turn.end() :] if turn else line
    name = NAME.match(line)
    return line[name.end() :] if name and name[1].isupper() else line


def within(cue: TimedText, video: Path, times: Sequence[float], file: Path, odd: BadRows) -> TimedText:
    """A cue cut to its recording; refused where no frame is shown, or less than half of it is there."""
    length = end_of(times)
    if cue.end <= 0:
        raise InputError(f"it ends at {cue.end:.3f} s, before its recording begins")
    if cue.start >= length:
        raise InputError(f"it begins at {cue.start:.3f} s, after the end of its recording at {length:.3f} s")
    stop = bisect_left(times, cue.end - 1e-3)
    if stop <= bisect_left(times, cue.start - 1e-3):
        raise InputError(f"no frame is shown between {cue.start:.3f} s and {cue.end:.3f} s")
    check_reaches_end(VideoFile(video, max(0.0, cue.start), cue.end), times[stop - 1], 1 / step_of(times))
    if cue.start < 0 or cue.end > length + END_TOLERANCE_SECONDS:
        odd.add(
            file,
            place_name(cue),
            f"it is from {cue.start:.3f} s to {cue.end:.3f} s, its recording from 0 to {length:.3f} s: cut to that",
        )
    return replace(cue, start=max(0.0, cue.start), end=min(length, cue.end))


def step_of(times: Sequence[float]) -> float:
    """The seconds from a frame to the next, on average."""
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.04


def end_of(times: Sequence[float]) -> float:
    """The second at which the last frame ends."""
    return times[-1] + step_of(times)


def name_overlaps(file: Path, cues: Sequence[TimedText], odd: BadRows) -> None:
    """Name the cues that begin before one before them has ended."""
    before = None
    for cue in cues:
        if before and cue.start < before.end - 1e-3:
            where = f"line {before.place}" if isinstance(before.place, int) else place_name(before)
            odd.add(file, place_name(cue), f"it begins {before.end - cue.start:.3f} s before the end of {where}")
        before = cue if before is None or cue.end > before.end else before


def joined(file: Path, cues: Sequence[TimedText], rules: CueRules, odd: BadRows) -> list[TimedText]:
    """Cues joined up to one that ends with the mark of a sentence's end, over gaps that are not too long."""
    if len(cues) > 1 and not any(SENTENCE_END.search(cue.text) for cue in cues):
        odd.add(file, place_name(cues[0]), "no cue of the file ends with . ? or !, so none are joined")
        return list(cues)
    sentences: list[TimedText] = []
    for cue in cues:
        last = sentences[-1] if sentences else None
        if last and not SENTENCE_END.search(last.text) and cue.start - last.end <= rules.merge:
            text = f"{last.text} {cue.text}"
            sentences[-1] = replace(last, end=max(last.end, cue.end), text=text)
        else:
            sentences.append(cue)
    return sentences
