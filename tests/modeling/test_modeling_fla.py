import copy
import doctest
import importlib
import json
import logging
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSeq2SeqLM, CompileConfig, MBartForConditionalGeneration
from transformers.utils import logging as transformers_logging

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisualEncoder

from .conftest import LANGUAGE_MODELS, C, D, L, T, V, tiny_config, tiny_model, tiny_vision_config

BEAMS = {"num_beams": 5, "max_new_tokens": 6}


def small_light_t():
    """A stage-1 model, its Light-T narrower than the language model of stage 2."""
    sizes = {"d_model": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 20}
    config = FlaConfig.light_t("tiny", vocab_size=V, vision_config=tiny_vision_config(), **sizes)
    config.adapter_hidden_size, config.input_embed_scale = 10, 3.0
    return FlaForConditionalGeneration(config).eval()


@pytest.fixture
def stage1():
    return small_light_t()


@pytest.fixture
def language_model():
    return MBartForConditionalGeneration(LANGUAGE_MODELS["mbart"]()).eval()


def assemble(stage1, language_model, **overrides):
    return FlaForConditionalGeneration.from_visual_encoder_and_language_model(stage1, language_model, **overrides)


# The two inputs


@pytest.mark.parametrize("features", ["frame", "sign", "hidden"])
def test_both_inputs_give_the_same_to_the_last_bit(features, stage1, language_model, video, mask, labels):
    model = assemble(stage1, language_model, input_features=features)
    sign_features = model.get_sign_features(video, mask)
    assert sign_features.shape == (2, T, model.config.adapter_input_size)
    sign_features[~mask.bool()] = float("nan")
    pixels = model(video, mask, labels=labels)
    cached = model(sign_features=sign_features, attention_mask=mask, labels=labels)
    assert torch.equal(pixels.logits, cached.logits) and torch.equal(pixels.loss, cached.loss)
    assert torch.equal(
        model.generate(pixel_values_videos=video, attention_mask=mask, **BEAMS),
        model.generate(sign_features=sign_features, attention_mask=mask, **BEAMS),
    )


def test_features_are_what_the_visual_encoder_gives(model, video, mask):
    output = model.visual_encoder(video, mask)
    assert torch.equal(model.get_sign_features(video, mask), output.last_hidden_state)
    model.config.input_features = "frame"
    assert torch.equal(model.get_sign_features(video, mask), output.frame_features)


@pytest.mark.parametrize("features", ["frame", "sign", "hidden"])
def test_frames_encoded_one_by_one_give_the_same_features(features, stage1, language_model, video):
    model = assemble(stage1, language_model, input_features=features)
    frames = [torch.cat([model.visual_encoder.encode_frames(frame[None]) for frame in clip]) for clip in video]
    mixed = model.get_sign_features(frame_features=torch.stack(frames))
    torch.testing.assert_close(mixed, model.get_sign_features(video), atol=1e-5, rtol=1e-5)


def test_raw_and_normalized_pixels_agree(model, video, normalized, mask, labels):
    raw, float_ = (model(pixels, mask, labels=labels).logits for pixels in (video, normalized))
    torch.testing.assert_close(raw, float_, atol=1e-5, rtol=0)


def test_padding_of_nan_changes_nothing(model, normalized, mask, labels):
    clean, sentences = (
        model(normalized, mask, labels=labels).logits,
        model.generate(normalized, attention_mask=mask, **BEAMS),
    )
    normalized[~mask.bool()] = float("nan")
    assert torch.equal(model(normalized, mask, labels=labels).logits, clean)
    assert torch.equal(model.generate(normalized, attention_mask=mask, **BEAMS), sentences)


def test_a_clip_alone_and_in_a_padded_batch_agree(model, video, mask, labels):
    together = model(video, mask, labels=labels)
    alone = model(video[1:, :4], labels=labels[1:, :3])
    torch.testing.assert_close(together.logits[1:, :3], alone.logits, atol=1e-5, rtol=0)
    batch = model.generate(video, attention_mask=mask, **BEAMS)[1]
    single = model.generate(video[1:, :4], **BEAMS)[0]
    assert torch.equal(batch[: len(single)], single) and (batch[len(single) :] == model.config.pad_token_id).all()


