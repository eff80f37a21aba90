"""Augmentation of a training clip: one geometric draw for all its frames, on uint8 pixels.

Clips are never mirrored: which hand signs carries meaning.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from training_fla.errors import InputError


@dataclass(frozen=True)
class Draw:
    """What happens to a clip: degrees and zoom about the middle, source pixels to the right and down, and the crop.

    The pixels of the shift are added to where a pixel comes from, so a frame moves to the left by a positive one.
    """

    degrees: float
    zoom: float
    shift: tuple[int, int]
    corner: tuple[int, int]  # left and top of the crop, in the scaled frame


@dataclass(frozen=True)
class Geometry:
    """Where each pixel of a varied frame comes from.

    `matrix`, float64 `(2, 3)`, takes a column and row of the result, counted in pixels from its middle, to those of
    the frame, counted in pixels from its upper left corner. Outside the `rows` and `columns` the result is black,
    because a shift moved the frame's edge there.
    """

    matrix: np.ndarray
    rows: slice
    columns: slice


@dataclass(frozen=True)
class ClipAugmentation:
    """Rotates, shifts and crops all frames of a clip alike.

    As in GFSLT-VLP, the frame is turned about its middle and then shifted in the pixels and the shape of the source,
    black where nothing is left of it, and only then scaled and cropped. Rotation and shift each happen with
    `probability`, the crop always.
    """

    crop_size: int = 224  # Unstated: 256 -> 224 as in GFSLT and the works compared with
    rotate_degrees: float = 30.0  # Unstated: this and the shift are GFSLT's; each is the most, either way
    translate_pixels: float = 10.0  # of the source, whole ones
    probability: float = 0.5
    resize_factor: float = 0.0  # Unstated: GFSLT's zoom by 0.2 is undone when each frame is then scaled to 256 x 256

    def __post_init__(self):
        bounds = {"crop_size": (1, math.inf), "rotate_degrees": (0, 180), "resize_factor": (0, 0.9)}
        bounds |= {"translate_pixels": (0, math.inf), "probability": (0, 1)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    def __call__(
        self, frames: torch.Tensor, generator: np.random.Generator, source_size: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Vary a clip.

        Args:
            frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8 RGB.
            generator (`np.random.Generator`): the same state gives the same result.
            source_size (`tuple[int, int]`, *optional*): height and width in pixels that the frames had before they
                were scaled; their own when absent.

        Returns:
            `torch.Tensor` of shape `(T, 3, crop_size, crop_size)`: uint8 RGB.

        Raises:
            InputError: if the crop is larger than the frames.
        """
        size = tuple(frames.shape[-2:])
        drawn = self.draw(size, generator)
        return warp(frames, geometry_of(drawn, size, source_size or size, self.crop_size), self.crop_size)

    def places(
        self, size: tuple[int, int], generator: np.random.Generator, source_size: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Where the pixels of a varied clip lie in its frames, for [`take_places`]; without zoom alone.

        Args:
            size (`tuple[int, int]`): height and width of the frames.
            generator (`np.random.Generator`): the same state gives what a call gives.
            source_size (`tuple[int, int]`, *optional*): as of a call.

        Returns:
            `torch.Tensor` of shape `(crop_size, crop_size)`: int32; row times width plus column, -1 where it is black.

        Raises:
            InputError: if the crop is larger than the frames.
        """
        geometry = geometry_of(self.draw(size, generator), size, source_size or size, self.crop_size)
        rows, columns, is_shown = places_of(geometry, self.crop_size, size)
        return torch.from_numpy(np.where(is_shown, rows * size[1] + columns, -1).astype(np.int32))

    def draw(self, size: tuple[int, int], generator: np.random.Generator) -> Draw:
        """Draw for frames of a height and width."""
        height, width = size
        if self.crop_size > min(height, width):
            frames = f"frames of {height} x {width} pixels"
            raise InputError(f"{frames} are smaller than crop_size {self.crop_size}: pack them larger")
        # Every draw is made whether it is used or not, so that a clip's crop does not depend on the other options.
        happens = generator.random(3) < self.probability
        angle, zoom, shift_x, shift_y, crop_x, crop_y = generator.uniform(-1, 1, 6)
        most = int(self.translate_pixels) if happens[2] else 0
        return Draw(
            degrees=angle * self.rotate_degrees if happens[0] else 0.0,
            zoom=1 + zoom * self.resize_factor if happens[1] else 1.0,
            shift=(_whole(shift_x, -most, most), _whole(shift_y, -most, most)),
            corner=(_whole(crop_x, 0, width - self.crop_size), _whole(crop_y, 0, height - self.crop_size)),
        )


def geometry_of(drawn: Draw, size: tuple[int, int], source_size: tuple[int, int], crop: int) -> Geometry:
    """One map for the steps of a draw: turn the source, shift it, scale it to a height and width, and crop."""
    (height, width), (source_height, source_width) = size, source_size
    scale_x, scale_y = source_width / width, source_height / height  # source pixels to each of a frame

    # Where the middle of the crop comes from before rotation, in source pixels from the middle of the frame.
    left, top = drawn.corner
    x = (left + (crop - width) / 2) * scale_x + drawn.shift[0]
    y = (top + (crop - height) / 2) * scale_y + drawn.shift[1]

    cos = math.cos(math.radians(drawn.degrees)) / drawn.zoom
    sin = math.sin(math.radians(drawn.degrees)) / drawn.zoom
    column = [cos, -sin * scale_y / scale_x, (cos * x - sin * y) / scale_x + width / 2]
    row = [sin * scale_x / scale_y, cos, (sin * x + cos * y) / scale_y + height / 2]
    rows, columns = _inside(y / scale_y, height, crop), _inside(x / scale_x, width, crop)
    return Geometry(np.array([column, row]), rows, columns)


def _whole(draw: float, low: int, high: int) -> int:
    """One of the whole numbers from `low` to `high`, for a draw from -1 to 1."""
    return min(high, low + int((draw + 1) / 2 * (high - low + 1)))


def _inside(middle: float, side: int, crop: int) -> slice:
    """Which pixels of a result lie on a frame; `middle` is its middle, in pixels from the frame's."""
    begin, end = (math.ceil(edge - middle + crop / 2 - 0.5) for edge in (-side / 2, side / 2))
    return slice(max(0, begin), min(crop, end))


def warp(frames: torch.Tensor, geometry: Geometry, size: int) -> torch.Tensor:
    """Resample all frames of a clip alike; what lies beyond a frame is black.

    With rotation, a pixel of the result is the nearest of its frame (Unstated: GFSLT rotates by PIL's default, which
    is this too); without, whole pixels are cut out, and resizing is bilinear and antialiased.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8.
        geometry ([`Geometry`]): as [`geometry_of`] returns it.
        size (`int`): height and width of the result.

    Returns:
        `torch.Tensor` of shape `(T, 3, size, size)`: uint8; a view of `frames` where whole pixels are cut out.
    """
    matrix = geometry.matrix
    return (_warp_upright if matrix[0, 1] == matrix[1, 0] == 0 else _warp_nearest)(frames, geometry, size)


def places_of(geometry: Geometry, size: int, frame_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column `(size, size)` that each pixel of a result is taken from without resizing, and whether it is."""
    H, W = frame_size
    matrix = geometry.matrix
    if matrix[0, 1] == matrix[1, 0] == 0:  # whole pixels are cut out
        first_column, first_row = (round(matrix[axis, 2] - size / 2) for axis in (0, 1))
        columns = np.broadcast_to(first_column + np.arange(size), (size, size))
        rows = np.broadcast_to(first_row + np.arange(size)[:, None], (size, size))
        return rows, columns, (columns >= 0) & (columns < W) & (rows >= 0) & (rows < H)
    place = np.arange(size) + 0.5 - size / 2
    columns, rows = (
        np.floor(axis[0] * place + axis[1] * place[:, None] + axis[2]).astype(np.int64) for axis in matrix
    )
    is_shown = np.zeros((size, size), bool)
    is_shown[geometry.rows, geometry.columns] = True
    return rows, columns, is_shown & (columns >= 0) & (columns < W) & (rows >= 0) & (rows < H)


def take_places(frames: torch.Tensor, places: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """Vary the frames of several clips at once, on their device.

    Args:
        frames (`torch.Tensor` of shape `(P, 3, H, W)`): uint8, channels last.
        places (`torch.Tensor` of shape `(B, size, size)`): int32, as [`ClipAugmentation.places`] gives them.
        clips (`torch.LongTensor` of shape `(P,)`): which clip each frame is of.

    Returns:
        `torch.Tensor` of shape `(P, 3, size, size)`: uint8, channels last; what a call of [`ClipAugmentation`] gives.
    """
    number, size = len(frames), places.shape[1:]
    pixels = frames.permute(0, 2, 3, 1).reshape(number, -1, 3)
    index = places.flatten(1)[clips]  # (P, size * size)
    taken = pixels[torch.arange(number, device=frames.device)[:, None], index.clamp(min=0).long()]
    return taken.masked_fill((index < 0)[..., None], 0).view(number, *size, 3).permute(0, 3, 1, 2)


def _warp_upright(frames: torch.Tensor, geometry: Geometry, size: int) -> torch.Tensor:
    """Without rotation: cut out whole pixels, and resize them if need be."""
    pixels = frames.permute(0, 2, 3, 1)  # channels last, or resizing is several times slower
    for dim, axis in ((1, 1), (2, 0)):
        side, extent = pixels.shape[dim], max(1, round(size * geometry.matrix[axis, axis]))
        first = round(geometry.matrix[axis, 2] - extent / 2)
        begin, end = (min(max(0, edge), side) for edge in (first, first + extent))
        cut = pixels.narrow(dim, begin, end - begin)
        if end - begin == extent:
            pixels = cut
        else:  # the frame ends within the window
            shape = list(pixels.shape)
            shape[dim] = extent
            pixels = pixels.new_zeros(shape)
            pixels.narrow(dim, min(max(0, begin - first), extent), end - begin).copy_(cut)
    frames = pixels.permute(0, 3, 1, 2)
    if frames.shape[-2:] == (size, size):
        return frames
    resized = F.interpolate(frames, size=(size, size), mode="bilinear", antialias=True)
    varied = torch.zeros_like(resized)
    varied[..., geometry.rows, geometry.columns] = resized[..., geometry.rows, geometry.columns]
    return varied


def _warp_nearest(frames: torch.Tensor, geometry: Geometry, size: int) -> torch.Tensor:
    """Each pixel of the result is the pixel of its frame that it falls on, at the same place in every frame."""
    T, _, H, W = frames.shape
    rows, columns, is_shown = places_of(geometry, size, (H, W))
    shown = is_shown[..., None].astype(np.uint8)
    places = np.empty((size, size, 3), np.int64)
    places[:] = 3 * (np.clip(rows, 0, H - 1) * W + np.clip(columns, 0, W - 1))[..., None]
    places += np.arange(3)
    shown = np.broadcast_to(shown, places.shape).reshape(-1)
    source = frames.permute(0, 2, 3, 1).contiguous().numpy().reshape(T, -1)
    result = np.empty((T, size * size * 3), np.uint8)
    for frame, taken in zip(source, result, strict=True):
        np.take(frame, places.reshape(-1), out=taken, mode="clip")  # clip: the places are inside, and need no checking
        np.multiply(taken, shown, out=taken)
    return torch.from_numpy(result.reshape(T, size, size, 3)).permute(0, 3, 1, 2)
