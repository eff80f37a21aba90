"""MBart's own objective: how much is masked, that nothing else changes, and that a small model comes out."""

import shutil

import numpy as np
import pytest
from transformers import Seq2SeqTrainer

from training_fla.cli import main as fla
from training_fla.errors import InputError
from training_fla.folders import write_marker
from training_fla.training.callbacks import TrainingProgress
from training_fla.training.denoising import MASKED_SHARE, InfillingCollator, NoisedSentences, denoise, infill

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


def test_a_batch_is_noised_anew_and_keeps_what_marks_its_language(demo_processor):
    tokenizer = demo_processor.tokenizer
    collate, sentences = InfillingCollator(tokenizer), NoisedSentences([list(range(10, 30)), [10, 11]], seed=3)
    one = collate(list(sentences))
    sentences.set_epoch(1)
    two = collate(list(sentences))
    sentences.set_epoch(0)
    assert collate(list(sentences))["input_ids"].equal(one["input_ids"]), "seed, epoch and place decide"
    assert not one["input_ids"].equal(two["input_ids"]) and one["labels"].equal(two["labels"])
    suffix = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("de_DE")]
    assert one["labels"][0].tolist() == [*range(10, 30), *suffix]
    assert one["labels"][1].tolist() == [10, 11, *suffix, *[-100] * 18]
    for ids, mask in zip(one["input_ids"], one["attention_mask"], strict=True):
        assert ids[mask.bool()][-2:].tolist() == suffix and ids[~mask.bool()].eq(tokenizer.pad_token_id).all()


SENTENCES = ["es regnet im norden", "morgen scheint die sonne", "am abend weht der wind im süden"] * 4
SMALL = {"vocab_size": 80, "width": 64, "layers": 1, "batch_size": 4, "learning_rate": 5e-3, "warmup_steps": 0}


def test_a_small_mbart_is_trained_and_saved_whole(tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    out = tmp_path / "mbart"
    report = denoise(SENTENCES, out, **SMALL, max_steps=12)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer) == report["vocab_size"]
    assert model.config.decoder_start_token_id == tokenizer.convert_tokens_to_ids("de_DE")
    assert report["loss"] < np.log(len(tokenizer))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mbart"], "no checkpoint folder is left beside"
    with pytest.raises(InputError, match="--overwrite"):
        denoise(SENTENCES, out, **SMALL, max_steps=1)


def test_an_interrupted_run_is_kept_until_it_is_resumed_or_given_up(tmp_path, monkeypatch):
    out, train = tmp_path / "mbart", Seq2SeqTrainer.train

    def stop_after(self, *args, **kwargs):
        train(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Seq2SeqTrainer, "train", stop_after)
        denoise(SENTENCES, out, **SMALL, max_steps=4, save_steps=2)
    assert (tmp_path / "mbart.checkpoints" / "checkpoint-4").is_dir() and not out.exists()
    with pytest.raises(InputError, match="--resume"):
        denoise(SENTENCES, out, **SMALL, max_steps=4)
    assert (tmp_path / "mbart.checkpoints" / "checkpoint-4").is_dir()
    denoise(SENTENCES, out, **SMALL, max_steps=6, save_steps=2, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mbart"]


@pytest.mark.parametrize(("stop", "group_by_length"), [(3, False), (4, False), (4, True), (7, False)])
def test_a_resumed_run_ends_at_the_same_bytes(tmp_path, monkeypatch, stop, group_by_length):
    """Twelve sentences are three steps an epoch: at the end of the first, within the second, after the last step.

    The rate still rises at the last step; where it has fallen to 0, a step too many changes nothing.
    """
    options = SMALL | {"max_steps": 7, "save_steps": 1, "warmup_steps": 20, "group_by_length": group_by_length}
    denoise(SENTENCES, tmp_path / "whole", **options)

    def end(self, args, state, control, **kwargs):
        if state.global_step == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingProgress, "on_save", end)
        denoise(SENTENCES, tmp_path / "parts", **options)
    assert (tmp_path / "parts.checkpoints" / f"checkpoint-{stop}").is_dir()
    denoise(SENTENCES, tmp_path / "parts", **options, resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_folders_of_others_are_left_alone(tmp_path, capsys):
    """The output and the checkpoints beside it, also with --overwrite; and the folder the text lies in."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES))
    for name in ("mbart", "mbart.checkpoints"):
        thesis = tmp_path / name / "thesis.tex"
        thesis.parent.mkdir()
        thesis.write_text("mine")
        words = ["denoise", "--text", str(text), "--out", str(tmp_path / "mbart"), "--overwrite"]
        assert fla(words) == 2
        assert f"{name} holds thesis.tex and no whole .fla-llm.json of ours" in capsys.readouterr().err
        assert thesis.read_text() == "mine"
        shutil.rmtree(thesis.parent)
    write_marker(tmp_path, "model")
    assert fla(["denoise", "--text", str(text), "--out", str(tmp_path), "--overwrite"]) == 2
    assert "text.txt" in capsys.readouterr().err and text.exists()


def test_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="--text"):
        denoise([], tmp_path / "out")
