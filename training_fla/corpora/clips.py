"""Where the frames of a clip come from: a video file, a folder of frames, a function, bytes; and writing a clip."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from training_fla.errors import InputError
from training_fla.folders import atomic_file

if TYPE_CHECKING:
    import numpy as np

    from processing_fla.frame_conversion_fla import SizeRule  # height and width, or a function of the source's

# Times in annotations are rounded, and a video's last frame is shown for a while.
END_TOLERANCE_SECONDS = 0.2

# How frames are packed unless another number is given.
FRAME_SIZE = 256  # Unstated: as GFSLT-VLP resizes them before it crops
JPEG_QUALITY = 95  # Unstated: this and 4:2:0; GFSLT-VLP reads the frames as released

# H.264 is what every browser plays; the encoders differ between builds of FFmpeg. With its macroblock tree x264 writes
# other bytes at every call.
ENCODERS = {
    "libx264": {"crf": "18", "x264-params": "mbtree=0:rc-lookahead=0"},
    "libopenh264": {},
    "libvpx-vp9": {"crf": "24", "b": "0"},
    "mpeg4": {},
}


@dataclass
class OpenedClip:
    """Frames of a clip, to be iterated over once; for a video file the other fields are set after the last one."""

    frames: "Iterator[np.ndarray]"
    fps: float = 0.0  # 0: nothing says it
    last_seconds: float = 0.0  # of the last frame, from the start of its video file

    def __iter__(self) -> "Iterator[np.ndarray]":
        return iter(self.frames)


class TargetSize:
    """Height and width to which frames are scaled; after the first frame it knows the source's."""

    def __init__(self, size: tuple[int, int] | None):
        self.size = size  # `None` keeps the source's
        self.source = (0, 0)

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size for a source of this height and width."""
        self.source = (height, width)
        return self.size or self.source


class ClipSource(ABC):
    """What every kind of source has: a name, whether it is missing, and frames."""

    name: str
    is_missing: bool = False

    @abstractmethod
    def opened(self, stride: int = 1, size: "SizeRule" = None) -> AbstractContextManager[OpenedClip]:
        """Every `stride`-th frame, `(H, W, 3)` or `(H, W, 4)`, whose last channel is unused; and, once read, `fps`."""

    def frames(self, stride: int = 1, size: "SizeRule" = None) -> "Iterator[np.ndarray]":
        """Every `stride`-th frame, `(H, W, 3)` uint8 RGB, upright; `size` is another height and width."""
        with self.opened(stride, size) as clip:
            for frame in clip:
                yield frame[..., :3]


class _OnDisk(ClipSource):
    path: Path

    @property
    def name(self) -> str:
        """The name of the file or folder, for messages."""
        return Path(self.path).name

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing at `path`."""
        return not Path(self.path).exists()


@dataclass(frozen=True)
class VideoFile(_OnDisk):
    """A video file, or the part of it from `start_seconds` up to `end_seconds`."""

    path: Path
    start_seconds: float | None = None
    end_seconds: float | None = None

    def opened(self, stride: int = 1, size: "SizeRule" = None) -> AbstractContextManager[OpenedClip]:
        """As [`ClipSource.opened`]."""
        return _opened(self.path, (self.start_seconds, self.end_seconds), stride, size)


@dataclass(frozen=True)
class FrameFolder(_OnDisk):
    """A folder with an image a frame, in the order of the numbers in their names; `fps` because images do not say."""

    path: Path
    fps: float = 25.0
    start_seconds: float | None = None
    end_seconds: float | None = None

    def files(self) -> list[Path]:
        """The images between the two times."""
        from processing_fla.video_reading_fla import frame_files

        files = frame_files(self.path)
        first, last = ((seconds or 0.0) * self.fps - 1e-3 for seconds in (self.start_seconds, self.end_seconds))
        return [n_file for n, n_file in enumerate(files) if n >= first and (self.end_seconds is None or n < last)]

    @contextmanager
    def opened(self, stride: int = 1, size: "SizeRule" = None) -> Iterator[OpenedClip]:
        """As [`ClipSource.opened`]; a number that is missing in the names is a warning."""
        files = self.files()
        if not files:
            raise InputError(f"{self.path} has no frame between {self.start_seconds or 0} s and {self.end_seconds} s")
        yield OpenedClip((_read_image(file, size) for file in files[::stride]), self.fps)


@dataclass(frozen=True)
class DrawnVideo(ClipSource):
    """A clip that `draw` draws: `(S, H, W, 3)` uint8 RGB, the same at every call."""

    draw: "Callable[[], np.ndarray]"
    fps: float = 25.0
    name: str = "drawn clip"

    @contextmanager
    def opened(self, stride: int = 1, size: "SizeRule" = None) -> Iterator[OpenedClip]:
        """As [`ClipSource.opened`]."""
        from processing_fla.frame_conversion_fla import scaled

        yield OpenedClip((scaled(frame[None], size)[0] for frame in self.draw()[::stride]), self.fps)


