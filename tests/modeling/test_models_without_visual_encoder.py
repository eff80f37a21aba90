"""A model that reads sign features another program made: `vision_config` is null, C is `sign_feature_size`."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from modeling_fla import FlaConfig, FlaForConditionalGeneration

from .conftest import LANGUAGE_MODELS, LENGTHS, B, T, tiny_config, tiny_vision_config

SIZE = 6
SHORT = {"num_beams": 2, "max_new_tokens": 5}


def feature_model(language_model="mbart", **fields) -> FlaForConditionalGeneration:
    config = FlaConfig(text_config=LANGUAGE_MODELS[language_model](), sign_feature_size=SIZE, **fields)
    return FlaForConditionalGeneration(config).eval()


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(B, T, SIZE)


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
def test_it_learns_from_features_alone_and_padding_does_not_matter(language_model, features, mask, labels):
    model = feature_model(language_model)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"adapter", "language_model"}
    assert model.visual_encoder is None and model.visual_encoder_is_frozen
    loss = model(sign_features=features, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert model.adapter.hidden.weight.grad.abs().sum() > 0
    padded = features.masked_fill(~mask.bool()[..., None], float("nan"))
    assert torch.equal(model(sign_features=padded, attention_mask=mask, labels=labels).loss, loss)


def test_a_saved_one_has_no_vision_config_and_says_the_same(features, mask, tmp_path):
    model = feature_model(sign_feature_extractor="I3D")
    ids = model.generate(sign_features=features, attention_mask=mask, **SHORT)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vision_config"] is None
    assert (config["sign_feature_size"], config["sign_feature_extractor"]) == (SIZE, "I3D")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert again.visual_encoder is None and again.config.vision_config is None
    assert torch.equal(again.generate(sign_features=features, attention_mask=mask, **SHORT), ids)
    alone = again.generate(sign_features=features[1:, : LENGTHS[1]], **SHORT)
    assert torch.equal(alone[0], ids[1, : alone.shape[1]])


def test_freezing_the_absent_encoder_changes_nothing():
    model = feature_model()
    model.freeze_visual_encoder()
    assert all(parameter.requires_grad for parameter in model.train().parameters())


@pytest.mark.parametrize(("extractor", "named"), [("I3D", "I3D"), ("", "another program")])
def test_videos_are_refused(extractor, named, video, mask):
    model = feature_model(sign_feature_extractor=extractor)
    message = f"reads sign features of {named}, not videos: it has no visual encoder"
    for refused in (model.forward, model.generate):
        with pytest.raises(ValueError, match=message):
            refused(pixel_values_videos=video, attention_mask=mask)


def test_features_of_another_size_are_refused(features):
    with pytest.raises(ValueError, match=r"must be \(B, N, 6\) .*got \(2, 7, 5\)"):
        feature_model()(sign_features=features[..., :5], decoder_input_ids=torch.tensor([[3], [3]]))


@pytest.mark.parametrize("fields", [{"vision_config": tiny_vision_config()}, {"input_features": "frame"}])
def test_a_size_of_features_stands_alone(fields):
    with pytest.raises(ValueError, match="`sign_feature_size` .*`vision_config`"):
        FlaConfig(sign_feature_size=SIZE, **fields)


def test_it_is_assembled_around_a_language_model_and_is_no_stage_1():
    model = feature_model()
    assemble = FlaForConditionalGeneration.from_visual_encoder_and_language_model
    again = assemble(None, model.language_model, sign_feature_size=9, sign_feature_extractor="S3D")
    assert again.adapter.hidden.in_features == 9 and again.config.sign_feature_extractor == "S3D"
    message = "Give either `stage1` with a visual encoder or `sign_feature_size`"
    for stage1, fields in (
        (model, {}), (None, {}), (FlaForConditionalGeneration(tiny_config()), {"sign_feature_size": 9})
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            assemble(stage1, model.language_model, **fields)
