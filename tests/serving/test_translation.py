"""A clip step by step: the page's states are what the model saw, wrote and attended to."""

import base64
import copy
import io
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from processing_fla.video_reading_fla import OpenVideo
from tests.processing.drawing import marked_frame, write_video
from tests.serving.page_server import LIMITS, draw_clip, tiny_pipeline, translator_here
from training_fla.serving import translation
from training_fla.serving.limits import CancelledError, Limits, RefusedError, WorkClock
from training_fla.serving.translation import ClipTranslator, describe_word, most_frames
from training_fla.viewing.inspection import ClipFrames, inspect_translation


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return draw_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")  # 26 frames, 7 of them sampled


def test_progress_is_told_while_it_looks(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(translation, "FRAMES_AT_ONCE", 4)
    running = translator_here(pipe, LIMITS, num_beams=1).states(draw_clip(tmp_path / "clip.mp4", 37), WorkClock(60))
    looking = [state for state in running if state["stage"] == "looking"]
    assert [state["progress"] for state in looking] == [0.0, 0.4, 0.8] and len({s["message"] for s in looking}) == 1


@pytest.fixture(scope="module")
def states(pipe, clip):
    return list(translator_here(pipe, LIMITS, num_beams=3).states(clip, WorkClock(60)))


def refusal_of(path, pipe, limits=LIMITS, clock=None) -> str:
    with pytest.raises(RefusedError) as refusal:
        translator_here(pipe, limits).read(path, clock or WorkClock(60))
    assert str(path.parent) not in str(refusal.value), "the message names no path of the server"
    return str(refusal.value)


@dataclass
class SlowVideoProcessor:
    """Takes longer to read a clip than anybody waits."""

    seconds: float

    def sample_frame_indices(self, num_frames: int, fps: float | None = None) -> np.ndarray:
        return np.arange(num_frames)

    def __call__(self, videos, **options):
        time.sleep(self.seconds)


def test_the_time_limit_counts_reading_and_ends_it(pipe, clip):
    translator = ClipTranslator(pipe, LIMITS)
    assert len(translator.read(clip, WorkClock(60)).pixels) == 7
    process = translator.reading.process
    translator.processor = SimpleNamespace(video_processor=SlowVideoProcessor(60))
    began = time.monotonic()
    with pytest.raises(RefusedError, match=r"0\.2 seconds"):
        translator.read(clip, WorkClock(0.2))
    assert time.monotonic() - began < 30 and not process.is_alive() and translator.reading.process is None
    translator.processor = pipe.processor
    assert len(translator.read(clip, WorkClock(60)).pixels) == 7, "another process has taken its place"
    translator.reading.end()


def test_times_are_those_of_the_frames_not_of_the_frame_rate(pipe, tmp_path):
    times = [0, 40, 80, 120, 1000, 1040, 1080, 1120, 2500]
    path = write_video(tmp_path / "uneven.mkv", [marked_frame(n) for n in range(9)], codec="mpeg4", times=times)
    read = translator_here(pipe, LIMITS).read(path, WorkClock(60))
    assert read.seconds == pytest.approx([0, 1, 2.5], abs=0.01) and read.num_source_frames == 9


def test_what_is_no_video_is_refused(pipe, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    Image.fromarray(marked_frame(1)).save(tmp_path / "still.png")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-400])
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "cannot be read as a video: Invalid data" in refusal_of(tmp_path / "text.mp4", pipe)
    assert "image file" in refusal_of(tmp_path / "still.png", pipe)
    assert "cannot be read as a video" in refusal_of(tmp_path / "cut.mp4", pipe)
    assert refusal_of(tmp_path / "empty.mp4", pipe) == "This file is empty."
    (tmp_path / "large.mp4").write_bytes(bytes(2 * 2**20))
    assert "is 2 MB; 1 MB is the most" in refusal_of(tmp_path / "large.mp4", pipe)


def test_ten_minutes_are_refused_by_the_header(pipe, tmp_path, monkeypatch):
    frames = [marked_frame(n) for n in range(11)]
    path = write_video(tmp_path / "long.mkv", frames, codec="mpeg4", times=[n * 60_000 for n in range(11)])
    monkeypatch.setattr(OpenVideo, "timed_frames", None)  # nothing is decoded
    assert "longer than 4 seconds" in refusal_of(path, pipe) and "it lasts 11:00" in refusal_of(path, pipe)


