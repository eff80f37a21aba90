"""`fla live`: a file gives the cues of `fla translate --cut pauses`, a camera drops what is too much, may vanish."""

import re
import signal
import threading
import time

import numpy as np
import pytest

from tests.captions.test_pauses import pictures
from tests.processing.drawing import tiny_model, tiny_processor, write_video
from training_fla.captions import sources
from training_fla.captions.sources import ThreadedSource, open_source, paced
from training_fla.cli import main
from training_fla.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The drawn signer as a video file beside a model."""
    folder, processor = tmp_path_factory.mktemp("live"), tiny_processor()
    tiny_model(processor.tokenizer, seed=3).save_pretrained(folder)
    processor.save_pretrained(folder)
    frames = [np.repeat(picture.astype(np.uint8)[..., None], 3, 2) for _, picture in pictures()]
    write_video(folder / "long.mp4", [frame for frame in frames for _ in range(2)])
    return folder


@pytest.mark.parametrize("words", [[], ["--min-length", "2", "--max-length", "3"]], ids=str)
def test_a_file_gives_the_cues_of_translate(model, words, tmp_path, capsys, monkeypatch):
    video, out = str(model / "long.mp4"), tmp_path / "captions.vtt"
    options = ["--max-new-tokens", "6", *words]
    assert main(["translate", str(model), video, "--format", "vtt", "--cut", "pauses", *options]) == 0
    expected = capsys.readouterr().out
    assert expected.count("-->") >= 3
    assert main(["live", str(model), "--source", video, "--out", str(out), *options]) == 0
    assert out.read_text(encoding="utf-8") == expected
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == expected.count("-->") and "dropped" not in printed.err
    # With drafts, which a terminal shows, the cues are the same.
    monkeypatch.setattr("training_fla.commands.use.live.is_quiet", lambda: False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["live", str(model), "--source", video, "--out", str(out), "--overwrite", *options]) == 0
    assert out.read_text(encoding="utf-8") == expected
    assert "\r\x1b[K... " in capsys.readouterr().err


def test_the_file_grows_as_it_goes_and_is_whole_at_any_moment(model, tmp_path, monkeypatch):
    from training_fla.commands.use.live import CaptionWriter

    out, seen, write = tmp_path / "captions.vtt", [], CaptionWriter.write

    def write_and_look(writer, caption):
        write(writer, caption)
        seen.append(out.read_text(encoding="utf-8"))

    monkeypatch.setattr(CaptionWriter, "write", write_and_look)
    assert main(["live", str(model), "--source", str(model / "long.mp4"), "--out", str(out)]) == 0
    assert [text.count("-->") for text in seen] == [1, 2, 3]
    assert all(re.fullmatch(r"WEBVTT\n\n(\d+\n\S+ --> \S+\n.+\n\n)+", text) for text in seen)


def test_bad_words_are_refused_before_a_model_is_loaded(model, tmp_path, capsys):
    (tmp_path / "mine.vtt").write_text("mine")
    video = str(model / "long.mp4")
    for words, named in (
        (["--source", "missing.mp4"], "missing.mp4"),
        (["--source", video, "--out", str(tmp_path / "mine.vtt")], "--overwrite"),
        (["--source", video, "--min-length", "3", "--max-length", "2"], "--max-length 2"),
        (["--source", "camera", "--real-time"], "--real-time"),
    ):
        assert main(["live", str(model), *words]) == 2
        assert named in capsys.readouterr().err
    assert (tmp_path / "mine.vtt").read_text() == "mine"


def test_a_camera_that_is_not_there_or_vanishes_ends_with_one_line(model, tmp_path, capsys, monkeypatch):
    assert main(["live", str(model), "--source", "camera:/dev/none"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if "/dev/none" in line]) == 1

    def unplugged(*_, **__):
        """The drawn signer, in the middle of the second sentence."""
        for second, picture in pictures():
            if second > 5:
                raise OSError("No such device")
            yield second, np.repeat(picture.astype(np.uint8)[..., None], 3, 2)

    monkeypatch.setattr(sources, "opened_frames", unplugged)
    monkeypatch.setattr(sources, "MAX_WAITING", 10_000)
    out = tmp_path / "captions.vtt"
    assert main(["live", str(model), "--source", "camera", "--out", str(out)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1 and "the camera /dev/video0" in errors[0] and "No such device" in errors[0]
    assert out.read_text().count("-->") == 2, "what was signed until then is there"


def test_ctrl_c_ends_it_with_the_sentence_that_was_being_signed(model, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        for number, (second, picture) in enumerate(pictures()):
            yield second, np.repeat(picture.astype(np.uint8)[..., None], 3, 2)
            if number == 32:
                signal.raise_signal(signal.SIGINT)
                break
        threading.Event().wait(30)

    monkeypatch.setattr(sources, "opened_frames", interrupted)
    before, out = signal.getsignal(signal.SIGINT), tmp_path / "captions.vtt"
    assert main(["live", str(model), "--source", "camera", "--out", str(out)]) == 0
    assert out.read_text().count("-->") == 1 and signal.getsignal(signal.SIGINT) is before


def test_frames_that_come_too_fast_are_dropped_and_counted_and_keep_their_numbers(monkeypatch):
    monkeypatch.setattr(sources, "MAX_WAITING", 5)
    read = threading.Event()

    def fast():
        for number in range(20):
            yield number / 25, np.zeros((2, 2, 3), np.uint8)
        read.set()
        time.sleep(0.05)

    source = ThreadedSource("a camera", fast, is_endless=False)
    frames = iter(source)
    first = next(frames)
    read.wait(30)
    assert source.num_dropped >= 20 - 5 - 2
    numbers = [first[1], *(index for _, index, _ in frames)]
    assert len(numbers) + source.num_dropped == 20
    assert numbers == sorted(numbers) and numbers[0] == 0


def test_a_source_that_stalls_is_lost(monkeypatch):
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.05)
    stop = threading.Event()

    def hangs():
        yield 0.0, np.zeros((2, 2, 3), np.uint8)
        stop.wait(30)

    frames = iter(ThreadedSource("the camera 7", hangs, is_endless=True))
    next(frames)
    with pytest.raises(InputError, match="the camera 7 gave no frame"):
        next(frames)
    stop.set()


def test_a_camera_is_read_by_ffmpeg(model, monkeypatch):
    """FFmpeg's own test picture stands for a camera, which no test machine has."""
    monkeypatch.setitem(sources.DEVICES, "linux", ("lavfi", {}))
    monkeypatch.setattr(sources.sys, "platform", "linux")
    monkeypatch.setattr(sources, "device_name", lambda kind, name: "testsrc=duration=0.4:rate=25:size=64x48")
    frames = iter(open_source("camera", (20, 30)))
    seen = []
    with pytest.raises(InputError, match="has ended"):
        for seconds, index, frame in frames:
            seen.append((round(seconds, 2), index, frame.shape))
    assert seen == [(round(number / 25, 2), number, (20, 30, 3)) for number in range(10)]


def test_a_file_in_real_time_takes_as_long_as_it_lasts():
    began = time.monotonic()
    assert [number for _, number in paced(iter([(3.0, 1), (3.1, 2), (3.2, 3)]))] == [1, 2, 3]
    assert time.monotonic() - began >= 0.2
