"""A model assembled from loaded parts computes what its parts compute."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, ResNetConfig

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig

SMALL = {
    "mbart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
              "encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 4},
    "mt5": {"d_model": 32, "d_kv": 16, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
}  # fmt: skip


@pytest.fixture
def stage1() -> FlaForConditionalGeneration:
    torch.manual_seed(0)
    vision = FlaVisionConfig(
        backbone_config=ResNetConfig(layer_type="basic", embedding_size=6, hidden_sizes=[6, 8], depths=[1, 1]),
        hidden_size=10,
    )
    return FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=20, vision_config=vision))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SMALL)
def test_the_decoder_cannot_see_the_future(stage1, kind, attention):
    """Teacher forcing would leak the answer, and nothing but generation would show it."""
    config = AutoConfig.for_model(model_type=kind, vocab_size=50, **SMALL[kind])
    language_model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention)
    model = FlaForConditionalGeneration.from_visual_encoder_and_language_model(stage1, language_model)
    assert model.language_model.config._attn_implementation == attention
    features, mask = torch.randn(1, 5, 10), torch.ones(1, 5, dtype=torch.long)
    one, two = torch.tensor([[4, 7, 8, 9]]), torch.tensor([[4, 7, 8, 10]])
    first = model(sign_features=features, attention_mask=mask, decoder_input_ids=one).logits
    second = model(sign_features=features, attention_mask=mask, decoder_input_ids=two).logits
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.equal(first[:, 3], second[:, 3])


def test_assembling_saving_and_loading_change_no_logit(stage1, tmp_path):
    config = AutoConfig.for_model(model_type="mbart", vocab_size=50, **SMALL["mbart"])
    model = FlaForConditionalGeneration.from_visual_encoder_and_language_model(
        stage1, AutoModelForSeq2SeqLM.from_config(config)
    )
    video, mask = torch.randint(0, 256, (2, 3, 3, 32, 40), dtype=torch.uint8), torch.tensor([[1, 1, 1], [1, 1, 0]])
    labels = torch.tensor([[7, 8, 2, 4], [9, 2, 4, -100]])
    model.save_pretrained(tmp_path)
    loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model(video, mask, labels=labels).logits, loaded(video, mask, labels=labels).logits)
    assert torch.equal(model.generate(video, attention_mask=mask), loaded.generate(video, attention_mask=mask))
