import os
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from processing_fla import FlaVideoProcessor, VideoDecodeError
from processing_fla.frame_conversion_fla import RgbConverter, scaled
from processing_fla.video_reading_fla import (
    OpenVideo,
    frame_files,
    frame_gaps,
    is_frame_folder,
    is_video_file,
    open_video,
    read_frame_files,
    read_frames,
    video_length,
)

from .drawing import (
    BLUE,
    GREEN,
    RED,
    hidden_frame_webm,
    late_video,
    marked_frame,
    number_of,
    timed_frames,
    write_video,
)

S = 23
CONTAINERS = {
    "plain.mp4": {"codec": "libx264"},
    "fragments.mp4": {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "faststart.mov": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "plain.mkv": {"codec": "libx264"},
    "recorded.webm": {"codec": "libvpx", "options": {"g": "10"}, "container_options": {"live": "1"}},
    "plain.webm": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime"}},
    "plain.avi": {"codec": "mpeg4", "options": {"g": "10", "qscale": "2"}},
    "plain.flv": {"codec": "libx264"},
    "plain.ts": {"codec": "libx264"},
    "plain.wmv": {"codec": "wmv2", "options": {"g": "10"}},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    """One short video in each container, its frames numbered."""
    folder = tmp_path_factory.mktemp("videos")
    frames = [marked_frame(number) for number in range(S)]
    return {name: write_video(folder / name, frames, **options) for name, options in CONTAINERS.items()}


def frames_of(path, *times, **options) -> Iterator[np.ndarray]:
    return (frame for _, frame in timed_frames(path, *times, **options))


def frame_of(path, number: int) -> np.ndarray:
    return list(frames_of(path))[number]


def close_to(pixel, color, tolerance=12) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - color).max() <= tolerance)


# --- which frames


