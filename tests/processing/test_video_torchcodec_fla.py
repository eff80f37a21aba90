from pathlib import Path

import numpy as np
import pytest
import torch

from processing_fla import FlaVideoProcessor, VideoDecodeError, iterate_video_frames, probe_video
from processing_fla.video_torchcodec_fla import read_by_torchcodec, torchcodec_decoder, usual_stream

from .drawing import marked_frame, write_video
from .test_video_decoding_fla import CONTAINERS, S, set_display_matrix

needs_torchcodec = pytest.mark.skipif(
    torchcodec_decoder() is None, reason="torchcodec is not installed, or finds no FFmpeg"
)


def every_third(num_frames: int) -> np.ndarray:
    return np.arange(0, num_frames, 3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    frames = [marked_frame(number) for number in range(S)]
    names = {name: write_video(folder / name, frames, **options) for name, options in CONTAINERS.items()}
    names["turned.mp4"] = set_display_matrix(names["plain.mp4"], folder / "turned.mp4", 0, 1, -1, 0)
    names["mirrored.mp4"] = set_display_matrix(names["plain.mp4"], folder / "mirrored.mp4", -1, 0, 0, 1)
    names["ten_bits.mp4"] = write_video(folder / "ten_bits.mp4", frames, pix_fmt="yuv420p10le")
    names["full_range.mp4"] = write_video(
        folder / "full_range.mp4", frames, pix_fmt="yuvj420p", color_range=2, colorspace=1
    )
    return names


UNUSUAL = {"mirrored.mp4", "ten_bits.mp4"}
NAMES = [*CONTAINERS, "turned.mp4", "full_range.mp4", *sorted(UNUSUAL)]


# --- which files torchcodec may decode


@pytest.mark.parametrize("name", NAMES)
def test_mirrored_and_deep_colour_is_left_to_pyav(videos, name):
    assert usual_stream(videos[name])[1] == (0 if name in UNUSUAL else S)


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.avi", "plain.flv"])
def test_a_cut_off_file_is_left_to_pyav(videos, tmp_path, name):
    content = videos[name].read_bytes()
    cut = tmp_path / name
    for share in (0.5, 0.8, 0.95):
        cut.write_bytes(content[: int(share * len(content))])
        try:
            assert usual_stream(cut)[1] == 0, share
        except VideoDecodeError as error:
            assert name in str(error)


class Stand:
    """In torchcodec's place: black frames, of which the decoder says that there are `length`."""

    length = S

    def __init__(self, source, stream_index, dimension_order, num_ffmpeg_threads):
        assert source.startswith("file:") and (stream_index, dimension_order) == (0, "NHWC")

    def __len__(self):
        return self.length

    def get_frames_at(self, indices):
        self.data = torch.zeros((len(indices), 64, 96, 3), dtype=torch.uint8)
        return self


class Failing(Stand):
    def get_frames_at(self, indices):
        raise RuntimeError("invalid data")


class Short(Stand):
    length = S - 1


def black(batch) -> bool:
    return bool((batch["pixel_values_videos"] == 0).all())


@pytest.mark.parametrize("decoder", [Failing, Short, None])
def test_pyav_steps_in_where_torchcodec_fails_or_is_absent(videos, monkeypatch, decoder):
    monkeypatch.setattr("processing_fla.video_torchcodec_fla.torchcodec_decoder", lambda: decoder)
    assert read_by_torchcodec(videos["plain.mp4"], every_third) is None
    options = {"do_rescale": False, "do_normalize": False, "return_metadata": True, "return_tensors": "pt"}
    processors = FlaVideoProcessor(**options), FlaVideoProcessor(video_backend="torchcodec", **options)
    for call in ({}, {"random_frame_phase": True}, {"num_frames": 5}):
        batches = []
        for processor in processors:
            torch.manual_seed(0)
            batches.append(processor(videos["plain.mp4"], **call))
        assert torch.equal(*(batch["pixel_values_videos"] for batch in batches)), call
        assert [batch["video_metadata"][0].video_backend for batch in batches] == ["pyav", "pyav"]


def test_the_processor_takes_what_torchcodec_gives(videos, monkeypatch):
    monkeypatch.setattr("processing_fla.video_torchcodec_fla.torchcodec_decoder", lambda: Stand)
    processor = FlaVideoProcessor(do_rescale=False, do_normalize=False, return_metadata=True, return_tensors="pt")
    batch = processor(videos["plain.mp4"], video_backend="torchcodec")
    assert black(batch) and batch["attention_mask"].shape == (1, -(-S // 4))
    metadata = batch["video_metadata"][0]
    assert (metadata.video_backend, metadata.total_num_frames) == ("torchcodec", S)
    assert metadata.frames_indices.tolist() == list(range(0, S, 4))
    assert not black(processor(videos["mirrored.mp4"], video_backend="torchcodec"))
    assert not black(processor(videos["plain.mp4"]))


def test_the_choice_is_checked_and_saved(tmp_path):
    FlaVideoProcessor(video_backend="torchcodec").save_pretrained(tmp_path)
    assert FlaVideoProcessor.from_pretrained(tmp_path).video_backend == "torchcodec"
    with pytest.raises(ValueError, match="`video_backend` must be one of pyav, torchcodec, got 'decord'"):
        FlaVideoProcessor(video_backend="decord")
    with pytest.raises(ValueError, match="got 'decord'"):
        FlaVideoProcessor()(np.zeros((4, 8, 8, 3), np.uint8), video_backend="decord")


# --- the same frames, where torchcodec is installed


def assert_same_frames(path: Path) -> None:
    expected = list(iterate_video_frames(path))
    frames, indices, num_frames = read_by_torchcodec(path, every_third)
    assert num_frames == len(expected) and indices.tolist() == every_third(num_frames).tolist()
    assert frames.dtype == np.uint8
    # Two releases of FFmpeg may round differently.
    assert np.abs(frames.astype(int) - np.stack(expected)[indices]).max() <= 2


@needs_torchcodec
@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNUSUAL])
def test_torchcodec_gives_the_frames_that_pyav_gives(videos, name):
    assert_same_frames(videos[name])


@needs_torchcodec
@pytest.mark.real_data
def test_torchcodec_gives_the_frames_that_pyav_gives_of_real_videos(real_data):
    files = sorted((real_data / "how2sign/clips").glob("*/*.mp4"))[::8]
    usual = 0
    for path in [*files, *sorted((real_data / "video_files").iterdir())]:
        if usual_stream(path)[1]:
            probe_video(path)
            try:
                assert_same_frames(path)
                usual += 1
            except VideoDecodeError:
                assert path.name == "corrupted.mp4"
    assert usual >= len(files) + 5


@needs_torchcodec
@pytest.mark.real_data
def test_the_video_that_breaks_off_is_refused_with_torchcodec_too(real_data):
    with pytest.raises(VideoDecodeError, match=r"corrupted\.mp4"):
        FlaVideoProcessor(video_backend="torchcodec")(real_data / "video_files/corrupted.mp4")
