"""Captions of a visitor's camera: the page sends small pictures, and is answered with what was signed so far.

An answer is a `dict`: `captions`, a list of `start`, `end` (seconds) and `text`; `is_signing`; and a new `draft`, if
there is one. Or `refused`, a sentence for the visitor. One visitor at a time is captioned; no picture is kept beyond
its cue.
"""

import base64
import binascii
import io
import logging
import math
import threading
import time

import numpy as np
from PIL import Image

from processing_fla.frame_conversion_fla import scaled
from training_fla.captions.captioner import Captioner
from training_fla.captions.live import caption_of
from training_fla.captions.pauses import PauseRules

CAMERA_FPS = 25  # Unstated: as most corpora have; frames are numbered as if the camera had it
IDLE_SECONDS = 10.0  # after which a visitor who sent nothing has left
MAX_PICTURES = 16  # of a request
MAX_SIDE = 1024  # pixels
logger = logging.getLogger(__name__)


def pictures_a_second(frame_stride: int) -> float:
    """What the page has to send: the frames that the model sees, and enough to see motion by."""
    return CAMERA_FPS / 2 if frame_stride % 2 == 0 else CAMERA_FPS


class RefusedPictureError(ValueError):
    """Something else than a small picture was sent."""


class LiveService:
    """What the page asks the server for while its camera is on."""

    def __init__(self, pipe, num_beams: int | None = None):
        self.pipe, self.options = pipe, {} if num_beams is None else {"num_beams": num_beams}
        self.turn = threading.Lock()
        self.visitor, self.captioner, self.last_seen = None, None, 0.0

    def caption(self, request) -> dict:
        """Take the pictures that a visitor's camera took since the last request.

        `request` has `visitor`, a name by which the page is known again; `pictures`, each with `at` in seconds and
        `jpeg` in base64; `is_behind`, whether more of them wait; and `is_last`.
        """
        try:
            visitor, sent = str(request["visitor"])[:40], list(request.get("pictures", ()))[:MAX_PICTURES]
            pictures = [(float(picture["at"]), self.frame_of(picture["jpeg"])) for picture in sent]
            if not all(math.isfinite(seconds) for seconds, _ in pictures):
                raise RefusedPictureError("no time")
        except (KeyError, TypeError, ValueError, AttributeError):
            return {"refused": "What was sent are not pictures of a camera."}
        with self.turn:
            if not self.takes(visitor):
                return {"refused": "Somebody else is using the live captions. Try again in a minute."}
            try:
                answer = self.answer(pictures, bool(request.get("is_behind")))
                if request.get("is_last"):
                    answer["captions"] += self.captions_of(self.captioner.finish())
                    self.visitor = self.captioner = None
                return answer
            except Exception:
                logger.exception("a camera was not captioned")
                self.visitor = self.captioner = None
                return {"refused": "Something went wrong on the server. Start again."}

    def takes(self, visitor: str) -> bool:
        """Whether a visitor may go on, or begin."""
        now = time.monotonic()
        if self.visitor not in (None, visitor) and now - self.last_seen < IDLE_SECONDS:
            return False
        if self.visitor != visitor:
            self.visitor, self.captioner = visitor, Captioner(self.pipe, PauseRules())
        self.last_seen = now
        return True

    def answer(self, pictures: list[tuple[float, np.ndarray]], is_behind: bool) -> dict:
        """Captions that have ended, and the draft of the one that has not."""
        answer = {"captions": []}
        for seconds, frame in pictures:
            if self.captioner.last_times and seconds <= self.captioner.last_times[-1]:
                continue
            cues = self.captioner.add(seconds, frame, int(seconds * CAMERA_FPS + 0.5))
            answer["captions"] += self.captions_of(cues)
        if self.captioner.draft_is_due() and not is_behind:
            answer["draft"] = self.captioner.draft()[1]
        answer["is_signing"] = self.captioner.segmenter.open_since is not None
        self.last_seen = time.monotonic()
        return answer

    def captions_of(self, cues: list) -> list[dict]:
        """Sentences of cues."""
        captions = [caption_of(self.pipe, cue, self.options) for cue in cues]
        return [{"start": c.start, "end": c.end, "text": c.text} for c in captions if c.text.strip()]

    def frame_of(self, jpeg: str) -> np.ndarray:
        """A picture as the processor reads it, `(H, W, 3)` in uint8 RGB."""
        try:
            image = Image.open(io.BytesIO(base64.b64decode(jpeg, validate=True)), formats=("JPEG",))
            if max(image.size) > MAX_SIDE:
                raise RefusedPictureError("too large")
            frame = np.asarray(image.convert("RGB"))
        except (OSError, binascii.Error, Image.DecompressionBombError) as error:
            raise RefusedPictureError("no JPEG") from error
        return scaled(frame[None], self.pipe.processor.video_processor.reading_size)[0]
