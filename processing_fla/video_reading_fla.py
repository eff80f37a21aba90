"""From files and folders of frames to upright RGB frames and their times: the only place that opens a video.

PyAV decodes; its wheel brings FFmpeg. Times are seconds from the container's start, as players count them.

A file that is damaged or cut off is refused where FFmpeg notices it: a packet or a frame is marked corrupt, the
demuxer logs an error, or the container's index lists more frames than can be decoded. FFmpeg does not notice a cut
that leaves a whole, shorter video (between two packets of a transport stream, between two fragments of an MP4 file),
nor damage that is itself a valid stream, such as a wrong number in an index.
"""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from transformers.video_utils import VideoMetadata

from .frame_conversion_fla import RgbConverter, SizeRule, VideoDecodeError, scaled

# FFmpeg's other demuxers are of stills, sound, text, lists that open further files, and streams without times.
VIDEO_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf,ogg,gif"
VIDEO_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf",
    ".3gp", ".3g2", ".mxf", ".ogv", ".gif",
}  # fmt: skip
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}

MAX_PIXELS = 4096 * 4096  # above 4K in either orientation; a damaged header may claim more, which would be allocated
MAX_REORDERED_FRAMES = 16  # H.264 and HEVC may hold back so many pictures before they show one
MAX_THREADS = 4  # more bring little below 4K and hold a decoded frame each
TIME_TOLERANCE = 1e-3  # times are rounded in files and in annotations; far below the length of any frame


@dataclass
class TimedVideoMetadata(VideoMetadata):
    """transformers' metadata of a video whose frames have times of their own, from the container's start."""

    seconds: np.ndarray | None = None  # (T,), of the kept frames

    @property
    def timestamps(self) -> list[float]:
        """Seconds at which the kept frames are shown."""
        return super().timestamps if self.seconds is None else self.seconds.tolist()


def is_visible_file(path: Path, suffixes: set[str]) -> bool:
    """Whether a folder's entry is a file with one of these suffixes, in any case; hidden files are not."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def is_video_file(path: Path) -> bool:
    """Whether a folder's entry is a video file, by its name."""
    return is_visible_file(path, VIDEO_SUFFIXES)


def is_frame_folder(path: str | os.PathLike) -> bool:
    """Whether this is a folder of one video's frames: images and no video lie directly in it."""
    path = Path(path)
    entries = list(path.iterdir()) if path.is_dir() else []
    return any(is_visible_file(entry, IMAGE_SUFFIXES) for entry in entries) and not any(map(is_video_file, entries))


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder of frames, `2.png` before `10.png`; a missing number is warned of."""
    folder = Path(folder)
    files = [file for file in folder.iterdir() if is_visible_file(file, IMAGE_SUFFIXES)]
    videos = sorted(file.name for file in folder.iterdir() if is_video_file(file))
    if videos:
        raise VideoDecodeError(f"`{folder}` is a folder of videos ({videos[0]}), not of frames; give the videos")
    if not files:
        raise VideoDecodeError(f"`{folder}` holds no image files, so it is not a folder of frames")

    def natural_order(file: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", file.name)], file.name

    files.sort(key=natural_order)
    if missing := frame_gaps(files):
        warnings.warn(f"{folder}: {missing}", stacklevel=2)
    return files


def frame_gaps(files: Sequence[Path]) -> str:
    """Says between which numbers in the names of frames one is missing; empty where none is, or names have none."""
    numbers = [re.findall(r"\d+", file.stem)[-1:] for file in files]
    pairs = list(pairwise(sorted({int(number[0]) for number in numbers if number})))
    step = min((after - before for before, after in pairs), default=1)
    gaps = [f"{before} and {after}" for before, after in pairs if after - before > step]
    if not gaps:
        return ""
    more = f" and in {len(gaps) - 5} more places" if len(gaps) > 5 else ""
    return f"missing frame numbers between {', '.join(gaps[:5])}{more}"


def read_frame_files(files: Sequence[str | os.PathLike], size: SizeRule = None) -> np.ndarray:
    """The images of one video as frames `(T, H, W, 3)`, uint8 RGB, turned as EXIF says; all must be of one size."""
    frames, first = [], None
    for file in map(Path, files):
        frame = read_image(file)
        first = first or frame.shape
        if frame.shape != first:
            (height, width), (first_height, first_width) = frame.shape[:2], first[:2]
            raise VideoDecodeError(
                f"`{file}` is {width} x {height} pixels, the first frame of its video {first_width} x {first_height}"
            )
        frames.append(scaled(frame[None], size)[0])
    return np.stack(frames)


def read_image(file: Path) -> np.ndarray:
    """An image file as upright RGB, `(H, W, 3)` in uint8."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many for a frame")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error, EOFError and more
        raise VideoDecodeError(f"`{file}` cannot be read as an image: {error}") from error


