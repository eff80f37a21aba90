"""Frames of a video file by torchcodec, for those who prefer it to PyAV; it needs FFmpeg's libraries on the machine.

It takes what decoders give without asking: that frames are missing, or were damaged, it does not say. So it is handed
only files that PyAV has looked through, packet by packet, and found usual; `None` says that this one is not.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from transformers.utils import logging

from .video_color_fla import display_matrix, orientation
from .video_container_fla import is_whole
from .video_opening_fla import MAX_THREADS, local_path, open_video, promised_frames, shows_frame

logger = logging.get_logger(__name__)


@lru_cache
def torchcodec_decoder() -> type | None:
    """The `VideoDecoder` class of torchcodec.

    Returns:
        `type` or `None`: `None`, with a warning, where it is not installed or finds no FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except Exception as error:  # ImportError, and RuntimeError or OSError where libraries are missing
        reason = str(error).strip().partition("\n")[0]
        logger.warning(f"torchcodec cannot be used, videos are decoded by PyAV instead: {reason}")
        return None
    return VideoDecoder


def read_by_torchcodec(
    path: str | os.PathLike, choose: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Chosen frames of a usual video file.

    Args:
        path (`str` or `os.PathLike`): the file, or a `file://` URL.
        choose (`Callable[[int], np.ndarray]`): given the number of source frames, says which are wanted.

    Returns:
        `tuple[np.ndarray, np.ndarray, int]`: frames `(T, H, W, 3)` in uint8 RGB, upright, their indices `(T,)` among
        the source frames, and the number of source frames S; or `None` where PyAV should be asked.

    Raises:
        VideoDecodeError: if the file is no video.
    """
    path = local_path(path)
    decoder_class = torchcodec_decoder()
    if decoder_class is None:
        return None
    index, num_frames = usual_stream(path)
    if num_frames == 0:
        return None
    indices = np.asarray(choose(num_frames), dtype=np.int64)
    try:
        decoder = decoder_class(
            f"file:{path}",
            stream_index=index,
            dimension_order="NHWC",
            num_ffmpeg_threads=min(MAX_THREADS, os.cpu_count() or 1),
        )
        if len(decoder) != num_frames:
            return None
        return decoder.get_frames_at(indices.tolist()).data.numpy(), indices, num_frames
    except Exception:  # of whatever FFmpeg it found; PyAV then says what is wrong, or that nothing is
        return None


def usual_stream(path: Path) -> tuple[int, int]:
    """Which stream of a file is its video, and how many frames that has.

    Usual is: whole, every packet one progressive picture with a time of its own, 8 bits, not mirrored.

    Args:
        path (`Path`): the file.

    Returns:
        `tuple[int, int]`: number of the stream, and its frames; 0 frames where the file is unusual in some way.
    """
    first, times = None, []
    with open_video(path, num_threads=1) as (container, stream):
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_corrupt or not shows_frame(packet, stream.codec_context.name):
                return stream.index, 0
            if first is None:
                first = next(iter(packet.decode()), None)
            times.append(packet.pts)
        whole = promised_frames(container, stream, path) in (0, len(times))
        whole &= bool(stream.frames) or is_whole(path, container.format.name)
        distinct = None not in times and len(set(times)) == len(times)
        if first is None or not (whole and distinct and is_usual(first, path)):
            return stream.index, 0
        return stream.index, len(times)


def is_usual(frame, path: Path) -> bool:
    """Whether torchcodec gives this frame as [`~.video_decoding_fla.RgbConverter`] does.

    Args:
        frame (`av.VideoFrame`): as decoded.
        path (`Path`): named in errors.

    Returns:
        `bool`: whether it is of 8 bits, not mirrored, not interlaced and whole.
    """
    matrix = display_matrix(frame)
    transposed, flip_x, flip_y = (False, False, False) if matrix is None else orientation(matrix, path)
    bits = max(component.bits for component in frame.format.components)
    mirrored = transposed ^ flip_x ^ flip_y
    return bits == 8 and not mirrored and not frame.interlaced_frame and not frame.is_corrupt