@dataclass(frozen=True)
class EmbeddedVideo(ClipSource):
    """A video file inside another file, such as a table of a `datasets` folder; `load` returns its bytes."""

    load: Callable[[], bytes]
    name: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    num_bytes: int = 0  # known without loading them

    def opened(self, stride: int = 1, size: "SizeRule" = None) -> AbstractContextManager[OpenedClip]:
        """As [`ClipSource.opened`]."""
        return _opened(self.load(), (self.start_seconds, self.end_seconds), stride, size)


@contextmanager
def _opened(source: Path | bytes, times: tuple, stride: int, size: "SizeRule") -> Iterator[OpenedClip]:
    from processing_fla.video_reading_fla import open_video

    with open_video(source, num_threads=1) as video:  # packing has a process a core
        clip = OpenedClip(iter(()))

        def frames():
            for _, frame in video.rgb_frames(*times, size=size, frame_stride=stride, spaced=True):
                yield frame
            clip.fps, clip.last_seconds = video.fps or 0.0, video.last_seconds

        clip.frames = frames()
        yield clip


def check_reaches_end(video: ClipSource, last_seconds: float, fps: float) -> None:
    """Refuse a clip whose file ends before its middle; annotated times may lie a little beyond a file's end."""
    if not isinstance(video, VideoFile) or video.end_seconds is None:
        return
    middle = ((video.start_seconds or 0.0) + video.end_seconds) / 2
    if last_seconds + 1 / (fps or 25) < middle:
        end = f"it is to end at {video.end_seconds} s, after the end of its video"
        raise InputError(f"its frames end at {last_seconds:.2f} s, but {end}")


def frame_seconds(video: ClipSource, number: int) -> float:
    """Seconds at which the n-th frame of a file or folder is shown, from 0; beyond the last, by the mean rate."""
    from processing_fla.video_reading_fla import VideoDecodeError

    if isinstance(video, FrameFolder):
        return number / video.fps
    try:
        times = frame_times(video)
    except VideoDecodeError as error:
        raise InputError(str(error)) from error
    if number < len(times):
        return times[number]
    return times[-1] + (number - len(times) + 1) * (times[-1] - times[0]) / max(1, len(times) - 1)


def frame_times(video: VideoFile | EmbeddedVideo) -> list[float]:
    """Seconds at which the frames of a whole file are shown."""
    return _times_of(video.load()) if isinstance(video, EmbeddedVideo) else _times_at(video.path)


@lru_cache(maxsize=64)  # many clips are cut from one video
def _times_at(path: Path) -> list[float]:
    return _times_of(path)


def _times_of(path: Path | bytes) -> list[float]:
    """By an MP4 file's index or else by all packets; the first frame is decoded."""
    from processing_fla.video_reading_fla import VideoDecodeError, open_video

    length = len(path) if isinstance(path, bytes) else path.stat().st_size
    with open_video(path, num_threads=1) as video:
        index = list(video.stream.index_entries) if "mov" in video.formats else []
        if max((entry.pos + entry.size for entry in index), default=0) > length:
            raise VideoDecodeError(f"`{video.name}` is cut off: its index names frames behind its last byte")
        index = [entry.timestamp for entry in index if not entry.is_discard] * (len(index) == video.stream.frames)
        frame, ticks = None, []
        for packet in video.packets():
            frame = frame or next(iter(packet.decode()), None)
            if packet.pts is not None and not packet.is_discard:
                ticks.append(packet.pts)
            if frame and index:  # which counts in decoding order
                ticks = [tick - index[0] + (video.stream.start_time or 0) for tick in index]
                break
        if frame is None or frame.is_corrupt or not ticks:
            raise VideoDecodeError(f"`{video.name}` is damaged or cut off: its first frame cannot be decoded")
        return sorted(float(tick * video.stream.time_base) - video.start for tick in ticks)


def write_clip(file: Path, frames: "Iterable[np.ndarray]", fps: float, overwrite: bool = False) -> None:
    """Write frames, `(H, W, 3)` uint8 RGB of one size, at least one, as an mp4 file that browsers play."""
    import av
    import numpy as np

    frames = iter(frames)
    first = next(frames)
    # Half-size chroma needs even sides, so an odd last row or column is left out.
    height, width = (side // 2 * 2 for side in first.shape[:2])
    codec = next(name for name in ENCODERS if name in av.codecs_available)
    # The index before the frames, so that a browser can begin to play.
    with (
        atomic_file(file, overwrite=overwrite) as work,
        av.open(str(work), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=ENCODERS[codec])
        stream.pix_fmt, stream.height, stream.width = "yuv420p", height, width
        stream.codec_context.thread_count = 1  # the bytes then do not depend on the machine's cores
        for array in chain([first], frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _read_image(path: Path, size: "SizeRule") -> "np.ndarray":
    from processing_fla.video_reading_fla import VideoDecodeError, read_frame_files

    try:
        return read_frame_files([path], size)[0]
    except VideoDecodeError as error:
        raise InputError(f"{path} is not a readable image: {error}") from error
