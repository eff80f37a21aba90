"""From files and folders of frames to upright RGB frames and their times: the only place that opens a video.

PyAV decodes; its wheel brings FFmpeg. Times are seconds from the container's start, as players count them.

A file that is damaged or cut off is refused where FFmpeg notices it: a packet or a frame is marked corrupt, the
demuxer logs an error, or the container's index lists more frames than can be decoded. FFmpeg does not notice a cut
that leaves a whole, shorter video (between two packets of a transport stream, MPEG program stream, FLV, ASF or Ogg
file, between two fragments of an MP4 file, between two blocks of a Matroska file of unknown length), nor damage that
is itself a valid stream, such as a wrong number in an index.
"""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

# Demuxers of FFmpeg that a file may be opened with. The others hold stills, sound, text that FFmpeg draws (`tty`),
# lists that open further files (`concat`, `hls`), or streams without times (`h264`).
VIDEO_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf,ogg,gif"
VIDEO_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf",
    ".3gp", ".3g2", ".mxf", ".ogv", ".gif",
}  # fmt: skip
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}

# 4096 x 4096: above 4K in either orientation. A damaged header may claim more, and FFmpeg would allocate it.
MAX_PIXELS = 4096 * 4096
# H.264 and HEVC may hold back so many pictures before they show one.
MAX_REORDERED_FRAMES = 16
# More threads than this bring little below 4K and hold a decoded frame each.
MAX_THREADS = 4
# Times are rounded in files and in annotations; a millisecond is far below the length of any frame.
TIME_TOLERANCE = 1e-3
SizeRule = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None
RATE_PACKETS = 100  # that `probe_video` looks at for the frame rate


