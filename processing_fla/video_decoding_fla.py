"""From a video file to RGB frames: all of them, a stretch, every n-th or chosen ones.

Long-GOP video cannot skip frames, so every frame is decoded, but only the kept ones are converted to RGB.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from .video_color_fla import RgbConverter, display_matrix, orientation
from .video_opening_fla import VideoDecodeError, decode_frames, local_path, open_video


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself.

    Args:
        fps (`float` or `None`): average source frames per second; `None` where the container does not say.
        height (`int`): of an upright frame, in pixels, after the rotation was applied.
        width (`int`): of an upright frame, in pixels, after the rotation was applied.
        rotation (`int`): degrees that frames are turned clockwise to stand upright: 0, 90, 180 or 270.
        mirrored (`bool`): whether the file asks for a mirror image besides.
        num_frames (`int` or `None`): frames according to the header; `None` where it does not say. Not checked against
            the stream: [`count_video_frames`] is.
        duration (`float` or `None`): seconds, according to the header.
        codec (`str`): FFmpeg's name of the codec.
    """

    fps: float | None
    height: int
    width: int
    rotation: int
    mirrored: bool
    num_frames: int | None
    duration: float | None
    codec: str


def iterate_video_frames(
    path: str | os.PathLike,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    interpolation: str = "BICUBIC",
    frame_stride: int = 1,
    num_threads: int | None = None,
) -> Iterator[np.ndarray]:
    """Every frame of a video file, or of a stretch of it, upright and in RGB.

    Pixels are as stored: ones that are not square are not made so, and HDR is not mapped to the range of a screen.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        start_seconds (`float`, *optional*): the first frame shown at this time or later is the first one given.
        end_seconds (`float`, *optional*): the first frame shown at this time or later is no longer given. May lie
            beyond the end of the video.
        size (`tuple[int, int]`, *optional*): height and width to scale to; the video's own when absent.
        interpolation (`str`): FFmpeg's scaler, used with `size`: `"AREA"`, `"BICUBIC"`, `"BILINEAR"`, ...
        frame_stride (`int`): give only every so many frames; the others are not converted.
        num_threads (`int`, *optional*): threads of the decoder; one per core up to four when absent.

    Yields:
        `np.ndarray` of shape `(H, W, 3)`, uint8: RGB, 0 to 255.

    Raises:
        VideoDecodeError: if the file is no video, is damaged or cut off, or holds no frame between the two times.
    """
    with open_frames(
        path,
        start_seconds,
        end_seconds,
        size=size,
        interpolation=interpolation,
        frame_stride=frame_stride,
        num_threads=num_threads,
    ) as (_, frames):
        yield from frames


@contextmanager
def open_frames(
    path: str | os.PathLike,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    interpolation: str = "BICUBIC",
    spaced: bool = False,
    frame_stride: int = 1,
    num_threads: int | None = None,
) -> Iterator[tuple[float | None, Iterator[np.ndarray]]]:
    """[`iterate_video_frames`], and the frame rate, from one look into the file.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        start_seconds (`float`, *optional*): as in [`iterate_video_frames`].
        end_seconds (`float`, *optional*): as in [`iterate_video_frames`].
        size (`tuple[int, int]`, *optional*): as in [`iterate_video_frames`].
        interpolation (`str`): as in [`iterate_video_frames`].
        spaced (`bool`): give frames of `(H, W, 4)`, which are filled faster; see [`RgbConverter`].
        frame_stride (`int`): as in [`iterate_video_frames`].
        num_threads (`int`, *optional*): as in [`iterate_video_frames`].

    Yields:
        `tuple[float or None, Iterator[np.ndarray]]`: average source frames per second, `None` where the file does not
            say, and the frames.

    Raises:
        VideoDecodeError: as in [`iterate_video_frames`].
    """
    path = local_path(path)
    with open_video(path, num_threads) as (container, stream):
        convert = RgbConverter(path, size, interpolation, spaced)
        timed = timed_frames(container, stream, path, start_seconds)
        frames = frames_between(timed, path, start_seconds, end_seconds)
        rate = stream.average_rate or stream.guessed_rate
        yield float(rate) if rate else None, map(convert, islice(frames, 0, None, frame_stride))


def frames_between(
    timed: Iterator[tuple[float, object]], path: Path, start_seconds: float | None, end_seconds: float | None
) -> Iterator:
    """The frames of a stretch; it is an error that it holds none.

    Args:
        timed (`Iterator[tuple[float, av.VideoFrame]]`): from [`timed_frames`].
        path (`Path`): named in errors.
        start_seconds (`float`, *optional*): the first frame shown at this time or later is the first one given.
        end_seconds (`float`, *optional*): the first frame shown at this time or later is no longer given.

    Yields:
        `av.VideoFrame`: as decoded.

    Raises:
        VideoDecodeError: there is no frame between the two times.
    """
    num_frames = 0
    for seconds, frame in timed:
        # Times are rounded in files and in annotations: a millisecond is far below any frame.
        if start_seconds is not None and seconds < start_seconds - 1e-3:
            continue
        if end_seconds is not None and seconds >= end_seconds - 1e-3:
            break
        num_frames += 1
        yield frame
    if num_frames == 0:
        raise VideoDecodeError(f"`{path}` has no frame between {start_seconds or 0} s and {end_seconds} s")


