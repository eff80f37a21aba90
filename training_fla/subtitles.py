"""Long recordings: cut into windows in one pass over the frames, translated one by one, written as SRT or WebVTT."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Window:
    """A stretch of a recording.

    Args:
        start_seconds (`float`): from the recording's start.
        end_seconds (`float`): where its last frame ends.
        frames (`np.ndarray` of shape `(T, H, W, 3)`): uint8, sampled already.
    """

    start_seconds: float
    end_seconds: float
    frames: np.ndarray


def cut_windows(
    frames: Iterable[np.ndarray], fps: float, window_seconds: float, stride_seconds: float, frame_stride: int
) -> Iterator[Window]:
    """Cut a recording into windows that may overlap; no more frames are held than one window samples.

    Args:
        frames (`Iterable[np.ndarray]`): every source frame `(H, W, 3)`, uint8.
        fps (`float`): source frames a second.
        window_seconds (`float`): length of a window; rounded to whole sampled frames, at least one.
        stride_seconds (`float`): from one window's start to the next one's; rounded alike, at most a window.
        frame_stride (`int`): keep one frame in so many, as the model was trained.

    Yields:
        [`Window`]: by rising start; the last one may be shorter. Together they hold every sampled frame.
    """
    window = max(1, round(window_seconds * fps / frame_stride))
    stride = min(window, max(1, round(stride_seconds * fps / frame_stride)))
    held: list[np.ndarray] = []
    start = num_new = num_frames = 0

    def cut() -> Window:
        end = min(num_frames, (start + len(held)) * frame_stride)
        return Window(start * frame_stride / fps, end / fps, np.stack(held))

    for frame in frames:
        if num_frames % frame_stride == 0:
            if len(held) == window:
                yield cut()
                del held[:stride]
                start, num_new = start + stride, 0
            held.append(frame)
            num_new += 1
        num_frames += 1
    if num_new:
        yield cut()


def cue_end(window: Window, following: Window | None) -> float:
    """Where a subtitle ends, so that no two are shown at once.

    Args:
        window ([`Window`]): of the subtitle.
        following ([`Window`], *optional*): of the next one.

    Returns:
        `float`: seconds.
    """
    return window.end_seconds if following is None else min(window.end_seconds, following.start_seconds)


def subtitle(number: int, start_seconds: float, end_seconds: float, sentence: str, form: str) -> str:
    """One subtitle.

    Args:
        number (`int`): counted from 1.
        start_seconds (`float`): from the recording's start.
        end_seconds (`float`): from the recording's start.
        sentence (`str`): shown meanwhile.
        form (`str`): `srt` or `vtt`.

    Returns:
        `str`: with the empty line that ends it.
    """
    times = [timestamp(seconds, "," if form == "srt" else ".") for seconds in (start_seconds, end_seconds)]
    text = " ".join(sentence.split())
    if form == "vtt":
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{number}\n{times[0]} --> {times[1]}\n{text}\n"


def timestamp(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and milliseconds.

    Args:
        seconds (`float`): not negative.
        mark (`str`): before the milliseconds: a comma in SRT, a point in WebVTT.

    Returns:
        `str`: `00:00:00,000`.
    """
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"


def print_subtitles(translate, video: str, form: str, window_seconds: float, stride_seconds: float, **options) -> None:
    """Translate a recording window by window and print each subtitle as soon as it is known.

    Args:
        translate ([`~processing_fla.SignTranslationPipeline`]): of a trained model.
        video (`str`): a video file.
        form (`str`): `srt` or `vtt`.
        window_seconds (`float`): how much is translated at once.
        stride_seconds (`float`): from one window's start to the next one's.
        **options: of the pipeline's call.

    Raises:
        InputError: the file does not say how fast its frames follow.
        VideoDecodeError: it cannot be decoded.
    """
    import sys

    from tqdm import tqdm

    from processing_fla.video_processing_fla import iterate_video_frames, probe_video

    from .errors import InputError

    info = probe_video(video)
    if not info.fps:
        raise InputError(f"{video} does not say how many frames a second it has, so subtitles cannot be timed")
    read: list[Window] = []

    def arrays() -> Iterator[np.ndarray]:
        stride = translate.processor.video_processor.frame_stride
        for window in cut_windows(iterate_video_frames(video), info.fps, window_seconds, stride_seconds, stride):
            read.append(Window(window.start_seconds, window.end_seconds, window.frames[:0]))
            yield window.frames

    if form == "vtt":
        print("WEBVTT\n")
    sentences: list[str] = []
    results = translate(arrays(), do_sample_frames=False, **options)
    for result in tqdm(results, unit="window", file=sys.stderr, disable=None):
        sentences.append(result["translation_text"])
        number = len(sentences) - 1  # the one before this one: its end is known now
        if number:
            start, end = read[number - 1].start_seconds, cue_end(read[number - 1], read[number])
            print(subtitle(number, start, end, sentences[number - 1], form), flush=True)
    if sentences:
        print(subtitle(len(sentences), read[-1].start_seconds, read[-1].end_seconds, sentences[-1], form), flush=True)
