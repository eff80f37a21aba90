"""From a video file or a folder of frames to RGB frames: upright, in order, all of them, or an error that names the
file.

A file is decoded by PyAV, whose wheel brings FFmpeg. Long-GOP video cannot skip frames, so every frame is decoded, but
only the kept ones are converted to RGB; a folder of frames opens only the kept images.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from .video_boxes_fla import ContradictoryTablesError, samples_in_tables
from .video_container_fla import empty_avi_chunks, is_whole

# Demuxers of FFmpeg that a file may be opened with. The others hold stills (`png_pipe`, `image2`), sound, text that
# FFmpeg draws (`tty`), lists that open further files (`concat`, `hls`), or bare streams, in which nothing tells a
# short video from one that was cut off (`h264`, `ogg`).
VIDEO_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}

# 4096 x 4096: above 4K in either orientation. A damaged header may claim more, and FFmpeg would allocate it per
# thread.
MAX_PIXELS = 4096 * 4096
# H.264 and HEVC may hold back so many pictures before they show one.
MAX_REORDERED_FRAMES = 16
# More threads than this bring little below 4K and hold a decoded frame each.
MAX_THREADS = 4


class VideoDecodeError(ValueError):
    """A video cannot be decoded, or gives fewer frames than it promised or was asked for; the message names the
    file.
    """


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


def local_path(source: str | os.PathLike) -> Path:
    """Turn a path or a `file://` URL into a `Path`.

    Args:
        source (`str` or `os.PathLike`): where a video lies.

    Returns:
        `Path`: the same place; not checked for existence.

    Raises:
        VideoDecodeError: for a URL that is not a local file.
    """
    text = os.fspath(source)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is None:
        return Path(text)
    url = urlsplit(text)
    if scheme[1].lower() != "file" or url.netloc not in ("", "localhost"):
        raise VideoDecodeError(f"`{text}` is not a local file; download the video and give its path")
    # `?` and `#` are ordinary letters in a file name, so what urlsplit cut off at them is put back.
    return Path(url2pathname(text[text.index("://") + 3 + len(url.netloc) :]))


@contextmanager
def open_video(path: str | os.PathLike, num_threads: int | None = None):
    """Open a video file for decoding; every error of FFmpeg inside the block becomes a [`VideoDecodeError`].

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        num_threads (`int`, *optional*): threads of the decoder; one per core up to four when absent.

    Yields:
        `tuple[av.container.InputContainer, av.video.stream.VideoStream]`: the container and its video stream.

    Raises:
        VideoDecodeError: there is no such file, it is empty or a still image, or FFmpeg finds no video in it.
    """
    import av  # takes longer than the rest of this package together, and many uses never decode a file

    path = local_path(path)
    if not path.is_file():
        what = "is a folder, not a video file" if path.is_dir() else "does not exist or is not a regular file"
        raise VideoDecodeError(f"`{path}` {what}")
    if path.stat().st_size == 0:
        raise VideoDecodeError(f"`{path}` is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES | {".gif", ".heic", ".avif"}:
        raise VideoDecodeError(
            f"`{path}` is a still image, not a video; give the folder of its frames, or a list of images"
        )
    container = None
    try:
        # `file:` keeps a colon in the name from being read as a protocol.
        with av.open(
            f"file:{path}",
            mode="r",
            container_options={"format_whitelist": VIDEO_CONTAINERS, "protocol_whitelist": "file"},
            metadata_errors="ignore",
        ) as container:
            stream = video_stream(container, path)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = num_threads or min(MAX_THREADS, os.cpu_count() or 1)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
        if isinstance(error, av.ArgumentError) and container is None:
            reason = f"its format is none of {VIDEO_CONTAINERS}"
        raise VideoDecodeError(f"`{path}` cannot be decoded as a video: {reason}") from error
    except (UnicodeError, MemoryError, OverflowError) as error:
        raise VideoDecodeError(f"`{path}` cannot be decoded as a video: {error!r}") from error


def video_stream(container, path: Path):
    """The stream with moving pictures: covers of songs and stills do not count.

    Args:
        container (`av.container.InputContainer`): an open container.
        path (`Path`): named in errors.

    Returns:
        `av.video.stream.VideoStream`: the default one, else the first.

    Raises:
        VideoDecodeError: there is none, or none of a known codec and a sensible size.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (type(stream.disposition).attached_pic | type(stream.disposition).still_image)
    ]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoDecodeError(f"`{path}` holds no video stream, only {kinds}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None or stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise VideoDecodeError(
            f"`{path}` has a video stream that cannot be decoded (unknown codec or absurd frame size)"
        )
    return stream


