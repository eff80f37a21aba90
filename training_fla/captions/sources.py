"""Where live frames come from: a camera, a stream by its URL, or a video file.

A file is read as it is asked for, so nothing is lost. A camera and a stream are read by a thread of their own into a
queue of limited length: a frame that comes while the queue is full is dropped and counted, so captions never fall
further behind than the queue is long. Frames keep their numbers, so that a dropped one does not shift what is sampled.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from processing_fla.frame_conversion_fla import RgbConverter, SizeRule, VideoDecodeError
from processing_fla.video_reading_fla import open_video, video_stream
from training_fla.errors import InputError, one_line

TimedFrame = tuple[float, np.ndarray]  # seconds, and (H, W, 3) in uint8 RGB
MAX_WAITING = 100  # frames: Unstated; four seconds of most cameras, while a sentence is written
BEHIND = 5  # frames that wait: Unstated; then a draft would come late, and none is written
STALL_SECONDS = 10.0  # without a frame the source is taken for lost
CAMERA = "camera"
# FFmpeg's name of a system's cameras, and the options that the system wants.
DEVICES = {
    "linux": ("v4l2", {}),
    "darwin": ("avfoundation", {"framerate": "30"}),  # of which it has no default that every camera has
    "win32": ("dshow", {}),
}


class Source(Protocol):
    """Frames of a stream."""

    num_dropped: int

    def __iter__(self) -> Iterator[tuple[float, int, np.ndarray]]:
        """Seconds, number in the stream and frame `(H, W, 3)`; raises `InputError` where the source is lost."""

    def is_behind(self) -> bool:
        """Whether frames wait, so that only what must be is to be done."""

    def close(self) -> None:
        """Give no more frames; it may be called from a signal handler."""


class FileSource:
    """Every frame of a video file, as fast as it is asked for."""

    num_dropped = 0

    def __init__(self, video: str, size: SizeRule):
        self.video, self.size = video, size
        self.is_closed = False

    def __iter__(self) -> Iterator[tuple[float, int, np.ndarray]]:
        for index, (seconds, frame) in enumerate(file_frames(self.video, self.size)):
            if self.is_closed:
                return
            yield seconds, index, frame

    def is_behind(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


class ThreadedSource:
    """Frames that come by themselves, read by a thread; `is_endless` ones, such as a camera's, have no regular end."""

    def __init__(self, name: str, frames: Callable[[], Iterator[TimedFrame]], is_endless: bool):
        self.name, self.frames, self.is_endless = name, frames, is_endless
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()  # unlike `Queue` it may be put to in a signal handler
        self.num_dropped = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[tuple[float, int, np.ndarray]]:
        threading.Thread(target=self.read, name="fla-live", daemon=True).start()
        while True:
            try:
                item = self.waiting.get(timeout=STALL_SECONDS)
            except queue.Empty:
                raise InputError(f"{self.name} gave no frame for {STALL_SECONDS:g} s") from None
            if isinstance(item, Exception):
                raise InputError(f"{self.name} gives no more frames: {one_line(item)}") from item
            if item is None:
                return
            yield item

    def read(self) -> None:
        """In the thread: put frames into the queue, and at last why there are no more."""
        last = None
        try:
            for index, (seconds, frame) in enumerate(self.frames()):
                if self.is_closed:
                    return
                if self.waiting.qsize() >= MAX_WAITING:
                    self.num_dropped += 1
                else:
                    self.waiting.put((seconds, index, frame))
            if self.is_endless:
                last = VideoDecodeError("it has ended")
        except Exception as error:
            last = error
        self.waiting.put(last)

    def is_behind(self) -> bool:
        return self.waiting.qsize() >= BEHIND

    def close(self) -> None:
        self.is_closed = True
        self.waiting.put(None)  # behind what was shown until now


def open_source(source: str, size: SizeRule, real_time: bool = False) -> Source:
    """The frames of `camera`, `camera:NAME`, a URL or a file, at a size; with `real_time` a file comes as a camera."""
    if source == CAMERA or source.startswith(f"{CAMERA}:"):
        kind, options = DEVICES.get(sys.platform, DEVICES["linux"])
        device = device_name(kind, source.removeprefix(CAMERA).removeprefix(":"))
        name = f"the camera {device.removeprefix('video=')}"
        return ThreadedSource(name, lambda: opened_frames(name, device, size, format=kind, options=options), True)
    if "://" in source:
        return ThreadedSource(source, lambda: paced(opened_frames(source, source, size)), False)
    if real_time:
        return ThreadedSource(source, lambda: paced(file_frames(source, size)), False)
    return FileSource(source, size)


def device_name(kind: str, name: str) -> str:
    """What FFmpeg calls a camera, by its number or name; without one the first."""
    if kind == "v4l2":
        return name if name.startswith("/") else f"/dev/video{name or 0}"
    if kind == "avfoundation":
        return name or "0"
    if not name:
        import av

        found = [device.description for device in av.enumerate_input_devices(kind)]
        if not found:
            raise InputError("no camera was found: name one with --source camera:NAME")
        name = found[0]
    return f"video={name}"


def file_frames(video: str, size: SizeRule) -> Iterator[TimedFrame]:
    """All frames of a video file with their seconds."""
    with open_video(video) as opened:
        yield from opened.rgb_frames(size=size)


def opened_frames(name: str, address: str, size: SizeRule, **options) -> Iterator[TimedFrame]:
    """The frames of a device or a stream, with their seconds since the first, until it ends."""
    import av

    try:
        container = av.open(address, timeout=(STALL_SECONDS, STALL_SECONDS), **options)
    except (av.FFmpegError, ValueError) as error:  # ValueError: this PyAV has no such devices
        raise VideoDecodeError(f"it cannot be opened ({one_line(error)})") from error
    with container:
        stream = video_stream(container, name)
        convert, first, before = RgbConverter(name, size), None, -1.0
        for frame in container.decode(stream):
            time_shown = frame.time if frame.time is not None else before + 0.04
            first = time_shown if first is None else first
            seconds = max(time_shown - first, before + 1e-3)
            before = seconds
            yield seconds, convert(frame)


def paced(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """Frames when they are due, counted from the first."""
    began = None
    for seconds, frame in frames:
        now = time.monotonic()
        began = now - seconds if began is None else began
        time.sleep(max(0.0, began + seconds - now))
        yield seconds, frame
