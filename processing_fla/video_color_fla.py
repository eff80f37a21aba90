"""From FFmpeg's frames to RGB: upright, of one size, black at 0 and white at 255."""

from pathlib import Path

import numpy as np

from .video_opening_fla import VideoDecodeError


def upright(frame: np.ndarray, matrix: np.ndarray | None, path: Path) -> np.ndarray:
    """Turn (and mirror) a frame the way its display matrix asks.

    Args:
        frame (`np.ndarray` of shape `(H, W, 3)`): uint8, as decoded.
        matrix (`np.ndarray` of shape `(9,)`, *optional*): int32, FFmpeg's display matrix; x grows to the right, y
            downwards.
        path (`Path`): named in errors.

    Returns:
        `np.ndarray` of shape `(H, W, 3)` or `(W, H, 3)`: as a player shows it.
    """
    if matrix is None:
        return frame
    transposed, flip_x, flip_y = orientation(matrix, path)
    if transposed:
        frame = frame.transpose(1, 0, 2)
    return np.ascontiguousarray(frame[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def orientation(matrix: np.ndarray, path: Path) -> tuple[bool, bool, bool]:
    """How a display matrix turns and mirrors a frame.

    Args:
        matrix (`np.ndarray` of shape `(9,)`): int32, FFmpeg's display matrix, row by row.
        path (`Path`): named in errors.

    Returns:
        `tuple[bool, bool, bool]`: whether the axes are swapped, and whether the new x axis and y axis are then turned
            round.

    Raises:
        VideoDecodeError: the angle is not a multiple of 90 degrees.
    """
    xx, xy, yx, yy = (float(matrix[place]) for place in (0, 1, 3, 4))  # x' = xx x + yx y and y' = xy x + yy y
    straight, crossed = abs(xx) + abs(yy), abs(xy) + abs(yx)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        raise VideoDecodeError(f"`{path}` asks to be turned by an angle that is not a multiple of 90 degrees")
    return (True, yx < 0, xy < 0) if crossed > straight else (False, xx < 0, yy < 0)


def display_matrix(frame) -> np.ndarray | None:
    """How a frame is to be turned for display.

    Args:
        frame (`av.VideoFrame`): as decoded.

    Returns:
        `np.ndarray` of shape `(9,)`, int32; `None` where the file says nothing of it.
    """
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side_data), dtype=np.int32)
    return None


class RgbConverter:
    """Converts decoded frames of one video to upright RGB of one size, whatever their pixel format, range and depth.

    Args:
        path (`Path`): named in errors.
        size (`tuple[int, int]`, *optional*): height and width of the upright result; that of the first frame when
            absent.
        interpolation (`str`): FFmpeg's scaler where `size` differs: `"AREA"`, `"BICUBIC"`, `"BILINEAR"`, ...
        spaced (`bool`): give `(H, W, 4)` with a byte unused after each pixel's three, which FFmpeg fills a quarter
            faster; to be read only.
    """

    def __init__(
        self, path: Path, size: tuple[int, int] | None = None, interpolation: str = "BICUBIC", spaced: bool = False
    ):
        from av.video.reformatter import Interpolation, VideoReformatter

        self.path, self.size, self.spaced = path, size, spaced
        self.interpolation = Interpolation[interpolation]
        self.reformatter = VideoReformatter()
        self.rotation, self.matrix = None, None

    def __call__(self, frame) -> np.ndarray:
        """Convert one frame.

        Args:
            frame (`av.VideoFrame`): as decoded.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`, or `(H, W, 4)` where spaced, uint8: RGB, 0 to 255.
        """
        # Asked for again only where it changes: a frame that was asked for its side data refers to itself, and with
        # it all of its memory waits for the garbage collector.
        if frame.rotation != self.rotation:
            self.rotation, self.matrix = frame.rotation, display_matrix(frame)
        transposed = self.matrix is not None and orientation(self.matrix, self.path)[0]
        if self.size is None:  # later frames follow the first: a stream may change its size midway
            self.size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
        height, width = self.size[::-1] if transposed else self.size
        rgb = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if self.spaced else "rgb24",
            interpolation=self.interpolation,
            dst_color_range="JPEG",  # black is 0 and white 255, whatever the source's range
            threads=1,
        )
        if not self.spaced:
            return upright(rgb.to_ndarray(), self.matrix, self.path)
        # The frame's own memory, not a copy: it may be the decoder's, and is not to be written to.
        rows = np.frombuffer(rgb.planes[0], np.uint8).reshape(height, -1)
        return upright(rows[:, : 4 * width].reshape(height, width, 4), self.matrix, self.path)