def decode_frames(container, stream, path: Path, start_seconds: float | None = None) -> Iterator:
    """Decode all frames in presentation order and check that the file ended where it said it would.

    Args:
        container (`av.container.InputContainer`): an open container.
        stream (`av.video.stream.VideoStream`): its video stream.
        path (`Path`): named in errors.
        start_seconds (`float`, *optional*): decode from the last key frame before this time, to save the way there.

    Yields:
        `av.VideoFrame`: decoded, not yet RGB.

    Raises:
        VideoDecodeError: if frames are missing: the file is truncated, or packets of it are damaged.
    """
    seeked = bool(start_seconds) and seek_to_key_frame(container, stream, start_seconds)
    num_packets = num_frames = 0
    interlaced = False
    for packet in decodable_packets(container.demux(stream)):
        if packet.is_corrupt:
            raise VideoDecodeError(f"`{path}` is damaged or cut off: packet {num_packets} is incomplete")
        num_packets += packet.size > 0 and shows_frame(packet, stream.codec_context.name)
        for frame in packet.decode():
            if frame.is_corrupt:
                raise VideoDecodeError(f"`{path}` is damaged or cut off: frame {num_frames} cannot be decoded")
            num_frames += 1
            interlaced |= frame.interlaced_frame
            yield frame
    expected = num_packets if seeked else max(num_packets, promised_frames(container, stream, path))
    # A packet may hold one field, half a frame, of interlaced video.
    in_fields = interlaced and num_frames == math.ceil(expected / 2)
    if num_frames < expected and not in_fields:
        raise VideoDecodeError(
            f"`{path}` is damaged or cut off: it promises {expected} frames, but {num_frames} can be decoded"
        )
    if num_frames == 0:
        raise VideoDecodeError(f"`{path}` holds no decodable frame")
    if not stream.frames and not is_whole(path, container.format.name):
        raise VideoDecodeError(f"`{path}` is damaged or cut off: only {num_frames} frames of it can be decoded")


def decodable_packets(packets) -> Iterator:
    """Leave out packets at the start of a cut-out video that refer to pictures it does not hold.

    These are the ones before the first key frame and, in a group of pictures that was open to the one before it, those
    right behind the key frame that are shown before it.

    Args:
        packets (`Iterable[av.Packet]`): of one stream, as the container has them.

    Yields:
        `av.Packet`: the others, in the same order.
    """
    key_frame_time, num_leading = None, MAX_REORDERED_FRAMES
    started = False
    for packet in packets:
        if packet.size and not started:
            if not packet.is_keyframe and not packet.is_corrupt:
                continue
            started, key_frame_time = True, packet.pts
        elif packet.size and num_leading:
            leads = packet.pts is not None and key_frame_time is not None and packet.pts < key_frame_time
            num_leading = num_leading - 1 if leads else 0
            if leads:
                continue
        yield packet


def seek_to_key_frame(container, stream, seconds: float) -> bool:
    """Move to the last key frame at or before a time, where that can be relied on.

    Args:
        container (`av.container.InputContainer`): an open container.
        stream (`av.video.stream.VideoStream`): its video stream.
        seconds (`float`): from the start of the video.

    Returns:
        `bool`: whether it moved; if not, decoding begins at the first frame.
    """
    import av

    if not {"mov", "matroska"} & set(container.format.name.split(",")):  # without an index FFmpeg guesses by bit rate
        return False
    origin = stream.start_time or 0
    target = int(seconds / stream.time_base) + origin
    try:
        container.seek(target, stream=stream, backward=True)
        packet = next(container.demux(stream))
        if packet.is_keyframe and packet.pts is not None and packet.pts <= target:
            container.seek(target, stream=stream, backward=True)
            return True
    except (av.FFmpegError, StopIteration):
        pass
    container.seek(min(origin, 0), stream=stream, backward=True)
    return False


