"""From frames as they are shown to cues: every frame that is sampled goes through the vision backbone once.

    frame  ->  small grey picture  ->  segments of signing (pauses.py)
           ->  one in `frame_stride`  ->  vision backbone  ->  frame features, kept while their segment may still come
    segment ended  ->  temporal module over its frame features  ->  sign features  ->  sentence
    segment open   ->  the same of what there is so far  ->  draft

Frames are sampled by their number in the recording, not from the beginning of their segment, which is not known when
they are shown. Frames of a rest are not encoded. Shapes: T sampled frames, C visual features, N = T sign positions.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from processing_fla.frame_conversion_fla import scaled
from training_fla.captions.pauses import PICTURE_SIZE, PauseRules, PauseSegmenter

# Unstated: frames of one forward of the backbone; always so many, so that a file and a camera give the same features.
FRAMES_AT_ONCE = 2
DRAFT_SECONDS = 1.0  # Unstated: of new signing between two drafts
DRAFT_TIME = 0.3  # Unstated: seconds after which a draft is shown as far as it is written; the next one goes on
DRAFT_TOKENS = 40  # Unstated: a longer draft is cut off, its sentence is not


@dataclass(frozen=True)
class SignedCue:
    """A segment that has ended, and what the adapter reads of it."""

    start: float  # seconds
    end: float
    sign_features: torch.Tensor  # (N, C), on the CPU

    @property
    def clip(self) -> dict:
        """What the pipeline translates."""
        return {"sign_features": self.sign_features}


@dataclass
class SampledFrame:
    """A frame that the model sees, and the backbone's features `(C,)` once it has been encoded."""

    seconds: float
    pixels: np.ndarray | None  # (H, W, 3), uint8 RGB, until it has been encoded
    features: torch.Tensor | None = None


class Sampler:
    """Which frames of a stream the model sees, by the numbers of its video processor."""

    def __init__(self, video_processor):
        self.stride = video_processor.frame_stride
        rate = getattr(video_processor, "target_fps", None)
        self.interval = 1 / rate if rate else 0.0
        self.due, self.next_index, self.num_thinned = -math.inf, 0, 0

    def keeps(self, seconds: float, index: int) -> bool:
        """Whether frame number `index` of the stream, shown at `seconds`, is kept; numbers may be left out."""
        if self.interval:
            if seconds < self.due - 1e-3:
                return False
            self.due = max(self.due + self.interval, seconds) if self.due > -math.inf else seconds + self.interval
            index, self.num_thinned = self.num_thinned, self.num_thinned + 1
        if index < self.next_index:
            return False
        self.next_index = (index // self.stride + 1) * self.stride
        return True


class TimeLimit(StoppingCriteria):
    """Ends generation when the time is over."""

    def __init__(self, clock: Callable[[], float], seconds: float):
        self.clock, self.end = clock, clock() + seconds

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self.clock() >= self.end, device=input_ids.device)


