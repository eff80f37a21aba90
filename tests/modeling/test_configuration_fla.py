import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BertConfig, MT5Config

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig

from .conftest import tiny_config

# Paper, Table 7: millions of parameters.
TABLE_7 = {"tiny": 3.61, "small": 18.25, "base": 25.61, "large": 124.66}


@pytest.mark.parametrize(("size", "millions"), TABLE_7.items())
def test_light_t_has_the_parameters_of_table_7(size, millions):
    with torch.device("meta"):
        model = FlaForConditionalGeneration(FlaConfig.light_t(size, vocab_size=2429))
    light_t_parameters = sum(p.numel() for p in model.language_model.parameters())
    assert round(light_t_parameters / 1e6, 2) == millions


def test_an_unknown_light_t_is_refused():
    with pytest.raises(ValueError, match="tiny, small, base, large.*'huge'"):
        FlaConfig.light_t("huge")


def test_light_t_takes_overrides():
    config = FlaConfig.light_t("tiny", vocab_size=50, dropout=0.3, vision_config=FlaVisionConfig(hidden_size=64))
    assert (config.text_config.dropout, config.vocab_size, config.adapter_input_size) == (0.3, 50, 64)


def test_defaults_are_the_papers():
    config = FlaConfig()
    assert config.vision_config.backbone_config.depths == [2, 2, 2, 2]
    assert config.vision_config.backbone_config.layer_type == "basic"
    assert config.text_config.model_type == "mbart" and config.input_features == "sign"


def test_round_trip_through_json():
    config = tiny_config("mt5", input_features="hidden", light_t_config=FlaConfig.light_t("tiny").text_config)
    again = FlaConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.text_config, MT5Config) and again.light_t_config.model_type == "mbart"


def test_auto_config_knows_a_saved_folder(tmp_path):
    tiny_config("marian").save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, FlaConfig) and config.text_config.model_type == "marian"


def test_token_ids_are_the_language_models():
    config = tiny_config()
    config.pad_token_id = 5
    assert config.text_config.pad_token_id == 5 and config.decoder_start_token_id == 3


def test_sub_configurations_keep_no_dtype_that_would_pin_them():
    text_config = MT5Config(dtype="float32")
    assert FlaConfig(text_config=text_config).text_config.dtype is None


def test_a_language_models_configuration_becomes_the_text_configuration(tmp_path):
    MT5Config(vocab_size=77).save_pretrained(tmp_path)
    assert FlaConfig.from_pretrained(tmp_path).vocab_size == 77


CONFIG_OF_VERSION_0_1_0 = """{
  "adapter_hidden_size": null, "architectures": ["FlaForConditionalGeneration"],
  "auto_map": {"AutoConfig": "configuration_fla.FlaConfig", "AutoModel": "modeling_fla.FlaForConditionalGeneration",
               "AutoModelForSeq2SeqLM": "modeling_fla.FlaForConditionalGeneration"},
  "custom_pipelines": {"sign-language-translation": {"impl": "pipeline_fla.SignTranslationPipeline",
                                                     "pt": ["AutoModelForSeq2SeqLM"]}},
  "dtype": "float32", "freeze_temporal_module": true, "freeze_vision_backbone": true, "initializer_range": 0.02,
  "input_embed_scale": 1.0, "input_features": "sign", "is_encoder_decoder": true,
  "light_t_adapter_hidden_size": null, "light_t_config": null, "light_t_input_embed_scale": 1.0,
  "model_type": "fla_llm", "num_prefix_tokens": 0,
  "text_config": {"model_type": "mbart", "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
                  "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
                  "decoder_ffn_dim": 8, "max_position_embeddings": 20, "decoder_start_token_id": 3,
                  "tie_word_embeddings": false},
  "transformers_version": "5.23.0",
  "vision_config": {"model_type": "fla_vision", "hidden_size": 24, "image_mean": [0.485, 0.456, 0.406],
                    "image_std": [0.229, 0.224, 0.225], "temporal_kernel_size": 5,
                    "backbone_config": {"model_type": "resnet", "layer_type": "basic", "embedding_size": 8,
                                        "hidden_sizes": [8, 12], "depths": [1, 1]}}
}"""
SOME_WEIGHTS_OF_VERSION_0_1_0 = {
    "visual_encoder.vision_backbone.embedder.embedder.convolution.weight": (8, 3, 7, 7),
    "visual_encoder.temporal_module.convolution.weight": (24, 12, 5),
    "visual_encoder.temporal_module.normalization.running_mean": (24,),
    "adapter.hidden.weight": (16, 24),
    "adapter.output.bias": (16,),
    "language_model.model.shared.weight": (40, 16),
    "language_model.lm_head.weight": (40, 16),
    "language_model.final_logits_bias": (1, 40),
}


def test_a_checkpoint_of_version_0_1_0_loads(tmp_path):
    (tmp_path / "config.json").write_text(CONFIG_OF_VERSION_0_1_0)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is FlaConfig and config.freeze_temporal_module and config.decoder_start_token_id == 3
    FlaForConditionalGeneration(config).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert SOME_WEIGHTS_OF_VERSION_0_1_0.items() <= {name: tuple(t.shape) for name, t in saved.items()}.items()
    (tmp_path / "config.json").write_text(CONFIG_OF_VERSION_0_1_0)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and model.visual_encoder_is_frozen


def test_a_checkpoint_with_a_learned_prefix_is_refused(tmp_path):
    """Version 0.1.0 had prefix tuning; every configuration it saved has the field."""
    tiny_config().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "num_prefix_tokens": 0}))
    assert not hasattr(FlaConfig.from_pretrained(tmp_path), "num_prefix_tokens")
    (tmp_path / "config.json").write_text(json.dumps({**saved, "num_prefix_tokens": 20}))
    with pytest.raises(ValueError, match=r"`num_prefix_tokens` is 20.*0\.1\.0"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(("features", "size"), [("frame", 12), ("sign", 24), ("hidden", 256)])
def test_the_adapter_reads_what_input_features_says(features, size):
    light_t_config = FlaConfig.light_t("tiny").text_config if features == "hidden" else None
    assert tiny_config(input_features=features, light_t_config=light_t_config).adapter_input_size == size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_features": "gloss"}, "frame, sign, hidden.*'gloss'"),
        ({"input_features": "hidden"}, "needs `light_t_config`"),
        ({"text_config": BertConfig()}, "encoder-decoder.*`bert`"),
    ],
)
def test_what_no_network_can_be_built_from_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FlaConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temporal_kernel_size": 4}, "`temporal_kernel_size` .*4"),
        ({"hidden_size": 0}, "`hidden_size` .*0"),
    ],
)
def test_a_visual_encoder_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FlaVisionConfig(**fields)