def timed_frames(container, stream, path: Path, start_seconds: float | None) -> Iterator[tuple[float, object]]:
    """Frames with the seconds at which they are shown, counted from the start of the video.

    A frame without a time, or with one that runs backwards, is taken to follow the one before by one frame interval.

    Args:
        container (`av.container.InputContainer`): an open container.
        stream (`av.video.stream.VideoStream`): its video stream.
        path (`Path`): named in errors.
        start_seconds (`float`, *optional*): frames before it may be left out, where the file can be sought in.

    Yields:
        `tuple[float, av.VideoFrame]`: seconds, strictly rising, and the frame as decoded.
    """
    step = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    origin = (stream.start_time or 0) * float(stream.time_base)
    seconds = -step
    for frame in decode_frames(container, stream, path, start_seconds):
        shown = None if frame.time is None else frame.time - origin
        seconds = shown if shown is not None and shown > seconds else seconds + step
        yield seconds, frame


def read_strided_video_frames(
    path: str | os.PathLike, frame_stride: int, generator: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """One frame of each window of `frame_stride` source frames, in one pass that need not know the length beforehand.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        frame_stride (`int`): length of a window in source frames.
        generator (`np.random.Generator`, *optional*): draws the frame of each window; the first one when absent.

    Returns:
        `tuple[np.ndarray, np.ndarray, int]`: frames `(T, H, W, 3)` in uint8 RGB, their indices `(T,)` among the source
        frames, and the number of source frames S. The same frames as [`sample_frame_indices`] chooses for S.

    Raises:
        VideoDecodeError: if the file is no video, or is damaged or cut off.
    """
    path = local_path(path)
    frames, indices, window, num_frames = [], [], [], 0
    with open_video(path) as (container, stream):
        convert = RgbConverter(path)

        def close_window():
            offset = 0 if generator is None else int(generator.random() * len(window))
            frames.append(convert(window[offset]))
            indices.append(num_frames - len(window) + offset)
            window.clear()

        for frame in decode_frames(container, stream, path):
            window.append(frame)
            num_frames += 1
            if len(window) == frame_stride:
                close_window()
        if window:
            close_window()
    return np.stack(frames), np.array(indices), num_frames


def sample_frame_indices(
    num_frames: int, frame_stride: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Choose one source frame of each window of `frame_stride`; the last window may be shorter.

    Args:
        num_frames (`int`): source frames S, at least 1.
        frame_stride (`int`): length of a window in source frames; 4 keeps 25 %.
        generator (`np.random.Generator`, *optional*): draws the frame of each window; the first one when absent.

    Returns:
        `np.ndarray` of shape `(T,)`, int64: rising indices below S, T = ceil(S / frame_stride).

    Raises:
        ValueError: if `num_frames` or `frame_stride` is below 1.
    """
    if num_frames < 1 or frame_stride < 1:
        raise ValueError(f"`num_frames` and `frame_stride` must be at least 1, got {num_frames} and {frame_stride}.")
    starts = np.arange(0, num_frames, frame_stride)
    if generator is None:
        return starts
    return starts + (generator.random(len(starts)) * np.minimum(frame_stride, num_frames - starts)).astype(np.int64)


def read_video_frames(path: str | os.PathLike, indices) -> np.ndarray:
    """Chosen frames of a video file.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        indices (sequence of `int`): which source frames, counted from 0; any order, repeats allowed.

    Returns:
        `np.ndarray` of shape `(T, H, W, 3)`, uint8: upright RGB, in the order of `indices`.

    Raises:
        ValueError: if `indices` is empty or holds a negative number.
        VideoDecodeError: if the file is no video, is damaged, or has fewer frames than asked for.
    """
    path = local_path(path)
    indices = np.asarray(indices, dtype=np.int64).reshape(-1)
    if len(indices) == 0 or indices.min() < 0:
        raise ValueError(f"`indices` must name at least one frame and none below 0, got {indices.tolist()}.")
    wanted, frames, num_frames = set(indices.tolist()), {}, 0
    with open_video(path) as (container, stream):
        convert = RgbConverter(path)
        for frame in decode_frames(container, stream, path):
            if num_frames in wanted:
                frames[num_frames] = convert(frame)
            num_frames += 1
            if len(frames) == len(wanted):
                break
    if len(frames) < len(wanted):
        raise VideoDecodeError(f"`{path}` has {num_frames} frames, but frame {max(wanted)} was asked for")
    return np.stack([frames[index] for index in indices.tolist()])


def count_video_frames(path: str | os.PathLike) -> int:
    """How many frames [`iterate_video_frames`] gives: counted by decoding, because headers are wrong or silent too
    often.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.

    Returns:
        `int`: at least 1.

    Raises:
        VideoDecodeError: if the file is no video, or is damaged or cut off.
    """
    path = local_path(path)
    with open_video(path) as (container, stream):
        return sum(1 for _ in decode_frames(container, stream, path))


def probe_video(path: str | os.PathLike) -> VideoInfo:
    """What a video file says about itself, from its header and its first frame.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.

    Returns:
        [`VideoInfo`]: size, rate, rotation.

    Raises:
        VideoDecodeError: if the file is no video, or its first frame cannot be decoded.
    """
    path = local_path(path)
    with open_video(path) as (container, stream):
        frame = next(decode_frames(container, stream, path))
        matrix = display_matrix(frame)
        transposed, flip_x, flip_y = (False, False, False) if matrix is None else orientation(matrix, path)
        rate = stream.average_rate or stream.guessed_rate
        if stream.duration:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = container.duration / 1_000_000 if container.duration else None
        return VideoInfo(
            fps=float(rate) if rate else None,
            height=frame.width if transposed else frame.height,
            width=frame.height if transposed else frame.width,
            rotation=(270 if flip_y else 90) if transposed else (180 if flip_y else 0),
            mirrored=transposed ^ flip_x ^ flip_y,
            num_frames=stream.frames or None,
            duration=duration,
            codec=stream.codec_context.name,
        )
