import os
from pathlib import Path

import numpy as np
import pytest

from processing_fla.frame_conversion_fla import scaled
from tests.corpora.corpus_trees import clip, write_frames, write_video
from training_fla.corpora.clips import DrawnVideo, EmbeddedVideo, FrameFolder, VideoFile
from training_fla.corpora.row import canonical_split, path_inside
from training_fla.errors import InputError


@pytest.mark.parametrize("spelling", ["val", "valid", "Validation", " dev "])
def test_every_usual_spelling_of_dev_is_dev(spelling):
    assert canonical_split(spelling) == "dev"


def test_an_unknown_split_is_named():
    with pytest.raises(InputError, match="split 'trial'"):
        canonical_split("trial")


@pytest.mark.parametrize("written", ["../x", "a/../../x", "/etc/passwd", "", " ", "a\0b", "out/x"])
def test_paths_cannot_leave_the_root(tmp_path, written):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves|leads out|not a path"):
        path_inside(root, written)


def test_a_root_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "real/a").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert path_inside(tmp_path / "root", "a/b") == tmp_path / "root/a/b"


def test_a_frame_folder_opens_only_the_frames_kept_and_no_strays(tmp_path):
    frames = clip(7)
    write_frames(tmp_path / "c", frames, "images%04d.png", first=1)
    (tmp_path / "c/images0002.png").write_bytes(b"damaged, but not kept")
    (tmp_path / "c/stray.lprof").write_bytes(b"")
    kept = list(FrameFolder(tmp_path / "c").frames(stride=3))
    np.testing.assert_array_equal(kept, frames[::3])


def test_an_unreadable_image_and_an_empty_folder_are_named(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match="/c"):
        next(FrameFolder(tmp_path / "c").frames())
    (tmp_path / "c/images0001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"images0001\.png"):
        list(FrameFolder(tmp_path / "c").frames())


@pytest.mark.filterwarnings("error")
def test_missing_numbers_of_frames_are_a_warning(tmp_path):
    write_frames(tmp_path / "c", clip(7), "cam2-%d.png", first=1)
    assert len(FrameFolder(tmp_path / "c").files()) == 7
    for number in (3, 4, 6):
        (tmp_path / f"c/cam2-{number}.png").unlink()
    with pytest.warns(UserWarning, match="c: .* 2 and 5, 5 and 7"):
        assert len(list(FrameFolder(tmp_path / "c").frames())) == 4
    write_frames(tmp_path / "every_third", clip(9), "%06d.jpg", first=0)
    for number in set(range(9)) - {0, 3, 6}:
        (tmp_path / f"every_third/{number:06d}.jpg").unlink()
    assert len(FrameFolder(tmp_path / "every_third").files()) == 3


def test_a_written_clip_is_h264_that_browsers_begin_to_play_at_once(tmp_path, monkeypatch):
    import av

    file = write_video(tmp_path / "v.mp4", 30)
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    content = file.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert write_video(tmp_path / "again.mp4", 30).read_bytes() == content
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264", "libopenh264"})
    assert sum(1 for _ in VideoFile(write_video(tmp_path / "other.mp4", 30)).frames()) == 30


def test_frames_are_resized_to_height_and_width(tmp_path):
    frames = clip(2)
    write_frames(tmp_path / "c", frames, "%d.png", first=0)
    file = write_video(tmp_path / "v.mp4", 2)
    for video in (DrawnVideo(lambda: frames), FrameFolder(tmp_path / "c"), VideoFile(file)):
        assert [frame.shape for frame in video.frames(size=(12, 14))] == [(12, 14, 3)] * 2
    np.testing.assert_array_equal(
        list(FrameFolder(tmp_path / "c").frames(size=(12, 14)))[1], scaled(frames, (12, 14))[1]
    )


def test_a_video_file_gives_the_frames_between_its_times(tmp_path):
    file = write_video(tmp_path / "v.mp4", 20, fps=10.0)
    whole = list(VideoFile(file).frames())
    part = list(VideoFile(file, 0.5, 1.2).frames(stride=2))
    with VideoFile(file).opened(size=(8, 10)) as clip:
        assert {frame.shape for frame in clip} == {(8, 10, 4)}  # the fourth channel means nothing
        assert clip.fps == pytest.approx(10.0)
    assert len(whole) == 20
    np.testing.assert_array_equal(part, whole[5:12:2])


def test_an_embedded_video_decodes_as_its_file_does(tmp_path):
    file = write_video(tmp_path / "v.mp4", 5, fps=10.0)
    video = EmbeddedVideo(file.read_bytes, "row 3")
    with video.opened() as clip:
        assert len(list(clip)) == 5 and clip.fps == pytest.approx(10.0)
    np.testing.assert_array_equal(list(video.frames(stride=2)), list(VideoFile(file).frames())[::2])


def test_the_same_relative_root_is_another_folder_after_chdir(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
        monkeypatch.chdir(tmp_path / name)
        assert path_inside(Path("."), "a.mp4") == Path("a.mp4")