def shows_frame(packet, codec: str) -> bool:
    """Whether decoding the packet gives a frame of its own: a VP8 packet may only prepare later ones.

    Args:
        packet (`av.Packet`): of a video stream.
        codec (`str`): FFmpeg's name.

    Returns:
        `bool`: false also for one that is to be discarded.
    """
    if packet.is_discard:
        return False
    return codec != "vp8" or bool(bytes(packet)[0] & 0x10)


def promised_frames(container, stream, path: Path) -> int:
    """Frames that the container's own index or header announces.

    Args:
        container (`av.container.InputContainer`): an open container.
        stream (`av.video.stream.VideoStream`): its video stream.
        path (`Path`): the file that is open.

    Returns:
        `int`: 0 where neither can be trusted to.

    Raises:
        VideoDecodeError: if its tables contradict one another.
    """
    if "mov" in container.format.name.split(","):
        try:
            num_samples, edited = samples_in_tables(path, stream.id)
        except ContradictoryTablesError as error:
            raise VideoDecodeError(f"`{path}` is damaged or cut off: its index holds {error}") from error
        # Edit lists hide frames that the header counts; FFmpeg's index marks them or leaves them out.
        shown = sum(not entry.is_discard for entry in stream.index_entries)
        return shown if edited else max(shown, num_samples)
    if container.format.name == "avi" and stream.frames:
        return stream.frames - empty_avi_chunks(path, stream.index)
    return stream.frames


def upright(frame: np.ndarray, matrix: np.ndarray | None, path: Path) -> np.ndarray:
    """Turn (and mirror) a frame the way its display matrix asks.

    Args:
        frame (`np.ndarray` of shape `(H, W, 3)`): uint8, as decoded.
        matrix (`np.ndarray` of shape `(9,)`, *optional*): int32, FFmpeg's display matrix; x grows to the right, y
            downwards.
        path (`Path`): named in errors.

    Returns:
        `np.ndarray` of shape `(H, W, 3)` or `(W, H, 3)`: as a player shows it.
    """
    if matrix is None:
        return frame
    transposed, flip_x, flip_y = orientation(matrix, path)
    if transposed:
        frame = frame.transpose(1, 0, 2)
    return np.ascontiguousarray(frame[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def orientation(matrix: np.ndarray, path: Path) -> tuple[bool, bool, bool]:
    """How a display matrix turns and mirrors a frame.

    Args:
        matrix (`np.ndarray` of shape `(9,)`): int32, FFmpeg's display matrix, row by row.
        path (`Path`): named in errors.

    Returns:
        `tuple[bool, bool, bool]`: whether the axes are swapped, and whether the new x axis and y axis are then turned
            round.

    Raises:
        VideoDecodeError: the angle is not a multiple of 90 degrees.
    """
    xx, xy, yx, yy = (float(matrix[place]) for place in (0, 1, 3, 4))  # x' = xx x + yx y and y' = xy x + yy y
    straight, crossed = abs(xx) + abs(yy), abs(xy) + abs(yx)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        raise VideoDecodeError(f"`{path}` asks to be turned by an angle that is not a multiple of 90 degrees")
    return (True, yx < 0, xy < 0) if crossed > straight else (False, xx < 0, yy < 0)


def display_matrix(frame) -> np.ndarray | None:
    """How a frame is to be turned for display.

    Args:
        frame (`av.VideoFrame`): as decoded.

    Returns:
        `np.ndarray` of shape `(9,)`, int32; `None` where the file says nothing of it.
    """
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side_data), dtype=np.int32)
    return None


