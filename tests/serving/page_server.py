"""A page of the tiny model, served in this process, and a translator that takes its time."""

import json
import threading
import urllib.request
from pathlib import Path

from tests.processing.drawing import marked_frame, tiny_model, tiny_processor, write_video
from training_fla.serving.limits import Limits, WorkClock

MEGABYTES = 1
LIMITS = Limits(max_megabytes=MEGABYTES, max_seconds=4)


def tiny_pipeline(model=None, **options):
    from transformers import pipeline

    processor = tiny_processor(**options)
    return pipeline(
        "sign-language-translation", model=model or tiny_model(processor.tokenizer, seed=3),
        processor=processor, device="cpu", max_new_tokens=8,
    )  # fmt: skip


def draw_clip(path: Path, num_frames: int = 26, **options) -> Path:
    return write_video(path, [marked_frame(number % 30) for number in range(num_frames)], **options)


class ReadingHere:
    """Stands for a `ReadingProcess` and reads in this process, which is there at once."""

    def call(self, function, *args, name, check):
        check()
        return function(*args)


def translator_here(pipe, limits: Limits = LIMITS, num_beams: int | None = None):
    from training_fla.serving.translation import ClipTranslator

    return ClipTranslator(pipe, limits, num_beams, ReadingHere())


class SlowTranslator:
    """Does not go on before it is told to."""

    def __init__(self, translator):
        self.limits, self.processor = translator.limits, translator.processor
        self.go_on = threading.Event()

    def states(self, path: Path, clock: WorkClock, delete=None, language=None):
        looking = {"stage": "looking", "message": "Looking slowly …", "progress": 0.25}
        yield looking
        while not self.go_on.wait(0.05):
            clock.check()
            yield looking
        yield {
            "stage": "done", "message": "Done.", "sentence": "langsam", "is_draft": False, "score": 0.5, "words": [],
            "alternatives": [], "num_beams": 1,
        }  # fmt: skip


class Server:
    """Served at `address` until `close`; `service.translator` may be another for a while."""

    def __init__(self, limits: Limits, root_path: str = ""):
        from dataclasses import replace

        from training_fla.serving.live import LiveService
        from training_fla.serving.page import ClipService, build_page, free_port, launch_page
        from training_fla.serving.translation import most_frames
        from training_fla.serving.upload_folder import UploadFolder

        self.uploads = UploadFolder(limits.keep_seconds)
        self.pipe = tiny_pipeline()
        self.limits = replace(limits, max_frames=most_frames(self.pipe))
        self.service = ClipService(translator_here(self.pipe, self.limits, num_beams=3), self.uploads)
        self.live = LiveService(self.pipe, num_beams=3)
        self.page = build_page(self.service, self.live, "tests/tiny <model> ${1} {{2}} @3@")
        self.address = launch_page(self.page, "127.0.0.1", free_port("127.0.0.1", 0), limits.max_bytes, root_path)

    def kept(self) -> list[Path]:
        """Files of people that are still on the disk."""
        return [path for path in self.uploads.path.rglob("*") if path.is_file()]

    def remembered(self) -> list[dict]:
        """What Gradio holds in memory of what visitors were shown."""
        states = list(self.page.state_holder.session_data.values())
        values = [component["props"].get("value") for state in states for component in state.components]
        return [value for value in values if isinstance(value, dict) and value]

    def num_waiting(self) -> int:
        """Clips in Gradio's queue, without the one that is being translated."""
        with urllib.request.urlopen(f"{self.address}gradio_api/queue/status", timeout=60) as answer:
            return json.load(answer)["queue_size"]

    def close(self) -> None:
        self.page.close(verbose=False)
        self.uploads.__exit__(None, None, None)
