"""Decoding a JPEG into memory that is there already, by the fastest decoder installed."""

from functools import lru_cache

import numpy as np

from training_fla.files import InputError


def decode_jpeg_into(jpeg: bytes | memoryview, pixels: np.ndarray) -> None:
    """Decode one frame.

    Args:
        jpeg (`bytes` or `memoryview`): the file's bytes.
        pixels (`np.ndarray` of shape `(H, W, 3)`): uint8, contiguous; receives RGB, 0 to 255.

    Raises:
        InputError: if it is no JPEG, or not of that height and width.
    """
    _decoder()(jpeg, pixels)


@lru_cache
def _decoder():
    """What simplejpeg decodes lies where it belongs; torchvision's result must be moved, and takes a third longer."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return decode_by_torchvision
    return decode_by_simplejpeg


def decode_by_simplejpeg(jpeg: bytes | memoryview, pixels: np.ndarray) -> None:
    """[`decode_jpeg_into`] by simplejpeg.

    Args:
        jpeg (`bytes` or `memoryview`): a whole JPEG.
        pixels (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB; filled.

    Raises:
        InputError: it is no JPEG, or one of another size.
    """
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        _require_size(height, width, pixels)
        simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False, buffer=pixels)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"not a JPEG: {error}") from error


def decode_by_torchvision(jpeg: bytes | memoryview, pixels: np.ndarray) -> None:
    """[`decode_jpeg_into`] by torchvision, which gives the same pixels.

    Args:
        jpeg (`bytes` or `memoryview`): a whole JPEG.
        pixels (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB; filled.

    Raises:
        InputError: it is no JPEG, or one of another size.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        image = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"not a JPEG: {error}") from error
    _require_size(*image.shape[1:], pixels)
    torch.from_numpy(pixels).copy_(image.permute(1, 2, 0))


def _require_size(height: int, width: int, pixels: np.ndarray) -> None:
    if (height, width) != pixels.shape[:2]:
        raise InputError(f"{height} x {width} pixels instead of {pixels.shape[0]} x {pixels.shape[1]}")
