"""Frames of a video that are image files: which of a folder's they are, and their pixels."""

import os
import re
from pathlib import Path

import numpy as np

from .video_opening_fla import IMAGE_SUFFIXES, MAX_PIXELS, VideoDecodeError, local_path


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder of frames, in the order of the numbers in their names (`2.png` before `10.png`).

    Args:
        folder (`str` or `os.PathLike`): the folder, or its `file://` URL.

    Returns:
        `list[Path]`: at least one file. Files that are no images, and hidden ones, are left out.

    Raises:
        VideoDecodeError: if the folder holds no image.
    """
    folder = local_path(folder)
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise VideoDecodeError(f"`{folder}` holds no image files, so it is not a folder of frames")

    def natural_order(file: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", file.name)], file.name

    return sorted(files, key=natural_order)


def read_frame_files(files: list[str | os.PathLike]) -> np.ndarray:
    """Open images that are the frames of one video.

    Args:
        files (`list` of `str` or `os.PathLike`): in order.

    Returns:
        `np.ndarray` of shape `(T, H, W, 3)`, uint8: RGB, turned as their EXIF orientation asks.

    Raises:
        VideoDecodeError: if one of them is missing, no image, cut off, or of another size than the first.
    """
    from PIL import Image, ImageOps

    frames = []
    for file in map(local_path, files):
        try:
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise VideoDecodeError(
                        f"`{file}` is {image.width} x {image.height} pixels, more than a video frame may be"
                    )
                frames.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
        except VideoDecodeError:
            raise
        except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error, EOFError and more
            raise VideoDecodeError(f"`{file}` cannot be read as an image: {error}") from error
        if frames[-1].shape != frames[0].shape:
            (height, width), (first_height, first_width) = frames[-1].shape[:2], frames[0].shape[:2]
            raise VideoDecodeError(
                f"`{file}` is {width} x {height} pixels, the first frame of its video {first_width} x {first_height}"
            )
    return np.stack(frames)