def sample_frame_indices(num_frames, stride, max_source_frames=None, generator=None) -> np.ndarray:
    processor = FlaVideoProcessor(frame_stride=stride, max_source_frames=max_source_frames)
    return processor.sample_frame_indices(num_frames, generator)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_frame_comes_out_once_and_in_order(videos, name):
    frames = list(frames_of(videos[name]))
    assert [number_of(frame) for frame in frames] == list(range(S))
    assert frames[0].shape == (64, 96, 3) and frames[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("num_frames", "stride", "kept"),
    [
        (1, 4, [0]),
        (3, 4, [0]),
        (4, 4, [0]),
        (5, 4, [0, 4]),
        (9, 8, [0, 8]),
        (5, 1, [0, 1, 2, 3, 4]),
        (5, 2, [0, 2, 4]),
    ],
)
def test_evaluation_keeps_the_first_frame_of_each_window(num_frames, stride, kept):
    assert sample_frame_indices(num_frames, stride).tolist() == kept


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 300])
def test_training_keeps_one_frame_of_each_window(num_frames):
    generator = np.random.default_rng(0)
    draws = np.stack([sample_frame_indices(num_frames, 4, generator=generator) for _ in range(200)])
    assert (draws // 4 == np.arange(draws.shape[1])).all() and draws.max() < num_frames
    for window, column in enumerate(draws.T):
        assert set(column) == set(range(4 * window, min(4 * window + 4, num_frames)))


def test_long_videos_are_thinned_evenly_before_the_stride():
    assert sample_frame_indices(475, 4, max_source_frames=475).tolist() == list(range(0, 475, 4))
    thinned = sample_frame_indices(475, 4, max_source_frames=300)
    assert len(thinned) == 75 and thinned[0] == 0 and set(np.diff(thinned)) == {6, 7}
    every = sample_frame_indices(475, 1, max_source_frames=300)
    assert len(every) == 300 and every[-1] == 474 and every[::4].tolist() == thinned.tolist()


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_length_of_a_file_is_known_before_it_is_decoded(videos, name, monkeypatch):
    monkeypatch.setattr(OpenVideo, "timed_frames", None)
    length = video_length(videos[name])
    assert (length.total_num_frames, length.fps) == (S, pytest.approx(25, rel=0.01))
    assert length.duration == pytest.approx(S / 25, rel=0.01)


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv"])  # with an index of its frames, and without
@pytest.mark.parametrize("indices", [[0], [3, 4, 22], [0, 4, 8, 12, 16, 20], list(range(S))])
def test_the_frames_that_are_asked_for_come_with_their_times(videos, name, indices):
    frames, metadata = read_frames(videos[name], np.array(indices))
    assert (metadata.total_num_frames, metadata.height, metadata.width) == (S, 64, 96)
    assert (metadata.fps, metadata.duration) == (pytest.approx(25), pytest.approx(S / 25))
    assert [number_of(frame) for frame in frames] == metadata.frames_indices.tolist() == indices
    assert metadata.timestamps == pytest.approx(np.array(indices) / 25, abs=1e-3)
    assert metadata.video_backend == "pyav"


def test_of_frames_behind_the_end_there_are_none(videos):
    frames, metadata = read_frames(videos["plain.mkv"], np.array([21, 30]))
    assert [number_of(frame) for frame in frames] == metadata.frames_indices.tolist() == [21]
    frames, metadata = read_frames(videos["plain.mkv"], np.array([30]))
    assert len(frames) == len(metadata.frames_indices) == 0 and metadata.total_num_frames == S


@pytest.mark.parametrize("limit", [None, 10])
@pytest.mark.parametrize("seed", [None, 3])
def test_frames_are_chosen_by_the_frames_that_are_shown_not_by_the_packets(tmp_path, limit, seed):
    """A frame of VP9 is hidden in a packet and shown by another: 13 packets, 12 frames."""
    path = hidden_frame_webm(tmp_path / "hidden.webm")
    assert video_length(path).total_num_frames == 13
    processor = FlaVideoProcessor(
        frame_stride=3, max_source_frames=limit, do_resize=False, do_center_crop=False, random_frame_phase=bool(seed)
    )
    draw = None if seed is None else torch.manual_seed(seed)
    batch = processor(path, do_rescale=False, do_normalize=False, return_metadata=True)
    if draw is not None:
        torch.manual_seed(seed)
        draw = np.random.default_rng(int(torch.randint(2**62, ())))
    (metadata,) = batch["video_metadata"]
    assert metadata.total_num_frames == 12
    assert metadata.frames_indices.tolist() == processor.sample_frame_indices(12, draw).tolist()
    shown = [number_of(frame.permute(1, 2, 0).numpy()) for frame in batch["pixel_values_videos"][0]]
    assert shown == metadata.frames_indices.tolist()


def test_sampling_from_nothing_is_an_error():
    with pytest.raises(ValueError, match="got 0"):
        sample_frame_indices(0, 4)


# --- times


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.ts", "plain.avi"])
def test_a_segment_of_a_video_is_cut_at_its_times(videos, name):
    frames = frames_of(videos[name], start_seconds=12 / 25, end_seconds=17 / 25)
    assert [number_of(frame) for frame in frames] == [12, 13, 14, 15, 16]


def test_a_segment_may_end_beyond_the_video_but_not_start_there(videos):
    frames = frames_of(videos["plain.mp4"], start_seconds=0.8, end_seconds=9.0)
    assert [number_of(frame) for frame in frames] == [20, 21, 22]
    with pytest.raises(VideoDecodeError, match=r"no frame between 5\.0 s and 6\.0 s"):
        list(frames_of(videos["plain.mp4"], start_seconds=5.0, end_seconds=6.0))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_at_irregular_times_are_all_there(tmp_path, suffix):
    times = [0, 10, 200, 210, 700, 701, 1500, 1533, 1566, 4000]
    path = write_video(tmp_path / f"irregular{suffix}", [marked_frame(n) for n in range(10)], times=times)
    assert [number_of(frame) for frame in frames_of(path)] == list(range(10))
    assert [number_of(f) for f in frames_of(path, start_seconds=0.2, end_seconds=1.5)] == [2, 3, 4, 5]


def test_frame_times_are_the_frames_own_where_the_header_states_a_clock(tmp_path):
    """As browsers record: the header states 1000 frames a second, 20 are shown."""
    path = write_video(
        tmp_path / "recording.webm",
        [marked_frame(number) for number in range(24)],
        codec="libvpx",
        times=[50 * number for number in range(24)],
        options={"deadline": "realtime"},
        container_options={"live": "1"},
    )
    with open_video(path) as video:
        assert video.fps == 1000  # what the header states
    seconds, frames = zip(*timed_frames(path), strict=True)
    assert seconds == pytest.approx(np.arange(24) / 20, abs=1e-3)
    assert list(map(number_of, frames)) == list(range(24))
    assert numbers_in(path, 0.3, 0.6) == [6, 7, 8, 9, 10, 11]
    with open_video(path) as video:
        assert [number_of(frame) for _, frame in video.rgb_frames(0.3, 0.6, frame_stride=3)] == [6, 9]
    assert (video.num_frames, video.last_seconds, video.fps) == (6, pytest.approx(0.55), pytest.approx(20, rel=0.01))


def test_frame_times_count_from_the_start_of_the_container(tmp_path):
    path = late_video(tmp_path / "late.mp4")
    assert [seconds for seconds, _ in timed_frames(path)] == pytest.approx(2 + np.arange(20) / 10, abs=1e-3)
    assert numbers_in(path, 2.5, 3.5) == list(range(5, 15))
    assert numbers_in(path, 0.0, 2.2) == [0, 1]
    with open_video(path) as video:
        assert video.end_seconds == pytest.approx(4.0, abs=0.01)
    with pytest.raises(VideoDecodeError, match=r"late\.mp4` .*0\.5 s .*1\.5 s"):
        numbers_in(path, 0.5, 1.5)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_that_an_avi_file_reorders_are_in_time(tmp_path, codec):
    frames = [marked_frame(number) for number in range(S)]
    options = {"bf": "2", "g": "12"} | ({"crf": "4"} if codec == "libx264" else {"qscale": "2"})
    path = write_video(tmp_path / "reordered.avi", frames, codec=codec, options=options)
    assert [seconds for seconds, _ in timed_frames(path)] == pytest.approx(np.arange(S) / 25)
    assert numbers_in(path, 0.4, 0.6) == pytest.approx([10, 11, 12, 13, 14], abs=1)  # mpeg4 is coarse


def test_a_frame_that_is_hidden_and_shown_later_is_one_frame(tmp_path):
    assert numbers_in(hidden_frame_webm(tmp_path / "hidden.webm")) == list(range(12))


def test_a_wrong_length_in_a_header_is_not_believed(videos, tmp_path):
    """`mdhd` in the time scale of the movie, as one browser writes it: it states a few milliseconds."""
    content = bytearray(videos["plain.mp4"].read_bytes())
    place = content.index(b"mdhd") + 20
    struct.pack_into(">I", content, place, 1000)
    path = tmp_path / "mdhd.mp4"
    path.write_bytes(content)
    assert numbers_in(path) == list(range(S))
    with open_video(path) as video:
        assert video.end_seconds == pytest.approx(S / 25, abs=0.01)


def test_the_rate_of_a_single_frame_is_known_when_the_file_is_closed(tmp_path):
    path = write_video(tmp_path / "one.mp4", [marked_frame(1)], rate=10)
    with open_video(path) as video:
        assert len(list(video.timed_frames())) == 1
        video.stream = None  # nothing asks FFmpeg for what was freed
    assert video.fps == 10
    _, metadata = read_frames(path, np.arange(1))
    assert metadata.fps == 10 and metadata.duration == 0.1


def test_times_too_large_to_be_told_apart_have_the_rate_of_the_header(tmp_path):
    with open_video(write_video(tmp_path / "a.mp4", [marked_frame(1)] * 3, rate=10)) as video:
        video.num_frames, video.first_seconds, video.last_seconds = 2, 1e18, 1e18
        assert video.fps == 10


def test_another_stream_that_begins_in_the_middle_of_a_file_does_not_matter(videos):
    """PyAV then fails at the end, when it has given all of the stream that was there from the start."""

    class ContainerWithAnotherStream:
        def __init__(self, container):
            self.container, self.format = container, container.format

        def demux(self, stream):
            yield from self.container.demux(stream)
            raise IndexError("list index out of range")

    with open_video(videos["plain.mp4"]) as video:
        video.container = ContainerWithAnotherStream(video.container)
        assert len(list(video.timed_frames())) == S


def test_an_animated_gif_is_a_video(tmp_path):
    from PIL import Image

    first, *others = [Image.fromarray(marked_frame(number)) for number in range(5)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=100)
    assert numbers_in(tmp_path / "a.gif") == [0, 1, 2, 3, 4]
    assert [seconds for seconds, _ in timed_frames(tmp_path / "a.gif")] == pytest.approx(np.arange(5) / 10)


@pytest.mark.parametrize("name", ["plain.mp4", "plain.webm"])
def test_the_bytes_of_a_file_are_read_as_the_file_is(videos, name):
    assert numbers_in(videos[name].read_bytes(), 0.2, 0.4) == numbers_in(videos[name], 0.2, 0.4) == [5, 6, 7, 8, 9]
    with pytest.raises(VideoDecodeError, match="a video given as bytes is empty"):
        numbers_in(b"")
    with pytest.raises(VideoDecodeError, match="`video given as bytes` cannot be decoded"):
        numbers_in(b"no video")


def test_a_file_may_be_read_in_several_threads_while_another_one_is_damaged(videos, tmp_path):
    """What FFmpeg logs of one file is no error of the others, and no log goes on after reading."""
    import av

    content = videos["plain.mkv"].read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    files, level = [videos["plain.mkv"], tmp_path / "cut.mkv"] * 6, av.logging.get_level()  # torchvision may set it
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(frames_or_error, files))
    assert all(frames is not None and len(frames) == S for frames in read[::2]) and read[1::2] == [None] * 6
    assert av.logging.get_level() == level