class VideoDecodeError(ValueError):
    """A video cannot be decoded, or gives fewer frames than it promises; the message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What the beginning of a video file says.

    Args:
        fps (`float` or `None`): source frames per second, by the times of the first frames.
        height (`int`): of an upright frame, in pixels.
        width (`int`): of an upright frame, in pixels.
        rotation (`int`): degrees that frames are turned clockwise to stand upright: 0, 90, 180 or 270.
        mirrored (`bool`): whether the file asks for a mirror image besides.
        num_frames (`int` or `None`): frames according to the index; `None` where there is none.
        duration (`float` or `None`): seconds from the container's start to the end, by the index or the header.
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


# ------------------------------------------------------------------------------------------------------ paths, folders


def local_path(source: str | os.PathLike) -> Path:
    """The `Path` that a path or a `file://` URL names; other URLs raise [`VideoDecodeError`]."""
    text = os.fsdecode(os.fspath(source))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is None:
        return Path(text)
    url = urlsplit(text)
    if scheme[1].lower() != "file" or url.netloc not in ("", "localhost"):
        raise VideoDecodeError(f"`{text}` is not a local file; download the video and give its path")
    # `?` and `#` are ordinary letters in a file name, so what urlsplit cut off at them is put back.
    return Path(url2pathname(text[text.index("://") + 3 + len(url.netloc) :]))


def is_video_file(path: Path) -> bool:
    """Whether a folder's entry is a video file, by its suffix in any case; hidden files are not."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_image_file(path: Path) -> bool:
    """Whether a folder's entry is an image file, by its suffix in any case; hidden files are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_frame_folder(path: str | os.PathLike) -> bool:
    """Whether this is a folder of one video's frames: images and no video lie directly in it."""
    path = local_path(path)
    entries = list(path.iterdir()) if path.is_dir() else []
    return any(map(is_image_file, entries)) and not any(map(is_video_file, entries))


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder of frames, `2.png` before `10.png`; a missing number is warned of."""
    folder = local_path(folder)
    files = list(filter(is_image_file, folder.iterdir()))
    videos = sorted(file.name for file in folder.iterdir() if is_video_file(file))
    if videos:
        raise VideoDecodeError(f"`{folder}` is a folder of videos ({videos[0]}), not of frames; give the videos")
    if not files:
        raise VideoDecodeError(f"`{folder}` holds no image files, so it is not a folder of frames")

    def natural_order(file: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", file.name)], file.name

    files.sort(key=natural_order)
    if gaps := frame_gaps(files):
        warnings.warn(f"{folder}: {gaps}", stacklevel=2)
    return files


def frame_gaps(files: Sequence[Path]) -> str:
    """Says which numbers are missing in the names of frames; empty where none is, or names have no numbers."""
    numbers = [re.findall(r"\d+", file.stem)[-1:] for file in files]
    numbers = sorted({int(number[0]) for number in numbers if number})
    step = min((after - before for before, after in pairwise(numbers)), default=1)
    missing = [n for before, after in pairwise(numbers) for n in islice(range(before + step, after, step), 1000)]
    if not missing:
        return ""
    named = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"missing frame numbers between {numbers[0]} and {numbers[-1]}: {named}"


def read_frame_files(files: Sequence[str | os.PathLike], size: SizeRule = None) -> np.ndarray:
    """Open images that are the frames of one video.

    Args:
        files (`Sequence` of `str` or `os.PathLike`): in order.
        size (`tuple[int, int]` or `Callable`, *optional*): height and width to scale to, or what gives them for those
            of an image; the images' own when absent.

    Returns:
        `np.ndarray` of shape `(T, H, W, 3)`, uint8: RGB, turned as their EXIF orientation asks.

    Raises:
        VideoDecodeError: if one of them is missing, no image, cut off, or of another size than the first.
    """
    from PIL import Image, ImageOps

    frames, first = [], None
    for file in map(local_path, files):
        try:
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise VideoDecodeError(f"`{file}` is {image.width} x {image.height} pixels: too many for a frame")
                frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except VideoDecodeError:
            raise
        except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error, EOFError and more
            raise VideoDecodeError(f"`{file}` cannot be read as an image: {error}") from error
        first = first or frame.shape
        if frame.shape != first:
            raise VideoDecodeError(
                f"`{file}` is {frame.shape[1]} x {frame.shape[0]} pixels, "
                f"the first frame of its video {first[1]} x {first[0]}"
            )
        frames.append(scaled(frame[None], size)[0])
    return np.stack(frames)


# ------------------------------------------------------------------------------------------------------------- pixels


class RgbConverter:
    """Converts decoded frames of one video to upright RGB of one size, whatever their pixel format, range and depth.

    Args:
        name (`str`): of the video, for errors.
        size (`tuple[int, int]` or `Callable`, *optional*): height and width of the upright result, or what gives them
            for those of the first frame; the first frame's own when absent.
    """

    def __init__(self, name: object, size: SizeRule = None):
        from av.video.reformatter import Interpolation, VideoReformatter

        self.name, self.size, self.source_size = name, size, None
        # Averages the pixels behind each one where it scales down, in a third less time than bicubic.
        self.interpolation, self.reformatter = Interpolation.AREA, VideoReformatter()
        self.rotation, self.turn = None, (False, False, False)

    def __call__(self, frame, spaced: bool = False) -> np.ndarray:
        """Convert one frame.

        Args:
            frame (`av.VideoFrame`): as decoded.
            spaced (`bool`): give a view of FFmpeg's memory with an unused byte after each pixel; to be read only.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`, or `(H, W, 4)` where spaced, uint8: RGB, 0 to 255.
        """
        # Asked for again only where it changes: a frame that was asked for its side data refers to itself, and with
        # it all of its memory waits for the garbage collector.
        if frame.rotation != self.rotation:
            self.rotation, self.turn = frame.rotation, orientation(frame, self.name)
        transposed, flip_x, flip_y = self.turn
        if self.source_size is None:  # later frames follow the first: a stream may change its size midway
            self.source_size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
            self.size = (self.size(*self.source_size) if callable(self.size) else self.size) or self.source_size
        height, width = self.size[::-1] if transposed else self.size
        rgb = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba",  # filled a quarter faster than rgb24, whose pixels differ a little
            interpolation=self.interpolation,
            dst_color_range="JPEG",  # black is 0 and white 255, whatever the source's range
            threads=1,
        )
        pixels = np.frombuffer(rgb.planes[0], np.uint8).reshape(height, -1)[:, : 4 * width].reshape(height, width, 4)
        pixels = pixels.transpose(1, 0, 2) if transposed else pixels
        pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return pixels if spaced else np.ascontiguousarray(pixels[..., :3])


def orientation(frame, name: object) -> tuple[bool, bool, bool]:
    """How a decoded frame's display matrix turns it: axes swapped, then x and y turned round."""
    matrix = np.zeros(9)
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(side_data), dtype=np.int32)
    xx, xy, yx, yy = (float(matrix[place]) for place in (0, 1, 3, 4))  # x' = xx x + yx y and y' = xy x + yy y
    straight, crossed = abs(xx) + abs(yy), abs(xy) + abs(yx)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        raise VideoDecodeError(f"`{name}` asks to be turned by an angle that is not a multiple of 90 degrees")
    return (True, yx < 0, xy < 0) if crossed > straight else (False, xx < 0, yy < 0)


