"""One language code a clip: labels, generation and what is saved, of each kind of language model."""

import pytest
import torch

from modeling_fla import FlaConfig, FlaForConditionalGeneration, trim_token_embeddings
from processing_fla import FlaProcessor, FlaVideoProcessor
from processing_fla.processing_fla import language_token_id
from tests.processing.test_tokenization_fla import m2m100, mbart, mbart50, nllb, t5
from training_fla.commands.data.trim import add_languages
from training_fla.errors import InputError
from training_fla.stages.building import clean_generation_config
from training_fla.training.parts import set_languages
from training_fla.viewing.loading import check_language

from .conftest import LANGUAGE_MODELS, tiny_vision_config

# Tokenizer, language model, two codes, and what stands before the first word of the second language.
KINDS = {
    "mbart": (mbart, "mbart", ("de_DE", "zh_CN"), ["zh_CN"]),
    "mbart50": (mbart50, "mbart", ("de_DE", "zh_CN"), ["</s>", "zh_CN"]),
    "nllb": (nllb, "m2m_100", ("deu_Latn", "zho_Hans"), ["</s>", "zho_Hans"]),
    "m2m100": (m2m100, "m2m_100", ("de", "zh"), ["</s>", "__zh__"]),
    "t5": (t5, "mt5", ("de_DE", "zh_CN"), ["<pad>", "zh_CN"]),
}
SENTENCE = "der wind weht"


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Processor, model with the generation config of a run, codes and the expected beginning."""
    make, name, codes, start = KINDS[request.param]
    tokenizer = make()
    torch.manual_seed(0)
    config = LANGUAGE_MODELS[name]()
    for part in config, config.get_text_config():
        part.pad_token_id, part.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        part.bos_token_id, part.vocab_size = tokenizer.bos_token_id, 600
    config.decoder_start_token_id = tokenizer.pad_token_id if make is t5 else tokenizer.eos_token_id
    model = FlaForConditionalGeneration(FlaConfig(vision_config=tiny_vision_config(), text_config=config)).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=2)  # clear choices
    if make is t5:
        model.resize_token_embeddings(len(tokenizer))
        with pytest.raises(InputError, match="de_DE.*fla trim --language de_DE zh_CN"):
            set_languages(tokenizer, codes, None)
        add_languages(model.language_model, tokenizer, list(codes))
    set_languages(tokenizer, codes, None)
    model.generation_config = clean_generation_config(model, tokenizer, 2, 6, codes)
    return FlaProcessor(FlaVideoProcessor(), tokenizer), model, codes, start


def test_targets_are_those_of_a_tokenizer_of_that_language(kind):
    processor, _, codes, _ = kind
    tokenizer = processor.tokenizer
    first, second = processor.labels([SENTENCE, SENTENCE], list(codes))
    assert [id_ for id_ in first if id_ != language_token_id(tokenizer, codes[0])] == [
        id_ for id_ in second if id_ != language_token_id(tokenizer, codes[1])
    ]
    if not hasattr(tokenizer, "tgt_lang"):
        assert second == [language_token_id(tokenizer, codes[1]), *tokenizer(text_target=SENTENCE)["input_ids"]]
        return
    before = tokenizer.tgt_lang
    tokenizer.tgt_lang = codes[1]
    assert second == tokenizer(text_target=SENTENCE)["input_ids"]
    tokenizer.tgt_lang = before
    assert first == tokenizer(text_target=SENTENCE)["input_ids"] == processor.labels([SENTENCE])[0]


def test_a_translation_begins_as_its_language_does_in_training(kind):
    processor, model, codes, start = kind
    labels = torch.tensor(processor.labels([SENTENCE], codes[1]))
    trained = model.prepare_decoder_input_ids_from_labels(labels)[0, : len(start)]
    features = torch.randn(1, 5, model.config.adapter_input_size)
    generated = model.generate(sign_features=features, language=codes[1])[0]
    assert processor.tokenizer.convert_ids_to_tokens(generated[: len(start)]) == start
    assert torch.equal(generated[: len(start)], trained)
    default = model.generate(sign_features=features)[0]
    assert torch.equal(default, model.generate(sign_features=features, language=codes[0])[0])
    model.begin_in(codes[1])
    assert torch.equal(generated, model.generate(sign_features=features)[0])
    model.begin_in(codes[0])
    given = model.generate(sign_features=features, language=codes[1], generation_config=model.generation_config)[0]
    assert torch.equal(generated, given)
    if codes[1] != "zh":  # the languages of a bare M2M-100 tokenizer are not special; those of the released one are
        assert codes[1] not in processor.batch_decode(generated[None], skip_special_tokens=True)[0]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_of_two_languages_gives_what_each_gives_alone(kind, beams):
    _, model, codes, _ = kind
    features = torch.randn(3, 5, model.config.adapter_input_size)
    languages = [codes[1], codes[0], codes[1]]
    pad = model.generation_config.pad_token_id
    together = model.generate(sign_features=features, language=languages, num_beams=beams)
    for row, clip, code in zip(together, features, languages, strict=True):
        alone = model.generate(sign_features=clip[None], language=code, num_beams=beams)[0]
        assert row[: len(alone)].tolist() == alone.tolist() and set(row[len(alone) :].tolist()) <= {pad}


def test_the_languages_are_saved_trimmed_and_refused_by_name(kind, tmp_path):
    processor, model, codes, _ = kind
    model.save_pretrained(tmp_path)
    loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.languages == list(codes)
    with pytest.raises(ValueError, match=f"fr_XX.*{codes[0]}, {codes[1]}"):
        loaded.generate(sign_features=torch.randn(1, 5, model.config.adapter_input_size), language="fr_XX")
    with pytest.raises(InputError, match=f"fr_XX.*{codes[1]}"):
        check_language(loaded, "fr_XX")
    with pytest.raises(ValueError, match="fr_YY"):
        processor.labels([SENTENCE], "fr_YY")
    before = dict(loaded.generation_config.language_token_ids)
    kept = [index for index in range(loaded.get_output_embeddings().weight.shape[0]) if index not in (20, 21)]
    trim_token_embeddings(loaded, kept)
    after = loaded.generation_config.language_token_ids
    assert {code: kept[index] for code, index in after.items()} == before


def test_a_model_of_one_language_says_so(kind):
    _, model, *_ = kind
    features = torch.randn(1, 5, model.config.adapter_input_size)
    ids, model.generation_config.language_token_ids = model.generation_config.language_token_ids, None
    try:
        with pytest.raises(ValueError, match="de_DE.*one"):
            model.generate(sign_features=features, language="de_DE")
        assert model.languages == []
    finally:
        model.generation_config.language_token_ids = ids