# --- colour, size and orientation


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p", "yuvj420p"])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 5, 9])
def test_colors_survive_range_depth_and_matrix(tmp_path, pix_fmt, color_range, colorspace):
    if pix_fmt == "yuvj420p" and color_range == 1:
        pytest.skip("yuvj420p is full range by its name")
    path = write_video(
        tmp_path / "video.mp4", [marked_frame(15)] * 3, pix_fmt=pix_fmt, color_range=color_range, colorspace=colorspace
    )
    frame = frame_of(path, 1)
    for row, column, color in ((40, 8, RED), (40, 88, BLUE), (5, 5, GREEN), (48, 48, (136, 136, 136))):
        assert close_to(frame[row, column], color, tolerance=6), (row, column, frame[row, column])


def test_luma_is_expanded_by_the_standard_formula():
    """Independent of FFmpeg's own way back: limited range 16..235 becomes 0..255, full range stays."""
    import av

    for color_range, luma, grey in ((1, 16, 0), (1, 235, 255), (1, 126, 128), (2, 0, 0), (2, 255, 255), (2, 128, 128)):
        planes = np.full((48, 32), 128, np.uint8)  # 32 rows of luma, then the two chroma planes
        planes[:32] = luma
        frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
        frame.color_range = color_range
        assert np.abs(RgbConverter(Path("drawn"))(frame).astype(int) - grey).max() <= 1, (color_range, luma)


