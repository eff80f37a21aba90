"""Augmentation: one draw for all frames of a clip, within its bounds, and the map it says."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from tests.data.test_packing import as_packed_by_030
from training_fla.corpora.clips import DrawnVideo
from training_fla.corpora.row import CorpusRow
from training_fla.data.augmentation import ClipAugmentation, Geometry, geometry_of, warp
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.data.packing import pack
from training_fla.errors import InputError

WHOLE = slice(0, 1000)


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
    return F.grid_sample(frames.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)


def turn(degrees, zoom=1.0, x=28.0, y=25.0):
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    return Geometry(np.array([[cos, -sin, x], [sin, cos, y]]), WHOLE, WHOLE)


@pytest.mark.parametrize("geometry", [turn(17), turn(-30, 1.2), turn(8, 0.7, 20, 31)])
def test_a_nearest_warp_is_what_grid_sample_gives(geometry):
    frames = smooth_clip()
    differs = warp(frames, geometry, 40) != reference_warp(frames, geometry.matrix, 40, "nearest")
    assert differs.float().mean() < 0.002  # places on the edge between two pixels


@pytest.mark.parametrize("zoom", [0.8, 1.2])
def test_a_resize_without_rotation_is_near_the_same_map(zoom):
    frames, geometry = smooth_clip(height=250, width=256), turn(0, zoom, 128, 125)
    difference = (warp(frames, geometry, 200).float() - reference_warp(frames, geometry.matrix, 200)).abs()
    assert difference.mean() < 2  # the window is cut at whole source pixels


def test_whole_pixel_shifts_move_pixels_and_leave_black_behind():
    frames = smooth_clip()
    inside = warp(frames, turn(0, x=27.0, y=22.0), 40)
    assert torch.equal(inside, frames[..., 2:42, 7:47])
    beyond = warp(frames, turn(0, x=17.0, y=22.0), 40)  # three columns to the left of the frame
    assert torch.equal(beyond[..., 3:], frames[..., 2:42, :37])
    assert not beyond[..., :3].any()
    below = warp(frames, turn(0, x=27.0, y=34.0), 40)
    assert torch.equal(below[..., :36, :], frames[..., 14:50, 7:47]) and not below[..., 36:, :].any()
    assert not warp(frames, turn(0, x=500.0, y=-500.0), 40).any()


def test_a_warp_neither_brightens_nor_darkens():
    for value in (0, 1, 100, 255):
        frames = torch.full((2, 3, 50, 56), value, dtype=torch.uint8)
        assert (warp(frames, turn(23, 1.3), 30) == value).all()
        assert (warp(frames, turn(0, 1.3), 40) == value).all()


def drawn_pattern(height=260, width=210) -> Image.Image:
    """Two circles and edges in both directions: turned, shifted or stretched otherwise it differs."""
    image = Image.new("RGB", (width, height), (90, 160, 40))
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 30, width - 20, height - 20), fill=(200, 180, 120))
    draw.ellipse((60, 50, 150, 140), fill=(230, 60, 50))
    draw.ellipse((110, 170, 150, 210), fill=(30, 60, 150))
    return image


def by_pil(image: Image.Image, drawn, crop: int) -> np.ndarray:
    """GFSLT-VLP's steps for one frame."""
    image = image.rotate(drawn.degrees)
    x, y = drawn.shift
    image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y)).resize((256, 256))
    left, top = drawn.corner
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


@pytest.fixture(scope="module")
def packed_pattern(tmp_path_factory):
    rows = [CorpusRow("a", DrawnVideo(lambda: np.asarray(drawn_pattern())[None]), "x", "train")]
    return pack(rows, tmp_path_factory.mktemp("pattern") / "out", size=256, num_workers=0)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_frame_of_210_x_260_is_varied_as_gfslt_varies_it(packed_pattern, demo_processor, probability):
    """Packed at 256 x 256 in between; what differs is interpolation and JPEG."""
    processor = copy.deepcopy(demo_processor)
    processor.video_processor.size = {"height": 256, "width": 256}
    augmentation = ClipAugmentation(224, probability=probability)
    videos = SignVideoDataset(PackedCorpus(packed_pattern, "train"), processor, augmentation=augmentation)
    differences, draws = [], []
    for epoch in range(24):
        videos.set_epoch(epoch)
        draws.append(augmentation.draw((256, 256), np.random.default_rng([0, epoch, 0])))
        ours = videos[0]["pixel_values_videos"][0].permute(1, 2, 0).numpy().astype(float)
        differences.append(np.abs(ours - by_pil(drawn_pattern(), draws[-1], 224)).mean())
    assert max(differences) < 2, differences
    is_varied = any(draw.degrees for draw in draws) and any(any(draw.shift) for draw in draws)
    assert is_varied == (probability > 0)


def test_a_corpus_without_the_size_of_its_source_is_turned_as_it_is_stored(packed_pattern, demo_processor, tmp_path):
    processor = copy.deepcopy(demo_processor)
    processor.video_processor.size = {"height": 256, "width": 256}
    corpus = PackedCorpus(as_packed_by_030(packed_pattern, tmp_path / "old"), "train")
    augmentation = ClipAugmentation(224, probability=1.0)
    drawn = augmentation.draw((256, 256), np.random.default_rng([0, 0, 0]))
    ours = SignVideoDataset(corpus, processor, augmentation=augmentation)[0]["pixel_values_videos"]
    square = geometry_of(drawn, (256, 256), (256, 256), 224)
    assert ours.equal(warp(corpus.read_frames(0, [0]), square, 224))
    assert np.allclose(square.matrix[0, :2] @ square.matrix[1, :2], 0)  # no shear


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
    draws = [augmentation.draw((50, 56), np.random.default_rng(seed)) for seed in range(2000)]
    matrices = np.stack([geometry_of(draw, (50, 56), (100, 90), 40).matrix for draw in draws])
    determinants = np.linalg.det(matrices[:, :, :2])
    assert (determinants > 0).all()
    zooms = np.array([draw.zoom for draw in draws])
    assert np.allclose(zooms, 1 / np.sqrt(determinants))
    angles = np.array([draw.degrees for draw in draws])
    assert 0.8 <= zooms.min() + 1e-9 < 0.82 and 1.18 < zooms.max() <= 1.2 + 1e-9
    assert -30 <= angles.min() + 1e-9 < -28 and 28 < angles.max() <= 30 + 1e-9
    assert 0.4 < (angles == 0).mean() < 0.6
    assert 0.2 < ((angles == 0) & (np.abs(zooms - 1) < 1e-9)).mean() < 0.3
    for axis in (0, 1):
        assert {draw.shift[axis] for draw in draws} == set(range(-10, 11))
    assert 0.4 < np.mean([draw.shift == (0, 0) for draw in draws]) < 0.6
    plain = [ClipAugmentation().draw((256, 256), np.random.default_rng(seed)).zoom for seed in range(50)]
    assert set(plain) == {1.0}


def test_without_other_draws_the_crop_alone_is_random_and_inside():
    frames = smooth_clip()
    augmentation = ClipAugmentation(40, probability=0.0)
    corners = set()
    for seed in range(300):
        cut = augmentation(frames, np.random.default_rng(seed))
        left, top = augmentation.draw((50, 56), np.random.default_rng(seed)).corner
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
    with pytest.raises(InputError, match="50 x 56 .*crop_size 52"):
        ClipAugmentation(52)(smooth_clip(), np.random.default_rng(0))