class LogLevel:
    """FFmpeg's log level, which is one for all threads: the highest that any of them needs at a time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.needed: list[int] = []
        self.before: int | None = None  # PyAV's own, which comes back at the end

    @contextlib.contextmanager
    def at_least(self, level: int) -> Iterator[None]:
        """Let FFmpeg log so much inside the block."""
        from av import logging

        with self.lock:
            if not self.needed:
                self.before = logging.get_level()
                logging.set_skip_repeated(False)  # the same file, read twice, logs the same error twice
            self.needed.append(level)
            logging.set_level(max(self.before or 0, *self.needed))
        try:
            yield
        finally:
            with self.lock:
                self.needed.remove(level)
                logging.set_level(max(self.before or 0, *self.needed) if self.needed else self.before)
                logging.set_skip_repeated(not self.needed)


LOG_LEVEL = LogLevel()


@contextlib.contextmanager
def logged_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collect what FFmpeg logs as an error in this thread; PyAV drops all logs unless a level is set."""
    from av import logging

    # Decoding threads log aside.
    with LOG_LEVEL.at_least(logging.ERROR), logging.Capture(local=False), logging.Capture(local=True) as errors:
        yield errors


class OpenVideo:
    """A video file that [`open_video`] opened: its frames with their times, and what is then known of them."""

    def __init__(self, name: str, container, stream, errors: list):
        self.name, self.container, self.stream, self.errors = name, container, stream, errors
        self.formats = container.format.name.split(",")
        self.start = (container.start_time or 0) / 1_000_000
        self.num_indexed = len(stream.index_entries)
        rate = stream.average_rate or stream.guessed_rate  # asked for now: it may be wanted when the file is closed
        self.header_fps = float(rate) if rate else None
        self.num_frames, self.first_seconds, self.last_seconds = 0, 0.0, 0.0  # given so far

    @property
    def fps(self) -> float | None:
        """Frames a second, by the times of those given so far; below two by the header, which may state a clock's."""
        if self.last_seconds > self.first_seconds:  # damaged times may be too large to be told apart
            return (self.num_frames - 1) / (self.last_seconds - self.first_seconds)
        return self.header_fps

    def length(self) -> tuple[int, float | None]:
        """Frames, and frames a second, as far as the container says it; nothing is decoded.

        Without an index of frames the packets are counted, some of which show no frame in VP8 and VP9.
        """
        num_frames = self.promised_frames()
        ticks = [entry.timestamp for entry in self.stream.index_entries] if "mov" in self.formats else []
        if not num_frames:
            ticks = [packet.pts for packet in self.packets() if packet.size and not packet.is_discard]
            num_frames = len(ticks)
        ticks = [tick for tick in ticks if tick is not None]
        if len(ticks) < 2 or max(ticks) == min(ticks):
            return num_frames, self.header_fps
        return num_frames, (len(ticks) - 1) / float((max(ticks) - min(ticks)) * self.stream.time_base)

    @property
    def end_seconds(self) -> float | None:
        """Seconds from the container's start to the end of the last frame, by the index or else by the header."""
        stream, ticks = self.stream, self.stream.duration
        times = [entry.timestamp for entry in stream.index_entries] if "mov" in self.formats else []
        if len(times) > 1:  # lengths in headers are wrong at times
            ticks = (times[-1] - times[0]) * len(times) / (len(times) - 1)
        if ticks:
            return float((ticks + (stream.start_time or 0)) * stream.time_base) - self.start
        return self.container.duration / 1_000_000 if self.container.duration else None

    def promised_frames(self) -> int:
        """Frames that the container's own index lists; 0 where it has none."""
        entries = self.stream.index_entries
        # Edit lists hide frames that an MP4 header counts, and an AVI header counts repetitions without a frame.
        if "mov" in self.formats or ("avi" in self.formats and self.num_indexed == len(entries)):
            return sum(not entry.is_discard for entry in entries)
        return self.stream.frames

    def demuxed_packets(self) -> Iterator:
        """All packets of the video stream; an error that the demuxer logs is raised."""
        packets, errors = self.container.demux(self.stream), self.errors
        while True:
            for _, source, message in errors:  # of a parser: something that the decoder may cure
                if source == self.container.format.name:
                    raise VideoDecodeError(f"`{self.name}` is damaged or cut off: {message.strip()}")
            try:
                with logged_errors() as errors:
                    packet = next(packets, None)
            except IndexError:  # PyAV, at the end of a file in the middle of which another stream began
                return
            if packet is not None and packet.is_corrupt:
                raise VideoDecodeError(f"`{self.name}` is damaged or cut off: one of its packets is incomplete")
            if packet is not None:
                yield packet
            elif not errors:
                return

    def packets(self) -> Iterator:
        """The packets that can be decoded: of a video that was cut out of another, those before its first key frame
        and, right behind that, those that are shown before it refer to pictures that it does not hold.
        """
        key_frame_time, num_leading = None, MAX_REORDERED_FRAMES
        started = False
        for packet in self.demuxed_packets():
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

    def decoded_frames(self, start_seconds: float | None = None) -> Iterator:
        """All frames in presentation order, from the last key frame before a time where the file can be sought in."""
        seeked = bool(start_seconds) and self.seek(start_seconds)
        num_frames, clock = 0, []
        for packet in self.packets():
            if "avi" in self.formats and packet.dts is not None:  # it has no presentation times; FFmpeg guesses wrong
                clock.append(packet.dts)
            for frame in packet.decode():
                frame.pts = clock.pop(0) if clock else frame.pts
                if frame.is_corrupt:
                    raise VideoDecodeError(f"`{self.name}` is damaged or cut off: frame {num_frames} is incomplete")
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
            pass  # the file cannot be sought in after all
        self.container.seek(min(self.stream.start_time or 0, 0), stream=self.stream, backward=True)
        return False

    def timed_frames(
        self, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Iterator[tuple[float, object]]:
        """Seconds from the container's start, strictly rising, and the frame as decoded, between two times.

        A frame without a time, or with one that runs backwards, is taken to follow the one before by one interval.
        """
        seconds, step = None, 1 / (self.fps or 25)
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
            self.first_seconds = self.first_seconds if self.num_frames else seconds
            self.last_seconds = seconds
            self.num_frames += 1
            yield seconds, frame
        if not self.num_frames:
            raise VideoDecodeError(f"`{self.name}` has no frame between {start_seconds or 0} s and {end_seconds} s")

    def rgb_frames(
        self,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        size: SizeRule = None,
        frame_stride: int = 1,
        spaced: bool = False,
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As `timed_frames`, upright RGB `(H, W, 3)` in uint8; spaced frames are `(H, W, 4)`, see [`RgbConverter`].

        Pixels that are not square are not made so; HDR is mapped to the range of a screen, see [`hdr_to_sdr`].
        """
        convert = RgbConverter(self.name, size)
        for seconds, frame in islice(self.timed_frames(start_seconds, end_seconds), 0, None, frame_stride):
            yield seconds, convert(frame, spaced)


@contextlib.contextmanager
def open_video(source: str | os.PathLike | bytes, num_threads: int | None = None) -> Iterator[OpenVideo]:
    """Open a video file or its bytes; every error of FFmpeg inside the block becomes a [`VideoDecodeError`]."""
    import av  # takes longer than the rest of this package together, and many uses never decode a file

    name, file = checked_source(source)
    options = {"format_whitelist": VIDEO_CONTAINERS, "protocol_whitelist": "file"}
    # PyAV 18 refuses a title that is not UTF-8 unless told otherwise; PyAV 19 takes it and has no such argument.
    tolerant = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    container = None
    try:
        # Until the end, because a thread that logs must not see the level taken away.
        with LOG_LEVEL.at_least(av.logging.PANIC):
            with logged_errors() as errors:
                container = av.open(file, mode="r", container_options=options, **tolerant)
            with container:
                stream = video_stream(container, name)
                stream.thread_type = "AUTO"
                stream.codec_context.thread_count = num_threads or min(MAX_THREADS, os.cpu_count() or 1)
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                # In the header of an MP4 file an error is of another track or of an atom that FFmpeg does not know.
                errors = [] if "mov" in container.format.name else errors
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
    path = Path(source)
    if not path.is_file():
        what = "is a folder, not a video file" if path.is_dir() else "does not exist or is not a regular file"
        if "://" in os.fspath(source):
            what = "is not a file of this machine; download the video and give its path"
        raise VideoDecodeError(f"`{source}` {what}")
    if path.stat().st_size == 0:
        raise VideoDecodeError(f"`{path}` is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise VideoDecodeError(f"`{path}` is an image file: make an mp4 of an animation, give the folder of frames")
    return str(path), f"file:{path}"  # `file:` keeps a colon in the name from being read as a protocol


def video_stream(container, name: str):
    """The default stream with moving pictures, else the first; covers of songs and stills do not count."""
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.still_image
    streams = [stream for stream in container.streams.video if not stream.disposition & stills]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoDecodeError(f"`{name}` holds no video stream, only {kinds}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    codec = stream.codec_context
    if codec is None or codec.width * codec.height > MAX_PIXELS:
        raise VideoDecodeError(f"`{name}` has a video stream of an unknown codec or of absurd frame size")
    return stream


def video_length(source: str | os.PathLike | bytes) -> VideoMetadata:
    """How many frames a video file has and how fast they follow, before any is decoded: see [`OpenVideo.length`].

    Args:
        source (`str`, `os.PathLike` or `bytes`): a file, or what it holds.

    Returns:
        `VideoMetadata`: `total_num_frames`; `fps` and `duration` in seconds, `None` where nothing says it.

    Raises:
        VideoDecodeError: if it is no video, or is damaged.
    """
    with open_video(source) as video:
        num_frames, fps = video.length()
    if num_frames == 0:
        raise VideoDecodeError(f"`{video.name}` holds no decodable frame")
    return VideoMetadata(total_num_frames=num_frames, fps=fps, duration=num_frames / fps if fps else None)


def read_frames(
    source: str | os.PathLike | bytes, indices: np.ndarray, size: SizeRule = None
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Decode a whole video file, and convert and keep some of its frames.

    Args:
        source (`str`, `os.PathLike` or `bytes`): a file, or what it holds.
        indices (`np.ndarray` of shape `(T,)`): which of its frames, rising.
        size (`tuple[int, int]` or `Callable`, *optional*): height and width of the result, or a function that makes
            them of a source frame's; these when absent.

    Returns:
        `tuple`: frames, upright RGB in uint8 of shape `(T, H, W, 3)`, fewer where the file has fewer; and metadata,
            whose length and rate are those of the decoded frames.

    Raises:
        VideoDecodeError: if it cannot be decoded whole.
    """
    places = set(indices.tolist())
    frames, seconds = [], []
    with open_video(source) as video:
        convert = RgbConverter(video.name, size)
        for place, (time, frame) in enumerate(video.timed_frames()):
            if place in places:
                frames.append(convert(frame))
                seconds.append(time)
    height, width = convert.source_size or (None, None)
    metadata = TimedVideoMetadata(
        total_num_frames=video.num_frames,
        fps=video.fps,
        width=width,
        height=height,
        duration=video.num_frames / video.fps if video.fps else None,
        video_backend="pyav",
        frames_indices=indices[: len(frames)],
        seconds=np.array(seconds),
    )
    return np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8), metadata
