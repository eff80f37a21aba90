"""Subtitles of a long recording: cut into windows or at pauses, translated cue by cue; as SRT, WebVTT or for ELAN.

All times are the frames' own, in seconds from the start of the file, as players count them. No more frames are held
than those of the cues that are translated at once, and these at the size the model reads.
"""

import html
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from processing_fla.frame_conversion_fla import VideoDecodeError
from processing_fla.video_reading_fla import TIME_TOLERANCE, open_video
from training_fla.captions.captioner import Captioner, SignedCue, end_of
from training_fla.captions.pauses import PauseRules
from training_fla.console import progress
from training_fla.corpora.recordings.elan import elan_text
from training_fla.errors import InputError, one_line

WINDOW_SECONDS = 6.0  # Unstated: a sentence of middling length
TimedFrame = tuple[float, np.ndarray]  # seconds, and (H, W, 3) in uint8 RGB


@dataclass
class Cue:
    """A part of a recording that becomes one subtitle."""

    start: float
    end: float
    clip: np.ndarray  # (S, H, W, 3), uint8 RGB: every source frame, or those that `target_fps` leaves


def print_subtitles(translate, video: str, form: str, cut: float | PauseRules, **options) -> int:
    """Translate a video cue by cue, windows of so many seconds or by pauses, and print each subtitle; how many."""
    bar = None

    def announce(total: int) -> None:
        if bar is not None:
            bar.total = total

    cues = open_cues(video, translate, cut, announce)
    if form == "vtt":
        print("WEBVTT\n")
    number, annotations = 0, []
    bar = progress(translate_cues(translate, cues, options), desc="translating", unit="cue")
    try:
        for start, end, sentence in bar:
            if sentence.strip():
                number += 1
                annotations.append((start, end, sentence))
            if sentence.strip() and form != "eaf":
                print(subtitle(number, start, end, sentence, form), flush=True)
    except (VideoDecodeError, InputError):
        raise
    except ValueError as error:
        raise InputError(f"{video} cannot be translated: {error}") from error
    if form == "eaf":  # which begins with all times
        print(elan_text(Path(video), annotations))
    return number


def translate_cues(translate, cues: Iterable[Cue | SignedCue], options: dict) -> Iterator[tuple[float, float, str]]:
    """Start, end and sentence of each cue; a cue's frames are let go when they are translated."""
    times: list[tuple[float, float]] = []

    def clips() -> Iterator[np.ndarray | dict]:
        for cue in cues:
            times.append((cue.start, cue.end))
            yield cue.clip

    for place, result in enumerate(translate(clips(), **options)):
        yield *times[place], result["translation_text"]


def open_cues(
    video: str, translate, cut: float | PauseRules, announce: Callable[[int], None]
) -> Iterator[Cue | SignedCue]:
    """The cues of a video file; `announce` gets their number where the file says how long it is."""
    processor = translate.processor.video_processor

    def announce_windows(end_seconds: float | None) -> None:
        if end_seconds and not isinstance(cut, PauseRules):
            announce(math.ceil(end_seconds / cut))

    frames = read_frames(video, processor.reading_size, announce_windows)
    if not isinstance(cut, PauseRules):
        return cut_windows(frames, cut, processor)
    return cut_pauses(frames, Captioner(translate, cut), video, cut)


def read_frames(video: str, size, announce: Callable[[float | None], None]) -> Iterator[TimedFrame]:
    """All frames of a video file with their seconds; `announce` gets its end, in seconds, when it is open."""
    with open_video(video) as opened:
        announce(opened.end_seconds)
        yield from opened.rgb_frames(size=size)


def cut_windows(frames: Iterable[TimedFrame], length: float, processor) -> Iterator[Cue]:
    """Windows of a recording, one behind the other; each frame is in one, the last may be shorter."""
    held: list[TimedFrame] = []
    start, last_times = None, []
    for seconds, frame in frames:
        start = seconds if start is None else start
        while seconds >= start + length - TIME_TOLERANCE:
            if held:
                yield cue_of(held, max(start, held[0][0]), start + length, processor)
            start, held = start + length, []
        held.append((seconds, frame))
        last_times = [*last_times[-1:], seconds]
    if held:
        yield cue_of(held, max(start, held[0][0]), end_of(last_times), processor)


def cue_of(held: list[TimedFrame], start: float, end: float, processor) -> Cue:
    """A cue of some frames, thinned here: an array does not say its rate."""
    seconds = held[-1][0] - held[0][0]
    kept = processor.frames_at_target_rate(len(held), (len(held) - 1) / seconds if seconds > 0 else None)
    return Cue(start, end, np.stack([held[place][1] for place in kept]))


def cut_pauses(
    frames: Iterable[TimedFrame], captioner: Captioner, video: str, rules: PauseRules
) -> Iterator[SignedCue]:
    """One cue for each segment of signing between pauses, as it ends."""
    number = 0
    for index, (seconds, frame) in enumerate(frames):
        for cue in captioner.add(seconds, frame, index):
            number += 1
            yield cue
    for cue in captioner.finish():
        number += 1
        yield cue
    if not number:
        raise InputError(f"{video} holds no signing of {rules.min_length:g} s: lower --min-length, or cut windows")


def subtitle(number: int, start: float, end: float, sentence: str, form: str) -> str:
    """One subtitle, with the empty line that ends it."""
    times = [timestamp(seconds, "," if form == "srt" else ".") for seconds in (start, end)]
    text = one_line(sentence)
    if form == "vtt":
        text = html.escape(text, quote=False)
    return f"{number}\n{times[0]} --> {times[1]}\n{text}\n"


def timestamp(seconds: float, mark: str) -> str:
    """`00:00:00,000`, with the mark before the milliseconds."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"
