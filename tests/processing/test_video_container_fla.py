"""Damage to what surrounds the pictures: a flipped bit in an index hides frames that decoders then never miss."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from processing_fla import VideoDecodeError, count_video_frames, iterate_video_frames
from processing_fla.video_boxes_fla import samples_in_tables

from .drawing import marked_frame, number_of, write_video
from .test_video_decoding_fla import CONTAINERS, S


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    frames = [marked_frame(number) for number in range(S)]
    return {name: write_video(folder / name, frames, **options) for name, options in CONTAINERS.items()}


def numbers(path: Path) -> list[int] | None:
    try:
        return [number_of(frame) for frame in iterate_video_frames(path)]
    except VideoDecodeError as error:
        assert str(path) in str(error)
        return None


def places_outside_pictures(path: Path) -> np.ndarray:
    import av

    outside = np.ones(path.stat().st_size, bool)
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                outside[packet.pos : packet.pos + packet.size] = False
    # What time a file's clock ticks in and where its edit begins is its own word: a shorter video has just other ones.
    content = path.read_bytes()
    for name, first, last in ((b"mvhd", 16, 20), (b"mdhd", 16, 20), (b"elst", 12, 20)):
        place = content.find(name)
        if place >= 0:
            outside[place + first : place + last] = False
    return np.flatnonzero(outside)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_flipped_bit_outside_the_pictures_never_hides_a_frame(videos, tmp_path, name):
    content, places = videos[name].read_bytes(), places_outside_pictures(videos[name])
    generator = np.random.default_rng(len(name))
    flipped = tmp_path / f"flipped{videos[name].suffix}"
    hidden = []
    for _ in range(int(os.environ.get("FLA_FUZZ_ROUNDS", "80"))):
        place, bit = int(generator.choice(places)), int(generator.integers(8))
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        flipped.write_bytes(damaged)
        seen = numbers(flipped)
        if seen is not None and len(seen) < S:
            hidden.append((place, bit, len(seen)))
    assert not hidden


def replaced(video: Path, target: Path, old: bytes, new: bytes, count: int = 1) -> Path:
    content = video.read_bytes()
    assert old in content
    target.write_bytes(content.replace(old, new, count))
    return target


def ints(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def test_the_tables_of_an_mp4_file_are_counted(videos):
    assert samples_in_tables(videos["plain.mp4"], 1) == (S, True)
    assert samples_in_tables(videos["fragments.mp4"], 1) == (S, False)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        # Version, one entry, of S frames.
        ("plain.mp4", b"stts" + ints(0, 1, S), b"stts" + ints(0, 1, S - 8), f"{S} sizes, but {S - 8} durations"),
        ("plain.mp4", b"stsc" + ints(0, 1, 1, S), b"stsc" + ints(0, 1, 1, 9), f"{S} sizes, but 9 frames in chunks"),
        ("plain.mp4", b"mdhd", b"mdhe", "a table is missing"),
        ("fragments.mp4", b"moof", b"mooe", "a fragment under another name"),
        ("fragments.mp4", b"trun", b"trum", "a table is missing"),
    ],
)
def test_tables_that_contradict_one_another_are_refused(videos, tmp_path, name, old, new, reason):
    path = replaced(videos[name], tmp_path / "contradictory.mp4", old, new)
    with pytest.raises(VideoDecodeError, match=rf"contradictory\.mp4` is damaged or cut off: .*({reason})"):
        count_video_frames(path)


def test_edits_may_last_longer_than_the_track_says(videos, tmp_path):
    """As in files that FFmpeg has cut out of others, the How2Sign clips among them."""
    content = bytearray(videos["plain.mp4"].read_bytes())
    place = content.index(b"tkhd") + 4 + 20
    (duration,) = struct.unpack_from(">I", content, place)
    sooner, later = tmp_path / "sooner.mp4", tmp_path / "later.mp4"
    struct.pack_into(">I", content, place, duration - 40)
    sooner.write_bytes(content)
    assert numbers(sooner) == list(range(S))
    struct.pack_into(">I", content, place, duration + 40)
    later.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=f"edits of {duration}, but a track of {duration + 40}"):
        count_video_frames(later)


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
    assert numbers(path) == list(range(S))
    path.write_bytes(path.read_bytes().replace(b"00dc" + bytes(12), b"00dd" + bytes(12)))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])
    with pytest.raises(VideoDecodeError, match=f"promises {S + 1} frames, but {S} can be decoded"):
        count_video_frames(path)


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
    assert numbers(path) == list(range(S))


def test_a_bare_stream_is_refused_with_the_formats_that_are_read(tmp_path):
    path = write_video(tmp_path / "bare.h264", [marked_frame(0)] * 3)
    with pytest.raises(
        VideoDecodeError, match=r"bare\.h264` cannot be decoded as a video: its format is none of mov,"
    ):
        count_video_frames(path)
