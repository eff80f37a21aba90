"""LoRA in stage 2: what is trained, what is saved, and that the folder is a plain model."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BitsAndBytesConfig, MBartConfig, MBartForConditionalGeneration

from modeling_fla import FlaForConditionalGeneration
from tests.modeling.conftest import BART_SIZES, LANGUAGE_MODELS, tiny_model
from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.errors import InputError
from training_fla.training.adapters import add_peft, is_peft, load_peft, merge_peft, save_peft

LORA = {"type": "lora", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    corpus = pack_demo(folder / "corpus", num_train=8, num_dev=3, num_test=3)
    (folder / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}")
    (folder / "stage2.yaml").write_text(
        f"dataset: {corpus}\n{STAGE2}learning_rate: 0.01\n".replace("learning_rate: 1e-4\n", "")
    )
    stage1_of_one_step(folder, corpus)
    return folder


@pytest.fixture
def model(folder) -> FlaForConditionalGeneration:
    return FlaForConditionalGeneration.from_pretrained(folder / "stage1")


def inputs(model) -> dict:
    torch.manual_seed(0)
    features = torch.randn(2, 5, model.config.adapter_input_size)
    return {"sign_features": features, "decoder_input_ids": torch.tensor([[4, 5, 6], [4, 7, 8]])}


def stir(model) -> None:
    """Give the added matrices values, as training would: LoRA begins as no change at all."""
    torch.manual_seed(1)
    for parameter in model.language_model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("spec", [LORA, {"type": "lora", "r": 2}])
def test_merged_it_computes_the_same_and_loads_like_any_model(model, tmp_path, spec):
    names = set(model.state_dict())
    add_peft(model, spec)
    stir(model)
    model.eval()
    trained = {name for name, p in model.language_model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert all(p.requires_grad for p in model.adapter.parameters())
    with torch.no_grad():
        before = model(**inputs(model)).logits
        merge_peft(model, tmp_path)
        after = model(**inputs(model)).logits
    assert torch.allclose(before, after, atol=1e-4) and not is_peft(model)
    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)(**inputs(model)).logits
    assert torch.equal(after, loaded)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_language_model_learns_under_lora_and_is_merged(name, tmp_path):
    model = tiny_model(name)
    add_peft(model, {"type": "lora", "r": 2})
    torch.manual_seed(2)
    features, labels = torch.randn(2, 5, model.config.adapter_input_size), torch.tensor([[7, 8, 2], [9, 2, -100]])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(6):
        loss = model(sign_features=features, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    asked = {"sign_features": features, "decoder_input_ids": torch.tensor([[3, 7], [3, 9]])}
    with torch.no_grad():
        before = model(**asked).logits
        save_peft(model, tmp_path)
        merge_peft(model, tmp_path)
        model.save_pretrained(tmp_path / "merged")
        after = FlaForConditionalGeneration.from_pretrained(tmp_path / "merged")
        assert torch.allclose(before, after(**asked).logits, atol=1e-3)
    assert after.generate(sign_features=features, num_beams=2, max_new_tokens=4).shape[0] == 2


def test_what_is_saved_alone_is_what_peft_reads(model, tmp_path):
    from peft import PeftModel

    plain = copy.deepcopy(model).eval()
    add_peft(model, LORA)
    stir(model)
    save_peft(model, tmp_path)
    plain.language_model = PeftModel.from_pretrained(plain.language_model, tmp_path).merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(plain(**inputs(model)).logits, model.eval()(**inputs(model)).logits, atol=1e-4)


def test_a_run_trains_adapter_and_lora_alone_and_resumes(folder, tmp_path, caplog):
    spec = json.dumps(LORA)
    argv = [folder / "stage2.yaml", "--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1"]
    argv += ["--peft", spec, "--output_dir", tmp_path / "out", "--load_best_model_at_end", "false"]
    assert run("run_stage2", *argv) == 0
    saved = weights(tmp_path / "out")
    assert not any("lora" in name or "base_layer" in name for name in saved)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["trained_parameters"] < report["parameters"] / 3
    assert {path.name for path in (tmp_path / "out" / "peft").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    model = FlaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.state_dict().keys() == FlaForConditionalGeneration(model.config).state_dict().keys()

    kept, frozen = weights(tmp_path / "out" / "checkpoint-2"), weights(folder / "stage1")
    assert {name.split(".")[0] for name in kept} == {"adapter", "language_model", "visual_encoder"}
    assert all("lora_" in name for name in kept if name.startswith("language_model."))
    learnt = {name for name in frozen if name.startswith("visual_encoder.") and "running_" not in name}
    assert not [name for name in learnt & kept.keys() if "num_batches" not in name], "frozen weights are not kept"

    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    (tmp_path / "out" / "model.safetensors").unlink()
    assert run("run_stage2", *argv, "--resume") == 0
    assert "missing keys" not in caplog.text
    resumed = weights(tmp_path / "out")
    assert all(saved[name].equal(resumed[name]) for name in saved)
    assert any("lora_B" in name and value.any() for name, value in weights(tmp_path / "out" / "checkpoint-4").items())


def test_a_run_with_4_bits_ends_in_the_weights_it_was_scored_with(folder, tmp_path):
    """LoRA is added to what the 4 bits stand for, not rounded to 4 bits."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from peft import PeftModel

    tokens = json.loads((folder / "stage1" / "config.json").read_text())["text_config"]["vocab_size"]
    sizes = {
        "d_model": 64,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": tokens,
        "max_position_embeddings": 64,
    }
    MBartForConditionalGeneration(MBartConfig(**BART_SIZES | sizes)).save_pretrained(tmp_path / "language_model")
    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    recipe = tmp_path / "stage2.yaml"
    lines = (folder / "stage2.yaml").read_text()
    recipe.write_text(lines.replace(lines[lines.index("language_model_config") : lines.index("optimizer")], ""))
    argv = ["--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1"]
    argv += [
        "--output_dir",
        tmp_path / "out",
        "--language_model",
        tmp_path / "language_model",
        "--peft",
        json.dumps(LORA),
    ]
    assert run("run_stage2", recipe, *argv, "--language_model_quantization", json.dumps(four_bits)) == 0

    saved = FlaForConditionalGeneration.from_pretrained(tmp_path / "out").language_model.state_dict()
    whole = MBartForConditionalGeneration.from_pretrained(tmp_path / "language_model").state_dict()
    four_bits = BitsAndBytesConfig(**four_bits)
    model = MBartForConditionalGeneration.from_pretrained(tmp_path / "language_model", quantization_config=four_bits)
    model = model.dequantize()
    rounded = copy.deepcopy(model.state_dict())
    merged = PeftModel.from_pretrained(model, tmp_path / "out" / "peft").merge_and_unload().state_dict()
    for name, least in {"q_proj": 0.002, "k_proj": 0}.items():
        name = f"model.encoder.layers.0.self_attn.{name}.weight"
        assert (rounded[name] - whole[name]).abs().max() > 0.004
        assert (merged[name] - rounded[name]).abs().max() >= least
    # On CPUs with bfloat16 the library rounds its scales to it.
    for name, weight in saved.items():
        torch.testing.assert_close(weight, merged[name], atol=5e-4, rtol=0, msg=name)


