"""Subtitles of long recordings: every sampled frame is translated, no two subtitles are shown at once."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.processing.drawing import marked_frame, tiny_model, tiny_processor, write_video
from training_fla.cli import main
from training_fla.viewing.subtitles import cue_end, cut_windows, subtitle, timestamp


def numbered(count: int):
    return ((number / 10, np.full((2, 3, 3), number, np.uint8)) for number in range(count))


@pytest.mark.parametrize("count", [1, 4, 5, 24, 25, 61])
@pytest.mark.parametrize(("window", "stride"), [(2.0, 2.0), (2.0, 0.8), (0.01, 0.01), (99, 99), (1.3, 5)])
def test_windows_hold_every_sampled_frame_once_or_where_they_overlap_more_often(count, window, stride):
    windows = list(cut_windows(numbered(count), lambda frame: frame, 10.0, window, stride, frame_stride=4))
    seen = [part.frames[:, 0, 0, 0].tolist() for part in windows]
    assert sorted({number for part in seen for number in part}) == list(range(0, count, 4))
    length = max(1, round(window * 10 / 4))
    assert all(len(part) == length for part in seen[:-1]) and 1 <= len(seen[-1]) <= length
    for part, numbers in zip(windows, seen, strict=True):
        assert part.start_seconds == numbers[0] / 10 and part.end_seconds == pytest.approx(
            min(count, numbers[-1] + 4) / 10
        )
    for part, following in zip(windows, windows[1:], strict=False):
        assert part.start_seconds < cue_end(part, following) <= following.start_seconds
    assert cue_end(windows[-1], None) == pytest.approx(count / 10)


def test_forms():
    assert timestamp(3723.0456, ",") == "01:02:03,046" and timestamp(59.9999, ".") == "00:01:00.000"
    assert subtitle(2, 1.5, 3, "a\n b", "srt") == "2\n00:00:01,500 --> 00:00:03,000\na b\n"
    assert subtitle(1, 0, 1, "a --> <b> & c", "vtt").endswith("\na --&gt; &lt;b&gt; &amp; c\n")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, processor = tmp_path_factory.mktemp("model"), tiny_processor()
    tiny_model(processor.tokenizer, seed=3).save_pretrained(folder)
    processor.save_pretrained(folder)
    write_video(folder / "long.mp4", [marked_frame(number % 25) for number in range(110)])
    return folder


@pytest.mark.parametrize(("form", "mark"), [("srt", ","), ("vtt", ".")])
def test_a_recording_becomes_subtitles(saved, capsys, form, mark):
    words = ["--format", form, "--window", "2", "--stride", "1", "--batch-size", "2", "--max-new-tokens", "6"]
    assert main(["translate", str(saved), str(saved / "long.mp4"), *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("WEBVTT\n\n") == (form == "vtt")
    times = re.findall(r"(\S+) --> (\S+)", out)
    assert times[0] == (f"00:00:00{mark}000", f"00:00:00{mark}960") and times[-1][1] == f"00:00:04{mark}400"
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]


def test_a_window_without_a_sentence_gets_no_subtitle(saved, capsys):
    from training_fla.viewing.subtitles import print_subtitles

    class Translate:
        model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: None))
        processor = SimpleNamespace(video_processor=SimpleNamespace(frame_stride=4, target_size=None))

        def __call__(self, videos, **options):
            return ({"translation_text": ["one", " ", "three"][number]} for number, _ in enumerate(videos))

    print_subtitles(Translate(), str(saved / "long.mp4"), "srt", 1.6, 1.6)
    assert re.findall(r"^(?:\d+|[a-z]+)$", capsys.readouterr().out, re.MULTILINE) == ["1", "one", "2", "three"]


def test_one_window_says_what_the_whole_clip_says(saved, capsys):
    options = ["--max-new-tokens", "6"]
    assert main(["translate", str(saved), str(saved / "long.mp4"), *options]) == 0
    sentence = capsys.readouterr().out.rstrip("\n").split("\t")[1]
    assert main(["translate", str(saved), str(saved / "long.mp4"), "--format", "srt", "--window", "60", *options]) == 0
    assert capsys.readouterr().out.splitlines()[2] == sentence


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/long.mp4", "--window", "2"], "add --format srt"),
        (["{0}/long.mp4", "{0}/long.mp4", "--format", "srt"], "one video file at a time"),
        (["{0}/long.mp4", "--format", "srt", "--window", "2", "--stride", "3"], "would be lost"),
    ],
)
def test_bad_options_are_refused(saved, words, message, capsys):
    assert main(["translate", str(saved), *(word.format(saved) for word in words)]) == 2
    assert message in capsys.readouterr().err
