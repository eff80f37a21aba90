"""Frames become cues as they are shown: each is encoded once, and the sentence is that of its frames as a clip."""

import itertools

import numpy as np
import pytest
import torch

from tests.captions.test_pauses import SIGNED, pictures
from tests.processing.drawing import tiny_model, tiny_processor
from training_fla.captions.captioner import Captioner, Sampler
from training_fla.captions.pauses import PauseRules

OPTIONS = {"num_beams": 2, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def pipe():
    from transformers import pipeline

    processor = tiny_processor()
    model = tiny_model(processor.tokenizer, seed=3)
    return pipeline("sign-language-translation", model=model, processor=processor, device="cpu", max_new_tokens=6)


@pytest.fixture(scope="module")
def frames():
    """The drawn signer at 12.5 frames a second, as the processor of the tiny model reads it."""
    shown = list(pictures())
    return [(second, np.repeat(picture.astype(np.uint8)[..., None], 3, 2)) for second, picture in shown]


@pytest.fixture
def seen(pipe):
    """How many frames each forward of the backbone had."""
    counts = []
    backbone = pipe.model.visual_encoder.vision_backbone
    with backbone.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0]))):
        yield counts


def caption(pipe, frames, drafts=False, rules=PauseRules()):  # noqa: B008
    captioner, cues, written = Captioner(pipe, rules), [], []
    for index, (second, frame) in enumerate(frames):
        cues += captioner.add(second, frame, index)
        if drafts and captioner.draft_is_due():
            written.append((second, captioner.draft()[1]))
        assert len(captioner.sampled) <= (rules.max_length + 3) * 12.5 / 4
    return [*cues, *captioner.finish()], written


def test_a_cue_is_what_its_frames_are_as_a_clip(pipe, frames, seen):
    cues, _ = caption(pipe, frames)
    assert len(cues) == len(SIGNED)
    kept = [(second, frame) for index, (second, frame) in enumerate(frames) if index % 4 == 0]
    encoded = sum(seen)
    for cue in cues:
        clip = np.stack([frame for second, frame in kept if cue.start <= second < cue.end])
        assert len(cue.sign_features) == len(clip)
        pixels = pipe.processor(videos=[clip], do_sample_frames=False, do_rescale=False, do_normalize=False,
                                return_tensors="pt")["pixel_values_videos"]  # fmt: skip
        with torch.no_grad():
            expected = pipe.model.get_sign_features(pixels)[0]
        torch.testing.assert_close(cue.sign_features, expected, atol=1e-5, rtol=1e-4)
        alone = pipe(clip, do_sample_frames=False, **OPTIONS)["translation_text"]
        assert pipe(cue.clip, **OPTIONS)["translation_text"] == alone
    # Each once, those of rests never, but for the first moments of what might have been signing.
    assert sum(len(cue.sign_features) for cue in cues) <= encoded < len(kept)


def test_drafts_come_while_somebody_signs_and_change_no_cue(pipe, frames, seen):
    alone, _ = caption(pipe, frames)
    without = sum(seen)
    seen.clear()
    cues, drafts = caption(pipe, frames, drafts=True)
    assert sum(seen) == without, "a draft encodes no frame"
    assert [(cue.start, cue.end) for cue in cues] == [(cue.start, cue.end) for cue in alone]
    assert all(torch.equal(a.sign_features, b.sign_features) for a, b in zip(cues, alone, strict=True))
    assert all(any(first <= second <= last + 0.5 for first, last in SIGNED) for second, _ in drafts)
    for first, last in SIGNED:
        within = [second for second, _ in drafts if first <= second <= last + 0.5]
        assert len(within) >= int(last - first) - 1 and all(b - a >= 1 for a, b in itertools.pairwise(within))


def test_a_draft_is_what_greedy_search_writes_whatever_was_drafted_before(pipe, frames):
    captioner = Captioner(pipe, PauseRules(), max_new_tokens=6)
    captioner.clock = lambda: 0.0
    compared = 0
    for index, (second, frame) in enumerate(frames):
        captioner.add(second, frame, index)
        if captioner.draft_is_due():
            end, draft = captioner.draft()
            assert second - 0.64 <= end <= second
            features = captioner.sign_features(captioner.features(captioner.segmenter.open_since))
            with torch.no_grad():
                ids = pipe.model.generate(sign_features=features, num_beams=1, do_sample=False, max_new_tokens=6)
            assert draft == pipe.processor.batch_decode(ids, skip_special_tokens=True)[0]
            compared += 1
    assert compared >= 4


def test_a_draft_whose_time_is_over_is_shown_as_far_as_it_is_written(pipe, frames):
    captioner, ticks = Captioner(pipe, PauseRules(), max_new_tokens=6), itertools.count()
    captioner.clock = lambda: next(ticks)  # over at the first word
    lengths = []
    for index, (second, frame) in enumerate(frames):
        captioner.add(second, frame, index)
        if captioner.draft_is_due():
            captioner.draft()
            lengths.append(captioner.draft_ids.shape[1])
    assert lengths[0] == 2 and max(lengths) <= 4


def test_frames_are_sampled_by_their_number_and_by_their_rate():
    class Numbers:
        frame_stride = 4

    sampler = Sampler(Numbers())
    assert [index for index in range(13) if sampler.keeps(index / 25, index)] == [0, 4, 8, 12]
    sampler = Sampler(Numbers())
    numbers = [0, 1, 3, 5, 6, 7, 8, 15, 16]  # some were dropped
    assert [index for index in numbers if sampler.keeps(index / 25, index)] == [0, 5, 8, 15, 16]
    Numbers.target_fps = 25
    sampler = Sampler(Numbers())
    assert [index for index in range(25) if sampler.keeps(index / 50, index)] == [0, 8, 16, 24]


def test_a_long_cue_is_thinned_as_a_long_clip_is(pipe, frames, monkeypatch):
    monkeypatch.setattr(pipe.processor.video_processor, "max_source_frames", 24)
    cues, _ = caption(pipe, frames)
    assert [len(cue.sign_features) for cue in cues] == [6, 6, 6]
