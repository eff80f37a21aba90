import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import set_seed
from transformers.video_utils import VideoMetadata

from processing_fla import FlaVideoProcessor, VideoDecodeError

from .drawing import BLUE, GREEN, GREY_STEP, RED, marked_frame, write_video

S, H, W = 13, 64, 96
RAW = {"do_rescale": False, "do_normalize": False}


@pytest.fixture(scope="module")
def processor() -> FlaVideoProcessor:
    return FlaVideoProcessor(size={"height": H, "width": W}, crop_size={"height": 56, "width": 80}, **RAW)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [marked_frame(number, H, W) for number in range(S)]


class Decoder:
    """In the place of torchcodec's `VideoDecoder`, which `datasets` gives for its videos."""

    def __init__(self, frames: torch.Tensor):
        self.frames, self.metadata = frames, SimpleNamespace(average_fps=25.0)

    def __len__(self) -> int:
        return len(self.frames)

    def get_frames_at(self, indices: list[int]):
        return SimpleNamespace(data=self.frames[indices])


@pytest.fixture(scope="module")
def forms(frames, tmp_path_factory) -> dict:
    """One video in every form that is accepted."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "frames").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"images{number + 1:04d}.png")
    path = write_video(folder / "clip.mkv", frames, pix_fmt="yuv444p")
    array = np.stack(frames)
    tensor = torch.from_numpy(array)
    return {
        "file name": str(path),
        "path": path,
        "folder": folder / "frames",
        "folder name": str(folder / "frames"),
        "array": array,
        "array, channels first": array.transpose(0, 3, 1, 2),
        "tensor": tensor,
        "tensor, channels first": tensor.permute(0, 3, 1, 2),
        "list of arrays": frames,
        "list of tensors": list(tensor.permute(0, 3, 1, 2)),
        "PIL images": [Image.fromarray(frame) for frame in frames],
        "bytes": path.read_bytes(),
        "row of a dataset": {"bytes": path.read_bytes(), "path": "clip.mkv"},
        "row that names a file": {"bytes": None, "path": str(path)},
        "decoder": Decoder(tensor.permute(0, 3, 1, 2)),
        "floats to 255": array.astype(np.float64),
        "floats to 1": torch.from_numpy(array / np.float32(255)),
        "batch of image paths": [sorted(str(file) for file in (folder / "frames").iterdir())],
    }


FORMS = [
    "file name", "path", "folder", "folder name", "array", "array, channels first", "tensor", "tensor, channels first",
    "list of arrays", "list of tensors", "PIL images", "batch of image paths", "bytes",
    "row of a dataset", "row that names a file", "decoder", "floats to 255", "floats to 1",
]  # fmt: skip


def numbers_in(pixels: torch.Tensor) -> list[int]:
    """The numbers that `marked_frame` wrote, from uint8 `(T, 3, h, w)` cropped in the middle."""
    height, width = pixels.shape[2:]
    grey = pixels[:, :, height // 2 + 6 : height // 2 + 10, width // 2 - 2 : width // 2 + 2].float().mean((1, 2, 3))
    return ((grey - 16) / GREY_STEP).round().int().tolist()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_video_gives_the_same_batch(processor, forms, form):
    batch = processor(forms[form], return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (1, 4, 3, 56, 80)
    assert batch["pixel_values_videos"].dtype == torch.uint8
    assert numbers_in(batch["pixel_values_videos"][0]) == [0, 4, 8, 12]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("form", FORMS)
def test_left_is_left_top_is_top_and_red_is_red(processor, forms, form):
    picture = processor(forms[form], return_tensors="pt")["pixel_values_videos"][0, 1].permute(1, 2, 0).int()
    for row, column, color in ((30, 2, RED), (30, 77, BLUE), (3, 3, GREEN), (3, 77, BLUE)):
        assert (picture[row, column] - torch.tensor(color)).abs().max() <= 10, (row, column)


@pytest.mark.parametrize(
    ("stride", "kept"), [(1, list(range(13))), (2, [0, 2, 4, 6, 8, 10, 12]), (4, [0, 4, 8, 12]), (8, [0, 8])]
)
def test_frame_stride_is_the_share_that_is_kept(forms, stride, kept):
    processor = FlaVideoProcessor(
        frame_stride=stride, size={"height": H, "width": W}, crop_size={"height": 56, "width": 80}, **RAW
    )
    for form in ("path", "folder", "array"):
        assert numbers_in(processor(forms[form], return_tensors="pt")["pixel_values_videos"][0]) == kept
    assert processor.sample_frame_indices(S).tolist() == kept


def test_training_draws_one_frame_of_each_window_and_repeats_with_the_seed(processor, forms):
    draws = set()
    for seed in range(12):
        runs = []
        for _ in range(2):
            set_seed(seed)
            batch = processor(forms["folder"], random_frame_phase=True, return_tensors="pt")
            runs.append(tuple(numbers_in(batch["pixel_values_videos"][0])))
        assert runs[0] == runs[1]
        assert [number // 4 for number in runs[0]] == [0, 1, 2, 3]
        draws.add(runs[0])
    assert len(draws) > 6
    set_seed(5)
    expected = numbers_in(
        processor(forms["folder"], random_frame_phase=True, return_tensors="pt")["pixel_values_videos"][0]
    )
    set_seed(5)
    batch = processor(forms["path"], random_frame_phase=True, return_tensors="pt")
    assert numbers_in(batch["pixel_values_videos"][0]) == expected  # a file, whose length is not known, draws the same


def test_ragged_batches_of_mixed_forms_are_padded_and_masked(processor, forms):
    videos = [forms["path"], forms["array"][:5], forms["PIL images"][:1], forms["folder"]]
    batch = processor(videos, return_tensors="pt")
    pixels, mask = batch["pixel_values_videos"], batch["attention_mask"]
    assert pixels.shape == (4, 4, 3, 56, 80)
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert mask.dtype == torch.long and (pixels[mask == 0] == 0).all()
    for row, video in enumerate(videos):
        alone = processor([video] if isinstance(video, list) else video, return_tensors="pt")["pixel_values_videos"][0]
        assert torch.equal(pixels[row, : len(alone)], alone)


def test_without_return_tensors_nothing_is_padded(processor, forms):
    batch = processor([forms["array"], forms["array"][:5]])
    assert [len(video) for video in batch["pixel_values_videos"]] == [4, 2]
    assert [mask.tolist() for mask in batch["attention_mask"]] == [[1, 1, 1, 1], [1, 1]]


def test_defaults_are_256_to_224_normalised_with_imagenet_statistics():
    grey = np.random.default_rng(0).integers(0, 256, (5, 512, 768, 1), np.uint8)
    video = np.repeat(grey, 3, axis=3)  # colours are averaged over twice the width, as in the video files they are in
    pixels = FlaVideoProcessor()(video, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 2, 3, 224, 224) and pixels.dtype == torch.float32
    area = torch.from_numpy(video[::4].reshape(2, 256, 2, 256, 3, 3).mean((2, 4))).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    difference = (pixels[0] * std + mean) * 255 - area[..., 16:240, 16:240]
    assert difference.abs().max() < 4 and difference.abs().mean() < 1


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_from_0_to_1_are_never_scaled_again(scale):
    video = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3)).astype(np.float32)
    processor = FlaVideoProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32})
    expected = processor(video.astype(np.uint8), return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(processor(video / scale, return_tensors="pt")["pixel_values_videos"], expected)
    if scale == 255:  # as other processors of transformers are called with floats from 0 to 1
        unscaled = processor(video / scale, do_rescale=False, return_tensors="pt")["pixel_values_videos"]
        assert torch.allclose(unscaled, expected)


def test_pixels_of_no_known_range_are_refused():
    with pytest.raises(ValueError, match="from 0 to 255, or floats from 0 to 1; got values from -2 to 2"):
        FlaVideoProcessor()(np.linspace(-2, 2, 4 * 8 * 8 * 3).reshape(4, 8, 8, 3), frame_stride=1)
    with pytest.raises(ValueError, match="got values from 300 to 300"):
        FlaVideoProcessor()(np.full((4, 8, 8, 3), 300))


def test_uint8_output_is_the_float_output_before_normalising():
    video = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), np.uint8)
    processor = FlaVideoProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32})
    raw = processor(video, **RAW, return_tensors="pt")["pixel_values_videos"]
    pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    assert raw.dtype == torch.uint8
    assert torch.allclose((raw / 255 - mean) / std, pixels, atol=1e-5)


def test_folders_open_only_the_images_they_keep(processor, forms, tmp_path):
    for number, file in enumerate(sorted(forms["folder"].iterdir())):
        content = file.read_bytes() if number % 4 == 0 else b"would fail if it were opened"
        (tmp_path / file.name).write_bytes(content)
    assert numbers_in(processor(tmp_path, return_tensors="pt")["pixel_values_videos"][0]) == [0, 4, 8, 12]
    with pytest.raises(VideoDecodeError, match=r"images0002\.png"):
        processor(tmp_path, frame_stride=1, return_tensors="pt")


def test_files_convert_only_the_frames_they_keep(processor, forms, monkeypatch):
    from processing_fla import frame_conversion_fla

    converted = []
    convert = frame_conversion_fla.RgbConverter.__call__
    monkeypatch.setattr(
        frame_conversion_fla.RgbConverter,
        "__call__",
        lambda self, frame, spaced=False: converted.append(frame) or convert(self, frame, spaced),
    )
    processor(forms["path"], return_tensors="pt")
    assert len(converted) == 4


@pytest.mark.parametrize("form", ["path", "folder", "array"])
def test_number_and_rate_of_frames_can_be_asked_for_instead(processor, forms, form):
    batch = processor(forms[form], num_frames=3, return_tensors="pt")
    assert numbers_in(batch["pixel_values_videos"][0]) == [0, 4, 8]
    if form == "path":  # 13 frames at 25 a second
        assert processor(forms[form], fps=5, return_tensors="pt")["pixel_values_videos"].shape[1] == 2
    with pytest.raises(ValueError, match="num_frames=99"):
        processor(forms[form], num_frames=99)


def test_metadata_says_which_frames_were_kept(processor, forms):
    metadata = processor([forms["path"], forms["array"][:6]], return_metadata=True)["video_metadata"]
    assert metadata[0].total_num_frames == 13 and metadata[0].fps == 25 and metadata[0].duration == pytest.approx(0.52)
    assert metadata[0].frames_indices.tolist() == [0, 4, 8, 12]
    assert metadata[1].total_num_frames == 6 and metadata[1].frames_indices.tolist() == [0, 4]


def test_metadata_that_contradicts_the_video_is_refused(processor, forms):
    with pytest.raises(ValueError, match="40 frames.* 13"):
        processor(forms["array"], video_metadata=[VideoMetadata(total_num_frames=40)])
    with pytest.raises(ValueError, match="Received 2 videos but 1 `video_metadata` entries"):
        processor([forms["array"]] * 2, video_metadata=[{"total_num_frames": 13}])


def test_palette_grey_and_transparent_images_become_rgb(processor, frames):
    for mode in ("P", "L", "RGBA", "CMYK"):
        video = [Image.fromarray(frame).convert(mode) for frame in frames[:4]]
        pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
        assert pixels.shape[2] == 3 and numbers_in(pixels[0]) == [0], mode
    grey = processor(np.zeros((4, H, W, 1), np.uint8), return_tensors="pt")["pixel_values_videos"]
    assert grey.shape == (1, 1, 3, 56, 80)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (3, "A video must be a path, a list of images, or an array .* got int 3"),
        ([], "A video must be"),
        ([[]], "A video must be"),
        (np.zeros((4, 4)), r"got an array of shape \(4, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one frame"),
        (
            [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)],
            r"of one size, got \[\(8, 8, 3\), \(8, 9, 3\)\]",
        ),
        ([None], "got NoneType None"),
        ({"video": "a.mp4"}, "must hold `bytes` or `path`; this one holds video"),
        ({"bytes": None, "path": None}, "must hold `bytes` or `path`"),
    ],
)
def test_what_is_no_video_is_refused_with_what_it_was(videos, message):
    with pytest.raises(ValueError, match=message):
        FlaVideoProcessor(frame_stride=1)(videos, return_tensors="pt")


def test_a_bad_clip_in_a_batch_is_named(processor, forms, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoDecodeError, match=r"empty\.mp4` is empty \(0 bytes\)"):
        processor([forms["path"], tmp_path / "empty.mp4"], return_tensors="pt")


def test_unequal_sizes_without_resizing_are_refused():
    processor = FlaVideoProcessor(do_resize=False, do_center_crop=False)
    with pytest.raises(ValueError, match="one frame size"):
        processor([np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 8, 9, 3), np.uint8)], return_tensors="pt")
    with pytest.raises(ValueError, match=r"\[1, 2\] .*`do_pad=False`"):
        processor(
            [np.zeros((4, 8, 8, 3), np.uint8), np.zeros((8, 8, 8, 3), np.uint8)], do_pad=False, return_tensors="pt"
        )


@pytest.mark.parametrize("name", ["frame_stride", "max_source_frames", "max_sampled_frames"])
@pytest.mark.parametrize("number", [0, -2, 1.5])
def test_a_stride_or_limit_below_one_is_refused(processor, name, number):
    frames = np.zeros((9, H, W, 3), np.uint8)
    for use in (lambda: FlaVideoProcessor(**{name: number}), lambda: processor(frames, **{name: number})):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1, got {number}"):
            use()


@pytest.mark.parametrize("size", [0, 8, {"height": 8}, {"height": 8, "width": 0}])
def test_a_packed_size_that_is_none_is_refused(processor, size):
    frames = np.zeros((9, H, W, 3), np.uint8)
    for use in (lambda: FlaVideoProcessor(packed_size=size), lambda: processor(frames, packed_size=size)):
        with pytest.raises(ValueError, match="`packed_size` must have a `height` and a `width`"):
            use()


def test_a_processor_that_was_saved_by_version_0_1_0_loads(tmp_path, forms):
    saved = FlaVideoProcessor(size={"height": H, "width": W}, **RAW).to_dict()
    saved.pop("max_source_frames", None)
    saved |= {"video_backend": "torchcodec", "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    old = FlaVideoProcessor.from_pretrained(tmp_path)
    assert old.max_source_frames is None
    now = FlaVideoProcessor(size={"height": H, "width": W}, **RAW)
    small = {"size": {"height": 30, "width": 30}, "do_center_crop": False, "return_tensors": "pt"}
    batches = [processor(forms["path"], **small) for processor in (old, now)]
    assert torch.equal(*(batch["pixel_values_videos"] for batch in batches))


def test_saved_options_come_back(tmp_path):
    processor = FlaVideoProcessor(
        frame_stride=8,
        max_source_frames=99,
        size={"height": 40, "width": 48},
        crop_size={"height": 32, "width": 36},
        image_mean=[0.1, 0.2, 0.3],
    )
    processor.save_pretrained(tmp_path)
    again = FlaVideoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert (again.frame_stride, again.max_source_frames, dict(again.size), dict(again.crop_size)) == (
        8, 99, {"height": 40, "width": 48}, {"height": 32, "width": 36},
    )  # fmt: skip
    assert FlaVideoProcessor.from_pretrained(tmp_path, frame_stride=2).frame_stride == 2


@pytest.mark.real_data
def test_real_signing_becomes_a_batch(real_data):
    folder = real_data / "how2sign" / "clips"
    videos = sorted(folder.glob("*/*.mp4"))[:2] + [real_data / "video_files" / "signing_540x720.mp4"]
    batch = FlaVideoProcessor()(videos, return_tensors="pt", return_metadata=True)
    lengths = [-(-metadata.total_num_frames // 4) for metadata in batch["video_metadata"]]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["pixel_values_videos"].shape == (3, max(lengths), 3, 224, 224)
