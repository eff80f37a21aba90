import csv
import functools
import json
import pickle
import tempfile
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    BartTokenizer,
    ByT5Tokenizer,
    GemmaTokenizer,
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerFast,
    T5Tokenizer,
)

from modeling_fla import FlaConfig, FlaForConditionalGeneration
from processing_fla.tokenization_fla import (
    UnsupportedTokenizerError,
    count_pieces,
    set_start_tokens,
    tokenized_differently,
    train_tokenizer,
    trim_tokenizer,
    unknown_words,
    vocabulary_length,
)
from tests.modeling.conftest import LANGUAGE_MODELS, tiny_vision_config

BROAD = [
    "am dienstag regen und im süden gewitter",
    "der wind weht schwach bis mäßig aus nordost",
    "heute nacht klart es auf, morgen wird es wärmer!",
    "The quick brown fox jumps over the lazy dog.",
    "im westen freundlicher, im osten zeitweise schauer",
] * 3
CORPUS = ["im süden regen", "der wind weht schwach", "morgen gewitter"]


def unigram_pieces() -> list[tuple[str, float]]:
    tokenizer = train_tokenizer(BROAD, vocab_size=200)
    reserved = set(tokenizer.all_special_tokens)
    scores = {piece: -1.0 - index / 50 for piece, index in tokenizer.get_vocab().items()}
    return sorted(((p, s) for p, s in scores.items() if p not in reserved), key=lambda item: -item[1])


def mbart():
    return train_tokenizer(BROAD, vocab_size=200, language_codes=("de_DE",))


def mbart50():
    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *unigram_pieces()]
    return MBart50Tokenizer(vocab=vocab, src_lang="de_DE", tgt_lang="de_DE")


def t5():
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *unigram_pieces()]
    return T5Tokenizer(vocab=vocab + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)])


def byte_level_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(BROAD, trainer)
    return tokenizer


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def bart():
    tokenizer = byte_level_bpe()
    return BartTokenizer(vocab=tokenizer.get_vocab(with_added_tokens=True), merges=merges_of(tokenizer))


def nllb():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        BROAD, trainers.BpeTrainer(vocab_size=150, special_tokens=specials, show_progress=False)
    )
    return NllbTokenizer(
        vocab=tokenizer.get_vocab(), merges=merges_of(tokenizer), src_lang="deu_Latn", tgt_lang="deu_Latn"
    )


def gemma(**options):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        BROAD, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    )
    return GemmaTokenizer(vocab=tokenizer.get_vocab(), merges=merges_of(tokenizer), **options)


def end_of_word_bpe():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=["<unk>", "<pad>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(BROAD, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")


def m2m100():
    with tempfile.TemporaryDirectory() as folder:
        return m2m100_in(Path(folder))


def m2m100_in(folder: Path):
    options = {"model_type": "bpe", "vocab_size": 70, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(BROAD), model_prefix=str(folder / "m"), **options)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(i) for i in range(3, len(model)))]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    return M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "m.model"), src_lang="de", tgt_lang="de")


ALL_KINDS = [mbart, mbart50, t5, bart, nllb, gemma, end_of_word_bpe]


