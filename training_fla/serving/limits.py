"""What the page takes, and what it says where it does not."""

import time
from dataclasses import dataclass

MIB = 1024 * 1024
# Unstated: cameras record up to 60 frames a second; a file that claims more would fill the memory with frames.
MAX_FPS = 60
TOO_LONG_TO_WORK_ON = "This took longer than the {seconds:g} seconds a clip may take here. Try a shorter one."


class RefusedError(Exception):
    """A clip is not translated; the message is for the person who sent it and names no file of the server."""


class CancelledError(Exception):
    """The person who sent the clip no longer waits for it."""


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Args:
        max_megabytes (`float`): largest file, in MiB.
        max_seconds (`float`): longest clip.
        time_limit (`float`): seconds of work on one clip, without the wait for its turn.
        max_waiting (`int`): clips that may wait for their turn.
        max_frames (`int`, *optional*): most sampled frames the language model has positions for.
    """

    max_megabytes: float = 64
    max_seconds: float = 30
    time_limit: float = 120
    max_waiting: int = 8
    max_frames: int | None = None

    @property
    def max_bytes(self) -> int:
        """Size of the largest file."""
        return int(self.max_megabytes * MIB)

    def usable_seconds(self, frame_stride: int) -> float:
        """Length of the longest clip that both the limit and the model allow.

        Args:
            frame_stride (`int`): one source frame in so many is sampled.

        Returns:
            `float`: seconds; where the model is what limits it, whole ones at the 30 frames a second of most cameras.
        """
        if self.max_frames is None:
            return self.max_seconds
        return min(self.max_seconds, max(1, self.max_frames * frame_stride // 30))

    @property
    def keep_seconds(self) -> float:
        """Age at which a clip that was sent, but never asked to be translated, is deleted: no clip waits so long."""
        return max(600.0, (self.max_waiting + 2) * self.time_limit)

    def check_size(self, num_bytes: int) -> None:
        """Refuse a file that is too large, or empty.

        Args:
            num_bytes (`int`): its size.

        Raises:
            RefusedError: with both sizes.
        """
        if num_bytes > self.max_bytes:
            raise RefusedError(
                f"This file is {num_bytes / MIB:.0f} MB; {self.max_megabytes:g} MB is the most that is taken here."
            )
        if num_bytes == 0:
            raise RefusedError("This file is empty.")

    def check_length(self, seconds: float) -> None:
        """Refuse a clip that is too long.

        Args:
            seconds (`float`): its length, as its header says or as far as it was read.

        Raises:
            RefusedError: with both lengths.
        """
        # A clip cut at the limit may be a frame or two over it.
        if seconds > self.max_seconds + 0.5:
            raise RefusedError(
                f"This clip is longer than {self.max_seconds:g} seconds, the most that is taken here"
                + (f": it lasts {clock_time(seconds)}." if seconds >= self.max_seconds + 2 else ".")
                + " Cut out the sentence you want translated."
            )

    def check_frames(self, sampled: int, seconds: float) -> None:
        """Refuse a clip that gives more frames than the model reads.

        Args:
            sampled (`int`): sampled frames so far.
            seconds (`float`): how much of the clip they cover.

        Raises:
            RefusedError: with the number, and about how long a clip may be.
        """
        if self.max_frames is not None and sampled > self.max_frames:
            about = f", about {seconds:.0f} seconds of this clip" if seconds >= 1 else ""
            raise RefusedError(
                f"This clip is too long for the model, which reads at most {self.max_frames} frames{about}."
            )


class WorkClock:
    """How long work on one clip has gone on, and whether anybody still waits for it.

    Args:
        time_limit (`float`): seconds.
    """

    def __init__(self, time_limit: float):
        self.time_limit = time_limit
        self.started = time.monotonic()
        self.cancelled = False

    def check(self) -> None:
        """Go on, or not.

        Raises:
            RefusedError: the time is over.
            CancelledError: nobody waits.
        """
        if self.cancelled:
            raise CancelledError
        if time.monotonic() - self.started > self.time_limit:
            raise RefusedError(TOO_LONG_TO_WORK_ON.format(seconds=self.time_limit))


def clock_time(seconds: float) -> str:
    """A length as minutes and seconds, `10:00`.

    Args:
        seconds (`float`): not negative.

    Returns:
        `str`: `10:00`.
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