class Captioner:
    """Cues of a stream of frames for a pipeline; `draft` says what the open one looks like so far."""

    def __init__(self, pipe, rules: PauseRules, max_new_tokens: int | None = None):
        longest_draft = min(DRAFT_TOKENS, pipe.model.max_target_positions or DRAFT_TOKENS)
        self.max_draft_tokens = min(longest_draft, max_new_tokens or longest_draft)
        self.model, self.processor = pipe.model.eval(), pipe.processor
        self.video_processor = video_processor = self.processor.video_processor
        limit = self.model.max_sign_positions
        self.segmenter = PauseSegmenter(rules, limit and (limit - 1) * video_processor.frame_stride)
        self.sampler = Sampler(video_processor)
        longest = video_processor.max_source_frames
        self.most = longest and math.ceil(longest / video_processor.frame_stride)  # sampled frames of a cue
        self.sampled: deque[SampledFrame] = deque()  # that may lie in a cue to come
        self.last_times: list[float] = []
        self.drafted_until = -math.inf
        self.draft_ids: torch.Tensor | None = None
        self.clock = time.monotonic

    def add(self, seconds: float, frame: np.ndarray, index: int) -> list[SignedCue]:
        """Take a frame `(H, W, 3)`, uint8 RGB, as the processor reads it, and give the cues that have ended.

        `index` is its number in the stream, in which some may be left out.
        """
        picture = None
        if self.segmenter.wants_picture(seconds):
            picture = scaled(np.ascontiguousarray(frame)[None], PICTURE_SIZE)[0].mean(2, dtype=np.float32)
        self.last_times = [*self.last_times[-1:], seconds]
        if self.sampler.keeps(seconds, index):
            self.sampled.append(SampledFrame(seconds, frame))
        cues = self.cues_of(self.segmenter.add(seconds, picture))
        since = self.segmenter.open_since
        if since is not None:
            self.encode(since, whole_batches=True)
        return cues

    def finish(self) -> list[SignedCue]:
        """The last cues, when there are no more frames."""
        return self.cues_of(self.segmenter.finish(end_of(self.last_times))) if self.last_times else []

    def cues_of(self, segments: list[tuple[float, float]]) -> list[SignedCue]:
        """Cues of segments that have ended; frames that lie in no segment to come are let go."""
        cues = []
        for start, end in segments:
            self.encode(start, end)
            features = self.features(start, end)
            if features:
                cues.append(SignedCue(start, end, self.sign_features(features)[0].cpu()))
            self.draft_ids, self.drafted_until = None, -math.inf
        while self.sampled and self.sampled[0].seconds < self.segmenter.settled:
            self.sampled.popleft()
        return cues

    def features(self, start: float, end: float = math.inf) -> list[torch.Tensor]:
        """Of the frames between two times that are encoded."""
        return [frame.features for frame in self.encoded_frames(start, end)]

    def encoded_frames(self, start: float, end: float = math.inf) -> list[SampledFrame]:
        """The frames between two times that are encoded."""
        return [f for f in self.sampled if start <= f.seconds < end and f.features is not None]

    @torch.no_grad()
    def encode(self, start: float, end: float = math.inf, whole_batches: bool = False) -> None:
        """Encode the sampled frames between two times that are not encoded yet; maybe in whole batches only."""
        frames = [frame for frame in self.sampled if start <= frame.seconds < end and frame.features is None]
        if whole_batches:
            frames = frames[: len(frames) // FRAMES_AT_ONCE * FRAMES_AT_ONCE]
        for place in range(0, len(frames), FRAMES_AT_ONCE):
            batch = frames[place : place + FRAMES_AT_ONCE]
            pixels = torch.from_numpy(np.stack([frame.pixels for frame in batch])).permute(0, 3, 1, 2)
            pixels = self.video_processor.scale_and_crop(pixels).to(self.model.device)
            for frame, features in zip(batch, self.model.visual_encoder.encode_frames(pixels), strict=True):
                frame.features, frame.pixels = features, None

    @torch.no_grad()
    def sign_features(self, features: list[torch.Tensor]) -> torch.Tensor:
        """What the adapter reads, `(1, N, C)`, of kept frame features; those of a long cue are thinned evenly."""
        if self.most and len(features) > self.most:
            features = [features[place] for place in np.linspace(0, len(features) - 1, self.most).round().astype(int)]
        return self.model.get_sign_features(frame_features=torch.stack(features)[None]).float()

    def draft_is_due(self) -> bool:
        """Whether enough was signed since the last draft; when the hands rest the sentence comes soon."""
        since = self.segmenter.open_since
        is_signing = since is not None and self.segmenter.is_moving
        return is_signing and self.last_times[-1] - max(self.drafted_until, since) >= DRAFT_SECONDS

    @torch.no_grad()
    def draft(self) -> tuple[float, str]:
        """The seconds of the last frame that is encoded, and what the open segment says so far, by greedy search.

        Words of the last draft that still hold are kept.
        """
        frames = self.encoded_frames(self.segmenter.open_since)
        self.drafted_until = self.last_times[-1]
        if not frames:
            return self.drafted_until, ""
        sign_features = self.sign_features([frame.features for frame in frames])
        mask = torch.ones(sign_features.shape[:2], dtype=torch.long, device=sign_features.device)
        encoded = self.model.get_encoder()(sign_features=sign_features, attention_mask=mask)
        given = {"encoder_outputs": encoded, "attention_mask": mask}
        options = {"num_beams": 1, "do_sample": False, "max_new_tokens": self.max_draft_tokens}
        if self.draft_ids is not None:
            kept = options["decoder_input_ids"] = self.still_true(self.draft_ids, given)
            options["max_new_tokens"] -= kept.shape[1] - 1
        limit = StoppingCriteriaList([TimeLimit(self.clock, DRAFT_TIME)])
        self.draft_ids = self.model.generate(**given, **options, stopping_criteria=limit)
        return frames[-1].seconds, self.processor.batch_decode(self.draft_ids, skip_special_tokens=True)[0]

    def still_true(self, ids: torch.Tensor, given: dict) -> torch.Tensor:
        """Those first of the ids `(1, L)` that greedy search would write again, found in one forward."""
        best = self.model(**given, decoder_input_ids=ids[:, :-1], use_cache=False).logits.argmax(2)
        agreed = (best == ids[:, 1:]).long().cumprod(1).sum().item()
        return ids[:, : max(1, min(agreed, ids.shape[1] - 2) + 1)]


def end_of(times: list[float]) -> float:
    """Where the last of some frames ends: it is shown as long as the one before it."""
    return times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.04)
