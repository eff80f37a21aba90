"""Subtitles of long recordings: every sampled frame is translated, no two subtitles are shown at once."""

import re
import weakref
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from processing_fla import FlaVideoProcessor
from tests.processing.drawing import marked_frame, tiny_model, tiny_processor, write_video
from training_fla.cli import main
from training_fla.viewing import subtitles
from training_fla.viewing.subtitles import cut_windows, print_subtitles, subtitle, timestamp

LIVE = {"live": "1"}


def numbered(times):
    return [(second, np.full((2, 3, 3), number, np.uint8)) for number, second in enumerate(times)]


def seen(cues) -> list[tuple]:
    return [(round(cue.start, 3), round(cue.end, 3), cue.clip[:, 0, 0, 0].tolist()) for cue in cues]


@pytest.mark.parametrize("count", [1, 4, 5, 24, 25, 61])
@pytest.mark.parametrize("length", [2.0, 0.05, 99])
def test_windows_hold_every_frame_once_and_do_not_overlap(count, length):
    cues = seen(cut_windows(numbered([2 + number / 10 for number in range(count)]), length, FlaVideoProcessor()))
    assert [number for *_, numbers in cues for number in numbers] == list(range(count))
    assert all(before[1] <= after[0] for before, after in pairwise(cues))
    for place, (start, end, numbers) in enumerate(cues):
        assert start == pytest.approx(2 + max(place * length, numbers[0] / 10), abs=0.1)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[-1] / 10 + 2 < end
    assert cues[-1][1] == pytest.approx(2 + (count / 10 if count > 1 else 0.04))


def test_windows_follow_the_frame_times():
    # A telephone's frames do not follow evenly, and nothing is shown for a while.
    times = [0.0, 0.04, 0.9, 1.0, 1.9, 2.01, 7.5, 7.54, 7.6]
    cues = seen(cut_windows(numbered(times), 2.0, FlaVideoProcessor()))
    assert cues == [(0.0, 2.0, [0, 1, 2, 3, 4]), (2.01, 4.0, [5]), (7.5, 7.66, [6, 7, 8])]


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


class Translator:
    """In the place of a pipeline: gives sentences, and keeps the shapes of what it was given."""

    processor = SimpleNamespace(
        video_processor=FlaVideoProcessor(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    )

    def __init__(self, sentences):
        self.sentences, self.shapes = sentences, []

    def __call__(self, clips, **options):
        for sentence, clip in zip(self.sentences, clips, strict=False):
            self.shapes.append(clip.shape)
            yield {"translation_text": sentence}


def cues_of(video, capsys, length=6.0) -> list[tuple[str, str]]:
    """First and last second of each cue, and how many frames it has."""
    translate = Translator(["a sentence"] * 9)
    print_subtitles(translate, str(video), "vtt", length)
    times = re.findall(r"00:00:(\S+) --> 00:00:(\S+)", capsys.readouterr().out)
    return [(*map(float, pair), shape[0]) for pair, shape in zip(times, translate.shapes, strict=True)]


def test_progress_names_how_many_windows_there_will_be(tmp_path, capsys, monkeypatch):
    class Bar(list):
        total = None

    bar = Bar()

    def progress(items, **options):
        bar.items = items
        return bar

    Bar.__iter__ = lambda self: iter(self.items)
    monkeypatch.setattr(subtitles, "progress", progress)
    video = write_video(tmp_path / "a.mp4", [marked_frame(number % 25) for number in range(60)])
    assert len(cues_of(video, capsys, 1.0)) == 3 == bar.total


def test_a_browsers_recording_is_cut_by_its_frame_times(tmp_path, capsys):
    """It states 1000 frames a second and shows 30."""
    times = [round(1000 * number / 30) for number in range(210)]
    frames = [marked_frame(number % 25) for number in range(210)]
    options = {"deadline": "realtime", "cpu-used": "8"}
    video = write_video(tmp_path / "a.webm", frames, "libvpx", times=times, options=options, container_options=LIVE)
    assert cues_of(video, capsys, 2.0) == [(0, 2, 60), (2, 4, 60), (4, 6, 60), (6, pytest.approx(7, abs=2e-3), 30)]


def test_cues_of_a_variable_frame_rate_are_not_stretched(tmp_path, capsys):
    """Frames follow at 50 a second for 2 s, then at 10 a second for 2 s."""
    times = [*range(0, 2000, 20), *range(2000, 4000, 100)]
    video = write_video(tmp_path / "a.mkv", [marked_frame(n % 25) for n in range(120)], "mpeg4", times=times)
    assert cues_of(video, capsys, 1.0) == [(0, 1, 50), (1, 2, 50), (2, 3, 10), (3, 4, 10)]


def test_a_picture_that_starts_after_the_sound_is_captioned_where_it_is_shown(tmp_path, capsys):
    cues = cues_of(write_late_video(tmp_path / "late.mp4"), capsys)
    assert cues == [(2, pytest.approx(6, abs=0.03), 100)]


def write_late_video(path):
    """100 frames at 25 a second that begin 2 s after the sound."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width = video.height = 64
        video.codec_context.time_base = video.time_base = Fraction(1, 90000)
        sound, packets = container.add_stream("aac", rate=48000), []
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = int((2 + number / 25) * 90000), video.time_base
            packets += video.encode(frame)
        for start in range(0, 6 * 48000, 1024):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48000, start
            packets += sound.encode(samples)
        packets += video.encode() + sound.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def test_a_long_recording_keeps_memory_flat(tmp_path, capsys):
    video = write_video(tmp_path / "long.mp4", [marked_frame(number % 25) for number in range(200)])
    translate, alive = Translator(["a"] * 8), []

    def watched(clips, **options):
        frames = []

        def noted():
            for clip in clips:
                frames.append(weakref.ref(clip))
                yield clip

        for result in Translator.__call__(translate, noted()):
            alive.append(sum(frame() is not None for frame in frames))
            yield result

    watched.processor = translate.processor
    print_subtitles(watched, str(video), "srt", 1.0)
    assert len(alive) == 8 and max(alive) <= 2, "frames of cues that are translated are let go"


@pytest.mark.parametrize(("form", "mark"), [("srt", ","), ("vtt", ".")])
def test_a_recording_becomes_subtitles(saved, capsys, form, mark):
    words = ["--format", form, "--window", "1", "--batch-size", "2", "--max-new-tokens", "6"]
    assert main(["translate", str(saved), str(saved / "long.mp4"), *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("WEBVTT\n\n") == (form == "vtt")
    times = re.findall(r"(\S+) --> (\S+)", out)
    starts = [f"00:00:0{second}{mark}000" for second in range(5)]
    assert times == list(zip(starts, [*starts[1:], f"00:00:04{mark}400"], strict=True))


def test_a_window_without_a_sentence_gets_no_subtitle(saved, capsys):
    translate = Translator(["one", " ", "three"])
    print_subtitles(translate, str(saved / "long.mp4"), "srt", 1.6)
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
        (["{0}/long.mp4", "{0}/long.mp4", "--format", "srt"], "one video"),
    ],
)
def test_bad_options_are_refused(saved, words, message, capsys):
    assert main(["translate", str(saved), *(word.format(saved) for word in words)]) == 2
    assert message in capsys.readouterr().err
