"""Files are read in another process, which a file may crash."""

import faulthandler
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from processing_fla import VideoDecodeError
from tests import video_campaign
from tests.processing.drawing import marked_frame, write_video
from tests.serving.page_server import draw_clip, tiny_pipeline
from training_fla.viewing.reading_process import IsolatedProcessor, ReadingProcess
from training_fla.viewing.translations import print_translations, read_by


def crash() -> None:
    faulthandler.disable()  # a forked process has pytest's
    os.kill(os.getpid(), signal.SIGSEGV)


class UnsendableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail() -> None:
    raise UnsendableError("this", "that")


class CrashingVideoProcessor:
    """Reads as another one, but crashes on what is called so."""

    def __init__(self, video_processor):
        self.video_processor = video_processor

    def __call__(self, videos, **options):
        if "crash" in str(videos[0]):
            crash()
        return self.video_processor(videos, **options)


@pytest.fixture(scope="module")
def reading():
    process = ReadingProcess()
    yield process
    process.end()


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def test_a_crash_is_an_error_with_the_name_of_the_file_and_the_next_file_is_read(reading):
    first = reading.call(os.getpid, name="a.mp4")
    assert first != os.getpid() and reading.call(os.getpid, name="a.mp4") == first, "it is used again"
    with pytest.raises(VideoDecodeError, match=r"`b\.ts`.*SIGSEGV"):
        reading.call(crash, name="b.ts")
    assert reading.call(os.getpid, name="c.mp4") not in (first, os.getpid())


def test_what_the_caller_raises_meanwhile_ends_the_process(reading):
    first, began = reading.call(os.getpid, name="a.mp4"), time.monotonic()

    def check():
        if time.monotonic() > began + 0.1:
            raise TimeoutError("nobody waits so long")

    with pytest.raises(TimeoutError, match="so long"):
        reading.call(time.sleep, 60, name="a.mp4", check=check)
    assert time.monotonic() - began < 30 and reading.call(os.getpid, name="a.mp4") != first


def test_errors_come_back_as_they_are_or_in_words(reading):
    with pytest.raises(FileNotFoundError, match="gone.mp4"):
        reading.call(os.stat, "gone.mp4", name="gone.mp4")
    with pytest.raises(RuntimeError, match="this and that"):
        reading.call(fail, name="a.mp4")
    assert torch.equal(reading.call(torch.arange, 5, name="a.mp4"), torch.arange(5))


def test_what_is_read_elsewhere_is_what_is_read_here(reading, pipe, tmp_path):
    path = draw_clip(tmp_path / "a.mp4")
    isolated = IsolatedProcessor(pipe.processor, [reading])
    assert isolated.tokenizer is pipe.processor.tokenizer
    options = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt", "return_metadata": True}
    here, there = (processor(videos=[path], **options) for processor in (pipe.processor, isolated))
    assert torch.equal(here["pixel_values_videos"], there["pixel_values_videos"])
    assert here["video_metadata"][0].timestamps == there["video_metadata"][0].timestamps
    frames = np.stack([marked_frame(number) for number in range(9)])
    assert torch.equal(
        pipe.processor(videos=[frames], **options)["pixel_values_videos"],
        isolated(videos=[frames], **options)["pixel_values_videos"],
    )
    with pytest.raises(VideoDecodeError, match=r"gone.mp4"):
        isolated(videos=["gone.mp4"], **options)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_of_many_clips_one_that_crashes_is_named_and_the_others_are_translated(pipe, tmp_path, capsys, num_processes):
    names = ["a.mp4", "crash.ts", "b.mp4", "a.mp4", "gone.mp4", "c.mp4"]
    for name in {*names} - {"gone.mp4"}:
        write_video(tmp_path / name, [marked_frame(number) for number in range(9)])
    clips = [str(tmp_path / name) for name in names]
    processor = pipe.processor
    video_processor = CrashingVideoProcessor(processor.video_processor)
    pipe.processor = SimpleNamespace(video_processor=video_processor, batch_decode=processor.batch_decode)
    processes = [ReadingProcess() for _ in range(num_processes)]
    try:
        with read_by(pipe, processes, clips):
            assert print_translations(pipe, clips, "tsv", batch_size=2) == [clips[n] for n in (0, 2, 3, 5)]
    finally:
        pipe.processor = processor
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == [clips[n] for n in (0, 2, 3, 5)]
    assert "crash.ts`" in printed.err and "SIGSEGV" in printed.err and "gone.mp4" in printed.err
    assert all(process.process is None for process in processes)


@pytest.mark.slow
def test_damaged_videos_are_read_or_refused_by_name(tmp_path):
    counts, longest, findings = video_campaign.run(400, seed=1, folder=tmp_path)
    assert not findings and counts["read"] > 40 and counts["refused"] > 40 and longest < video_campaign.SECONDS
