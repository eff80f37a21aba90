"""How much disk a packed corpus will take, guessed from a few clips before hours are spent on it."""

import contextlib
import math
import shutil
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from training_fla.corpora.row import CorpusRow, DrawnVideo, FrameFolder
from training_fla.data.shard_writing import PackParameters, encode_frame
from training_fla.files import InputError

# Unstated: enough for an estimate within some tens of per cent, in a second or so.
SAMPLED_CLIPS = 5
SAMPLED_FRAMES = 2
# Not worth an estimate: so few clips on so large a disk.
FEW_CLIPS, AMPLE_BYTES = 64, 10 * 10**9


def check_disk(rows: Sequence[CorpusRow], folder: Path, parameters: PackParameters, progress: bool) -> None:
    """Print what packing `rows` below `folder` is likely to take.

    Args:
        rows (`Sequence[CorpusRow]`): the clips.
        folder (`Path`): on the disk that is written to.
        parameters ([`~training_fla.data.shard_writing.PackParameters`]): how frames are stored.
        progress (`bool`): whether to print.

    Raises:
        InputError: if it clearly does not fit.
    """
    free = shutil.disk_usage(folder).free
    if len(rows) <= FEW_CLIPS and free > AMPLE_BYTES:
        return
    needed = estimated_bytes(rows, parameters)
    if needed is None:
        return
    if progress:
        print(f"about {readable(needed)} to write, {readable(free)} free in {folder.parent}", file=sys.stderr)
    # Half as much again as there is: an estimate from five clips is no ground to refuse a close call.
    if needed > 1.5 * free:
        raise InputError(
            f"packing needs about {readable(needed)} and {folder.parent} has {readable(free)} free: "
            f"choose another disk, a smaller --size or --quality, or a larger --frame-stride"
        )


def readable(num_bytes: float) -> str:
    """Bytes as people say them, in GB or MB.

    Args:
        num_bytes (`float`): not negative.

    Returns:
        `str`: with its unit.
    """
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def estimated_bytes(rows: Sequence[CorpusRow], parameters: PackParameters) -> float | None:
    """Bytes that clips will take, from a few of them.

    Args:
        rows (`Sequence[CorpusRow]`): the clips.
        parameters ([`~training_fla.data.shard_writing.PackParameters`]): how frames are stored.

    Returns:
        `float` or `None`: `None` where not one of the few can be read.
    """
    step = max(1, len(rows) // SAMPLED_CLIPS)
    per_clip = []
    for row in rows[step // 2 :: step]:
        with contextlib.suppress(Exception):  # a bad clip is reported when its turn comes
            frames = list(islice(row.video.frames(parameters.frame_stride, parameters.size), SAMPLED_FRAMES))
            size = sum(len(encode_frame(frame, parameters.quality)) for frame in frames) / len(frames)
            per_clip.append(size * estimated_num_frames(row) / parameters.frame_stride)
    return len(rows) * sum(per_clip) / len(per_clip) if per_clip else None


def estimated_num_frames(row: CorpusRow) -> float:
    """Source frames of a clip, without decoding it where something says.

    Args:
        row ([`~training_fla.corpora.row.CorpusRow`]): the clip.

    Returns:
        `float`: not always whole.
    """
    if row.num_frames:
        return row.num_frames
    if isinstance(row.video, FrameFolder):
        return len(row.video.files())
    if isinstance(row.video, DrawnVideo):
        return sum(1 for _ in row.video.frames())
    from processing_fla.video_opening_fla import open_video

    with open_video(row.video.path, num_threads=1) as (container, stream):
        seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        fps = float(stream.average_rate or stream.guessed_rate or 25)
    end = min(row.video.end_seconds or math.inf, seconds or math.inf)
    if math.isinf(end):  # a stream that does not say how long it is
        return sum(1 for _ in row.video.frames())
    return (end - (row.video.start_seconds or 0)) * fps