def test_no_step_of_generation_or_training_uses_a_renamed_argument(model, video, mask, labels):
    """FutureWarnings are errors here (pyproject.toml); this is the other way by which transformers says it."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.Logger.warning_once.cache_clear()
    transformers_logging.add_handler(handler)
    try:
        for options in ({}, {"num_beams": 5}, {"use_cache": False}):
            model.generate(video, attention_mask=mask, max_new_tokens=6, **options)
        model.config.use_cache = False  # as Trainer does
        model.train().activation_checkpointing_enable()
        model(video, mask, labels=labels).loss.backward()
        output = model(video, mask, decoder_input_ids=labels.clamp(min=1))  # as with label smoothing
        assert output.cache is None
    finally:
        transformers_logging.remove_handler(handler)
    assert model.eval().generate(video, return_dict_in_generate=True, max_new_tokens=2).cache is not None
    assert not [message for message in messages if "deprecated" in message or "use_cache" in message], messages


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_taken_by_its_new_name_and_by_its_old_one(model, video, mask, name):
    encoder_outputs = model.get_encoder()(video, mask)
    ids = torch.tensor([[3, 7, 9], [3, 8, 12]])
    inputs = {"encoder_outputs": encoder_outputs, "attention_mask": mask}
    first = model(**inputs, decoder_input_ids=ids[:, :2], use_cache=True)
    context = (
        pytest.warns(FutureWarning, match="`past_key_values` is deprecated") if name != "cache" else nullcontext()
    )
    with context:
        step = model(**inputs, decoder_input_ids=ids[:, 2:], **{name: first.cache})
    whole = model(**inputs, decoder_input_ids=ids).logits
    torch.testing.assert_close(step.logits[:, 0], whole[:, 2], atol=1e-5, rtol=1e-5)


def test_known_encoder_outputs_leave_both_inputs_alone(model, video, mask, labels):
    encoder_outputs = model.get_encoder()(video, mask)
    output = model(encoder_outputs=encoder_outputs, attention_mask=mask, labels=labels)
    assert torch.equal(output.logits, model(video, mask, labels=labels).logits)


def test_half_precision_features_enter_a_full_precision_model(model, video, mask):
    features = model.get_sign_features(video, mask)
    logits = model(
        sign_features=features.half(), attention_mask=mask, decoder_input_ids=torch.tensor([[3], [3]])
    ).logits
    assert logits.dtype == torch.float32


# What is refused


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Give either `pixel_values_videos` or `sign_features`; got neither"),
        (
            {"pixel_values_videos": torch.zeros(2, T, 3, 32, 32), "sign_features": torch.zeros(2, T, C)},
            "Give either `pixel_values_videos` or `sign_features`; got both",
        ),
        (
            {"sign_features": torch.zeros(2, T, 5)},
            r"`sign_features` must be \(B, N, 24\) with `input_features='sign'`, got \(2, 7, 5\)",
        ),
        ({"pixel_values_videos": torch.zeros(2, T, 1, 32, 32)}, r"must be \(B, T, 3, H, W\), got \(2, 7, 1, 32, 32\)"),
        (
            {"sign_features": torch.zeros(2, T, C), "attention_mask": torch.ones(2, T - 1)},
            r"`attention_mask` must be \(B, T\) = \(2, 7\), got \(2, 6\)",
        ),
        (
            {"sign_features": torch.zeros(2, T, C), "attention_mask": torch.tensor([[0] * T, [1] * T])},
            r"real frame.*\[0\]",
        ),
        ({"sign_features": torch.zeros(2, 21, C)}, r"21 sampled frames.* 20\b"),
    ],
)
def test_wrong_inputs_are_refused_with_their_values(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs, labels=torch.tensor([[7, 2], [7, 2]]))
    if "both" not in message:
        with pytest.raises(ValueError, match=message):
            model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize("name", ["input_ids", "inputs_embeds"])
def test_text_as_input_is_refused(model, video, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        model(video, labels=torch.tensor([[7, 2], [7, 2]]), **{name: torch.zeros(2, 2)})


def test_generate_refuses_both_inputs(model, video):
    with pytest.raises(ValueError, match="Give either `pixel_values_videos` or `sign_features`, not both"):
        model.generate(video, sign_features=torch.zeros(2, T, C))


def test_a_sentence_longer_than_the_position_table_is_refused(model, video):
    assert model.max_sign_positions == model.max_target_positions == 20
    with pytest.raises(ValueError, match=r"sentence .*21 tokens.* 20\b"):
        model(video, labels=torch.full((2, 21), 7))


def test_a_translation_longer_than_the_position_table_is_refused(model, video):
    with pytest.raises(ValueError, match=r"translation .*21 tokens.* 20\b"):
        model.generate(video, min_new_tokens=25, max_new_tokens=25)


@pytest.mark.parametrize("name", ["mt5", "m2m_100"])
def test_tables_without_an_end_take_any_length(name):
    assert tiny_model(name).max_sign_positions is None and tiny_model(name).max_target_positions is None
    assert tiny_model(name)(sign_features=torch.zeros(1, 30, C), labels=torch.tensor([[7, 2]])).loss.isfinite()


# Freezing


def moved_parts(model, inputs):
    before = copy.deepcopy(model.state_dict())
    model.train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model(**inputs).loss.backward()
    optimizer.step()
    names = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    return {
        part
        for part in ("vision_backbone", "temporal_module", "adapter", "language_model", "light_t_encoder")
        if any(part in name and ("light_t" in part or "light_t" not in name) for name in names)
    }


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("parts", [(False, False), (True, False), (True, True)])
def test_freezing_by_part_survives_training_and_loading(model, video, mask, labels, tmp_path, parts, reload):
    model.freeze_visual_encoder(*parts)
    if reload:
        model.save_pretrained(tmp_path)
        model = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert model.visual_encoder_is_frozen == all(parts)
    expected = {"adapter", "language_model"}
    expected |= {
        part for part, frozen in zip(("vision_backbone", "temporal_module"), parts, strict=True) if not frozen
    }
    inputs = {"pixel_values_videos": video, "attention_mask": mask, "labels": labels}
    assert moved_parts(model, inputs) == expected


def test_a_frozen_encoder_gives_training_the_features_of_evaluation(model, video, mask):
    model.freeze_visual_encoder()
    features = model.get_sign_features(video, mask)
    assert torch.equal(model.train().get_sign_features(video, mask), features)


def test_frame_features_leave_the_temporal_module_frozen(video, mask, labels):
    model = tiny_model(input_features="frame")
    inputs = {"pixel_values_videos": video, "attention_mask": mask, "labels": labels}
    assert moved_parts(model, inputs) == {"vision_backbone", "adapter", "language_model"}


def test_light_t_is_carried_along_frozen(stage1, language_model, video, mask, labels, tmp_path):
    model = assemble(stage1, language_model, input_features="hidden", freeze_temporal_module=False)
    encoder_states = stage1.get_encoder()(video, mask).last_hidden_state
    features = model.get_sign_features(video, mask)
    torch.testing.assert_close(features[mask.bool()], encoder_states[mask.bool()])
    model.save_pretrained(tmp_path)
    model = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model.get_sign_features(video, mask), features)
    inputs = {"pixel_values_videos": video, "attention_mask": mask, "labels": labels}
    assert moved_parts(model, inputs) == {"temporal_module", "adapter", "language_model"}


# Stage 2


def test_assembly_keeps_both_parts_and_freezes_the_visual_encoder(stage1, language_model, video, mask):
    before = copy.deepcopy(language_model.state_dict())
    model = assemble(stage1, language_model)
    assert model.visual_encoder_is_frozen and not stage1.visual_encoder_is_frozen
    assert torch.equal(model.get_sign_features(video, mask), stage1.get_sign_features(video, mask))
    assert all(torch.equal(value, before[key]) for key, value in model.language_model.state_dict().items())
    assert model.generation_config is language_model.generation_config
    assert model.config.text_config is language_model.config


def test_assembly_from_folders_equals_assembly_from_models(stage1, language_model, video, mask, tmp_path):
    stage1.save_pretrained(tmp_path / "stage1")
    language_model.save_pretrained(tmp_path / "lm")
    model = assemble(tmp_path / "stage1", tmp_path / "lm", freeze_temporal_module=False, input_embed_scale=4.0)
    assert torch.equal(model.get_sign_features(video, mask), stage1.get_sign_features(video, mask))
    assert model.config.freeze_vision_backbone and not model.config.freeze_temporal_module
    assert model.config.input_embed_scale == 4.0


def test_a_visual_encoder_alone_is_enough_unless_hidden_states_are_wanted(stage1, language_model):
    model = assemble(stage1.visual_encoder, language_model)
    assert model.visual_encoder is not stage1.visual_encoder
    with pytest.raises(ValueError, match="stage 1.* FlaVisualEncoder"):
        assemble(stage1.visual_encoder, language_model, input_features="hidden")


def test_embeddings_are_scaled_as_configured(stage1, language_model, video, mask):
    model = assemble(stage1, language_model, input_embed_scale=4.0)
    scaled, _ = model._sign_embeds(video, None, mask)
    model.config.input_embed_scale = 1.0
    torch.testing.assert_close(scaled, 4 * model._sign_embeds(video, None, mask)[0])


# Saving and loading


def test_a_saved_folder_loads_through_the_auto_classes(model, video, mask, labels, tmp_path):
    model.save_pretrained(tmp_path)
    expected = model(video, mask, labels=labels).logits
    for auto_class in (AutoModel, AutoModelForSeq2SeqLM):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is FlaForConditionalGeneration
        assert torch.equal(loaded(video, mask, labels=labels).logits, expected)
    encoder, info = FlaVisualEncoder.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"], "the other parts of a whole model are not worth a report"
    assert torch.equal(encoder(video, mask).last_hidden_state, model.get_sign_features(video, mask))


def test_the_folder_holds_flat_code_and_safe_weights_in_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    names = {path.name for path in tmp_path.iterdir()}
    code = {"configuration_fla.py", "modeling_fla.py", "visual_encoder_fla.py"}
    assert {name for name in names if name.endswith(".py")} == code
    assert "model.safetensors.index.json" in names and not [name for name in names if name.endswith((".bin", ".pt"))]
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == auto_map["AutoModelForSeq2SeqLM"] == "modeling_fla.FlaForConditionalGeneration"
    reloaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in reloaded.state_dict().items())


def test_a_weight_that_has_no_place_is_reported(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"adapter.extra.weight": torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    _, info = FlaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert info["unexpected_keys"] == {"adapter.extra.weight"}


def test_fresh_weights_follow_resnets_and_gfslts_rules():
    model = FlaForConditionalGeneration(tiny_config(adapter_hidden_size=600))
    convolution = model.visual_encoder.temporal_module.convolution.weight
    assert convolution.std().item() == pytest.approx((2 / (C * 5)) ** 0.5, rel=0.1)  # He, fan out
    assert model.adapter.hidden.weight.std().item() == pytest.approx((2 / (C + 600)) ** 0.5, rel=0.1)  # Xavier
    assert not model.adapter.hidden.bias.any()


def test_an_untied_light_t_keeps_its_two_tables_through_saving(stage1, video, labels, tmp_path):
    stage1.save_pretrained(tmp_path)
    loaded, report = FlaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(video, labels=labels).logits, stage1(video, labels=labels).logits)
    core = loaded.language_model.model
    assert core.encoder.embed_tokens is core.decoder.embed_tokens is core.shared
    assert loaded.get_output_embeddings().weight is not core.shared.weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_in_half_precision_reaches_every_part(stage1, language_model, video, mask, labels, tmp_path, dtype):
    assemble(stage1, language_model.to(torch.float32), input_features="hidden").save_pretrained(tmp_path)
    model = FlaForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model(video, mask, labels=labels).loss.isfinite()
    assert model.generate(video, attention_mask=mask, **BEAMS).shape[0] == 2
    model.save_pretrained(tmp_path / "again")
    again = FlaForConditionalGeneration.from_pretrained(tmp_path / "again", dtype=torch.float32)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_a_language_models_folder_starts_a_model_around_it(language_model, tmp_path):
    language_model.save_pretrained(tmp_path)
    model = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model.get_input_embeddings().weight, language_model.get_input_embeddings().weight)


def test_a_copy_is_a_model_of_its_own(model, copied, video, mask, labels):
    expected = model(video, mask, labels=labels).logits
    with torch.no_grad():
        copied.get_input_embeddings().weight.zero_()
        copied.adapter.output.weight.zero_()
    assert torch.equal(model(video, mask, labels=labels).logits, expected)


# Training


def test_every_trainable_parameter_gets_a_gradient(stage1, video, mask, labels):
    stage1.train()(video, mask, labels=labels).loss.backward()
    assert not [
        name for name, parameter in stage1.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]


def test_autocast_trains_in_bfloat16(model, video, mask, labels):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.get_sign_features(video, mask).dtype == torch.bfloat16
        loss = model.train()(video, mask, labels=labels).loss
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_checkpointing_covers_the_whole_model_and_keeps_the_gradients(model, copied, video, mask, labels):
    copied.activation_checkpointing_enable()
    assert copied.visual_encoder.gradient_checkpointing
    for network in (model, copied):
        for layer in [
            *network.language_model.get_encoder().modules(),
            *network.language_model.get_decoder().modules(),
        ]:
            if isinstance(getattr(layer, "dropout", None), float):
                layer.dropout = 0.0
        network.train()(video, mask, labels=labels).loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_attention_implementations_agree(model, video, mask, labels, tmp_path, attention):
    model.save_pretrained(tmp_path)
    loaded = FlaForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=attention)
    assert loaded.language_model.config._attn_implementation == attention
    if attention != "flex_attention":  # compiling it for the CPU takes half a minute
        torch.testing.assert_close(loaded(video, mask, labels=labels).logits, model(video, mask, labels=labels).logits)


@pytest.mark.parametrize("wanted", ["eager", "sdpa", {"text_config": "eager"}, {"": "eager", "text_config": "sdpa"}])
def test_attention_is_changed_after_loading_and_a_backbone_without_it_is_left_alone(model, video, mask, wanted):
    expected = model.generate(video, attention_mask=mask, max_new_tokens=4)
    model.set_attn_implementation(wanted)
    language_model, backbone = model.language_model.config, model.visual_encoder.vision_backbone.config
    assert language_model._attn_implementation == (wanted if isinstance(wanted, str) else wanted["text_config"])
    assert backbone._attn_implementation == "eager"
    assert torch.equal(model.generate(video, attention_mask=mask, max_new_tokens=4), expected)
    model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == language_model._attn_implementation == "sdpa"
    model.visual_encoder.set_attn_implementation("eager")
    assert model.config.vision_config._attn_implementation == "eager" != language_model._attn_implementation


@pytest.mark.parametrize("wanted", ["nonsense", "flex_attention", {"": "eager", "text_config": "flex_attention"}])
def test_attention_that_a_part_refuses_is_changed_in_no_part(model, wanted, monkeypatch):
    monkeypatch.setattr(type(model.language_model), "_supports_flex_attn", False)
    parts = [model.config, model.config.vision_config, model.config.text_config]
    before = [part._attn_implementation for part in parts]
    with pytest.raises(ValueError, match="nonsense|flex_attention|FlexAttention|flex attention"):
        model.set_attn_implementation(wanted)
    assert [part._attn_implementation for part in parts] == before


def test_encoders_are_found_by_modality(model, video, mask):
    assert model.get_encoder("video") is model.visual_encoder
    assert model.get_encoder("image") is model.get_encoder("audio") is model
    assert model.get_encoder()(video, mask).last_hidden_state.shape == (2, T, D)
    with pytest.raises(ValueError, match="got 'bogus'"):
        model.get_encoder("bogus")


def test_a_decoding_step_on_a_static_cache_is_one_graph(model, video, mask):
    """`fullgraph`, as transformers compiles it where `cache_implementation` is static."""
    options = {"attention_mask": mask, "max_new_tokens": 5}
    compiled = CompileConfig(fullgraph=True, backend="eager")
    compiled._compile_all_devices = True  # transformers compiles on accelerators only
    expected = model.generate(video, **options)
    assert torch.equal(model.generate(video, **options, cache_implementation="static"), expected)
    assert torch.equal(
        model.generate(video, **options, cache_implementation="static", compile_config=compiled), expected
    )
    assert model._compiled_call is not None
    with pytest.raises(ValueError, match=r"position.* 20\b"):
        model.generate(video, attention_mask=mask, min_new_tokens=24, max_new_tokens=25, cache_implementation="static")


def test_a_resized_vocabulary_is_told_as_by_other_models(model, video, labels):
    model.resize_token_embeddings(V + 5)
    assert model.vocab_size == model.config.vocab_size == V + 5
    assert model(video, labels=labels).logits.shape[-1] == V + 5


def test_a_configuration_around_a_living_model_leaves_its_attention(language_model, video):
    model = FlaForConditionalGeneration(tiny_config("mbart", attn_implementation="eager"))
    assert model.language_model.config._attn_implementation == "eager"
    for part in (language_model.config, model.config.vision_config):
        before = part._attn_implementation
        FlaConfig(text_config=language_model.config, vision_config=model.config.vision_config)
        assert part._attn_implementation == before is not None


@pytest.mark.parametrize("module", ["modeling_fla.modeling_fla", "processing_fla.tokenization_fla"])
def test_the_examples_of_docstrings_run(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted and not failed


def test_a_tuple_where_it_is_asked_for(model, video, labels):
    loss, logits, *_ = model(video, labels=labels, return_dict=False)
    assert loss.ndim == 0 and logits.shape == (2, L, V)


def test_the_language_models_width_is_the_adapters(model):
    assert model.adapter.output.out_features == model.adapter.hidden.out_features == D
    assert tiny_config(adapter_hidden_size=9).adapter_hidden_size == 9
