"""Augmentation: one draw for all frames of a clip, within its bounds, and the map it says."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training_fla.data.augmentation import ClipAugmentation, warp
from training_fla.files import InputError


def smooth_clip(num_frames=3, height=50, width=56, seed=0):
    coarse = torch.rand(num_frames, 3, 5, 6, generator=torch.Generator().manual_seed(seed)) * 255
    frames = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255).round().to(torch.uint8)
    return frames.contiguous(memory_format=torch.channels_last)


def reference_warp(frames, matrix, size, mode="bilinear"):
    """The same map by `grid_sample`, in float."""
    T, _, H, W = frames.shape
    place = torch.arange(size) + 0.5 - size / 2
    x = place * matrix[0, 0] + place[:, None] * matrix[0, 1] + matrix[0, 2]
    y = place * matrix[1, 0] + place[:, None] * matrix[1, 1] + matrix[1, 2]
    grid = torch.stack([2 * x / W - 1, 2 * y / H - 1], dim=-1).float().expand(T, -1, -1, -1)
    return F.grid_sample(frames.float(), grid, mode=mode, padding_mode="border", align_corners=False)


def turn(degrees, zoom=1.0, x=28.0, y=25.0):
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    return np.array([[cos, -sin, x], [sin, cos, y]])


@pytest.mark.parametrize("matrix", [turn(17), turn(-30, 1.2), turn(8, 0.7, 20, 31)])
def test_a_nearest_warp_is_what_grid_sample_gives(matrix):
    frames = smooth_clip()
    differs = warp(frames, matrix, 40) != reference_warp(frames, matrix, 40, "nearest")
    assert differs.float().mean() < 0.002  # places on the edge between two pixels


@pytest.mark.parametrize("zoom", [0.8, 1.2])
def test_a_resize_without_rotation_is_near_the_same_map(zoom):
    frames, matrix = smooth_clip(height=250, width=256), turn(0, zoom, 128, 125)
    difference = (warp(frames, matrix, 200).float() - reference_warp(frames, matrix, 200)).abs()
    assert difference.mean() < 2  # the window is cut at whole source pixels


def test_whole_pixel_shifts_move_pixels_and_repeat_the_edge():
    frames = smooth_clip()
    inside = warp(frames, turn(0, x=27.0, y=22.0), 40)
    assert torch.equal(inside, frames[..., 2:42, 7:47])
    beyond = warp(frames, turn(0, x=17.0, y=22.0), 40)  # three columns to the left of the frame
    assert torch.equal(beyond[..., 3:], frames[..., 2:42, :37])
    assert torch.equal(beyond[..., :3], frames[..., 2:42, :1].expand(-1, -1, -1, 3))


def test_a_warp_neither_brightens_nor_darkens():
    for value in (0, 1, 100, 255):
        frames = torch.full((2, 3, 50, 56), value, dtype=torch.uint8)
        assert (warp(frames, turn(23, 1.1), 40) == value).all()
        assert (warp(frames, turn(0, 1.1), 40) == value).all()


def test_all_frames_of_a_clip_get_one_draw_and_others_get_another():
    still = smooth_clip(1).expand(4, -1, -1, -1)
    augmentation = ClipAugmentation(40, probability=1.0)
    for seed in range(5):
        frames = augmentation(still, np.random.default_rng(seed))
        assert frames.shape == (4, 3, 40, 40)
        assert frames.dtype == torch.uint8
        assert torch.equal(frames, frames[:1].expand_as(frames))
    assert not torch.equal(frames, augmentation(still, np.random.default_rng(99)))
    assert torch.equal(frames, augmentation(still, np.random.default_rng(4)))


def test_draws_stay_within_their_bounds_and_never_mirror():
    augmentation = ClipAugmentation(40, rotate_degrees=30, resize_factor=0.2, translate_pixels=10, probability=0.5)
    matrices = np.stack([augmentation.draw_geometry(50, 56, np.random.default_rng(seed)) for seed in range(2000)])
    determinants = np.linalg.det(matrices[:, :, :2])
    assert (determinants > 0).all()
    zooms = 1 / np.sqrt(determinants)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 0.8 <= zooms.min() + 1e-9 < 0.82 and 1.18 < zooms.max() <= 1.2 + 1e-9
    assert -30 <= angles.min() + 1e-9 < -28 and 28 < angles.max() <= 30 + 1e-9
    assert 0.4 < (angles == 0).mean() < 0.6
    assert 0.2 < ((angles == 0) & (np.abs(zooms - 1) < 1e-9)).mean() < 0.3


def test_without_other_draws_the_crop_alone_is_random_and_inside():
    frames = smooth_clip()
    augmentation = ClipAugmentation(40, probability=0.0)
    corners = set()
    for seed in range(300):
        cut = augmentation(frames, np.random.default_rng(seed))
        matrix = augmentation.draw_geometry(50, 56, np.random.default_rng(seed))
        left, top = int(matrix[0, 2] - 20), int(matrix[1, 2] - 20)
        assert torch.equal(cut, frames[..., top : top + 40, left : left + 40])
        corners.add((left, top))
    assert {left for left, _ in corners} == set(range(17))
    assert {top for _, top in corners} == set(range(11))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 0}, "crop_size must be 1 to inf, not 0"),
        ({"probability": 1.5}, "probability must be 0 to 1, not 1.5"),
        ({"resize_factor": 1.0}, "resize_factor must be 0 to 0.9"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ClipAugmentation(**options)


def test_frames_smaller_than_the_crop_are_refused():
    with pytest.raises(InputError, match="frames of 50 x 56 pixels are smaller than crop_size 52"):
        ClipAugmentation(52)(smooth_clip(), np.random.default_rng(0))