@pytest.mark.parametrize("make", [*ALL_KINDS, m2m100])
def test_a_trimmed_tokenizer_splits_its_sentences_as_before_and_loads_as_the_same_class(make, tmp_path):
    tokenizer = make()
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, CORPUS)

    assert type(trimmed) is type(tokenizer)
    assert vocabulary_length(trimmed) == len(kept_token_ids), "ids are dense"
    assert len(kept_token_ids) < vocabulary_length(tokenizer) and kept_token_ids == sorted(set(kept_token_ids))
    for new, old in enumerate(kept_token_ids):
        assert trimmed.convert_ids_to_tokens(new) == tokenizer.convert_ids_to_tokens(old)

    trimmed.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for sentence in CORPUS:
        full = tokenizer(text_target=sentence)["input_ids"]
        assert [kept_token_ids[i] for i in trimmed(text_target=sentence)["input_ids"]] == full
        assert loaded(text_target=sentence)["input_ids"] == trimmed(text_target=sentence)["input_ids"]
        decoded = trimmed.decode(trimmed(sentence)["input_ids"], skip_special_tokens=True)
        assert decoded == tokenizer.decode(tokenizer(sentence)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("make", ALL_KINDS)
def test_special_tokens_and_characters_of_the_sentences_are_kept(make):
    tokenizer = make()
    trimmed, _ = trim_tokenizer(tokenizer, ["regen"])
    assert set(tokenizer.all_special_tokens) <= set(trimmed.get_vocab())
    assert [trimmed.pad_token, trimmed.unk_token] == [tokenizer.pad_token, tokenizer.unk_token]
    # "genre" is not in the corpus, its characters are
    assert trimmed.unk_token_id not in trimmed("genre", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("make", "language_model", "start"),
    [
        (mbart, "mbart", ["de_DE"]),
        (mbart50, "mbart", ["</s>", "de_DE"]),
        (nllb, "m2m_100", ["</s>", "deu_Latn"]),
        (m2m100, "m2m_100", ["</s>", "__de__"]),
        (t5, "mt5", ["<pad>"]),
        (t5, "mbart", ["</s>"]),
        (t5, "umt5", ["<pad>"]),
        (functools.partial(gemma, add_bos_token=False, add_eos_token=True), "t5gemma", ["<bos>"]),
        (bart, "bart", ["</s>", "<s>"]),
    ],
)
def test_generation_starts_with_the_tokens_that_training_starts_with(make, language_model, start):
    tokenizer = make()
    config = LANGUAGE_MODELS[language_model]()
    for part in config, config.get_text_config():
        part.vocab_size, part.pad_token_id, part.eos_token_id = 1000, tokenizer.pad_token_id, tokenizer.eos_token_id
        part.bos_token_id = tokenizer.bos_token_id
    config.decoder_start_token_id = tokenizer.pad_token_id if make is t5 else tokenizer.eos_token_id
    model = FlaForConditionalGeneration(FlaConfig(vision_config=tiny_vision_config(), text_config=config)).eval()
    set_start_tokens(model, tokenizer)
    labels = torch.tensor([tokenizer(text_target="der wind")["input_ids"]])
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    first_word = tokenizer("der wind", add_special_tokens=False)["input_ids"][0]
    trained = inputs[0, : inputs[0].tolist().index(first_word)]
    generated = model.generate(sign_features=torch.randn(1, 5, model.config.adapter_input_size), max_new_tokens=3)[0]
    assert tokenizer.convert_ids_to_tokens(trained) == start
    assert torch.equal(generated[: len(start)], trained)


def test_gemma_spells_what_it_does_not_know_in_bytes_before_and_after_trimming():
    tokenizer = gemma()
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, CORPUS)
    assert trimmed.unk_token_id not in trimmed("藕 fuchs Ω")["input_ids"]
    assert trimmed.decode(trimmed("藕 fuchs Ω")["input_ids"], skip_special_tokens=True) == "藕 fuchs Ω"
    assert len(kept_token_ids) < len(tokenizer)


def test_mbart_targets_end_with_the_language_code():
    tokenizer = mbart()
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, CORPUS)
    ids = trimmed(text_target="der wind")["input_ids"]
    assert trimmed.convert_ids_to_tokens(ids)[-2:] == ["</s>", "de_DE"]
    assert kept_token_ids[trimmed.lang_code_to_id["de_DE"]] == tokenizer.lang_code_to_id["de_DE"]
    assert trimmed.mask_token in trimmed.get_vocab() and (trimmed.src_lang, trimmed.tgt_lang) == ("de_DE", "de_DE")