def yuv_frame(name: str, rows, curve: int, primaries: int):
    """A frame of grey rows, given as values from 0 to 1 of a signal of limited range."""
    frame = av.VideoFrame(32, 2 * len(rows), name)
    depth, kind = (10, np.uint16) if "10" in name else (8, np.uint8)
    for number, plane in enumerate(frame.planes):
        pixels = np.frombuffer(plane, kind).reshape(plane.height, -1)
        luma = np.repeat([[round((16 + 219 * row) * 2 ** (depth - 8))] for row in rows], 2, axis=0)
        pixels[:] = luma if number == 0 else 1 << (depth - 1)
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = curve, primaries, 9, 1
    return frame


@pytest.mark.parametrize(("curve", "white", "grey"), [(18, 0.75, 0.282), (16, 0.5807, 0.3583)])
def test_white_of_a_high_dynamic_range_is_white_on_a_screen(curve, white, grey):
    """HLG (18) and PQ (16) of BT.2100, with white and a tenth of its light as BT.2408 places them; 1 is brighter."""
    frame = yuv_frame("yuv420p10le", [0, grey, white, 1], curve, 9)
    pixels = RgbConverter("drawn")(frame).astype(int)
    assert np.abs(pixels[1::2, 16] - [[0], [89], [255], [255]]).max() <= 2  # 89: 0.1 by sRGB's curve
    spaced = RgbConverter("drawn")(frame, spaced=True)
    assert spaced.shape == (8, 32, 4) and np.array_equal(spaced[..., :3], pixels)


