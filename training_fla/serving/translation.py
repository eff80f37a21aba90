"""One clip translated step by step: the states the page shows, from the sampled frames to words and attention.

A state is a `dict` that goes to the browser as JSON; each holds all that is known so far:

    stage          reading, looking, drafting, searching, then done or refused
    message        one sentence for the status line
    clip           sampled, source: numbers of frames; seconds: length
    progress       while looking: share of the frames that the model has looked at
    frames         a JPEG as data URL and the second it is shown at, for each of the T sampled frames
    sentence       the translation; with is_draft, what greedy search has written so far
    score          geometric mean of the token probabilities, 0 to 1
    words          text, from, to (seconds), share, first, last (sampled frames), weights (T, the largest is 1)
    alternatives   text and score of the beam's other sentences, best first
    num_beams      width of the beam
"""

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from processing_fla.pipeline_fla import DEFAULT_GENERATION
from processing_fla.video_reading_fla import video_length
from training_fla.errors import one_line
from training_fla.serving.limits import Limits, RefusedError, WorkClock
from training_fla.viewing.inspection import ClipFrames, attended_words, data_url, language_of, read_clip, shortest_half
from training_fla.viewing.reading_process import ReadingProcess

THUMBNAIL_SIZE = 112  # pixels of the shorter side
FRAMES_AT_ONCE = 16  # that the vision backbone encodes between two checks of the clock
WAIT_SECONDS = 0.2  # for the next state, between two checks of the clock