def test_a_language_chosen_after_loading_survives():
    tokenizer = mbart()
    tokenizer.src_lang = tokenizer.tgt_lang = "zh_CN"
    trimmed, _ = trim_tokenizer(tokenizer, CORPUS)
    assert trimmed.convert_ids_to_tokens(trimmed(text_target="regen")["input_ids"])[-1] == "zh_CN"


def test_a_lost_character_would_change_the_segmentation_so_characters_are_kept():
    # a -19, bc -19 beats ab -5, c -35; without a piece "c" the unknown token (-29) would win with ab
    scores = {"▁": -1.0, "a": -19.0, "bc": -19.0, "ab": -5.0, "c": -35.0, "b": -40.0}
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    codes = [(code, 0.0) for code in mbart().lang_code_to_id]
    tokenizer = MBartTokenizer(vocab=specials + list(scores.items()) + codes + [("<mask>", 0.0)])
    trimmed, _ = trim_tokenizer(tokenizer, ["abc", "ab"])
    assert tokenizer.tokenize("abc") == trimmed.tokenize("abc") == ["▁", "a", "bc"]


pieces = st.text(alphabet="abc▁", min_size=1, max_size=4)
words = st.lists(st.text(alphabet="abcd", min_size=1, max_size=6), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(
    vocab=st.dictionaries(pieces, st.floats(-30, -1), min_size=1, max_size=20),
    corpus=st.lists(words, min_size=1, max_size=4),
)
def test_any_unigram_vocabulary_splits_its_corpus_as_before(vocab, corpus):
    # some characters have no piece of their own, "d" never has
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *vocab.items()], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    full = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    trimmed, _ = trim_tokenizer(full, corpus)
    assert tokenized_differently(full, trimmed, corpus) == 0


def test_min_count_drops_rare_pieces_but_no_characters():
    tokenizer = mbart()
    corpus = ["der wind"] * 3 + ["gewitter"]
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, corpus, min_count=2)
    _, everything = trim_tokenizer(tokenizer, corpus)
    assert set(kept_token_ids) < set(everything)
    assert trimmed.unk_token_id not in trimmed("gewitter")["input_ids"]
    assert trimmed.tokenize("der wind") == tokenizer.tokenize("der wind")


def test_characters_that_only_other_splits_have_become_unknown():
    trimmed, _ = trim_tokenizer(mbart(), ["regen"])
    assert unknown_words(trimmed, ["der fuchs regen"]) == {"der": 1, "fuchs": 1}


def test_unknown_words_are_words_in_german_and_characters_in_chinese():
    trimmed, _ = trim_tokenizer(mbart(), ["der regen"])
    assert unknown_words(trimmed, ["der wind, der regen", "der regen藕der"]) == {"wind,": 2, "藕": 1}


def test_sentences_are_normalised_before_counting():
    tokenizer = train_tokenizer(["fix, 10"] * 3 + BROAD, vocab_size=200)
    trimmed, _ = trim_tokenizer(tokenizer, ["ﬁx， １０"])
    assert trimmed.tokenize("fix, 10") == tokenizer.tokenize("fix, 10")
    assert count_pieces(tokenizer, ["ﬁx"]) == count_pieces(tokenizer, ["fix"])


@pytest.mark.parametrize("make", [*ALL_KINDS, m2m100])
def test_all_letters_of_the_script_are_kept_where_asked_and_of_no_other(make):
    tokenizer = make()
    letters = {piece for piece in tokenizer.get_vocab() if len(piece) == 1 and piece.isascii() and piece.isalpha()}
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, ["regen"], all_characters=True)
    assert letters <= set(trimmed.get_vocab())
    assert set(trim_tokenizer(tokenizer, ["regen"])[1]) <= set(kept_token_ids)
    assert tokenized_differently(tokenizer, trimmed, ["regen"]) == 0


