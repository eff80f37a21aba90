"""Limits on what the page accepts, and the messages with which it refuses."""

import time
from dataclasses import dataclass

MIB = 1024 * 1024
# Unstated: cameras record up to 60 frames a second; a file that claims more would fill the memory with frames.
MAX_FPS = 60


class RefusedError(Exception):
    """A clip is not translated; the message is for the person who sent it and names no file of the server."""


class CancelledError(Exception):
    """The person who sent the clip no longer waits for it."""


@dataclass(frozen=True)
class Limits:
    """What the page accepts; the checks raise `RefusedError`."""

    max_megabytes: float = 64  # MiB of a file
    max_seconds: float = 30  # length of a clip
    time_limit: float = 120  # seconds of work on one clip, without the wait for its turn
    max_waiting: int = 8  # clips that may wait for their turn
    max_frames: int | None = None  # sampled frames the language model has positions for

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * MIB)

    @property
    def keep_seconds(self) -> float:
        """Age at which a clip that was never asked to be translated is deleted: no clip waits so long."""
        return max(600.0, (self.max_waiting + 2) * self.time_limit)

    @property
    def max_source_frames(self) -> int:
        """Frames of a clip, sampled or not; one cut at the limit may be a frame or two over it."""
        return int((self.max_seconds + 1) * MAX_FPS)

    def usable_seconds(self, frame_stride: int) -> float:
        """Length of the longest clip that limit and model allow, at the 30 frames a second of most cameras."""
        if self.max_frames is None:
            return self.max_seconds
        return min(self.max_seconds, max(1, self.max_frames * frame_stride // 30))

    def check_size(self, num_bytes: int) -> None:
        if num_bytes > self.max_bytes:
            raise RefusedError(
                f"This file is {num_bytes / MIB:.0f} MB; {self.max_megabytes:g} MB is the most that is taken here."
            )
        if num_bytes == 0:
            raise RefusedError("This file is empty.")

    def check_length(self, seconds: float) -> None:
        """Of a clip as its header says, or as far as it was read."""
        # A clip cut at the limit may be a frame or two over it.
        if seconds > self.max_seconds + 0.5:
            raise RefusedError(
                f"This clip is longer than {self.max_seconds:g} seconds, the most that is taken here"
                + (f": it lasts {clock_time(seconds)}." if seconds >= self.max_seconds + 2 else ".")
                + " Cut out the sentence you want translated."
            )

    def check_frames(self, num_frames: int, seconds: float) -> None:
        """How many source frames a clip has, and how long it lasts."""
        self.check_length(seconds)
        if num_frames > self.max_source_frames:
            raise RefusedError(f"This clip has more than {MAX_FPS} frames a second.")

    def check_sampled(self, num_frames: int, duration: float) -> None:
        """How many frames are sampled of a clip of so many seconds."""
        if self.max_frames is not None and num_frames > self.max_frames:
            seconds = duration * self.max_frames / num_frames
            about = f", about {seconds:.0f} seconds of this clip" if seconds >= 1 else ""
            raise RefusedError(
                f"This clip is too long for the model, which reads at most {self.max_frames} frames{about}."
            )


class WorkClock:
    """Counts the time of work on one clip, and knows whether the visitor still waits for it."""

    def __init__(self, time_limit: float):
        self.time_limit = time_limit
        self.started = time.monotonic()
        self.cancelled = False

    def check(self) -> None:
        """Raise `CancelledError` where the visitor has left, `RefusedError` after the time limit."""
        if self.cancelled:
            raise CancelledError
        if time.monotonic() - self.started > self.time_limit:
            raise RefusedError(
                f"This took longer than the {self.time_limit:g} seconds a clip may take here. Try a shorter one."
            )


def clock_time(seconds: float) -> str:
    """Minutes and seconds, `10:00`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