def test_a_header_that_lies_or_says_nothing_does_not_help(pipe, tmp_path, monkeypatch):
    path = draw_clip(tmp_path / "long.mp4", 130)
    monkeypatch.setattr(OpenVideo, "end_seconds", None)
    assert "longer than 4 seconds" in refusal_of(path, pipe)
    assert "reads at most 9 frames, about 1 seconds" in refusal_of(path, pipe, Limits(max_frames=9))
    assert "0 seconds" in refusal_of(path, pipe, clock=WorkClock(0))
    fast = write_video(tmp_path / "fast.mp4", [marked_frame(1)] * 200, rate=400)
    assert "more than 60 frames a second" in refusal_of(fast, pipe, Limits(max_seconds=1))


def test_states_tell_what_happens(states, pipe):
    stages = [state["stage"] for state in states]
    assert stages[:2] == ["reading", "looking"] and stages[-2:] == ["searching", "done"]
    assert set(stages[2:-2]) == {"drafting"}
    assert [state.get("progress") for state in states[:3]] == [None, 0, None]
    assert all(state["message"] for state in states)
    assert states[1]["clip"] == {"sampled": 7, "source": 26, "seconds": 1.04}
    assert [frame["seconds"] for frame in states[1]["frames"]] == [0.0, 0.16, 0.32, 0.48, 0.64, 0.8, 0.96]
    picture = Image.open(io.BytesIO(base64.b64decode(states[1]["frames"][3]["image"].split(",")[1])))
    assert picture.format == "JPEG" and picture.size == (32, 32)


