"""Writing frames as a video file."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from training_fla.files import atomic_file


def write_clip(file: Path, frames: Iterable[np.ndarray], fps: float, overwrite: bool = False) -> None:
    """Write an mp4 file in good quality.

    Args:
        file (`Path`): the file to appear.
        frames (`Iterable[np.ndarray]`): `(H, W, 3)` uint8 RGB, all of one size; at least one.
        fps (`float`): frames per second.
        overwrite (`bool`): whether a file in the way may be replaced.
    """
    import av

    frames = iter(frames)
    first = next(frames)
    # Half-size chroma needs even sides, so an odd last row or column is left out.
    height, width = (side // 2 * 2 for side in first.shape[:2])
    with atomic_file(file, overwrite=overwrite) as work, av.open(str(work), "w", format="mp4") as container:
        # MPEG-4 Part 2: every FFmpeg has it, where H.264 encoders are left out of some builds.
        stream = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = height, width
        stream.options = {"qmin": "1", "qmax": "3"}
        stream.bit_rate = 4_000_000
        stream.codec_context.thread_count = 1  # the bytes then do not depend on the machine's cores
        for array in chain([first], frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