def test_another_script_is_not_kept():
    tokenizer = train_tokenizer([*BROAD, "今年四岁", "привет"], vocab_size=200)
    kept = set(trim_tokenizer(tokenizer, ["今年"], all_characters=True)[0].get_vocab())
    assert set("今年四岁") <= kept and not set("приветfuchs") & kept


def test_extra_token_ids_are_kept():
    tokenizer = mbart()
    fox = tokenizer.convert_tokens_to_ids("j")
    assert fox not in trim_tokenizer(tokenizer, CORPUS)[1]
    assert fox in trim_tokenizer(tokenizer, CORPUS, extra_token_ids=[fox])[1]


def test_the_full_tokenizer_is_not_changed():
    tokenizer = mbart()
    before = tokenizer.backend_tokenizer.to_str()
    trim_tokenizer(tokenizer, CORPUS)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sentences": []}, "`sentences` holds no text"),
        ({"sentences": ["  "]}, "`sentences` holds no text"),
        ({"sentences": "regen"}, "must be a list of sentences, got one string"),
        ({"sentences": ["regen"], "min_count": 0}, "`min_count` must be at least 1, got 0"),
        ({"sentences": ["regen"], "extra_token_ids": [9999]}, r"ids that the tokenizer does not have: \[9999\]"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        trim_tokenizer(mbart(), **arguments)


def test_other_kinds_of_tokenizers_are_refused():
    message = "cannot be trimmed: supported are Unigram and BPE of the `tokenizers` backend"
    with pytest.raises(UnsupportedTokenizerError, match=f"ByT5Tokenizer {message}"):
        trim_tokenizer(ByT5Tokenizer(), CORPUS)
    word_level = Tokenizer(models.WordLevel({"<unk>": 0, "regen": 1}, unk_token="<unk>"))
    with pytest.raises(UnsupportedTokenizerError, match=message):
        trim_tokenizer(PreTrainedTokenizerFast(tokenizer_object=word_level), CORPUS)


def test_m2m100_keeps_its_languages_and_survives_its_temporary_folder(tmp_path):
    tokenizer = m2m100_in(tmp_path)
    trimmed, kept_token_ids = trim_tokenizer(tokenizer, CORPUS)
    assert kept_token_ids[trimmed.get_lang_id("de")] == tokenizer.get_lang_id("de")
    ids = trimmed(text_target="der wind")["input_ids"]
    assert trimmed.convert_ids_to_tokens(ids)[0] == "__de__"
    copied = pickle.loads(pickle.dumps(trimmed))
    assert copied(text_target="der wind")["input_ids"] == ids
    # it cannot fall back to characters
    assert unknown_words(trimmed, ["der fuchs"]).keys() <= {"fuchs"}


def test_training_is_deterministic_and_bounded(tmp_path):
    first, second = (train_tokenizer(BROAD, vocab_size=120, language_codes=("de_DE",)) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) <= 120
    ids = first(text_target="der wind weht")["input_ids"]
    assert first.convert_ids_to_tokens(ids)[-2:] == ["</s>", "de_DE"] and first.unk_token_id not in ids
    first.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text_target="der wind weht")["input_ids"] == ids
    assert first.decode(ids, skip_special_tokens=True) == "der wind weht"


def test_a_language_mbart_does_not_have_gets_a_code_of_its_own(tmp_path):
    tokenizer = train_tokenizer(BROAD, vocab_size=150, language_codes=("gsg_DE",))
    tokenizer.save_pretrained(tmp_path)
    for tok in (tokenizer, AutoTokenizer.from_pretrained(tmp_path), trim_tokenizer(tokenizer, CORPUS)[0]):
        ids = tok(text_target="regen")["input_ids"]
        assert tok.convert_ids_to_tokens(ids)[-1] == "gsg_DE" and "gsg" not in tok.decode(
            ids, skip_special_tokens=True
        )


