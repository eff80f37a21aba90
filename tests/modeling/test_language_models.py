"""Every language model in the one class: training, both inputs, generation, saving, trimming."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MT5Config, MT5ForConditionalGeneration

from modeling_fla import FlaConfig, FlaForConditionalGeneration, trim_token_embeddings

from .conftest import LANGUAGE_MODELS, D, V, t5gemma, tiny_model

KEPT = [0, 1, 2, 3, 9, 7, 30, 12, 39, 8]  # the special tokens, then some others out of order
every_language_model = pytest.mark.parametrize("name", LANGUAGE_MODELS)


def logits_of(model, video, mask, decoder_input_ids):
    return model(video, mask, decoder_input_ids=decoder_input_ids).logits


@every_language_model
def test_the_loss_is_the_mean_over_target_tokens(name, video, mask, labels):
    model = tiny_model(name)
    output = model(video, mask, labels=labels)
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    logits = logits_of(model, video, mask, shifted)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())  # -100 is left out
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(model(video, mask, labels=labels, num_items_in_batch=14).loss, expected * 7 / 14)


@every_language_model
def test_labels_are_shifted_right_behind_the_start_token(name, labels):
    model = tiny_model(name)
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    # MBart moves the language code, the last token, to the front; the others have one start token.
    start = [[4], [4]] if name == "mbart" else [[3], [3]]
    assert torch.equal(shifted[:, :1], torch.tensor(start))
    assert shifted[0, 1:].tolist() == [7, 8, 2] and shifted[1, 1:3].tolist() == [9, 2]
    assert (shifted != -100).all()


@every_language_model
def test_nan_padding_and_company_change_neither_logits_nor_sentences(name, normalized, mask, labels):
    model = tiny_model(name)
    alone = model(normalized[1:, :4], labels=labels[1:, :3]).logits
    sentence = model.generate(normalized[1:, :4], num_beams=3, max_new_tokens=6)[0]
    normalized[~mask.bool()] = float("nan")
    together = model(normalized, mask, labels=labels).logits[1:, :3]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    sentences = model.generate(normalized, attention_mask=mask, num_beams=3, max_new_tokens=6)
    assert torch.equal(sentences[1, : len(sentence)], sentence)


@every_language_model
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_known_positions_change_nothing(name, attention, normalized, mask, labels):
    """With them the masks are made here, to be added to the scores, and their values never read."""
    if (name, attention) == ("t5gemma", "sdpa"):
        pytest.skip("sdpa has no soft cap on attention scores, which T5Gemma has")
    model = tiny_model(name)
    model.language_model.set_attn_implementation(attention)
    normalized[~mask.bool()] = float("nan")
    positions = mask.flatten().nonzero().squeeze(1)
    expected = model(normalized, mask, labels=labels)
    known = model(normalized, mask, labels=labels, positions=positions)
    torch.testing.assert_close(known.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(known.loss, expected.loss)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(normalized, mask, labels=labels, positions=positions).logits
        torch.testing.assert_close(half, model(normalized, mask, labels=labels).logits, atol=0.05, rtol=0.05)


@every_language_model
def test_generation_has_all_of_generation_mixin(name, video, mask):
    model = tiny_model(name)
    inputs = {"sign_features": model.get_sign_features(video, mask), "attention_mask": mask, "max_new_tokens": 6}
    greedy = model.generate(**inputs, do_sample=False)
    assert torch.equal(model.generate(**inputs, use_cache=False), greedy)
    assert torch.equal(model.generate(**inputs, cache_implementation="static")[:, : greedy.shape[1]], greedy)
    one = {**inputs, "sign_features": inputs["sign_features"][:1], "attention_mask": mask[:1]}
    for option in ({"assistant_model": copy.deepcopy(model)}, {"prompt_lookup_num_tokens": 2}):
        faster = model.generate(**one, **option)[0]
        assert torch.equal(faster, greedy[0, : len(faster)])
    sampled = model.generate(**inputs, do_sample=True, num_beams=2, num_return_sequences=2)
    assert sampled.shape[0] == 4
    scored = model.generate(**inputs, num_beams=3, return_dict_in_generate=True, output_scores=True)
    assert scored.sequences_scores.shape == (2,)


@every_language_model
def test_saving_loading_and_resizing(name, video, mask, labels, tmp_path):
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    loaded, report = FlaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(video, mask, labels=labels).logits, model(video, mask, labels=labels).logits)
    loaded.resize_token_embeddings(V + 3)
    assert loaded.config.vocab_size == loaded(video, mask, labels=labels).logits.shape[-1] == V + 3


@every_language_model
@pytest.mark.parametrize("tied", [True, False])
def test_trimming_keeps_the_logits_of_the_kept_tokens(name, tied, video, mask, tmp_path):
    model = tiny_model(name)
    if not tied:
        if name in ("t5", "mt5"):
            pytest.skip("transformers ties T5's and MT5's head whatever the configuration says")
        config = copy.deepcopy(model.config)
        config.text_config.tie_word_embeddings = False
        model = FlaForConditionalGeneration(config).eval()
    decoder_input_ids = torch.tensor([[3, 9, 12, 30], [3, 8, 2, 1]])
    before = logits_of(model, video, mask, decoder_input_ids)
    new_ids = {old: new for new, old in enumerate(KEPT)}
    assert trim_token_embeddings(model, KEPT) is model
    assert model.config.vocab_size == len(KEPT)
    trimmed_input_ids = decoder_input_ids.clone().apply_(new_ids.get)
    after = logits_of(model, video, mask, trimmed_input_ids)
    torch.testing.assert_close(after, before[..., KEPT], atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded, video, mask, trimmed_input_ids), after)


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_cross_attention_sees_the_whole_video_though_self_attention_slides(name, mask):
    """The window is 6 positions, the video has 12; the language model's `_prepare_cache_for_generation` knows."""
    model = tiny_model(name)
    features = torch.randn(2, 12, model.config.adapter_input_size)
    expected = model.generate(sign_features=features, max_new_tokens=8, use_cache=False, num_beams=2)
    assert torch.equal(model.generate(sign_features=features, max_new_tokens=8, num_beams=2), expected)


