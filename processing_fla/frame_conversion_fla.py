"""From decoded frames to upright RGB frames of one size, whatever their format, range, depth and rotation."""

from collections.abc import Callable

import numpy as np

SizeRule = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None  # height and width, or from a source frame's


class VideoDecodeError(ValueError):
    """A video cannot be decoded, or gives fewer frames than it promises; the message names the file."""


class RgbConverter:
    """Converts decoded frames of one video to upright RGB of one size, whatever their format, range and depth."""

    def __init__(self, name: object, size: SizeRule = None):
        from av.video.reformatter import Interpolation, VideoReformatter

        self.name, self.size, self.source_size = name, size, None
        # Averages the pixels behind each one where it scales down, in a third less time than bicubic. Without the flag
        # colours lose half of their columns, also of the few that are left after scaling.
        self.interpolation = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
        self.reformatter = VideoReformatter()
        self.rotation, self.turn = None, (False, False, False)

    def __call__(self, frame, spaced: bool = False) -> np.ndarray:
        """A decoded frame as `(H, W, 3)`, uint8 RGB; spaced: a view `(H, W, 4)` with an unused byte, read-only."""
        # Asked for again only where it changes: a frame that was asked for its side data refers to itself, and with
        # it all of its memory waits for the garbage collector.
        if frame.rotation != self.rotation:
            self.rotation, self.turn = frame.rotation, orientation(frame, self.name)
        transposed, flip_x, flip_y = self.turn
        if self.source_size is None:  # later frames follow the first: a stream may change its size midway
            self.source_size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
            self.size = (self.size(*self.source_size) if callable(self.size) else self.size) or self.source_size
        height, width = self.size[::-1] if transposed else self.size
        rgb = self.reformatter.reformat(
            upper_field(frame) if frame.interlaced_frame else frame,
            width=width,
            height=height,
            format="rgba",  # filled a quarter faster than rgb24, whose pixels differ a little
            interpolation=self.interpolation,
            dst_color_range="JPEG",  # black is 0 and white 255, whatever the source's range
            threads=1,
        )
        pixels = np.frombuffer(rgb.planes[0], np.uint8).reshape(height, -1)[:, : 4 * width].reshape(height, width, 4)
        if frame.color_trc in HDR_CURVES:
            pixels = hdr_to_sdr(pixels, frame.color_trc, frame.color_primaries)
        pixels = pixels.transpose(1, 0, 2) if transposed else pixels
        pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return pixels if spaced else np.ascontiguousarray(pixels[..., :3])


def upper_field(frame):
    """The upper of the two moments that a camera interlaced in a frame, row by row: a frame of half the height."""
    from av import VideoFrame

    if frame.format.has_palette or min(plane.line_size for plane in frame.planes) <= 0:  # upside down
        return frame
    field = VideoFrame(frame.width, (frame.height + 1) // 2, frame.format.name)
    for source, target in zip(frame.planes, field.planes, strict=True):
        rows = np.frombuffer(source, np.uint8).reshape(-1, abs(source.line_size))[::2]
        rows_of_field = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        width = min(rows.shape[1], rows_of_field.shape[1])
        rows_of_field[:, :width] = rows[: len(rows_of_field), :width]
    field.colorspace, field.color_range = frame.colorspace, frame.color_range
    return field


def hdr_to_sdr(pixels: np.ndarray, curve: int, primaries: int) -> np.ndarray:
    """Bring pixels of a high dynamic range, `(H, W, 4)` in uint8, to that of a screen, at its white (ITU-R BT.2408).

    HLG is taken as light of the scene, PQ as light of a display; what is brighter than white becomes white.
    """
    light = HDR_CURVES[curve][pixels[..., :3]]
    if primaries == BT2020_PRIMARIES:
        light = light @ BT2020_TO_BT709.T
    result = np.empty_like(pixels)
    result[..., :3] = SRGB_OF_LIGHT[(np.clip(light, 0, 1) * (len(SRGB_OF_LIGHT) - 1)).astype(np.int32)]
    return result


def hlg_light() -> np.ndarray:
    """Light of the scene by 8-bit HLG value (ITU-R BT.2100); 1 is white, at 75 % of the signal."""
    signal = np.arange(256) / 255
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return (light / ((np.exp((0.75 - c) / a) + b) / 12)).astype(np.float32)


def pq_light() -> np.ndarray:
    """Light of a display by 8-bit PQ value (ITU-R BT.2100); 1 is white, 203 of at most 10,000 cd/m2."""
    power = (np.arange(256) / 255) ** (1 / 78.84375)
    light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return (light ** (1 / 0.1593017578125) * 10_000 / 203).astype(np.float32)


def srgb_of_light() -> np.ndarray:
    """8-bit sRGB values (IEC 61966-2-1) by light in 4096 steps."""
    light = np.arange(4096) / 4095
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255 + 0.5


# By FFmpeg's numbers of transfer curves: SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG).
HDR_CURVES = {16: pq_light(), 18: hlg_light()}
BT2020_PRIMARIES = 9
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
SRGB_OF_LIGHT = srgb_of_light().astype(np.uint8)


def orientation(frame, name: object) -> tuple[bool, bool, bool]:
    """How a decoded frame's display matrix turns it: axes swapped, then x and y turned round."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    matrix = np.zeros(9) if side_data is None else np.frombuffer(bytes(side_data), dtype=np.int32)
    xx, xy, yx, yy = (float(matrix[place]) for place in (0, 1, 3, 4))  # x' = xx x + yx y and y' = xy x + yy y
    straight, crossed = abs(xx) + abs(yy), abs(xy) + abs(yx)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        raise VideoDecodeError(f"`{name}` asks to be turned by an angle that is not a multiple of 90 degrees")
    return (True, yx < 0, xy < 0) if crossed > straight else (False, xx < 0, yy < 0)


def scaled(frames: np.ndarray, size: SizeRule) -> np.ndarray:
    """Scale frames in memory, `(T, H, W, C)` in uint8, as those of a file; ones of the right size are returned."""
    size = size(*frames.shape[1:3]) if callable(size) else size
    if size is None or frames.shape[1:3] == tuple(size):
        return frames
    from av import VideoFrame

    if frames.shape[3] != 3:
        channels = [np.repeat(channel[..., None], 3, axis=3) for channel in np.moveaxis(frames, 3, 0)]
        return np.concatenate([scaled(channel, size)[..., :1] for channel in channels], axis=3)
    convert = RgbConverter("frames in memory", size)
    result = np.empty((len(frames), *size, 3), np.uint8)
    for target, frame in zip(result, frames, strict=True):
        target[:] = convert(VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"), spaced=True)[..., :3]
    return result
