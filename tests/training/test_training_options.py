"""What a recipe may turn on: another language model, bf16, the compiler, synchronised BatchNorm."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MT5Config, MT5ForConditionalGeneration, T5Tokenizer

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from modeling_fla.batch_norm_fla import RealFrames, count_real_frames
from tests.processing.test_tokenization_fla import m2m100_in
from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.cli import main as fla
from training_fla.errors import InputError
from training_fla.training.parts import set_language


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    for stage, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{stage}.yaml").write_text(f"dataset: {corpus}\n{text}")
    stage1_of_one_step(folder, corpus)
    return folder


def given(folder: Path) -> list:
    return [folder / "stage2.yaml", "--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1"]


@pytest.fixture(scope="module")
def mt5(folder) -> Path:
    """A tiny MT5 with a vocabulary of the demo's pieces and some that no sentence needs, trimmed by `fla trim`."""
    pieces = json.loads((folder / "stage1" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, score) for piece, score in pieces[4:])]
    vocab += [(f"▁unused{number}", -20.0) for number in range(9)]
    tokenizer = T5Tokenizer(vocab=vocab + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)])
    sizes = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    rows = -(-len(tokenizer) // 64) * 64  # as the released ones are padded
    torch.manual_seed(0)
    MT5ForConditionalGeneration(MT5Config(vocab_size=rows, **sizes)).save_pretrained(folder / "mt5")
    tokenizer.save_pretrained(folder / "mt5")
    sentences = str(folder / "corpus" / "train.sentences.txt")
    out = folder / "mt5-trimmed"
    words = ["--model", str(folder / "mt5"), "--sentences", sentences, "--out", str(out), "--allow-unused-rows"]
    assert fla(["trim", *words]) == 0
    assert MT5Config.from_pretrained(out).vocab_size < len(tokenizer)
    return out


@pytest.mark.parametrize("lines", [(), ("--random_language_model", "true")])
def test_a_trimmed_mt5_goes_through_stage_2(folder, mt5, tmp_path, lines):
    """Both rows of Table 10: with and without its pre-training."""
    argv = [*given(folder)[:3], "--language_model", mt5, "--language_model_config", "null", "--language_code", "null"]
    argv += ["--language_model_overrides", "{dropout_rate: 0.1}", "--norm_logging_steps", 2, *lines]
    assert run("run_stage2", *argv, "--output_dir", tmp_path / "out") == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert type(model.language_model) is MT5ForConditionalGeneration
    assert model.language_model.config.dropout_rate == 0.1
    features = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    tokens = model.generate(sign_features=features, min_new_tokens=6)
    assert tokens[:, 0].eq(0).all() and tokens.max() < model.config.vocab_size and tokens.shape[1] >= 7
    before = weights(mt5)["encoder.block.0.layer.0.SelfAttention.q.weight"]
    after = weights(tmp_path / "out" / "checkpoint-2")["language_model.encoder.block.0.layer.0.SelfAttention.q.weight"]
    assert torch.allclose(before, after, atol=1e-2) is (not lines)


def test_bf16_trains_in_it_and_keeps_weights_in_fp32(folder, tmp_path):
    argv = [*given(folder), "--max_steps", 4, "--logging_steps", 1, "--load_best_model_at_end", "false"]
    losses = {}
    for name, lines in {"fp32": (), "bf16": ("--bf16", "true", "--feature_dtype", "bfloat16")}.items():
        assert run("run_stage2", *argv, *lines, "--output_dir", tmp_path / name) == 0
        state = json.loads((tmp_path / name / "checkpoint-4" / "trainer_state.json").read_text())
        losses[name] = [row["loss"] for row in state["log_history"] if "loss" in row]
        kinds = {tensor.dtype for tensor in weights(tmp_path / name).values() if tensor.is_floating_point()}
        assert kinds == {torch.float32}
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], abs=0.1)


@pytest.mark.slow
def test_the_default_compiler_trains_and_saves_plain_names(folder, tmp_path):
    """Inductor, which builds C++ here; minutes."""
    argv = [folder / "stage1.yaml", "--max_steps", 3, "--light_t_overrides", "{d_model: 16, dropout: 0.0}"]
    assert run("run_stage1", *argv, "--output_dir", tmp_path / "plain") == 0
    assert run("run_stage1", *argv, "--torch_compile", "true", "--output_dir", tmp_path / "compiled") == 0
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-4) for name in plain)
    FlaForConditionalGeneration.from_pretrained(tmp_path / "compiled")


def test_norms_that_count_real_frames_are_saved_as_plain_ones(tmp_path):
    backbone = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 4, "hidden_sizes": [6], "depths": [1]}
    vision = FlaVisionConfig(backbone_config=backbone, hidden_size=10)
    sizes = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12}
    model = FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=20, vision_config=vision, **sizes)).eval()
    names = list(model.state_dict())
    video = torch.randint(0, 255, (1, 3, 3, 16, 20), dtype=torch.uint8)
    with torch.no_grad():
        before = model(video, decoder_input_ids=torch.tensor([[5, 6]])).logits
        count_real_frames(model.visual_encoder, frames := RealFrames(2))
        norms = frames.norms
        assert not {torch.nn.BatchNorm1d, torch.nn.BatchNorm2d} & {type(norm) for norm in norms} and len(norms) > 2
        assert list(model.state_dict()) == names
        model.freeze_visual_encoder()
        model.train()
        assert not any(norm.training for norm in norms)
        model.save_pretrained(tmp_path)
        loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
        assert not {type(norm) for norm in norms} & {type(module) for module in loaded.modules()}
        assert torch.equal(loaded(video, decoder_input_ids=torch.tensor([[5, 6]])).logits, before)


def test_a_language_is_one_of_the_tokenizers(tmp_path):
    m2m100 = m2m100_in(tmp_path)
    set_language(m2m100, "en", "language_code")
    assert m2m100.tgt_lang == "en", "a code that is no token: M2M-100 writes __en__"
    with pytest.raises(InputError, match="^language_code xx "):
        set_language(m2m100, "xx", "language_code")
    t5 = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("de", -1.0)], extra_ids=0)
    with pytest.raises(InputError, match="^--language de: T5Tokenizer has no languages$"):
        set_language(t5, "de", "--language")
