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

import base64
import io
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from training_fla.serving.clip_reading import Clip, read_clip
from training_fla.serving.limits import Limits, RefusedError, WorkClock
from training_fla.viewing.inspection import attended_words, shortest_half

THUMBNAIL_SIZE = 112  # pixels of the shorter side
FRAMES_AT_ONCE = 16  # that the vision backbone looks at between two looks whether anybody still waits
WAIT_SECONDS = 0.2  # for the next word, between two looks whether anybody still waits


class Watch(StoppingCriteria):
    """Ends generation when the time is over or nobody waits.

    Args:
        clock ([`WorkClock`]): of the work.
    """

    def __init__(self, clock: WorkClock):
        self.clock = clock

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        """Never says stop: [`WorkClock.check`] raises."""
        self.clock.check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TokenQueue(BaseStreamer):
    """Hands generated tokens to another thread."""

    def __init__(self):
        self.items: queue.Queue = queue.Queue()

    def put(self, value: torch.LongTensor) -> None:
        """Take one more token.

        Args:
            value (`torch.LongTensor` of shape `(1,)`): its id; at first of shape `(1, 1)`, the start token.
        """
        self.items.put(value.reshape(-1).tolist())

    def end(self) -> None:
        """The end is told by the thread, which may also have failed."""


class ClipTranslator:
    """A model, ready to translate clips for the page.

    Args:
        pipe ([`~processing_fla.SignTranslationPipeline`]): of a trained model. Its language model is switched to eager
            attention, the only one that says what was attended to.
        limits ([`Limits`]): of a clip.
        num_beams (`int`, *optional*): width of the beam search; the model's own when absent.
    """

    def __init__(self, pipe, limits: Limits, num_beams: int | None = None):
        self.pipe, self.limits = pipe, limits
        self.model, self.processor = pipe.model.eval(), pipe.processor
        self.model.language_model.set_attn_implementation("eager")
        # The model's own width, or where it says nothing the pipeline's.
        configured = pipe._prepare_generate_kwargs({}).get("num_beams", self.model.generation_config.num_beams)
        self.num_beams = num_beams or configured or 1

    @property
    def language(self) -> str:
        """Of the sentences, as HTML's `lang` has it; empty where the tokenizer does not say."""
        return str(getattr(self.processor.tokenizer, "tgt_lang", None) or "").split("_")[0]

    def states(self, path: Path, clock: WorkClock, delete=lambda: None) -> Iterator[dict]:
        """Translate a clip.

        Args:
            path (`Path`): a file.
            clock ([`WorkClock`]): of the work on it.
            delete (`Callable`): called as soon as the file is no longer needed.

        Yields:
            `dict`: see the top of this file.

        Raises:
            RefusedError: the clip is not translated.
            CancelledError: nobody waits for it.
        """
        state = {"stage": "reading", "message": "Reading the clip …", "num_beams": self.num_beams}
        yield dict(state)
        clip = read_clip(path, self.processor.video_processor, self.limits, clock)
        delete()
        state |= {
            "stage": "looking",
            "message": f"Looking at {len(clip.pixels)} frames …",
            "frames": [
                {"image": data_url(frame), "seconds": round(seconds, 2)}
                for frame, seconds in zip(clip.pixels, clip.seconds, strict=True)
            ],
            "clip": {
                "sampled": len(clip.pixels),
                "source": clip.num_source_frames,
                "seconds": round(clip.duration, 2),
            },
        }
        features = []
        for part in clip.pixels.split(FRAMES_AT_ONCE):
            yield state | {"progress": round(sum(map(len, features)) / len(clip.pixels), 2)}
            clock.check()
            features.append(self.frame_features(part))
        encoded, mask = self.encode(torch.cat(features))
        clock.check()
        sequence: list[int] = []
        for ids, text in self.draft(encoded, mask, clock):
            sequence = ids
            state |= {"stage": "drafting", "message": "Writing …", "sentence": text, "is_draft": True}
            yield dict(state)
        sequences = torch.tensor([sequence], device=mask.device)
        if self.num_beams > 1:
            state |= {"stage": "searching", "message": f"Comparing {self.num_beams} ways to say it …"}
            yield dict(state)
            sequences = self.search(encoded, mask, clock)
        clock.check()
        yield state | self.result(sequences, encoded, mask, clip)

    @torch.no_grad()
    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of a few frames: a clip at once would take a gigabyte, and nobody could stop it.

        Args:
            pixels (`torch.ByteTensor` of shape `(T, 3, H, W)`): uint8, RGB, 0 to 255; all real.

        Returns:
            `torch.FloatTensor` of shape `(T, C)`: of the vision backbone.
        """
        return self.model.visual_encoder.get_frame_features(pixels[None].to(self.model.device))[0]

    @torch.no_grad()
    def encode(self, frame_features: torch.Tensor):
        """Encode a clip; what [`~modeling_fla.FlaForConditionalGeneration.get_sign_features`] does behind the backbone
        is done here.

        Args:
            frame_features (`torch.FloatTensor` of shape `(T, C)`): of the whole clip; all real.

        Returns:
            `tuple`: the encoder's `BaseModelOutput`, and the mask, `torch.LongTensor` of ones of shape `(1, T)`.

        Raises:
            RefusedError: it has more frames than the language model has positions.
        """
        features = frame_features[None]
        mask = torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
        if self.model.config.input_features != "frame":
            positions = torch.arange(mask.numel(), device=mask.device)
            features = self.model.visual_encoder.temporal_module(features, positions)
        if self.model.light_t_encoder is not None:
            features = self.model.light_t_encoder(features, mask.bool())
        try:
            return self.model.get_encoder()(sign_features=features, attention_mask=mask), mask
        except ValueError as error:  # too many frames for the language model
            raise RefusedError(f"This clip cannot be translated: {' '.join(str(error).split())}") from error

    def draft(self, encoded, mask: torch.Tensor, clock: WorkClock) -> Iterator[tuple[list[int], str]]:
        """Write by greedy search, token by token.

        Args:
            encoded (`BaseModelOutput`): from [`encode`].
            mask (`torch.LongTensor` of shape `(1, T)`): from [`encode`]; all ones.
            clock ([`WorkClock`]): of the work.

        Yields:
            `tuple[list[int], str]`: ids so far, with the start token, and the text they stand for.
        """
        tokens = TokenQueue()
        done = object()

        def work():
            try:
                self._generate(encoded, mask, clock, num_beams=1, num_return_sequences=1, streamer=tokens)
            except BaseException as error:  # raised again below, in the thread that is waited for
                tokens.items.put(error)
            tokens.items.put(done)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        ids: list[int] = []
        finished = False
        try:
            while not finished:
                try:
                    item = tokens.items.get(timeout=WAIT_SECONDS)
                except queue.Empty:
                    clock.check()
                    continue
                if isinstance(item, BaseException):
                    raise item
                finished = item is done
                if not finished:
                    ids += item
                    yield list(ids), self.processor.batch_decode([ids], skip_special_tokens=True)[0]
        finally:
            clock.cancelled |= not finished  # so that the thread ends too
            worker.join()

    def search(self, encoded, mask: torch.Tensor, clock: WorkClock) -> torch.Tensor:
        """Search the beam.

        Args:
            encoded (`BaseModelOutput`): from [`encode`].
            mask (`torch.LongTensor` of shape `(1, T)`): from [`encode`]; all ones.
            clock ([`WorkClock`]): of the work.

        Returns:
            `torch.LongTensor` of shape `(R, L)`: ids of its sentences, best first.
        """
        return self._generate(
            encoded, mask, clock, num_beams=self.num_beams, num_return_sequences=self.num_beams, do_sample=False
        )

    def _generate(self, encoded, mask: torch.Tensor, clock: WorkClock, **options) -> torch.Tensor:
        options = self.pipe._prepare_generate_kwargs(options)
        return self.model.generate(
            encoder_outputs=encoded.copy(),
            attention_mask=mask,
            stopping_criteria=StoppingCriteriaList([Watch(clock)]),
            **options,
        )

    @torch.no_grad()
    def result(self, sequences: torch.Tensor, encoded, mask: torch.Tensor, clip: Clip) -> dict:
        """The best sentence with words and attention, and the others with scores.

        Args:
            sequences (`torch.LongTensor` of shape `(R, L)`): best first.
            encoded (`BaseModelOutput`): from [`encode`].
            mask (`torch.LongTensor` of shape `(1, T)`): from [`encode`]; all ones.
            clip ([`Clip`]): with T sampled frames.

        Returns:
            `dict`: what the last state has beyond the ones before.
        """
        sentences = self.processor.batch_decode(sequences, skip_special_tokens=True)
        scores = [round(score, 4) for score in self.pipe.sentence_scores(sequences, encoded, mask).tolist()]
        words, attention, _ = attended_words(
            self.model,
            self.processor.tokenizer,
            without_padding(sequences[:1], self.processor.tokenizer.pad_token_id),
            encoder_outputs=encoded,
            attention_mask=mask,
        )
        alternatives = {}
        for sentence, score in zip(sentences[1:], scores[1:], strict=True):
            if sentence != sentences[0]:  # beams may differ in how a word is cut to pieces, which nobody sees
                alternatives.setdefault(sentence, score)
        return {
            "stage": "done",
            "message": "Done." if sentences[0] else "Done. The model wrote nothing for this clip.",
            "sentence": sentences[0],
            "is_draft": False,
            "score": scores[0],
            "language": self.language,
            "words": [describe_word(word, row, clip) for word, row in zip(words, attention, strict=True)],
            "alternatives": [{"text": text, "score": score} for text, score in alternatives.items()],
        }


def describe_word(word: str, weights: np.ndarray, clip: Clip) -> dict:
    """Where the model looked as it wrote a word.

    Args:
        word (`str`): of the sentence.
        weights (`np.ndarray` of shape `(T,)`): its attention, float, not negative.
        clip ([`Clip`]): with T sampled frames.

    Returns:
        `dict`: see the top of this file.
    """
    first, last = shortest_half(weights)
    ends = [*clip.seconds[1:], max(clip.duration, clip.seconds[-1])]
    return {
        "text": word,
        "first": first,
        "last": last,
        "from": round(clip.seconds[first], 2),
        "to": round(ends[last], 2),
        "share": round(float(weights[first : last + 1].sum() / max(weights.sum(), 1e-9)), 3),
        "weights": [round(float(weight), 3) for weight in weights / max(weights.max(), 1e-9)],
    }


def most_frames(model) -> int | None:
    """How many sampled frames a model's position table has room for.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): of any language model.

    Returns:
        `int` or `None`: `None` where there is no end.
    """
    table = getattr(model.language_model.get_encoder(), "embed_positions", None)
    return table.num_embeddings - getattr(table, "offset", 0) if isinstance(table, torch.nn.Embedding) else None


def without_padding(sequence: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Cut off what pads a sentence to the length of the beam's longest.

    Args:
        sequence (`torch.LongTensor` of shape `(1, L)`): as `generate` gave it.
        pad_token_id (`int`): the padding.

    Returns:
        `torch.LongTensor` of shape `(1, L')`: up to the last token that is none.
    """
    return sequence[:, : int((sequence[0] != pad_token_id).nonzero().max()) + 1]


def data_url(frame: torch.Tensor) -> str:
    """A frame as a small JPEG that needs no file.

    Args:
        frame (`torch.ByteTensor` of shape `(3, H, W)`): uint8, RGB, 0 to 255.

    Returns:
        `str`: a data URL.
    """
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy())
    scale = min(1.0, THUMBNAIL_SIZE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