@pytest.mark.parametrize("input_features", ["sign", "frame", "hidden"])
def test_looking_at_a_few_frames_at_a_time_changes_nothing(pipe, tmp_path, input_features, monkeypatch):
    monkeypatch.setattr(translation, "FRAMES_AT_ONCE", 4)
    stage1, language_model = pipe.model, copy.deepcopy(pipe.model.language_model)
    assemble = type(stage1).from_visual_encoder_and_language_model
    pipe = tiny_pipeline(assemble(stage1, language_model, input_features=input_features))
    path = draw_clip(tmp_path / "clip.mp4", 37)
    *_, done = translator_here(pipe, LIMITS, num_beams=2).states(path, WorkClock(60))
    expected = pipe(str(path), num_beams=2)
    assert done["sentence"] == expected["translation_text"]
    assert done["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_the_draft_grows_to_what_greedy_search_writes(states, pipe, clip):
    drafts = [state["sentence"] for state in states if state["stage"] == "drafting"]
    assert len(drafts) > 3 and all(state["is_draft"] for state in states if state["stage"] == "drafting")
    assert drafts[-1] == pipe(str(clip), num_beams=1)["translation_text"]
    assert all(drafts[-1].startswith(draft) for draft in drafts) and len(set(drafts)) > 2


def test_the_result_is_that_of_the_beam_with_its_alternatives(states, pipe, clip):
    done = states[-1]
    expected = pipe(str(clip), num_beams=3, num_return_sequences=3)
    assert done["sentence"] == expected[0]["translation_text"] and not done["is_draft"]
    assert done["score"] == pytest.approx(expected[0]["score"], abs=1e-3)
    others = [(other["translation_text"], other["score"]) for other in expected[1:]]
    assert [(other["text"], pytest.approx(other["score"], abs=1e-3)) for other in done["alternatives"]] == others
    assert done["language"] == "de"


def test_attention_is_that_of_fla_inspect(states, pipe, clip):
    inspection = inspect_translation(str(clip), pipe, num_beams=3)
    words = states[-1]["words"]
    assert [word["text"] for word in words] == inspection.words
    for number, (word, row) in enumerate(zip(words, inspection.attention, strict=True)):
        assert np.allclose(word["weights"], row / row.max(), atol=2e-3)
        assert (word["first"], word["last"]) == inspection.focus(number)
        assert 0 <= word["from"] < word["to"] <= 1.04 and word["share"] >= 0.5


def test_a_word_has_the_segment_with_half_of_its_attention():
    read = ClipFrames("a.mp4", torch.zeros(4, 3, 2, 2), np.arange(4) * 4, [0.0, 0.2, 0.4, 0.6], 16, 0.8)
    word = describe_word("regen", np.array([0.1, 0.1, 0.3, 0.5]) * 0.9 + 0.01, read)
    assert (word["first"], word["last"], word["from"], word["to"], word["share"]) == (2, 3, 0.4, 0.8, 0.787)
    assert word["weights"] == [0.217, 0.217, 0.609, 1.0]


def test_one_beam_is_the_draft_and_has_no_alternatives(pipe, clip):
    states = list(translator_here(pipe, LIMITS, num_beams=1).states(clip, WorkClock(60)))
    assert "searching" not in [state["stage"] for state in states]
    assert states[-1]["alternatives"] == [] and states[-1]["sentence"] == states[-2]["sentence"]


def test_without_a_number_the_models_own_beam_is_searched(pipe):
    assert translator_here(pipe, LIMITS).num_beams == 5  # Paper: Sec. 5.2
    assert most_frames(pipe) == 64


def test_a_long_clip_is_thinned_as_it_is_everywhere(tmp_path):
    """`max_source_frames` is saved with the processor; the page, `fla inspect` and the pipeline obey it alike."""
    pipe = tiny_pipeline(max_source_frames=40)
    path = draw_clip(tmp_path / "long.mp4", 90)
    assert most_frames(pipe) is None, "no clip is too long for the model"
    *_, done = translator_here(pipe, LIMITS, num_beams=2).states(path, WorkClock(60))
    inspection, expected = inspect_translation(str(path), pipe, num_beams=2), pipe(str(path), num_beams=2)
    assert done["clip"] == {"sampled": 10, "source": 90, "seconds": 3.6} and len(inspection.clip.pixels) == 10
    assert done["sentence"] == inspection.sentence == expected["translation_text"]
    assert done["score"] == pytest.approx(expected["score"], abs=1e-4) == pytest.approx(inspection.score, abs=1e-4)
    assert (
        done["frames"][-1]["seconds"] == pytest.approx(36 * 89 / 39 / 25, abs=0.03)
        and inspection.clip.when(9) == "3.28 s"
    )


def test_a_clip_longer_than_the_position_table_is_refused(pipe, tmp_path):
    translator = translator_here(pipe, Limits(), num_beams=1)
    with pytest.raises(RefusedError, match=r"\b64\b"):
        list(translator.states(draw_clip(tmp_path / "long.mp4", 270), WorkClock(60)))


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fla-translate")]


def test_closing_a_translation_ends_its_thread(pipe, clip, monkeypatch):
    slow = translation.Watch.__call__
    monkeypatch.setattr(translation.Watch, "__call__", lambda *args, **kwargs: (time.sleep(0.1), slow(*args))[1])
    clock = WorkClock(60)
    running = translator_here(pipe, LIMITS, num_beams=3).states(clip, clock)
    while next(running)["stage"] != "drafting":
        continue
    assert writers()
    running.close()
    assert not writers() and clock.cancelled


def test_time_that_runs_out_ends_writing(pipe, clip):
    translator, clock = translator_here(pipe, LIMITS, num_beams=3), WorkClock(60)
    running = translator.states(clip, clock)
    while next(running)["stage"] != "drafting":
        continue
    clock.time_limit = 0
    with pytest.raises(RefusedError, match="0 seconds"):
        list(running)
    assert not writers()


def test_cancelling_ends_the_search(pipe, clip):
    translator, clock = translator_here(pipe, LIMITS, num_beams=3), WorkClock(60)
    running = translator.states(clip, clock)
    while next(running)["stage"] != "searching":
        continue
    clock.cancelled = True
    with pytest.raises(CancelledError):
        list(running)


def test_a_visitor_chooses_among_the_languages_of_the_model(pipe, clip):
    """An unknown one has no effect: the request is the visitor's own."""
    tokenizer, config = pipe.processor.tokenizer, pipe.model.generation_config
    config.language_token_ids = {code: tokenizer.convert_tokens_to_ids(code) for code in ("de_DE", "zh_CN")}
    try:
        translator = translator_here(pipe, LIMITS, num_beams=2)
        done = {}
        for asked in ("zh_CN", "de_DE", ["no"]):
            *_, done[str(asked)] = translator.states(clip, WorkClock(60), language=asked)
        chosen = {asked: pipe(str(clip), language=asked, num_beams=2) for asked in ("zh_CN", "de_DE")}
    finally:
        config.language_token_ids = None
    for asked, result in chosen.items():
        assert done[asked]["sentence"] == result["translation_text"] and done[asked]["language"] == asked[:2]
    assert done["['no']"]["sentence"] == pipe(str(clip), num_beams=2)["translation_text"]