def test_the_eyes_of_t5gemma_2_are_neither_kept_nor_saved(tmp_path):
    model = tiny_model("t5gemma2")
    assert not [name for name in model.state_dict() if "vision_tower" in name or "multi_modal" in name]
    model.save_pretrained(tmp_path)
    _, report = FlaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_halves_of_different_width_are_joined():
    model = FlaForConditionalGeneration(FlaConfig(text_config=t5gemma(hidden_size=24), sign_feature_size=10)).eval()
    assert model.adapter.output.out_features == D and model.get_output_embeddings().in_features == 24
    assert model.generate(sign_features=torch.randn(1, 5, 10), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize("name", ["mbart", "t5", "t5gemma"])
def test_a_language_model_in_bfloat16_takes_an_adapter_in_float32(name, video, mask, labels):
    language_model = AutoModelForSeq2SeqLM.from_config(LANGUAGE_MODELS[name](), dtype=torch.bfloat16)
    model = FlaForConditionalGeneration.from_visual_encoder_and_language_model(
        tiny_model().visual_encoder, language_model
    )
    assert model.adapter.hidden.weight.dtype == torch.float32
    model(video, mask, labels=labels).loss.backward()
    assert model.adapter.hidden.weight.grad.dtype == torch.float32 and model.adapter.hidden.weight.grad.any()
    assert model.generate(video, attention_mask=mask, num_beams=2, max_new_tokens=3).shape[0] == 2


@every_language_model
def test_trimming_a_bare_language_model_is_the_same(name):
    language_model = AutoModelForSeq2SeqLM.from_config(LANGUAGE_MODELS[name]()).eval()
    source, target = torch.randn(1, 5, 16), torch.tensor([[3, 9, 12]])
    before = language_model(inputs_embeds=source, decoder_input_ids=target).logits
    trim_token_embeddings(language_model, KEPT)
    new_target = torch.tensor([[3, KEPT.index(9), KEPT.index(12)]])
    after = language_model(inputs_embeds=source, decoder_input_ids=new_target).logits
    torch.testing.assert_close(after, before[..., KEPT], atol=1e-6, rtol=0)


def test_trimming_remaps_every_token_the_configurations_name(video, mask):
    model = tiny_model("mbart")
    model.generation_config.suppress_tokens = [7, 20]
    model.generation_config.bad_words_ids = [[8, 12], [21], [8, 20]]
    model.generation_config.sequence_bias = [[[8], 0.5], [[20], 2.0]]
    model.generation_config.forced_bos_token_id = 30
    sentences = model.generate(video, attention_mask=mask, num_beams=5, max_new_tokens=6)
    kept = [2, 0, 3, 1] + sorted({*range(4, V)} - {20, 21})
    new_ids = {old: new for new, old in enumerate(kept)}
    trim_token_embeddings(model, kept)
    config, generation_config = model.config.text_config, model.generation_config
    assert (config.eos_token_id, config.bos_token_id, config.decoder_start_token_id, config.pad_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert generation_config.eos_token_id == 0 and generation_config.decoder_start_token_id == 2
    assert generation_config.suppress_tokens == [new_ids[7]]
    assert generation_config.bad_words_ids == [[new_ids[8], new_ids[12]]]
    assert generation_config.sequence_bias == [[[new_ids[8]], 0.5]]
    assert generation_config.forced_bos_token_id == new_ids[30]
    if not {20, 21} & set(sentences.flatten().tolist()):
        expected = sentences.clone().apply_(new_ids.get)
        assert torch.equal(model.generate(video, attention_mask=mask, num_beams=5, max_new_tokens=6), expected)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2, 3, 3], "token 3 "),
        ([0, 1, 2, 3, V], f"{V} tokens.*\\[{V}\\]"),
        ([], f"{V} tokens.*none"),
        ([0, 1, 3, 9], "lacks token 2, the `eos_token_id` of MBartConfig"),
    ],
)
def test_trimming_to_impossible_tokens_is_refused_and_changes_nothing(model, kept, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        trim_token_embeddings(model, kept)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_mt5_with_a_head_of_its_own_keeps_it(tmp_path, video, mask):
    # As the released checkpoints are: the configuration says tied, the weights say otherwise.
    config = LANGUAGE_MODELS["mt5"]()
    bare = MT5ForConditionalGeneration(MT5Config(**{**config.to_dict(), "tie_word_embeddings": False})).eval()
    bare.lm_head.weight = torch.nn.Parameter(torch.randn(V, 16))
    bare.all_tied_weights_keys.pop("lm_head.weight", None)
    bare.save_pretrained(tmp_path / "lm")
    language_model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "lm")
    model = FlaForConditionalGeneration.from_visual_encoder_and_language_model(
        tiny_model().visual_encoder, language_model
    )
    decoder_input_ids = torch.tensor([[3, 9, 12], [3, 8, 2]])
    source = torch.randn(2, 5, 16)
    expected = bare(inputs_embeds=source, decoder_input_ids=decoder_input_ids).logits
    assert torch.equal(
        model.language_model(inputs_embeds=source, decoder_input_ids=decoder_input_ids).logits, expected
    )
    before = logits_of(model, video, mask, decoder_input_ids)
    trim_token_embeddings(model, KEPT)
    model.save_pretrained(tmp_path / "fla")
    loaded = FlaForConditionalGeneration.from_pretrained(tmp_path / "fla")
    after = logits_of(loaded, video, mask, decoder_input_ids.clone().apply_(KEPT.index))
    torch.testing.assert_close(after, before[..., KEPT], atol=1e-5, rtol=1e-5)