def scaled(frames: np.ndarray, size: SizeRule) -> np.ndarray:
    """Scale frames in memory as the frames of a file are scaled.

    Args:
        frames (`np.ndarray` of shape `(T, H, W, 3)`): uint8 RGB.
        size (`tuple[int, int]` or `Callable`, *optional*): height and width of the result, or what gives them for
            those of a frame; nothing is done when absent.

    Returns:
        `np.ndarray` of shape `(T, h, w, 3)`: uint8 RGB; the argument itself where its size is the right one.
    """
    size = size(*frames.shape[1:3]) if callable(size) else size
    if size is None or frames.shape[1:3] == tuple(size):
        return frames
    from av import VideoFrame

    if frames.shape[3] != 3:
        channels = [np.repeat(channel[..., None], 3, axis=3) for channel in np.moveaxis(frames, 3, 0)]
        return np.concatenate([scaled(channel, size)[..., :1] for channel in channels], axis=3)
    convert = RgbConverter("frames in memory", size)
    result = np.empty((len(frames), *size, 3), np.uint8)
    for target, frame in zip(result, frames, strict=True):
        target[:] = convert(VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"), spaced=True)[..., :3]
    return result


# ------------------------------------------------------------------------------------------------------ opening a file


class LoggedErrors:
    """Collects what FFmpeg logs as an error in this thread; PyAV drops all logs unless its level is set."""

    lock, num_open, level = threading.Lock(), 0, None

    def __enter__(self) -> list[tuple[int, str, str]]:
        from av import logging as av_logging

        with self.lock:
            if not LoggedErrors.num_open:
                LoggedErrors.level = av_logging.get_level()
                av_logging.set_level(max(av_logging.ERROR, LoggedErrors.level or 0))
                av_logging.set_skip_repeated(False)  # the same file, read twice, logs the same error twice
            LoggedErrors.num_open += 1
        self.contexts = contextlib.ExitStack()
        # Decoding threads log as well: of packets whose frames are then marked corrupt.
        self.contexts.enter_context(av_logging.Capture(local=False))
        return self.contexts.enter_context(av_logging.Capture(local=True))

    def __exit__(self, *exception):
        from av import logging as av_logging

        self.contexts.close()
        with self.lock:
            LoggedErrors.num_open -= 1
            if not LoggedErrors.num_open:
                av_logging.set_level(LoggedErrors.level)
                av_logging.set_skip_repeated(True)


class OpenVideo:
    """A video file that [`open_video`] opened: its frames as FFmpeg decodes them, with their times."""

    def __init__(self, name: str, container, stream, demuxer_errors: list):
        self.name, self.container, self.stream = name, container, stream
        self.demuxer_errors = demuxer_errors
        self.start = (container.start_time or 0) / 1_000_000
        self.is_mov, self.is_avi = ("mov" in self.formats, "avi" in self.formats)
        self.num_indexed = len(stream.index_entries)

    @property
    def formats(self) -> list[str]:
        """FFmpeg's names of the container format."""
        return self.container.format.name.split(",")

    @property
    def declared_fps(self) -> float | None:
        """The frame rate of the header, which may be a clock's: what browsers record states 1000."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate else None

    @property
    def end_seconds(self) -> float | None:
        """Seconds from the container's start to the end of the last frame, by the index or else by the header."""
        stream, ticks = self.stream, self.stream.duration
        times = [entry.timestamp for entry in stream.index_entries] if self.is_mov else []
        if len(times) > 1:  # lengths in headers are wrong at times
            ticks = (times[-1] - times[0]) * len(times) / (len(times) - 1)
        if ticks:
            return float((ticks + (stream.start_time or 0)) * stream.time_base) - self.start
        return self.container.duration / 1_000_000 if self.container.duration else None

    def promised_frames(self) -> int:
        """Frames that the container's own index lists; 0 where it has none."""
        # Edit lists hide frames that an MP4 header counts, and an AVI header counts repetitions without a frame.
        if self.is_mov or (self.is_avi and self.num_indexed == len(self.stream.index_entries)):
            return sum(not entry.is_discard for entry in self.stream.index_entries)
        return self.stream.frames

    def packets(self) -> Iterator:
        """The packets of the video stream; an error that the demuxer logs is raised as a [`VideoDecodeError`]."""
        packets = self.container.demux(self.stream)
        while True:
            self.refuse(self.demuxer_errors)
            with LoggedErrors() as self.demuxer_errors:
                packet = next(packets, None)
            self.refuse(self.demuxer_errors)
            if packet is None:
                return
            if packet.is_corrupt:
                raise VideoDecodeError(f"`{self.name}` is damaged or cut off: one of its packets is incomplete")
            yield packet

    def refuse(self, errors: list) -> None:
        """Raise the first error that the demuxer itself logged; parsers complain about what the decoder can cure."""
        for _, source, message in errors:
            if source == self.container.format.name:
                raise VideoDecodeError(f"`{self.name}` is damaged or cut off: {message.strip()}")

    def decoded_frames(self, start_seconds: float | None = None) -> Iterator:
        """All frames in presentation order, from the last key frame before a time where the file can be sought in."""
        seeked = bool(start_seconds) and self.seek(start_seconds)
        num_frames = 0
        for packet in decodable_packets(self.packets()):
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise VideoDecodeError(
                        f"`{self.name}` is damaged or cut off: frame {num_frames} cannot be decoded"
                    )
                num_frames += 1
                yield frame
        promised = 0 if seeked else self.promised_frames()
        if num_frames < promised:
            raise VideoDecodeError(
                f"`{self.name}` is damaged or cut off: it promises {promised} frames, but {num_frames} can be decoded"
            )
        if num_frames == 0:
            raise VideoDecodeError(f"`{self.name}` holds no decodable frame")

    def seek(self, seconds: float) -> bool:
        """Move to the last key frame at or before a time; false where decoding has to begin at the first frame."""
        import av

        if not {"mov", "matroska"} & set(self.formats):  # without an index FFmpeg guesses by bit rate
            return False
        target = int((seconds + self.start) / self.stream.time_base)
        try:
            self.container.seek(target, stream=self.stream, backward=True)
            packet = next(self.container.demux(self.stream))
            if packet.is_keyframe and packet.pts is not None and packet.pts <= target:
                self.container.seek(target, stream=self.stream, backward=True)
                return True
        except (av.FFmpegError, StopIteration):
            pass
        self.container.seek(min(self.stream.start_time or 0, 0), stream=self.stream, backward=True)
        return False

    def timed_frames(
        self, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Iterator[tuple[float, object]]:
        """Seconds from the container's start, strictly rising, and the frame as decoded, between two times.

        A frame without a time, or with one that runs backwards, is taken to follow the one before by one interval.
        """
        seconds, step, is_empty = None, 1 / (self.declared_fps or 25), True
        for frame in self.decoded_frames(start_seconds):
            before, shown = seconds, None if frame.time is None else frame.time - self.start
            if before is None:
                seconds = shown or 0.0
            else:
                seconds = shown if shown is not None and shown > before else before + step
                step = seconds - before
            if start_seconds is not None and seconds < start_seconds - TIME_TOLERANCE:
                continue
            if end_seconds is not None and seconds >= end_seconds - TIME_TOLERANCE:
                break
            is_empty = False
            yield seconds, frame
        if is_empty:
            raise VideoDecodeError(f"`{self.name}` has no frame between {start_seconds or 0} s and {end_seconds} s")


@contextlib.contextmanager
def open_video(source: str | os.PathLike | bytes, num_threads: int | None = None) -> Iterator[OpenVideo]:
    """Open a video file or its bytes; every error of FFmpeg inside the block becomes a [`VideoDecodeError`].

    `num_threads` decode, by default one a core up to four.
    """
    import av  # takes longer than the rest of this package together, and many uses never decode a file

    name, file = checked_source(source)
    container = None
    try:
        with LoggedErrors() as errors:
            container = av.open(
                file,
                mode="r",
                container_options={"format_whitelist": VIDEO_CONTAINERS, "protocol_whitelist": "file"},
                metadata_errors="ignore",
            )
        with container:
            stream = video_stream(container, name)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = num_threads or min(MAX_THREADS, os.cpu_count() or 1)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            try:
                yield OpenVideo(name, container, stream, errors)
            finally:
                # Waits for the decoding threads: one that logs needs Python's lock, which freeing them would hold.
                stream.codec_context.flush_buffers()
    except av.FFmpegError as error:
        reason = error.strerror or str(error)
        if isinstance(error, av.ArgumentError) and container is None:
            reason = f"its format is none of {VIDEO_CONTAINERS}"
        raise VideoDecodeError(f"`{name}` cannot be decoded as a video: {reason}") from error
    except (UnicodeError, MemoryError, OverflowError) as error:
        raise VideoDecodeError(f"`{name}` cannot be decoded as a video: {error!r}") from error


def checked_source(source: str | os.PathLike | bytes) -> tuple[str, object]:
    """A name for messages and what `av.open` takes, for a file that can be a video."""
    if isinstance(source, bytes):
        if not source:
            raise VideoDecodeError("a video given as bytes is empty (0 bytes)")
        return "video given as bytes", io.BytesIO(source)
    path = local_path(source)
    if not path.is_file():
        what = "is a folder, not a video file" if path.is_dir() else "does not exist or is not a regular file"
        raise VideoDecodeError(f"`{path}` {what}")
    if path.stat().st_size == 0:
        raise VideoDecodeError(f"`{path}` is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES | {".heic", ".avif"}:
        raise VideoDecodeError(
            f"`{path}` is a still image, not a video; give the folder of its frames, or a list of images"
        )
    return str(path), f"file:{path}"  # `file:` keeps a colon in the name from being read as a protocol


def video_stream(container, name: str):
    """The default stream with moving pictures, else the first; covers of songs and stills do not count."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (type(stream.disposition).attached_pic | type(stream.disposition).still_image)
    ]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoDecodeError(f"`{name}` holds no video stream, only {kinds}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None or stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise VideoDecodeError(
            f"`{name}` has a video stream that cannot be decoded (unknown codec or absurd frame size)"
        )
    return stream


def decodable_packets(packets: Iterator) -> Iterator:
    """Leave out packets at the start of a cut-out video that refer to pictures it does not hold.

    These are the ones before the first key frame and, in a group of pictures that was open to the one before it, those
    right behind the key frame that are shown before it.
    """
    key_frame_time, num_leading = None, MAX_REORDERED_FRAMES
    started = False
    for packet in packets:
        if packet.size and not started:
            if not packet.is_keyframe:
                continue
            started, key_frame_time = True, packet.pts
        elif packet.size and num_leading:
            leads = packet.pts is not None and key_frame_time is not None and packet.pts < key_frame_time
            num_leading = num_leading - 1 if leads else 0
            if leads:
                continue
        yield packet


# ------------------------------------------------------------------------------------------------------ reading a file


class VideoFrames:
    """The RGB frames of a video file or of a part of it, to be iterated over once; `fps` is exact when they are read.

    Frames are `(H, W, 3)` uint8, or `(H, W, 4)` with an unused last channel where spaced.
    """

    def __init__(self, video: OpenVideo, times: tuple, size, frame_stride: int, spaced: bool):
        self.video, self.times, self.frame_stride, self.spaced = video, times, frame_stride, spaced
        self.convert = RgbConverter(video.name, size)
        self.num_frames, self.first_seconds, self.last_seconds = 0, 0.0, 0.0

    @property
    def fps(self) -> float | None:
        """Source frames a second, by the times of those read so far; the header's rate below two frames."""
        return frame_rate(self.num_frames, self.last_seconds - self.first_seconds) or self.video.declared_fps

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """The frames with their seconds from the container's start."""
        for seconds, frame in self.video.timed_frames(*self.times):
            self.first_seconds = self.first_seconds if self.num_frames else seconds
            self.last_seconds = seconds
            self.num_frames += 1
            if (self.num_frames - 1) % self.frame_stride == 0:
                yield seconds, self.convert(frame, self.spaced)


def frame_rate(num_frames: int, seconds: float) -> float | None:
    """Frames a second of so many frames whose first and last times lie so far apart."""
    return (num_frames - 1) / seconds if num_frames > 1 and seconds > 0 else None


@contextlib.contextmanager
def open_frames(
    path: str | os.PathLike | bytes,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    spaced: bool = False,
    frame_stride: int = 1,
    num_threads: int | None = None,
) -> Iterator[VideoFrames]:
    """[`timed_frames`] as an object that also says, once they are read, how fast they follow."""
    with open_video(path, num_threads) as video:
        yield VideoFrames(video, (start_seconds, end_seconds), size, frame_stride, spaced)


def timed_frames(
    path: str | os.PathLike | bytes,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    frame_stride: int = 1,
    num_threads: int | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a video file, or of a part of it, with the times at which they are shown.

    Pixels are as stored: ones that are not square are not made so, and HDR is not mapped to the range of a screen.

    Args:
        path (`str`, `os.PathLike` or `bytes`): the file, its `file://` URL, or its bytes.
        start_seconds (`float`, *optional*): the first frame shown at this time or later is the first one given.
        end_seconds (`float`, *optional*): the first frame shown at this time or later is no longer given. May lie
            beyond the end of the video.
        size (`tuple[int, int]`, *optional*): height and width to scale to; the video's own when absent.
        frame_stride (`int`): give only every so many frames; the others are not converted.
        num_threads (`int`, *optional*): threads of the decoder; one per core up to four when absent.

    Yields:
        `tuple[float, np.ndarray]`: seconds from the container's start, and the frame, `(H, W, 3)`, uint8, upright RGB.

    Raises:
        VideoDecodeError: if the file is no video, is damaged or cut off, or holds no frame between the two times.
    """
    options = {"size": size, "frame_stride": frame_stride, "num_threads": num_threads}
    with open_frames(path, start_seconds, end_seconds, **options) as frames:
        yield from frames.timed()


def iterate_video_frames(
    path: str | os.PathLike | bytes,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    **options,
) -> Iterator[np.ndarray]:
    """The frames of [`timed_frames`] without their times; takes the same arguments.

    Args:
        path (`str`, `os.PathLike` or `bytes`): as in [`timed_frames`].
        start_seconds (`float`, *optional*): as in [`timed_frames`].
        end_seconds (`float`, *optional*): as in [`timed_frames`].
        options: `size`, `frame_stride` and `num_threads` of [`timed_frames`].

    Returns:
        `Iterator[np.ndarray]` of shape `(H, W, 3)`, uint8: RGB, 0 to 255.

    Raises:
        VideoDecodeError: as in [`timed_frames`].
    """
    return (frame for _, frame in timed_frames(path, start_seconds, end_seconds, **options))


@dataclass(frozen=True)
class ChosenFrames:
    """Some frames of a video file.

    Args:
        frames (`np.ndarray` of shape `(T, H, W, 3)`): uint8, upright RGB.
        indices (`np.ndarray` of shape `(T,)`): int64; which of the source frames they are, rising.
        seconds (`np.ndarray` of shape `(T,)`): float64; when each is shown, from the container's start.
        num_frames (`int`): source frames S.
        fps (`float` or `None`): source frames a second, by their times.
        source_size (`tuple[int, int]`): height and width of an upright source frame.
    """

    frames: np.ndarray
    indices: np.ndarray
    seconds: np.ndarray
    num_frames: int
    fps: float | None
    source_size: tuple[int, int]


def read_chosen_frames(
    path: str | os.PathLike | bytes,
    choose: Callable[[int, float | None], np.ndarray],
    expected: int,
    size: SizeRule = None,
) -> ChosenFrames:
    """Read frames whose choice depends on the length of the video: in one pass where it can be guessed.

    Args:
        path (`str`, `os.PathLike` or `bytes`): the file, its `file://` URL, or its bytes.
        choose (`Callable[[int, float], np.ndarray]`): given the number of source frames and their rate, says which
            are wanted, as rising int64 of shape `(T,)`; the same at every call.
        expected (`int`): source frames that are assumed where the container has no index.
        size (`tuple[int, int]` or `Callable`, *optional*): height and width to scale to, or what gives them for those
            of a source frame; the video's own when absent.

    Returns:
        [`ChosenFrames`]: chosen for the true length and rate.

    Raises:
        VideoDecodeError: if the file is no video, or is damaged or cut off.
    """
    guess: tuple[int, float | None] | None = None
    while True:
        with open_video(path) as video:
            guess = guess or (video.promised_frames() or expected, video.declared_fps)
            wanted = choose(*guess)
            places, frames, times, convert = set(wanted.tolist()), [], [], RgbConverter(video.name, size)
            for seconds, frame in video.timed_frames():
                if len(times) in places:
                    frames.append(convert(frame))
                times.append(seconds)
            fps = frame_rate(len(times), times[-1] - times[0]) or video.declared_fps
        indices = choose(len(times), fps)
        if np.array_equal(indices, wanted[: len(frames)]):
            seconds = np.array(times)[indices]
            return ChosenFrames(np.stack(frames), indices, seconds, len(times), fps, convert.source_size)
        guess = (len(times), fps)


def read_video_frames(path: str | os.PathLike | bytes, indices) -> np.ndarray:
    """Chosen frames of a video file.

    Args:
        path (`str`, `os.PathLike` or `bytes`): the file, its `file://` URL, or its bytes.
        indices (sequence of `int`): which source frames, counted from 0; any order, repeats allowed.

    Returns:
        `np.ndarray` of shape `(T, H, W, 3)`, uint8: upright RGB, in the order of `indices`.

    Raises:
        ValueError: if `indices` is empty or holds a negative number.
        VideoDecodeError: if the file is no video, is damaged, or has fewer frames than asked for.
    """
    indices = np.asarray(indices, dtype=np.int64).reshape(-1)
    if len(indices) == 0 or indices.min() < 0:
        raise ValueError(f"`indices` must name at least one frame and none below 0, got {indices.tolist()}.")
    wanted, frames, num_frames = set(indices.tolist()), {}, 0
    with open_video(path) as video:
        convert = RgbConverter(video.name)
        for num_frames, frame in enumerate(islice(video.decoded_frames(), max(wanted) + 1), start=1):
            if num_frames - 1 in wanted:
                frames[num_frames - 1] = convert(frame)
    if len(frames) < len(wanted):
        raise VideoDecodeError(f"`{path}` has {num_frames} frames, but frame {max(wanted)} was asked for")
    return np.stack([frames[index] for index in indices.tolist()])


def count_video_frames(path: str | os.PathLike | bytes) -> int:
    """How many frames [`iterate_video_frames`] gives: counted by decoding, because headers are often wrong or silent.

    Args:
        path (`str`, `os.PathLike` or `bytes`): the file, its `file://` URL, or its bytes.

    Returns:
        `int`: at least 1.

    Raises:
        VideoDecodeError: if the file is no video, or is damaged or cut off.
    """
    with open_video(path) as video:
        return sum(1 for _ in video.decoded_frames())


def probe_video(path: str | os.PathLike | bytes) -> VideoInfo:
    """What a video file says about itself, from its header and its first packets.

    Args:
        path (`str`, `os.PathLike` or `bytes`): the file, its `file://` URL, or its bytes.

    Returns:
        [`VideoInfo`]: size, rate, rotation.

    Raises:
        VideoDecodeError: if the file is no video, or its first frame cannot be decoded.
    """
    with open_video(path) as video:
        frame, times = None, []
        for packet in islice(decodable_packets(video.packets()), RATE_PACKETS):
            if frame is None:
                frame = next(iter(packet.decode()), None)
            if packet.pts is not None and not packet.is_discard:
                times.append(packet.pts)
        if frame is None or frame.is_corrupt:
            raise VideoDecodeError(f"`{video.name}` is damaged or cut off: its first frame cannot be decoded")
        # The last ones may come before others that are shown earlier.
        times = sorted(times)[: len(times) - MAX_REORDERED_FRAMES * (len(times) >= RATE_PACKETS - 1)]
        span = float((times[-1] - times[0]) * video.stream.time_base) if times else 0.0
        transposed, flip_x, flip_y = orientation(frame, video.name)
        return VideoInfo(
            fps=frame_rate(len(times), span) or video.declared_fps,
            height=frame.width if transposed else frame.height,
            width=frame.height if transposed else frame.width,
            rotation=(270 if flip_y else 90) if transposed else (180 if flip_y else 0),
            mirrored=transposed ^ flip_x ^ flip_y,
            num_frames=video.promised_frames() or None,
            duration=video.end_seconds,
            codec=video.stream.codec_context.name,
        )
