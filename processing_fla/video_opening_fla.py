"""Opening a video file and decoding its frames, none of them missing: an error names the file otherwise.

By PyAV, whose wheel brings FFmpeg. What comes out is FFmpeg's own frames, not yet RGB.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