class RgbConverter:
    """Converts decoded frames of one video to upright RGB of one size, whatever their pixel format, range and depth.

    Args:
        path (`Path`): named in errors.
        size (`tuple[int, int]`, *optional*): height and width of the upright result; that of the first frame when
            absent.
        interpolation (`str`): FFmpeg's scaler where `size` differs: `"AREA"`, `"BICUBIC"`, `"BILINEAR"`, ...
        spaced (`bool`): give `(H, W, 4)` with a byte unused after each pixel's three, which FFmpeg fills a quarter
            faster; to be read only.
    """

    def __init__(
        self, path: Path, size: tuple[int, int] | None = None, interpolation: str = "BICUBIC", spaced: bool = False
    ):
        from av.video.reformatter import Interpolation, VideoReformatter

        self.path, self.size, self.spaced = path, size, spaced
        self.interpolation = Interpolation[interpolation]
        self.reformatter = VideoReformatter()
        self.rotation, self.matrix = None, None

    def __call__(self, frame) -> np.ndarray:
        """Convert one frame.

        Args:
            frame (`av.VideoFrame`): as decoded.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`, or `(H, W, 4)` where spaced, uint8: RGB, 0 to 255.
        """
        # Asked for again only where it changes: a frame that was asked for its side data refers to itself, and with
        # it all of its memory waits for the garbage collector.
        if frame.rotation != self.rotation:
            self.rotation, self.matrix = frame.rotation, display_matrix(frame)
        transposed = self.matrix is not None and orientation(self.matrix, self.path)[0]
        if self.size is None:  # later frames follow the first: a stream may change its size midway
            self.size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
        height, width = self.size[::-1] if transposed else self.size
        rgb = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if self.spaced else "rgb24",
            interpolation=self.interpolation,
            dst_color_range="JPEG",  # black is 0 and white 255, whatever the source's range
            threads=1,
        )
        if not self.spaced:
            return upright(rgb.to_ndarray(), self.matrix, self.path)
        # The frame's own memory, not a copy: it may be the decoder's, and is not to be written to.
        rows = np.frombuffer(rgb.planes[0], np.uint8).reshape(height, -1)
        return upright(rows[:, : 4 * width].reshape(height, width, 4), self.matrix, self.path)


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


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder of frames, in the order of the numbers in their names (`2.png` before `10.png`).

    Args:
        folder (`str` or `os.PathLike`): the folder, or its `file://` URL.

    Returns:
        `list[Path]`: at least one file. Files that are no images, and hidden ones, are left out.

    Raises:
        VideoDecodeError: if the folder holds no image.
    """
    folder = local_path(folder)
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise VideoDecodeError(f"`{folder}` holds no image files, so it is not a folder of frames")

    def natural_order(file: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", file.name)], file.name

    return sorted(files, key=natural_order)


def read_frame_files(files: list[str | os.PathLike]) -> np.ndarray:
    """Open images that are the frames of one video.

    Args:
        files (`list` of `str` or `os.PathLike`): in order.

    Returns:
        `np.ndarray` of shape `(T, H, W, 3)`, uint8: RGB, turned as their EXIF orientation asks.

    Raises:
        VideoDecodeError: if one of them is missing, no image, cut off, or of another size than the first.
    """
    from PIL import Image, ImageOps

    frames = []
    for file in map(local_path, files):
        try:
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise VideoDecodeError(
                        f"`{file}` is {image.width} x {image.height} pixels, more than a video frame may be"
                    )
                frames.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
        except VideoDecodeError:
            raise
        except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error, EOFError and more
            raise VideoDecodeError(f"`{file}` cannot be read as an image: {error}") from error
        if frames[-1].shape != frames[0].shape:
            (height, width), (first_height, first_width) = frames[-1].shape[:2], frames[0].shape[:2]
            raise VideoDecodeError(
                f"`{file}` is {width} x {height} pixels, the first frame of its video {first_width} x {first_height}"
            )
    return np.stack(frames)
