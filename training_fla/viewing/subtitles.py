"""Subtitles of a long recording: cut into windows or at pauses, translated cue by cue, written as SRT or WebVTT.

All times are the frames' own, in seconds from the start of the file, as players count them. No more frames are held
than those of the cues that are translated at once, and these at the size the model reads.
"""

import html
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from processing_fla.frame_conversion_fla import RgbConverter, VideoDecodeError
from processing_fla.video_reading_fla import TIME_TOLERANCE, open_video
from training_fla.console import progress
from training_fla.errors import InputError, one_line
from training_fla.viewing.pauses import PICTURE_SIZE, STEP_SECONDS, PauseRules, find_segments, measure_motion

WINDOW_SECONDS = 6.0  # Unstated: a sentence of middling length
TimedFrame = tuple[float, np.ndarray]  # seconds, and (H, W, 3) in uint8 RGB


@dataclass
class Cue:
    """A part of a recording that becomes one subtitle."""

    start: float
    end: float
    frames: np.ndarray  # (S, H, W, 3), uint8 RGB: every source frame


def print_subtitles(translate, video: str, form: str, cut: float | PauseRules, **options) -> int:
    """Translate a video cue by cue, windows of so many seconds or by pauses, and print each subtitle; how many."""
    bar = None

    def announce(total: int) -> None:
        if bar is not None:
            bar.total = total

    total, cues = open_cues(video, translate, cut, announce)
    if form == "vtt":
        print("WEBVTT\n")
    number = 0
    bar = progress(translate_cues(translate, cues, options), total=total, desc="translating", unit="cue")
    try:
        for start, end, sentence in bar:
            if sentence.strip():
                number += 1
                print(subtitle(number, start, end, sentence, form), flush=True)
    except VideoDecodeError:
        raise
    except ValueError as error:
        raise InputError(f"{video} cannot be translated: {error}") from error
    return number


def translate_cues(translate, cues: Iterable[Cue], options: dict) -> Iterator[tuple[float, float, str]]:
    """Start, end and sentence of each cue; a cue's frames are let go when they are translated."""
    times: list[tuple[float, float]] = []

    def clips() -> Iterator[np.ndarray]:
        for cue in cues:
            times.append((cue.start, cue.end))
            yield cue.frames

    for place, result in enumerate(translate(clips(), **options)):
        yield *times[place], result["translation_text"]


def open_cues(
    video: str, translate, cut: float | PauseRules, announce: Callable[[int], None]
) -> tuple[int | None, Iterator[Cue]]:
    """The cues of a video file, and how many there are; `announce` gets the number where the file has to say it."""
    processor = translate.processor.video_processor

    def announce_windows(end_seconds: float | None) -> None:
        if end_seconds and not isinstance(cut, PauseRules):
            announce(math.ceil(end_seconds / cut))

    frames = read_frames(video, processor.reading_size, announce_windows)
    if not isinstance(cut, PauseRules):
        return None, cut_windows(frames, cut)
    limit = translate.model.max_sign_positions
    segments = read_segments(video, cut, limit and (limit - 1) * processor.frame_stride)
    if not segments:
        raise InputError(f"{video} holds no signing of {cut.min_length:g} s: lower --min-length, or cut windows")
    return len(segments), cut_segments(frames, segments)


def read_frames(video: str, size, announce: Callable[[float | None], None]) -> Iterator[TimedFrame]:
    """All frames of a video file with their seconds; `announce` gets its end, in seconds, when it is open."""
    with open_video(video) as opened:
        announce(opened.end_seconds)
        yield from opened.rgb_frames(size=size)


def cut_windows(frames: Iterable[TimedFrame], length: float) -> Iterator[Cue]:
    """Windows of a recording, one behind the other; each frame is in one, the last may be shorter."""
    held: list[TimedFrame] = []
    start, last_times = None, []
    for seconds, frame in frames:
        start = seconds if start is None else start
        while seconds >= start + length - TIME_TOLERANCE:
            if held:
                yield cue_of(held, max(start, held[0][0]), start + length)
            start, held = start + length, []
        held.append((seconds, frame))
        last_times = [*last_times[-1:], seconds]
    if held:
        yield cue_of(held, max(start, held[0][0]), end_of(last_times))


def cut_segments(frames: Iterable[TimedFrame], segments: Iterable[tuple[float, float]]) -> Iterator[Cue]:
    """One cue a segment, given as first and last second, rising, without overlap; none where no frame is shown."""
    frames = iter(frames)
    ahead = next(frames, None)
    for start, end in segments:
        held: list[TimedFrame] = []
        while ahead is not None and ahead[0] < end:
            if ahead[0] >= start:
                held.append(ahead)
            ahead = next(frames, None)
        if held:
            yield cue_of(held, start, end)


def cue_of(held: list[TimedFrame], start: float, end: float) -> Cue:
    return Cue(start, end, np.stack([frame for _, frame in held]))


def read_segments(video: str, rules: PauseRules, max_frames: int | None = None) -> list[tuple[float, float]]:
    """Find where somebody signs in a video file, in segments of at most `max_frames` source frames, in one pass."""
    times: list[float] = []

    def pictures() -> Iterator[TimedFrame]:
        due = 0.0
        with open_video(video) as opened:
            convert = RgbConverter(video, PICTURE_SIZE)
            frames = progress(opened.timed_frames(), unit="frame", desc="pauses")
            for seconds, frame in frames:
                times.append(seconds)
                if seconds >= due - TIME_TOLERANCE:
                    due = seconds + STEP_SECONDS
                    yield seconds, convert(frame).mean(2, dtype=np.float32)

    motion = measure_motion(pictures())
    if max_frames and len(times) > max_frames:  # the time that so many frames take where they follow fastest
        shortest = (np.array(times[max_frames:]) - times[:-max_frames]).min()
        rules = replace(rules, max_length=min(rules.max_length, float(shortest)))
    return find_segments(replace(motion, end=end_of(times[-2:])), rules)


def end_of(times: list[float]) -> float:
    """Where the last of some frames ends: it is shown as long as the one before it."""
    return times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.04)


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