def test_colours_of_a_high_dynamic_range_are_those_of_a_screen():
    """Red of BT.709 in BT.2020 has 0.6274, 0.0691 and 0.0164 of its light."""
    rgb = np.empty((16, 32, 3), np.uint8)
    rgb[:] = np.rint(255 * np.sqrt(3 * 0.265 * np.array([0.6274, 0.0691, 0.0164]) * 0.3))  # HLG of a third of white
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    frame.color_trc, frame.color_primaries = 18, 9
    red, green, blue = RgbConverter("drawn")(frame)[8, 16].astype(int)
    assert abs(red - 149) <= 2 and green < 20 and blue < 20


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [(".mpg", "mpeg2video", {"flags": "+ilme+ildct", "q:v": "2"}), (".mp4", "libx264", {"x264-params": "tff=1"})],
)
def test_of_an_interlaced_frame_one_moment_is_kept(tmp_path, suffix, codec, options):
    """The upper rows show a hand to the left, the lower ones to the right."""
    frame = np.full((96, 128, 3), 40, np.uint8)
    frame[0::2, 16:48] = frame[1::2, 80:112] = 220
    path = write_video(tmp_path / f"a{suffix}", [frame] * 4, codec=codec, options=options)
    for size in (None, (24, 64)):
        shown = list(frames_of(path, size=size))[1][..., 1]
        columns = shown.mean(0)[:: shown.shape[1] // 16]
        assert shown.std(0).max() < 8 and shown.shape == (size or (96, 128))
        assert columns[3:5].min() > 200 and columns[11:13].max() < 60


@pytest.mark.parametrize(("height", "width"), [(97, 65), (33, 51), (130, 48)])
def test_odd_and_portrait_sizes_keep_their_shape(tmp_path, height, width):
    frames = [marked_frame(number, height, width) for number in range(4)]
    path = write_video(tmp_path / "odd.mp4", frames, pix_fmt="yuv444p")
    decoded = list(frames_of(path))
    assert decoded[0].shape == (height, width, 3)
    assert [number_of(frame) for frame in decoded] == [0, 1, 2, 3]


def set_display_matrix(path: Path, target: Path, xx: float, xy: float, yx: float, yy: float) -> Path:
    """Write a rotation into the track header of an MP4 file, as telephones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4
    place += 40 if content[place] == 0 else 52  # up to the matrix, by version of the box
    fixed = [round(value * 65536) for value in (xx, xy)] + [0] + [round(value * 65536) for value in (yx, yy)]
    content[place : place + 20] = struct.pack(">5i", *fixed)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda frame: frame),
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
        ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    ],
)
def test_rotation_in_side_data_stands_the_frame_upright(videos, tmp_path, matrix, turn):
    path = set_display_matrix(videos["plain.mp4"], tmp_path / "turned.mp4", *matrix)
    frame, expected = frame_of(path, 3), turn(frame_of(videos["plain.mp4"], 3))
    assert np.array_equal(frame, expected)


def test_a_quarter_turn_puts_the_marks_where_they_belong(videos, tmp_path):
    """Absolute places, not another program's idea of a rotation: clockwise, left becomes top."""
    path = set_display_matrix(videos["plain.mp4"], tmp_path / "turned.mp4", 0, 1, -1, 0)
    frame = frame_of(path, 0)
    assert frame.shape == (96, 64, 3)
    assert close_to(frame[5, 60], GREEN) and close_to(frame[10, 2], RED) and close_to(frame[90, 2], BLUE)


def test_scaling_happens_before_the_turn_and_ends_at_the_size_asked_for(videos, tmp_path):
    path = set_display_matrix(videos["plain.mp4"], tmp_path / "turned.mp4", 0, 1, -1, 0)
    frame = next(frames_of(path, size=(48, 20)))
    assert frame.shape == (48, 20, 3)
    assert close_to(frame[2, 18], GREEN, 20) and close_to(frame[44, 2], BLUE, 20)


def test_a_title_that_is_not_utf8_does_not_matter(videos, tmp_path):
    titled = tmp_path / "titled.mp4"
    with av.open(str(videos["plain.mp4"])) as source, av.open(str(titled), "w") as target:
        target.metadata["title"] = "Gruesse"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    titled.write_bytes(titled.read_bytes().replace(b"Gruesse", b"Gr\xfc\xdfe!!"))
    assert np.array_equal(frame_of(titled, 3), frame_of(videos["plain.mp4"], 3))


def test_a_slanted_rotation_is_refused(videos, tmp_path):
    path = set_display_matrix(videos["plain.mp4"], tmp_path / "slanted.mp4", 0.7, 0.7, -0.7, 0.7)
    with pytest.raises(VideoDecodeError, match=r"slanted\.mp4` .*angle"):
        frame_of(path, 0)


def test_frames_in_memory_and_image_files_are_scaled_as_the_frames_of_a_file_are(videos):
    frames = np.stack([marked_frame(number) for number in range(3)])
    assert scaled(frames, None) is frames and scaled(frames, (64, 96)) is frames
    ours = scaled(frames, (20, 31)).astype(int)
    decoded = np.stack(list(frames_of(videos["plain.mp4"], size=(20, 31)))[:3])
    assert ours.shape == decoded.shape and np.abs(ours - decoded).mean() < 3  # what the codec changed
    means = frames.reshape(3, 16, 4, 24, 4, 3).mean((2, 4))  # by whole factors, the area scaler takes means
    assert np.abs(scaled(frames, (16, 24)) - means).max() <= 6
    grey = scaled(frames[..., :1], (20, 31))
    assert grey.shape == (3, 20, 31, 1) and np.abs(grey[..., 0] - ours[..., 0]).mean() < 3


# --- what is refused


def test_an_address_is_no_file_and_a_strange_name_is_one(videos, tmp_path):
    strange = tmp_path / "a b#c%20d:e?.mp4"
    shutil.copy(videos["plain.mp4"], strange)
    assert numbers_in(str(strange)) == list(range(S))
    with pytest.raises(VideoDecodeError, match=r"`https://example.org/a.mp4`.*download"):
        numbers_in("https://example.org/a.mp4")


def test_names_that_look_like_protocols_or_options_are_files(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "-i.mp4", "pipe:0"):
        shutil.copy(videos["plain.mp4"], name)
        assert numbers_in(name) == list(range(S))


def write_sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def unreadable_files(folder: Path) -> dict[str, tuple[Path, str]]:
    from PIL import Image

    def file(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    picture = folder / "still.png"
    Image.fromarray(marked_frame(0)).save(picture)
    playlist = b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n"
    return {
        "nothing": (file("nothing.mp4", b""), "is empty"),
        "missing": (folder / "missing.mp4", "does not exist"),
        "folder": (folder, "is a folder"),
        "still": (picture, "is an image file: make an mp4"),
        "still in disguise": (file("still.mp4", picture.read_bytes()), "cannot be decoded"),
        "sound": (write_sound(folder / "sound.m4a"), "holds no video stream, only audio"),
        "text": (file("text.mp4", b"not a video\n" * 100), "cannot be decoded"),
        "playlist": (file("list.mp4", playlist), "cannot be decoded"),
        "zeros": (file("zeros.mp4", bytes(5000)), "cannot be decoded"),
        "device": (Path("/dev/zero"), "not a regular file"),
    }


@pytest.mark.parametrize(
    "kind",
    ["nothing", "missing", "folder", "still", "still in disguise", "sound", "text", "playlist", "zeros", "device"],
)
def test_what_is_no_video_is_refused_by_name(tmp_path, kind):
    path, reason = unreadable_files(tmp_path)[kind]
    with pytest.raises(VideoDecodeError, match=reason) as error:
        numbers_in(path)
    assert str(path) in str(error.value)


def frames_or_error(path: Path) -> list[bytes] | None:
    """All frames of a file, or `None` if it was refused by name."""
    try:
        return [frame.tobytes() for frame in frames_of(path)]
    except VideoDecodeError as error:
        assert str(path) in str(error)
        return None


# A cut between two packets, or two fragments, leaves a whole shorter video in these: nothing can tell.
WITHOUT_END = {"fragments.mp4", "plain.flv", "plain.ts", "plain.wmv"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_truncated_file_never_gives_fewer_or_other_frames_in_silence(videos, tmp_path, name):
    content, whole = videos[name].read_bytes(), frames_or_error(videos[name])
    path = tmp_path / f"cut{videos[name].suffix}"
    silent = []
    for cut in sorted({*np.linspace(1, len(content) - 1, 40).astype(int).tolist(), len(content) - 3}):
        path.write_bytes(content[:cut])
        frames = frames_or_error(path)
        if name in WITHOUT_END and frames is not None:
            frames = whole if frames == whole[: len(frames)] else frames
        if frames not in (None, whole):
            silent.append((cut, len(frames)))
    assert not silent


def packet_ends(path: Path) -> list[int]:
    import av

    with av.open(str(path)) as container:
        return sorted(packet.pos + packet.size for packet in container.demux(video=0) if packet.size)


@pytest.mark.parametrize("name", ["faststart.mov", "plain.avi", "plain.mkv", "plain.webm"])
def test_a_cut_exactly_between_two_frames_is_seen(videos, tmp_path, name):
    """Nothing is damaged then: only the frames that a header or the structure promises are missing."""
    content = videos[name].read_bytes()
    path = tmp_path / f"cut{videos[name].suffix}"
    for cut in packet_ends(videos[name])[3:-1:4]:
        path.write_bytes(content[:cut])
        with pytest.raises(VideoDecodeError, match="damaged or cut off"):
            numbers_in(path)


def test_a_cut_off_last_picture_is_seen(tmp_path):
    """A JPEG without its end decodes to a picture that is grey below; only the container knows that it is cut off."""
    path = write_video(
        tmp_path / "motion.avi", [marked_frame(n) for n in range(4)], codec="mjpeg", pix_fmt="yuvj420p", options={}
    )
    cut = tmp_path / "cut.avi"
    cut.write_bytes(path.read_bytes()[: packet_ends(path)[-1] - 300])
    with pytest.raises(VideoDecodeError, match="damaged or cut off: .*packets"):
        numbers_in(cut)


def test_a_damaged_picture_is_refused_not_concealed(videos, tmp_path):
    content, ends = bytearray(videos["plain.mp4"].read_bytes()), packet_ends(videos["plain.mp4"])
    middle = (ends[0] + ends[0] // 2) // 2  # inside the first key frame's data
    content[middle : middle + 60] = bytes(range(100, 160))
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=r"damaged\.mp4"):
        numbers_in(damaged)


@pytest.mark.parametrize("name", CONTAINERS)
def test_flipped_bits_give_frames_or_a_clear_error(videos, tmp_path, name):
    rounds = int(os.environ.get("FLA_FUZZ_ROUNDS", "10"))
    content, generator = videos[name].read_bytes(), np.random.default_rng(len(name))
    path = tmp_path / f"flipped{videos[name].suffix}"
    for _ in range(rounds):
        flipped = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, len(flipped), generator.integers(1, 12))
        flipped[places] ^= 1 << generator.integers(0, 8, len(places)).astype(np.uint8)
        path.write_bytes(flipped.tobytes())
        try:
            for frame in frames_of(path):
                assert frame.ndim == 3 and frame.dtype == np.uint8
        except VideoDecodeError as error:
            assert str(path) in str(error)


def test_a_video_cut_out_without_its_first_key_frame_starts_at_the_next(videos, tmp_path):
    """A transport stream that was tuned into late: its first pictures refer to ones that are not there."""
    content = videos["plain.ts"].read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(content[188 * (len(content) // 188 // 5) :])
    numbers = [number_of(frame) for frame in frames_of(late)]
    assert numbers == list(range(numbers[0], S)) and 0 < numbers[0] <= 10


def test_a_video_cut_out_at_an_open_group_of_pictures_starts_at_its_key_frame(tmp_path):
    """Pictures shown before that key frame refer to the group before, which the file does not hold."""
    import av

    options = {
        "preset": "veryfast",
        "crf": "4",
        "x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0",
    }
    path = write_video(tmp_path / "open.ts", [marked_frame(n) for n in range(S)], options=options)
    assert [number_of(frame) for frame in frames_of(path)] == list(range(S))
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    late = tmp_path / "late.ts"
    late.write_bytes(path.read_bytes()[: 188 * 3] + path.read_bytes()[starts[1] :])
    numbers = [number_of(frame) for frame in frames_of(late)]
    assert numbers == list(range(numbers[0], S)) and numbers[0] in (7, 8)


def numbers_in(path, *times) -> list[int]:
    return [number_of(frame) for frame in frames_of(path, *times)]


def with_an_empty_chunk(video: Path, target: Path) -> Path:
    """The AVI file with a frame that repeats the first one: in the list of frames, the index and the count."""
    content = video.read_bytes()
    movi, index = content.index(b"movi"), content.rindex(b"idx1")
    entries = [list(struct.unpack_from("<4sIII", content, place)) for place in range(index + 8, len(content) - 15, 16)]
    second = movi + entries[1][2]
    moved = [[*entry[:2], entry[2] + 8 * (number > 0), entry[3]] for number, entry in enumerate(entries)]
    moved.insert(1, [b"00dc", 0, entries[1][2], 0])
    new = bytearray(content[:second] + b"00dc" + bytes(4) + content[second:index])
    new += b"idx1" + struct.pack("<I", 16 * len(moved)) + b"".join(struct.pack("<4sIII", *entry) for entry in moved)
    struct.pack_into("<I", new, 4, len(new) - 8)
    struct.pack_into("<I", new, movi - 4, struct.unpack_from("<I", new, movi - 4)[0] + 8)
    for header in (new.index(b"avih") + 8 + 16, new.index(b"strh") + 8 + 32):  # frames in all, and in the stream
        struct.pack_into("<I", new, header, S + 1)
    target.write_bytes(new)
    return target


def test_a_frame_that_an_avi_file_repeats_is_not_missed(videos, tmp_path):
    path = with_an_empty_chunk(videos["plain.avi"], tmp_path / "repeating.avi")
    assert numbers_in(path) == list(range(S))
    path.write_bytes(path.read_bytes().replace(b"00dc" + bytes(12), b"00dd" + bytes(12)))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])
    with pytest.raises(VideoDecodeError, match=f"promises {S + 1} frames, but {S} can be decoded"):
        numbers_in(path)


def test_of_two_streams_the_one_with_moving_pictures_is_read(tmp_path):
    """A picture of its own in front, such as a cover that lost its mark."""
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mjpeg", rate=25), container.add_stream("libx264", rate=25)]
        for stream, pix_fmt in zip(streams, ("yuvj420p", "yuv420p"), strict=True):
            stream.height, stream.width, stream.pix_fmt = 64, 96, pix_fmt
        streams[1].options = {"crf": "4"}
        for number in range(S):
            frame = av.VideoFrame.from_ndarray(marked_frame(number), "rgb24")
            for stream in streams[: 2 if number == 0 else 3][number > 0 :]:
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert numbers_in(path) == list(range(S))


def test_a_bare_stream_is_refused_with_the_formats_that_are_read(tmp_path):
    path = write_video(tmp_path / "bare.h264", [marked_frame(0)] * 3)
    with pytest.raises(VideoDecodeError, match=r"bare\.h264` .* mov,"):
        numbers_in(path)


# --- folders of frames


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    from PIL import Image

    for number in (0, 2, 10, 9, 1):
        Image.fromarray(marked_frame(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert [number_of(frame) for frame in read_frame_files(frame_files(tmp_path))] == [0, 1, 2, 9, 10]


def test_a_folder_without_images_a_broken_one_and_unequal_sizes_are_named(tmp_path):
    from PIL import Image

    with pytest.raises(VideoDecodeError, match="holds no image files"):
        frame_files(tmp_path)
    Image.fromarray(marked_frame(0)).save(tmp_path / "1.png")
    Image.fromarray(marked_frame(0, 20, 30)).save(tmp_path / "2.png")
    with pytest.raises(VideoDecodeError, match=r"2\.png` .*30 x 20 .*96 x 64"):
        read_frame_files(frame_files(tmp_path))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:100])
    with pytest.raises(VideoDecodeError, match=r"2\.png` cannot be read as an image"):
        read_frame_files(frame_files(tmp_path))


def test_a_missing_number_is_warned_of_and_the_frames_are_read(tmp_path):
    from PIL import Image

    for number in (0, 3, 6, 12, 15):  # every third frame of a video is no gap
        Image.fromarray(marked_frame(number)).save(tmp_path / f"clip2_{number:03d}.PNG")
    with pytest.warns(UserWarning, match="6 and 12$"):
        files = frame_files(tmp_path)
    assert [number_of(frame) for frame in read_frame_files(files)] == [0, 3, 6, 12, 15]
    assert frame_gaps(files[:3]) == frame_gaps([Path("a.png"), Path("b.png")]) == ""
    assert frame_gaps([Path("1.png"), Path("2.png"), Path("9.png"), Path("12.png")]).endswith(" 2 and 9, 9 and 12")


def test_a_folder_with_videos_and_a_picture_is_no_folder_of_frames(videos, tmp_path):
    from PIL import Image

    Image.fromarray(marked_frame(0)).save(tmp_path / "thumbnail.jpg")
    assert is_frame_folder(tmp_path)
    for name in ("._a.mp4", ".b.mp4"):
        (tmp_path / name).write_bytes(b"what a file system leaves")
    assert is_frame_folder(tmp_path)
    for name in ("a.MP4", "b.Mts", "c.m2ts", "d.3g2", "e.asf"):
        shutil.copy(videos["plain.mp4"], tmp_path / name)
        assert is_video_file(tmp_path / name) and not is_frame_folder(tmp_path)
        with pytest.raises(VideoDecodeError, match=rf"is a folder of videos \({name}\), not of frames"):
            frame_files(tmp_path)
        (tmp_path / name).unlink()
    assert not is_frame_folder(tmp_path / "nowhere") and not is_video_file(tmp_path / "._a.mp4")


def test_frames_of_absurd_size_are_refused(videos, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("processing_fla.video_reading_fla.MAX_PIXELS", 95 * 64)
    Image.fromarray(marked_frame(0)).save(tmp_path / "1.png")
    with pytest.raises(VideoDecodeError, match=r"1\.png` .*96 x 64"):
        read_frame_files([tmp_path / "1.png"])
    with pytest.raises(VideoDecodeError, match=r"plain\.mp4` .*frame size"):
        numbers_in(videos["plain.mp4"])


def test_what_the_demuxer_logs_is_the_reason(videos, tmp_path):
    (tmp_path / "cut.mkv").write_bytes(videos["plain.mkv"].read_bytes()[:3000])
    for _ in range(2):
        with pytest.raises(VideoDecodeError, match=r"cut\.mkv` is damaged or cut off: File ended prematurely"):
            numbers_in(tmp_path / "cut.mkv")


def test_images_are_turned_as_their_exif_says(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(marked_frame(0)).save(tmp_path / "1.jpg", exif=exif, quality=95)
    frame = read_frame_files([tmp_path / "1.jpg"])[0]
    assert frame.shape == (96, 64, 3) and close_to(frame[5, 60], GREEN, 25)


# --- real files


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_frames", "height", "width", "fps"),
    [
        ("av1_video.mkv", 125, 360, 640, 25),
        ("h264_10bits.mp4", 30, 200, 200, 30),
        ("realshort.mp4", 36, 240, 320, 30.02),
        ("signing_540x720.mp4", 58, 720, 540, 29.917),
        ("unordered.mov", 4, 50, 50, 32),
        ("video_0.mov", 3, 320, 568, 30),
        ("video_90.mov", 3, 568, 320, 30),
    ],
)
def test_real_videos_give_what_their_description_says(real_data, name, num_frames, height, width, fps):
    path = real_data / "video_files" / name
    with open_video(path) as video:
        frames = [frame for _, frame in video.rgb_frames()]
    assert len(frames) == num_frames and {frame.shape for frame in frames} == {(height, width, 3)}
    assert video.fps == pytest.approx(fps, rel=2e-3)


@pytest.mark.real_data
def test_the_real_video_that_breaks_off_is_refused(real_data):
    path = real_data / "video_files" / "corrupted.mp4"
    assert len(list(islice(frames_of(path), 20))) == 20
    with pytest.raises(VideoDecodeError, match=r"corrupted\.mp4"):
        list(frames_of(path))