class Watch(StoppingCriteria):
    """At each token: ends generation by what `clock.check` raises, and reports the ids so far."""

    def __init__(self, clock: WorkClock, tell: Callable[[torch.Tensor], None]):
        self.clock, self.tell = clock, tell

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        self.clock.check()
        self.tell(input_ids)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class ClipTranslator:
    """A model, ready to translate clips for the page; its language model is switched to eager attention.

    `num_beams` is the width of the beam search; the model's own where it is absent, else the pipeline's. `reading`, a
    [`~training_fla.viewing.reading_process.ReadingProcess`], reads the files.
    """

    def __init__(self, pipe, limits: Limits, num_beams: int | None = None, reading=None):
        self.pipe, self.limits, self.reading = pipe, limits, reading or ReadingProcess()
        self.model, self.processor = pipe.model.eval(), pipe.processor
        language_model = getattr(self.model, "language_model", self.model)  # an exported model is in one piece
        language_model.set_attn_implementation("eager")  # the only one that says what was attended to
        self.model.visual_encoder.frames_at_once = FRAMES_AT_ONCE
        self.num_beams = num_beams or self.model.generation_config.num_beams or DEFAULT_GENERATION.num_beams

    def states(
        self, path: Path, clock: WorkClock, delete: Callable[[], None] = lambda: None, language: str | None = None
    ) -> Iterator[dict]:
        """Translate a file in a thread, and yield the states described at the top of this file.

        `delete` is called as soon as the file is no longer needed; a `language` that is none of the model's has no
        effect. Raises `RefusedError` where the clip is not translated and `CancelledError` where the visitor has left.
        """
        states: queue.SimpleQueue = queue.SimpleQueue()
        with ThreadPoolExecutor(1, thread_name_prefix="fla-translate") as pool:
            language = language if language in self.model.languages else None
            work = pool.submit(self.translate, path, clock, delete, states.put, language)
            work.add_done_callback(lambda _: states.put(None))
            try:
                state: dict | None = {}
                while state is not None:
                    clock.check()
                    with contextlib.suppress(queue.Empty):
                        state = states.get(timeout=WAIT_SECONDS)
                        if state:
                            yield state
                work.result()  # raises what ended the work
            finally:
                clock.cancelled |= not work.done()  # so that the thread ends too

    @torch.no_grad()
    def translate(
        self,
        path: Path,
        clock: WorkClock,
        delete: Callable,
        tell: Callable[[dict], None],
        language: str | None = None,
    ) -> None:
        """Translate a file and tell the states."""
        state = {"stage": "reading", "message": "Reading the clip …", "num_beams": self.num_beams}
        tell(state)
        clip = self.read(path, clock)
        delete()
        message = f"Looking at {len(clip.pixels)} frames …"
        state = state | {"stage": "looking", "message": message} | describe_clip(clip)
        seen = 0

        own_thread = threading.get_ident()

        def tell_progress(_, inputs: tuple[torch.Tensor]) -> None:
            nonlocal seen
            if threading.get_ident() != own_thread:  # live captions of somebody else
                return
            clock.check()
            tell(state | {"progress": round(seen / len(clip.pixels), 2)})
            seen += len(inputs[0])

        with self.model.visual_encoder.vision_backbone.register_forward_pre_hook(tell_progress):
            encoded, mask = self.encode(clip.pixels)

        def tell_draft(ids: torch.Tensor) -> None:
            text = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
            tell(state | {"stage": "drafting", "message": "Writing …", "sentence": text, "is_draft": True})

        sequences, scores = self.write(encoded, mask, Watch(clock, tell_draft), 1, language)
        if self.num_beams > 1:
            text = self.processor.batch_decode(sequences, skip_special_tokens=True)[0]
            message = f"Comparing {self.num_beams} ways to say it …"
            tell(state | {"stage": "searching", "message": message, "sentence": text, "is_draft": True})
            sequences, scores = self.write(encoded, mask, Watch(clock, lambda ids: None), self.num_beams, language)
        tell(state | self.result(sequences, scores, encoded, mask, clip, language))

    def read(self, path: Path, clock: WorkClock) -> ClipFrames:
        """The frames the model sees of a file that is within the limits."""
        self.limits.check_size(path.stat().st_size)
        video_processor = self.processor.video_processor
        try:
            return self.reading.call(
                read_within_limits, path, video_processor, self.limits, name=path, check=clock.check
            )
        except (ValueError, OSError) as error:
            reason = one_line(error).replace(f"`{path}` cannot be decoded as a video: ", "")
            raise RefusedError(
                f"This file cannot be read as a video: {reason.replace(f'`{path}`', 'it').rstrip('.')}. "
                "Send a whole video file, for example .mp4, .mov, .webm, .mkv or .avi."
            ) from error

    def encode(self, pixels: torch.Tensor):
        """The encoder's output, and the mask `(1, T)`, from the frames `(T, 3, H, W)` of a clip."""
        pixels = pixels[None].to(self.model.device)
        mask = torch.ones(pixels.shape[:2], dtype=torch.long, device=pixels.device)
        try:
            return self.model.get_encoder()(pixel_values_videos=pixels, attention_mask=mask), mask
        except ValueError as error:  # too many frames for the language model
            raise RefusedError(f"This clip cannot be translated: {one_line(error)}") from error

    def write(
        self, encoded, mask: torch.Tensor, watch: Watch, num_beams: int, language: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids `(R, L)` and scores `(R,)` of the sentences of all beams, best first, by the pipeline."""
        options = {} if language is None else {"language": language}
        options |= {"num_beams": num_beams, "num_return_sequences": num_beams, "do_sample": False}
        return self.pipe.generate(encoded, mask, stopping_criteria=StoppingCriteriaList([watch]), **options)

    def result(
        self,
        sequences: torch.Tensor,
        scores: torch.Tensor,
        encoded,
        mask: torch.Tensor,
        clip: ClipFrames,
        language: str | None = None,
    ) -> dict:
        """What the last state has beyond the ones before, from what [`write`] and [`encode`] gave."""
        sentences = self.processor.batch_decode(sequences, skip_special_tokens=True)
        best, *others = zip(sentences, [round(score, 4) for score in scores.tolist()], strict=True)
        words, attention = attended_words(self.model, self.processor.tokenizer, sequences[:1], encoded, mask)
        alternatives: dict[str, float] = {}
        for text, score in others:
            if text != best[0]:  # beams may differ in how a word is cut to pieces, which the text does not show
                alternatives.setdefault(text, score)
        return {
            "stage": "done",
            "message": "Done." if best[0] else "Done. The model wrote nothing for this clip.",
            "sentence": best[0],
            "is_draft": False,
            "score": best[1],
            "language": language_of(self.processor.tokenizer, language),
            "words": [describe_word(word, row, clip) for word, row in zip(words, attention, strict=True)],
            "alternatives": [{"text": text, "score": score} for text, score in alternatives.items()],
        }


def read_within_limits(path: Path, video_processor, limits: Limits) -> ClipFrames:
    """The frames the model sees of a file; one that is too long is refused before it is decoded."""
    length = video_length(path)
    limits.check_frames(length.total_num_frames, length.duration or 0.0)
    num_sampled = len(video_processor.sample_frame_indices(length.total_num_frames, fps=length.fps))
    limits.check_sampled(num_sampled, length.duration or 0.0)
    # A file whose container lies about its length is refused too, before as many frames fill the memory.
    most = len(video_processor.sample_frame_indices(limits.max_source_frames))
    clip = read_clip(path, video_processor, max_sampled_frames=most)
    limits.check_frames(clip.num_source_frames, clip.duration or 0.0)
    limits.check_sampled(len(clip.pixels), clip.duration or 0.0)
    return clip


def describe_clip(clip: ClipFrames) -> dict:
    """`frames` and `clip` of a state."""
    frames = [{"image": thumbnail(clip, n), "seconds": round(when, 2)} for n, when in enumerate(clip.seconds)]
    length = {"sampled": len(clip.pixels), "source": clip.num_source_frames, "seconds": round(clip.duration, 2)}
    return {"frames": frames, "clip": length}


def thumbnail(clip: ClipFrames, position: int) -> str:
    """A sampled frame as a small data URL."""
    image = clip.image(position)
    scale = min(1.0, THUMBNAIL_SIZE / min(image.size))
    return data_url(image.resize((round(image.width * scale), round(image.height * scale))), quality=80)


def describe_word(word: str, weights: np.ndarray, clip: ClipFrames) -> dict:
    """Where the model looked as it wrote a word, by its attention `(T,)` to the clip's frames."""
    first, last = shortest_half(weights)
    ends = [*clip.seconds[1:], clip.seconds[0] + clip.duration]
    return {
        "text": word,
        "first": first,
        "last": last,
        "from": round(clip.seconds[first], 2),
        "to": round(ends[last], 2),
        "share": round(float(weights[first : last + 1].sum() / max(weights.sum(), 1e-9)), 3),
        "weights": [round(float(weight), 3) for weight in weights / max(weights.max(), 1e-9)],
    }


def most_frames(pipe) -> int | None:
    """The most sampled frames that the model reads; `None` where no clip is too long."""
    limit = pipe.model.max_sign_positions
    processor = pipe.processor.video_processor
    if limit is not None and processor.max_source_frames:
        longest_thinned = math.ceil(processor.max_source_frames / processor.frame_stride)
        return None if longest_thinned <= limit else limit
    return limit
