"""Augmentation of a training clip: one geometric draw for all its frames, on uint8 pixels.

Clips are never mirrored: which hand signs carries meaning.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from training_fla.files import InputError


@dataclass(frozen=True)
class ClipAugmentation:
    """Rotates, resizes, shifts and crops all frames of a clip alike.

    Rotation, resizing and shifting each happen with `probability`, the crop always; beyond a frame its edge repeats.
    """

    crop_size: int = 224  # Unstated: 256 -> 224 as in GFSLT and the works compared with
    rotate_degrees: float = 30.0  # Unstated: this and the next three are GFSLT's; each is the most, either way
    resize_factor: float = 0.2
    translate_pixels: float = 10.0
    probability: float = 0.5

    def __post_init__(self):
        bounds = {"crop_size": (1, math.inf), "rotate_degrees": (0, 180), "resize_factor": (0, 0.9)}
        bounds |= {"translate_pixels": (0, math.inf), "probability": (0, 1)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    def __call__(self, frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Vary a clip.

        Args:
            frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8 RGB.
            generator (`np.random.Generator`): the same state gives the same result.

        Returns:
            `torch.Tensor` of shape `(T, 3, crop_size, crop_size)`: uint8 RGB.

        Raises:
            InputError: if the crop is larger than the frames.
        """
        return warp(frames, self.draw_geometry(*frames.shape[-2:], generator), self.crop_size)

    def draw_geometry(self, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
        """A float64 matrix `(2, 3)`: where in a frame each pixel of the result comes from.

        It takes a column and row, counted in pixels from the middle of the crop, to those of the frame, counted in
        pixels from its upper left corner.
        """
        if self.crop_size > min(height, width):
            frames = f"frames of {height} x {width} pixels"
            raise InputError(f"{frames} are smaller than crop_size {self.crop_size}: pack them larger")
        # Every draw is made whether it is used or not, so that a clip's crop does not depend on the other options.
        happens = generator.random(3) < self.probability
        angle, zoom, shift_x, shift_y, crop_x, crop_y = generator.uniform(-1, 1, 6)
        angle = math.radians(angle * self.rotate_degrees) if happens[0] else 0.0
        zoom = 1 + zoom * self.resize_factor if happens[1] else 1.0
        # Whole pixels: a shift by a fraction would blur and gain nothing.
        shift_x = round(shift_x * self.translate_pixels) if happens[2] else 0
        shift_y = round(shift_y * self.translate_pixels) if happens[2] else 0
        # Crop about a random point, shift, then resize and rotate about the middle.
        x = _crop_offset(crop_x, width, self.crop_size) + shift_x
        y = _crop_offset(crop_y, height, self.crop_size) + shift_y
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        return np.array([[cos, -sin, cos * x - sin * y + width / 2], [sin, cos, sin * x + cos * y + height / 2]])


def _crop_offset(draw: float, side: int, crop: int) -> float:
    """Middle of the crop against the middle of the frame, such that the crop begins at a whole pixel inside it."""
    spare = side - crop
    return min(spare, int((draw + 1) / 2 * (spare + 1))) - spare / 2


def warp(frames: torch.Tensor, matrix: np.ndarray, size: int) -> torch.Tensor:
    """Resample all frames of a clip by one affine map.

    With rotation, a pixel of the result is the nearest of its frame (Unstated: GFSLT rotates by PIL's default, which
    is this too); without, resizing is bilinear and antialiased.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8.
        matrix (`np.ndarray` of shape `(2, 3)`): float64, as [`ClipAugmentation.draw_geometry`] returns it.
        size (`int`): height and width of the result.

    Returns:
        `torch.Tensor` of shape `(T, 3, size, size)`: uint8; a view of `frames` where whole pixels are cut out.
    """
    return (_warp_upright if matrix[0, 1] == matrix[1, 0] == 0 else _warp_nearest)(frames, matrix, size)


def _warp_upright(frames: torch.Tensor, matrix: np.ndarray, size: int) -> torch.Tensor:
    """Without rotation: cut out whole pixels, and resize them if need be."""
    pixels = frames.permute(0, 2, 3, 1)  # channels last, or resizing is several times slower
    for dim, axis in ((1, 1), (2, 0)):
        side, extent = pixels.shape[dim], max(1, round(size * matrix[axis, axis]))
        first = round(matrix[axis, 2] - extent / 2)
        if first >= 0 and first + extent <= side:
            pixels = pixels.narrow(dim, first, extent)
        else:  # repeat the edge
            pixels = pixels.index_select(dim, torch.arange(first, first + extent).clamp_(0, side - 1))
    frames = pixels.permute(0, 3, 1, 2)
    if frames.shape[-2:] == (size, size):
        return frames
    return F.interpolate(frames, size=(size, size), mode="bilinear", antialias=True)


def _warp_nearest(frames: torch.Tensor, matrix: np.ndarray, size: int) -> torch.Tensor:
    """Each pixel of the result is the pixel of its frame that it falls on, at the same place in every frame."""
    T, _, H, W = frames.shape
    place = np.arange(size) + 0.5 - size / 2
    columns, rows = (
        np.floor(axis[0] * place + axis[1] * place[:, None] + axis[2]).astype(np.int64) for axis in matrix
    )
    places = np.empty((size, size, 3), np.int64)
    places[:] = 3 * (np.clip(rows, 0, H - 1) * W + np.clip(columns, 0, W - 1))[..., None]
    places += np.arange(3)
    source = frames.permute(0, 2, 3, 1).contiguous().numpy().reshape(T, -1)
    result = np.empty((T, size * size * 3), np.uint8)
    for frame, taken in zip(source, result, strict=True):
        np.take(frame, places.reshape(-1), out=taken, mode="clip")  # clip: the places are inside, and need no checking
    return torch.from_numpy(result.reshape(T, size, size, 3)).permute(0, 3, 1, 2)
