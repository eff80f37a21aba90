"""Long recordings: cut into windows or at pauses in the signing, translated cue by cue, written as SRT or WebVTT."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from processing_fla.video_reading_fla import RgbConverter, VideoDecodeError, open_video, probe_video
from training_fla.files import InputError
from training_fla.viewing.pauses import PICTURE_SIDE, STEP_SECONDS, PauseRules, find_stretches, measure_motion


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
    frames: Iterable[tuple[float, object]],
    convert: Callable[[object], np.ndarray],
    fps: float,
    window_seconds: float,
    stride_seconds: float,
    frame_stride: int,
) -> Iterator[Window]:
    """Cut a recording into windows that may overlap; no more frames are held than one window samples.

    Args:
        frames (`Iterable[tuple[float, object]]`): when each source frame is shown, and the frame as decoded.
        convert (`Callable[[object], np.ndarray]`): makes `(H, W, 3)`, uint8, of a frame; called on sampled ones only.
        fps (`float`): source frames a second.
        window_seconds (`float`): length of a window; rounded to whole sampled frames, at least one.
        stride_seconds (`float`): from one window's start to the next one's; rounded alike, at most a window.
        frame_stride (`int`): keep one frame in so many, as the model was trained.

    Yields:
        [`Window`]: by rising start; the last one may be shorter. Together they hold every sampled frame.
    """
    window = max(1, round(window_seconds * fps / frame_stride))
    stride = min(window, max(1, round(stride_seconds * fps / frame_stride)))
    held: list[tuple[float, np.ndarray]] = []
    num_new, seconds = 0, 0.0
    for number, (seconds, frame) in enumerate(frames):
        if number % frame_stride == 0:
            if len(held) == window:
                yield Window(held[0][0], seconds, np.stack([picture for _, picture in held]))
                del held[:stride]
                num_new = 0
            held.append((seconds, convert(frame)))
            num_new += 1
    if num_new:
        yield Window(held[0][0], seconds + 1 / fps, np.stack([picture for _, picture in held]))


def cut_stretches(
    frames: Iterable[tuple[float, object]],
    convert: Callable[[object], np.ndarray],
    stretches: Iterable[tuple[float, float]],
    frame_stride: int,
) -> Iterator[Window]:
    """Cut given stretches out of a recording; no more frames are held than one of them samples.

    Args:
        frames (`Iterable[tuple[float, object]]`): when each source frame is shown, and the frame as decoded.
        convert (`Callable[[object], np.ndarray]`): makes `(H, W, 3)`, uint8, of a frame; called on sampled ones only.
        stretches (`Iterable[tuple[float, float]]`): first and last second of each, rising, without overlap.
        frame_stride (`int`): keep one frame in so many, counted from a stretch's first.

    Yields:
        [`Window`]: one a stretch; none for a stretch that no frame is shown in.
    """
    waiting = iter(stretches)
    stretch = next(waiting, None)
    held: list[np.ndarray] = []
    num_frames = 0
    for seconds, frame in frames:
        while stretch and seconds >= stretch[1]:
            if held:
                yield Window(*stretch, np.stack(held))
            stretch, held, num_frames = next(waiting, None), [], 0
        if stretch is None:
            return
        if seconds >= stretch[0]:
            if num_frames % frame_stride == 0:
                held.append(convert(frame))
            num_frames += 1
    if held:
        yield Window(*stretch, np.stack(held))


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


def read_stretches(video: str, rules: PauseRules, progress: Callable = iter) -> list[tuple[float, float]]:
    """Find where somebody signs in a video file, in one pass over small pictures of it.

    Args:
        video (`str`): a video file.
        rules ([`PauseRules`]): what counts as a pause and as a sentence.
        progress (`Callable`): wraps the iterator over source frames.

    Returns:
        `list[tuple[float, float]]`: as [`~training_fla.viewing.pauses.find_stretches`].

    Raises:
        VideoDecodeError: it cannot be decoded.
    """
    info = probe_video(video)
    scale = PICTURE_SIDE / max(info.height, info.width)
    size = (max(2, round(info.height * scale)), max(2, round(info.width * scale)))

    def pictures(frames) -> Iterator[tuple[float, np.ndarray]]:
        convert = RgbConverter(video, size)
        due = 0.0
        for seconds, frame in frames:
            if seconds >= due - 1e-3:
                due = seconds + STEP_SECONDS
                yield seconds, convert(frame).mean(2, dtype=np.float32)

    with open_video(video) as opened:
        frames = progress(opened.timed_frames())
        return find_stretches(measure_motion(pictures(frames), 1 / (info.fps or 25)), rules)


def open_cues(
    video: str, info, rules: PauseRules | None, window_seconds: float, stride_seconds: float, stride: int, size
):
    """Choose the cuts of a recording.

    Args:
        video (`str`): a video file.
        info ([`~processing_fla.VideoInfo`]): of it.
        rules ([`~training_fla.viewing.pauses.PauseRules`], *optional*): cut at pauses instead of into windows.
        window_seconds (`float`): how much is translated at once, without `rules`.
        stride_seconds (`float`): from one window's start to the next one's, without `rules`.
        stride (`int`): keep one frame in so many.
        size (`Callable`): the height and width of scaled frames, given a source frame's.

    Returns:
        `tuple[Iterator[Window], int | None]`: the cues, and how many there are, where that is known.

    Raises:
        InputError: nobody signs for long enough.
        VideoDecodeError: it cannot be decoded.
    """
    from tqdm import tqdm

    stretches = None
    if rules:
        bar = {"total": info.num_frames, "unit": "frame", "desc": "pauses", "file": sys.stderr, "disable": None}
        stretches = read_stretches(video, rules, lambda frames: tqdm(frames, **bar))
        if not stretches:
            raise InputError(f"{video} holds no signing of {rules.min_length:g} s: lower --min-length, or cut windows")

    def cues() -> Iterator[Window]:
        with open_video(video) as opened:
            frames = opened.timed_frames()
            convert = RgbConverter(video, size)
            if stretches is None:
                yield from cut_windows(frames, convert, info.fps, window_seconds, stride_seconds, stride)
            else:
                yield from cut_stretches(frames, convert, stretches, stride)

    return cues(), stretches and len(stretches)


def print_subtitles(
    translate,
    video: str,
    form: str,
    window_seconds: float,
    stride_seconds: float,
    rules: PauseRules | None = None,
    **options,
) -> None:
    """Translate a recording cue by cue and print each subtitle as soon as it is known.

    Args:
        translate ([`~processing_fla.SignTranslationPipeline`]): of a trained model.
        video (`str`): a video file.
        form (`str`): `srt` or `vtt`.
        window_seconds (`float`): how much is translated at once.
        stride_seconds (`float`): from one window's start to the next one's.
        rules ([`~training_fla.viewing.pauses.PauseRules`], *optional*): cut at pauses instead of into windows; the
            longest cue is what the model can take, where that is shorter.
        **options: of the pipeline's call.

    Raises:
        InputError: the file does not say how fast its frames follow, nobody signs in it, or a window is too long for
            the model.
        VideoDecodeError: it cannot be decoded.
    """
    from tqdm import tqdm

    info = probe_video(video)
    if not info.fps:
        raise InputError(f"{video} does not say how many frames a second it has, so subtitles cannot be timed")
    processor = translate.processor.video_processor
    stride = processor.frame_stride
    most = getattr(translate.model.config.get_text_config(), "max_position_embeddings", None)
    if rules and most:
        rules = replace(rules, max_length=min(rules.max_length, (most - 1) * stride / info.fps))
    cues, total = open_cues(video, info, rules, window_seconds, stride_seconds, stride, processor.target_size)
    read: list[Window] = []

    def arrays() -> Iterator[np.ndarray]:
        for cue in cues:
            read.append(Window(cue.start_seconds, cue.end_seconds, cue.frames[:0]))
            yield cue.frames

    numbers = count(1)

    def show(place: int) -> None:
        end = cue_end(*read[place : place + 2], *([None] if place + 1 == len(read) else []))
        if sentences[place].strip():  # a subtitle without text is none
            print(subtitle(next(numbers), read[place].start_seconds, end, sentences[place], form), flush=True)

    if form == "vtt":
        print("WEBVTT\n")
    sentences: list[str] = []
    results = translate(arrays(), do_sample_frames=False, **options)
    try:
        for result in tqdm(results, total=total, unit="cue", file=sys.stderr, disable=None):
            sentences.append(result["translation_text"])
            if len(sentences) > 1:  # the end of the one before this one is known now
                show(len(sentences) - 2)
    except ValueError as error:
        if isinstance(error, VideoDecodeError):
            raise
        raise InputError(f"{video} cannot be translated: {error}") from error
    if sentences:
        show(len(sentences) - 1)
