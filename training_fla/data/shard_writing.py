"""Writing one Arrow shard of a packed corpus: decode, resize, JPEG, in a stream that holds one clip in memory."""

import io
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from training_fla.corpora.row import CorpusRow, VideoFile
from training_fla.data.packed_corpus import SCHEMA, file_sha256, index_digest
from training_fla.files import InputError, atomic_file

MAX_CLIP_BYTES = 2**31 - 1  # Arrow's `binary` counts the bytes of a batch, which is a clip, in 32 bits


@dataclass(frozen=True)
class PackParameters:
    """How frames are stored; part of what makes two packings the same.

    Args:
        size (`tuple[int, int]`, *optional*): height and width in pixels; those of the source when absent.
        quality (`int`): JPEG quality, 1 to 100.
        frame_stride (`int`): keep source frames 0, `frame_stride`, ...; 1 keeps all and leaves the choice to training.
    """

    size: tuple[int, int] | None = (256, 256)
    quality: int = 95
    frame_stride: int = 1

    def __post_init__(self):
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise InputError(f"size must be 1 to 4096 pixels, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"JPEG quality must be 1 to 100, not {self.quality}")
        if self.frame_stride < 1:
            raise InputError(f"frame_stride must be at least 1, not {self.frame_stride}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the manifest."""
        return {**asdict(self), "size": list(self.size) if self.size else None}


class BadClipError(InputError):
    """A clip that cannot be packed, by the fault of its source."""


def write_shard(
    rows: Sequence[CorpusRow],
    file: Path,
    parameters: PackParameters,
    bad: Mapping[int, str],
    skip: Callable[[int, str], None],
    report: Callable[[int | None, int], None],
) -> dict[str, Any]:
    """Write the clips of `rows` to `file`, which appears when it is whole.

    Args:
        rows (`Sequence[CorpusRow]`): the clips, in order.
        file (`Path`): the shard; replaced if it exists.
        parameters (`PackParameters`): how frames are stored.
        bad (`Mapping[int, str]`): positions of clips known to be bad, with the reason; they are not opened.
        skip (`Callable`): called with position and reason for a bad clip; it raises where that is to be the end.
        report (`Callable`): called with a clip's position before it, and with `None` and frames done during it.

    Returns:
        `dict`: the shard's manifest entry, with `file`, `bytes`, `sha256`, `index_sha256`, `clips`, `frames`.

    Raises:
        BadClipError: what `skip` raises, where it does.
    """
    clips = frames = 0
    with atomic_file(file, overwrite=True) as work:
        with pa.OSFile(str(work), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
            for position, row in enumerate(rows):
                report(position, 0)
                try:
                    if position in bad:
                        raise BadClipError(bad[position])
                    record = clip_record(row, parameters, lambda done: report(None, done))
                except BadClipError as error:
                    skip(position, str(error))
                    continue
                stream.write_batch(pa.RecordBatch.from_pylist([record], schema=SCHEMA))
                clips, frames = clips + 1, frames + record["num_frames"]
        entry = {"file": file.name, "bytes": os.path.getsize(work), "sha256": file_sha256(work)}
        table = pa.ipc.open_stream(pa.memory_map(str(work), "r")).read_all()
        return {**entry, "index_sha256": index_digest(table), "clips": clips, "frames": frames}


def clip_record(row: CorpusRow, parameters: PackParameters, report: Callable[[int], None]) -> dict[str, Any]:
    """One clip as a row of the shard.

    Args:
        row ([`~training_fla.corpora.row.CorpusRow`]): the clip.
        parameters ([`PackParameters`]): how frames are stored.
        report (`Callable[[int], None]`): called with the number of frames done.

    Returns:
        `dict`: a value for each column of the schema.

    Raises:
        BadClipError: if it has no sentence or no frame, cannot be decoded, or is too large.
    """
    if not row.sentence:
        raise BadClipError(f"{row.split} clip {row.id!r}: its sentence is empty")
    jpegs: list[bytes] = []
    num_bytes, shape = 0, None
    try:
        with row.video.opened(parameters.frame_stride, parameters.size) as (fps, frames):
            for frame in frames:
                jpeg, shape = encode_frame(frame, parameters.quality), frame.shape
                jpegs.append(jpeg)
                num_bytes += len(jpeg)
                if num_bytes > MAX_CLIP_BYTES:
                    raise InputError("more than 2 GiB of JPEG: cut it into clips or raise the frame stride")
                report(len(jpegs))
        _refuse_cut_off(row.video, len(jpegs) * parameters.frame_stride, fps)
    # Whatever a decoder makes of a damaged file is the file's fault; running out of disk happens elsewhere.
    except (ValueError, OSError, ArithmeticError, LookupError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadClipError(f"{row.split} clip {row.id!r} ({row.video.name}): {reason}") from error
    if not jpegs:
        raise BadClipError(f"{row.split} clip {row.id!r} ({row.video.name}): it has no frames")
    return {
        "id": row.id,
        "sentence": row.sentence,
        "signer": row.signer,
        "language": row.language,
        "split": row.split,
        "num_frames": len(jpegs),
        "fps": fps,
        "height": shape[0],
        "width": shape[1],
        "frame_stride": parameters.frame_stride,
        "frame_crc32": [zlib.crc32(jpeg) for jpeg in jpegs],
        "frames": jpegs,
    }


def _refuse_cut_off(video: Any, num_frames: int, fps: float) -> None:
    """Annotated times may lie a little beyond a video's end, but half a sentence is none."""
    if isinstance(video, VideoFile) and video.end_seconds is not None and fps > 0:
        wanted = (video.end_seconds - (video.start_seconds or 0.0)) * fps
        if num_frames < 0.5 * wanted:
            raise InputError(
                f"only {num_frames} of about {wanted:.0f} frames: it is to end at {video.end_seconds} s, "
                f"after the end of its video"
            )


def encode_frame(frame: np.ndarray, quality: int) -> bytes:
    """Compress a frame to JPEG.

    Args:
        frame (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB; or of shape `(H, W, 4)`, whose last channel means
            nothing.
        quality (`int`): 1 to 100.

    Returns:
        `bytes`: chroma at half size.
    """
    height, width, channels = frame.shape
    if not frame.flags.c_contiguous:
        frame = np.ascontiguousarray(frame)
    # Four bytes a pixel is how Pillow has it, so nothing is copied.
    mode = "RGBX" if channels == 4 else "RGB"
    image = Image.frombuffer(mode, (width, height), frame, "raw", mode, 0, 1)
    buffer = io.BytesIO()
    # Chroma at half size ("4:2:0", as video has it): a third fewer bytes and a faster decode.
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()