def test_training_refuses_a_vocabulary_smaller_than_the_alphabet():
    with pytest.raises(ValueError, match="`vocab_size` .*34 .*33"):
        train_tokenizer(["abc"], vocab_size=33)
    assert len(train_tokenizer(["abc"], vocab_size=34)) == 34
    with pytest.raises(ValueError, match="`language_codes`"):
        train_tokenizer(["abc"], vocab_size=99, language_codes=())


def read_column(file, delimiter: str, column: str) -> list[str]:
    with open(file, encoding="utf-8", newline="") as lines:
        return [row[column].strip() for row in csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)]


def real_mbart(real_data, language: str) -> MBartTokenizer:
    folder = real_data / "tokenizers" / "mbart-large-cc25"
    return MBartTokenizer.from_pretrained(folder, src_lang=language, tgt_lang=language)


@pytest.mark.real_data
def test_the_glosses_of_phoenix14t_bring_the_vocabulary_near_table_7(real_data):
    file = real_data / "phoenix2014t" / "annotations" / "manual" / "PHOENIX-2014-T.train.corpus.csv"
    sentences = read_column(file, "|", "translation")
    glosses = [line.lower() for line in read_column(file, "|", "orth")]
    tokenizer = real_mbart(real_data, "de_DE")
    assert [len(trim_tokenizer(tokenizer, texts)[1]) for texts in (sentences, sentences + glosses)] == [2178, 2458]


@pytest.mark.real_data
def test_all_characters_leave_csl_daily_without_unknown_tokens(real_data):
    corpora = {
        split: read_column(real_data / "csl_daily" / f"{split}.tsv", "\t", "text")
        for split in ("train", "dev", "test")
    }
    tokenizer = real_mbart(real_data, "zh_CN")
    facts = {}
    for all_characters in (False, True):
        trimmed, kept_token_ids = trim_tokenizer(tokenizer, corpora["train"], all_characters=all_characters)
        assert tokenized_differently(tokenizer, trimmed, corpora["train"]) == 0
        unknown = [count_pieces(trimmed, corpora[split])[trimmed.unk_token_id] for split in ("dev", "test")]
        otherwise = [tokenized_differently(tokenizer, trimmed, corpora[split]) for split in ("dev", "test")]
        facts[all_characters] = (len(kept_token_ids), unknown, otherwise)
    # recipes/csl_daily/stage1.yaml and docs/training.md
    assert facts == {False: (6383, [52, 58], [189, 207]), True: (12224, [0, 0], [156, 170])}


@pytest.mark.real_data
def test_the_real_vocabulary_trimmed_to_each_corpus_splits_every_sentence_as_before(real_data):
    tokenizer = real_mbart(real_data, "de_DE")
    assert len(tokenizer) == 250027
    annotations = real_data / "phoenix2014t" / "annotations" / "manual"
    corpora = {
        split: read_column(annotations / f"PHOENIX-2014-T.{split}.corpus.csv", "|", "translation")
        for split in ("train", "dev", "test")
    }
    chinese = read_column(real_data / "csl_daily" / "train.tsv", "\t", "text")
    english = [
        sentence
        for split in ("val", "test")
        for sentence in read_column(real_data / "how2sign" / f"how2sign_realigned_{split}.csv", "\t", "SENTENCE")
    ]
    for sentences, number in ((corpora["train"], 7096), (chinese, 18401), (english, 4098)):
        assert len(sentences) == number
        trimmed, kept_token_ids = trim_tokenizer(tokenizer, sentences)
        assert tokenized_differently(tokenizer, trimmed, sentences) == 0
        assert kept_token_ids[trimmed.convert_tokens_to_ids("zh_CN")] == tokenizer.convert_tokens_to_ids("zh_CN")
        text = unicodedata.normalize("NFKC", sentences[0])
        assert trimmed.decode(trimmed(text)["input_ids"], skip_special_tokens=True) == text
        if sentences is corpora["train"]:
            assert not unknown_words(trimmed, corpora["dev"] + corpora["test"])
