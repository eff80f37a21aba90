"""What the page refuses, and that it says so to a person."""

import os
import time

import pytest

from training_fla.serving.limits import CancelledError, Limits, RefusedError, WorkClock
from training_fla.serving.upload_folder import UploadFolder


def refused(check, *values) -> str:
    with pytest.raises(RefusedError) as refusal:
        check(*values)
    return str(refusal.value)


def test_messages_say_what_was_sent_and_what_is_taken():
    limits = Limits(max_megabytes=2, max_seconds=30, max_frames=16)
    assert refused(limits.check_size, 5 * 2**20) == "This file is 5 MB; 2 MB is the most that is taken here."
    assert refused(limits.check_size, 0) == "This file is empty."
    assert "longer than 30 seconds" in refused(limits.check_length, 600.0)
    assert "it lasts 10:00" in refused(limits.check_length, 600.0)
    assert "lasts" not in refused(limits.check_length, 30.7), "read only so far, so nobody knows how long it is"
    assert "reads at most 16 frames, about 3 seconds" in refused(limits.check_sampled, 32, 6.0)
    assert "more than 60 frames a second" in refused(limits.check_frames, 31 * 60 + 1, 30)
    limits.check_size(2 * 2**20), limits.check_length(30.4)
    limits.check_sampled(16, 3.0), limits.check_frames(1800, 30)
    Limits().check_sampled(10**6, 1.0)


def test_page_promises_no_more_than_the_model_reads():
    assert Limits(max_seconds=30).usable_seconds(4) == 30
    assert Limits(max_seconds=30, max_frames=64).usable_seconds(4) == 8
    assert Limits(max_seconds=5, max_frames=64).usable_seconds(4) == 5
    assert Limits(max_frames=2).usable_seconds(4) == 1


def test_work_ends_with_its_time_or_when_nobody_waits():
    clock = WorkClock(60)
    clock.check()
    clock.cancelled = True
    with pytest.raises(CancelledError):
        clock.check()
    assert "longer than the 0 seconds" in refused(WorkClock(0).check)


def test_no_clip_waits_longer_than_it_is_kept():
    limits = Limits(time_limit=300, max_waiting=8)
    assert limits.keep_seconds > limits.time_limit * (limits.max_waiting + 1)


@pytest.fixture
def uploads():
    with UploadFolder(keep_seconds=600) as folder:
        yield folder


def put(folder, name: str, age: float = 0.0):
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a face")
    os.utime(path, (time.time() - age,) * 2)
    os.utime(path.parent, (time.time() - age,) * 2)
    return path


def wait_until(is_so) -> None:
    for _ in range(200):
        if is_so():
            return
        time.sleep(0.02)


def test_only_what_was_sent_can_be_claimed(uploads, tmp_path):
    sent = put(uploads, "hash/clip.mp4")
    (tmp_path / "private.mp4").write_bytes(b"")
    (uploads.path / "link.mp4").symlink_to(tmp_path / "private.mp4")
    assert uploads.claim(str(sent)) == sent
    for name in (
        None, 5, {}, "", "\0", str(uploads.path), str(tmp_path / "private.mp4"), "/etc/passwd",
        str(uploads.path / "gone"),
        f"{uploads.path}/../{tmp_path.name}/private.mp4", str(uploads.path / "link.mp4"),
    ):  # fmt: skip
        assert "no longer on the server" in refused(uploads.claim, name)


def test_discarding_leaves_what_others_sent(uploads):
    mine, theirs = put(uploads, "same/mine.mp4"), put(uploads, "same/theirs.mp4")
    uploads.discard(mine)
    assert not mine.exists() and theirs.exists()
    uploads.discard(theirs)
    uploads.discard(theirs)
    assert list(uploads.path.iterdir()) == []


def test_old_clips_and_pieces_of_uploads_are_swept(uploads):
    put(uploads, "old/clip.mp4", age=700), put(uploads, "tmpabc", age=700)
    fresh = put(uploads, "new/clip.mp4", age=300)
    uploads.sweep()
    assert [path for path in uploads.path.rglob("*") if path.is_file()] == [fresh]
    assert not (uploads.path / "old").exists()


def test_sweeping_goes_on_by_itself_and_closing_leaves_nothing():
    with UploadFolder(keep_seconds=0.0, sweep_every=0.02) as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder.path) and folder.path.stat().st_mode & 0o77 == 0
        path = put(folder, "hash/clip.mp4", age=5)
        wait_until(lambda: not path.exists())
        assert not path.exists()
        put(folder, "hash/other.mp4", age=-100)
    assert not folder.path.exists() and "GRADIO_TEMP_DIR" not in os.environ


def test_sweeping_goes_on_after_an_error(monkeypatch, caplog):
    looks = []

    def fail(folder, now=None):
        looks.append(1)
        raise PermissionError("a disk that is busy")

    monkeypatch.setattr(UploadFolder, "sweep", fail)
    with UploadFolder(keep_seconds=600, sweep_every=0.01):
        wait_until(lambda: len(looks) > 2)
    assert len(looks) > 2 and "a disk that is busy" in caplog.text


def test_what_a_killed_server_left_is_cleared_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with UploadFolder(keep_seconds=600) as running:
        theirs = put(running, "hash/clip.mp4")
        left = tmp_path / "fla-serve-killed" / "hash" / "clip.mp4"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"a face")
        (tmp_path / "other").mkdir()
        with UploadFolder(keep_seconds=600):
            pass
        left = {entry.name for entry in tmp_path.iterdir()}
        assert theirs.exists() and left == {running.path.name, f"{running.path.name}.lock", "other"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]
