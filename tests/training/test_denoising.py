"""MBart's own objective: how much is masked, that nothing else changes, and that a small model comes out."""

import numpy as np
import pytest

from training_fla.files import InputError
from training_fla.training.denoising import MASKED_SHARE, DenoisingDataset, denoise, infill

MASK = -1


def test_kept_tokens_stay_in_order_and_spans_become_single_masks():
    generator = np.random.default_rng(0)
    for length in (1, 2, 7, 40):
        sentence = list(range(length))
        for _ in range(200):
            noised = infill(sentence, MASK, generator)
            kept = [token for token in noised if token != MASK]
            assert kept == sorted(set(kept)) and set(kept) <= set(sentence)


def test_thirty_five_percent_is_gone_in_spans_of_three_and_a_half():
    """Only the last span is cut, at the sentence's budget; a long sentence hardly feels it."""
    generator = np.random.default_rng(1)
    sentence = list(range(1000))
    gone, masks = [], []
    for _ in range(200):
        noised = infill(sentence, MASK, generator)
        masks.append(noised.count(MASK))
        gone.append(len(sentence) - (len(noised) - masks[-1]))
    assert np.mean(gone) / 1000 == pytest.approx(MASKED_SHARE, abs=0.002)
    assert np.sum(gone) / np.sum(masks) == pytest.approx(3.5, abs=0.1)


def test_spans_of_length_zero_put_a_mask_between_tokens():
    generator = np.random.default_rng(2)
    longer = sum(len(infill([1, 2, 3], MASK, generator)) > 3 for _ in range(2000))
    assert longer > 0, "a Poisson span is empty in 3 % of the draws"


def test_noise_follows_from_seed_epoch_and_sentence(demo_processor):
    sentences = ["es regnet im norden", "morgen scheint die sonne"]
    one, two = (DenoisingDataset(sentences, demo_processor.tokenizer, 50, seed=3) for _ in range(2))
    one[1]
    assert one[0] == two[0]
    two.set_epoch(1)
    assert any(one[i]["input_ids"] != two[i]["input_ids"] for i in range(2))
    eos, language = demo_processor.tokenizer.eos_token_id, demo_processor.tokenizer.convert_tokens_to_ids("de_DE")
    assert one[0]["labels"][-2:] == one[0]["input_ids"][-2:] == [eos, language]


def test_a_small_mbart_is_trained_and_saved_whole(tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    sentences = ["es regnet im norden", "morgen scheint die sonne", "am abend weht der wind im süden"] * 4
    out = tmp_path / "mbart"
    report = denoise(
        sentences,
        out,
        vocab_size=80,
        width=64,
        layers=1,
        max_steps=12,
        batch_size=4,
        learning_rate=5e-3,
        warmup_steps=0,
    )
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer) == report["vocab_size"]
    assert model.config.decoder_start_token_id == tokenizer.convert_tokens_to_ids("de_DE")
    assert report["loss"] < np.log(len(tokenizer))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mbart"], "no checkpoint folder is left beside"
    with pytest.raises(InputError, match="mbart"):
        denoise(sentences, out, max_steps=1)


def test_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="--text holds no sentence"):
        denoise([], tmp_path / "out")