def deep_model(model_type: str = "mbart") -> FlaForConditionalGeneration:
    from modeling_fla import FlaConfig, FlaVisionConfig

    ids = {"vocab_size": 30, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 5}
    sizes = {
        "mbart": {
            "d_model": 16, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        },
        "mt5": {"d_model": 16, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 2, "d_kv": 6, "d_ff": 24},
    }  # fmt: skip
    backbone = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 4, "hidden_sizes": [6], "depths": [1]}
    vision = FlaVisionConfig(backbone_config=backbone, hidden_size=10)
    text = {"model_type": model_type, **sizes[model_type], **ids}
    torch.manual_seed(3)
    return FlaForConditionalGeneration(FlaConfig(vision_config=vision, text_config=text)).eval()


def test_lora_is_put_on_another_copy_of_its_base(model, tmp_path):
    other = copy.deepcopy(model)
    add_peft(model, LORA)
    stir(model)
    model.adapter.output.bias.data.add_(1.0)
    save_peft(model, tmp_path)
    merge_peft(model, tmp_path)
    load_peft(other, tmp_path)
    assert other.adapter.output.bias.equal(model.adapter.output.bias), "the LLM-Adapter goes with it"
    assert all(torch.allclose(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    (tmp_path / "llm_adapter.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be put on this language model"):
        load_peft(deep_model(), tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        load_peft(model, "nowhere")


def test_what_lies_on_the_hub_is_loaded_by_its_name(model, tmp_path, monkeypatch):
    """The Hub stands in as its own cache: a commit that was fetched before."""
    import huggingface_hub

    other, third = copy.deepcopy(model), copy.deepcopy(model)
    add_peft(model, LORA)
    model.adapter.output.bias.data.add_(1.0)
    repository = tmp_path / "models--me--signs"
    save_peft(model, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load_peft(other, "me/signs")
    merge_peft(model, tmp_path)
    with torch.no_grad():
        assert torch.allclose(model.eval()(**inputs(model)).logits, other.eval()(**inputs(model)).logits, atol=1e-6)
    (repository / "snapshots" / ("a" * 40) / "llm_adapter.safetensors").unlink()
    with pytest.raises(InputError, match="me/signs"):
        load_peft(third, "me/signs")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "adalora"}, "lora.*'adalora'"),
        ({"type": "prefix", "num_virtual_tokens": 3}, "lora.*'prefix'"),
        ({"r": 8}, "got None"),
        ({"type": "lora", "rank": 8}, "'rank'"),
        ({"type": "lora", "target_modules": ["nothing"]}, "nothing"),
    ],
)
def test_what_cannot_be_is_refused(model, spec, message):
    with pytest.raises(InputError, match=message):
        add_peft(model, spec)
