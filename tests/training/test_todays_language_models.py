"""A released language model: trimmed, put behind an encoder, trained under LoRA, loaded, translating."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Tokenizer

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from tests.modeling.conftest import LANGUAGE_MODELS
from tests.processing.test_tokenization_fla import gemma, unigram_pieces
from tests.tiny_runs import STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.recipe import Stage2Arguments
from training_fla.training import adapters, parts

LINES = {
    "language_code": None, "peft": {"type": "lora", "r": 2}, "language_model_dtype": "bfloat16",
    "metric_for_best_model": "loss",
}  # fmt: skip


def t5():
    """Of T5's kind, with a letter of the corpus beside those of its own text."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *unigram_pieces(), ("ö", -12.0)]
    return T5Tokenizer(vocab=vocab + [(f"<extra_id_{number}>", 0.0) for number in range(99, -1, -1)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("today")
    corpus = pack_demo(folder / "corpus", num_train=6, num_dev=2, num_test=2)
    stage1_of_one_step(folder, corpus)
    lines = yaml.safe_load(STAGE2) | {"dataset": str(corpus), "stage1_checkpoint": str(folder / "stage1"), **LINES}
    del lines["language_model_config"]
    (folder / "stage2.yaml").write_text(yaml.safe_dump(lines))
    return folder


def save_language_model(folder: Path, name: str, tokenizer) -> Path:
    """A tiny one with random weights, of as many tokens as its tokenizer has."""
    config = LANGUAGE_MODELS[name]()
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "eos", "bos")}
    encoder = getattr(config, "encoder", config)
    for part in (config, getattr(encoder, "text_config", encoder), config.get_text_config()):
        for field, value in ({"vocab_size": len(tokenizer)} | ids).items():
            setattr(part, field, value)
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


@pytest.mark.parametrize(("name", "make"), [("t5gemma2", gemma), ("umt5", t5)])
def test_trimmed_trained_in_bfloat16_under_lora_and_loaded(name, make, folder, tmp_path):
    language_model, trimmed = save_language_model(tmp_path, name, make()), tmp_path / "trimmed"
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("im süden regen\nder wind weht\n", encoding="utf-8")
    texts = [str(sentences), str(folder / "corpus/train.sentences.txt")]
    assert main(["trim", "--model", str(language_model), "--sentences", *texts, "--out", str(trimmed)]) == 0
    argv = (folder / "stage2.yaml", "--language_model", trimmed, "--output_dir", tmp_path / "out")
    assert run("run_stage2", *argv) == 0
    kept = weights(tmp_path / "out/checkpoint-4")
    assert all("lora_" in key for key in kept if key.startswith("language_model."))
    model, report = FlaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    processor = FlaProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer(text_target="der wind")["input_ids"][-1] == processor.tokenizer.eos_token_id
    features = torch.randn(1, 5, model.config.adapter_input_size)
    assert model.generate(sign_features=features, num_beams=2, max_new_tokens=4).shape[0] == 1
    assert json.loads((tmp_path / "out/metrics.json").read_text())["test"]["num_sentences"] == 2


def test_targets_of_a_tokenizer_made_for_decoders_end(tmp_path):
    gemma().save_pretrained(tmp_path / "gemma")
    plain = AutoTokenizer.from_pretrained(tmp_path / "gemma")
    assert plain.eos_token_id not in plain(text_target="regen")["input_ids"]
    tokenizer = parts.load_tokenizer(str(tmp_path / "gemma"))
    ids = tokenizer(text_target="regen")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id and tokenizer.bos_token_id not in ids
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(text_target="regen")["input_ids"] == ids
    plain.backend_tokenizer.post_processor = None
    plain.eos_token = None
    plain.save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="endless: targets do not end with its eos_token"):
        parts.load_tokenizer(str(tmp_path / "endless"))


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_dropout_reaches_both_halves(name, tmp_path):
    tokenizer = gemma(add_bos_token=False, add_eos_token=True)
    source = str(save_language_model(tmp_path, name, tokenizer))
    overrides = {"dropout_rate": 0.25, "attention_dropout": 0.125}
    arguments = Stage2Arguments(language_model=source, language_model_overrides=overrides)
    model = parts.load_language_model(arguments, tokenizer)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25} and model.get_decoder().layers[0].self_attn.attention_dropout == 0.125


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language_model_quantization": {"load_in_4bit": True}, "language_model": "a"}, "beside `peft`: set both"),
        ({"language_model_quantization": {"load_in_4bit": True}, "peft": {"type": "lora"}}, "`peft`: set both"),
    ],
)
def test_weights_that_would_have_to_be_trained_are_not_quantized(fields, message):
    with pytest.raises(InputError, match=message):
        Stage2Arguments(**fields)


def test_quantization_needs_its_package_and_known_fields(monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="`language_model_quantization` needs the package bitsandbytes: pip install bitsandbytes"
    ):
        parts.quantization({"load_in_4bit": True})
    monkeypatch.setattr(adapters, "find_spec", lambda name: name)
    with pytest.raises(InputError, match="BitsAndBytesConfig has no field load_in_3bit"):
        parts.quantization({"load_in_3bit": True})
    assert parts.quantization({"load_in_8bit": True}).load_in_8bit


def test_lora_needs_its_package(monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="`peft` needs the package peft: pip install peft"):
        adapters.add_peft(None, {"type": "lora"})
