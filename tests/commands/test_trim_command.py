"""`fla trim`: what it writes computes what the whole model does, and what it refuses."""

import json

import pytest
import sentencepiece
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Tokenizer,
)

from modeling_fla import FlaConfig
from processing_fla.tokenization_fla import train_tokenizer
from training_fla.cli import main
from training_fla.commands.data.trim import check_vocabulary_sizes
from training_fla.errors import InputError
from training_fla.folders import read_marker

BROAD = ["am dienstag regen und im süden gewitter", "der wind weht schwach aus nordost", "morgen wird es wärmer!"] * 3
CORPUS = ["im süden regen", "der wind weht"]
SIZES = {"d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 3, "encoder_ffn_dim": 20, "decoder_ffn_dim": 28, "max_position_embeddings": 40}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(BROAD, vocab_size=160, language_codes=("de_DE",))


def pieces_of(tokenizer) -> list[tuple[str, float]]:
    specials = {*tokenizer.all_special_tokens, *tokenizer.lang_code_to_id}
    return [(piece, -2.0 - i / 9) for i, piece in enumerate(tokenizer.get_vocab()) if piece not in specials]


def make_mbart(tokenizer, **overrides) -> MBartForConditionalGeneration:
    torch.manual_seed(0)
    config = MBartConfig(vocab_size=len(tokenizer), **SIZES, scale_embedding=True, **overrides)
    config.decoder_start_token_id = tokenizer.lang_code_to_id["de_DE"]
    model = MBartForConditionalGeneration(config).eval()
    model.final_logits_bias.uniform_()
    suppressed = [4, tokenizer.convert_tokens_to_ids("j"), tokenizer.lang_code_to_id["zh_CN"]]
    model.generation_config = GenerationConfig.from_model_config(config)
    model.generation_config.update(suppress_tokens=[i for i in suppressed if i is not None], max_new_tokens=7)
    return model


def save(model, tokenizer, folder, **kwargs):
    model.save_pretrained(folder, **kwargs)
    tokenizer.save_pretrained(folder)
    return folder


def as_pytorch_bin(model, folder, old: bool) -> None:
    """Replace the weights by what older transformers (`old`: and torch) wrote: all names, tied ones sharing bytes."""
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=not old)


def trim(folder, *options) -> int:
    (folder / "train.txt").write_text("\n".join(CORPUS) + "\n", encoding="utf-8")
    paths = ["--model", folder / "full", "--out", folder / "out"]
    paths += [] if "--sentences" in options else ["--sentences", folder / "train.txt"]
    return main(["trim", *map(str, [*paths, *options])])


def assert_same_outputs(model, folder) -> MBartForConditionalGeneration:
    """The trimmed model gives the kept tokens the logits that the whole one gives them."""
    trimmed, info = AutoModelForSeq2SeqLM.from_pretrained(folder / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    kept = json.loads((folder / "out" / "kept_token_ids.json").read_text())
    assert trimmed.config.vocab_size == len(kept) < model.config.vocab_size
    ids = torch.arange(6).reshape(2, 3) % len(kept)
    old = ids.clone().apply_(lambda new: kept[new])
    with torch.no_grad():
        after = trimmed(input_ids=ids, decoder_input_ids=ids).logits.float()
        before = model(input_ids=old, decoder_input_ids=old).logits.float()
    torch.testing.assert_close(after, before[..., kept], atol=1e-5, rtol=1e-5)
    assert kept[trimmed.config.decoder_start_token_id] == model.config.decoder_start_token_id
    return trimmed


@pytest.mark.parametrize(
    ("form", "tied", "dtype"),
    [
        ("safetensors", True, torch.float32),
        ("safetensors", False, torch.float32),
        ("shards", True, torch.float32),
        ("bin", False, torch.float32),
        ("old bin", True, torch.bfloat16),
    ],
)
def test_a_trimmed_folder_computes_what_the_whole_model_does(tokenizer, tmp_path, form, tied, dtype):
    model = make_mbart(tokenizer, tie_word_embeddings=tied).to(dtype)
    shards = {"max_shard_size": "8KB"} if form == "shards" else {}
    folder = save(model, tokenizer, tmp_path / "full", **shards)
    if "bin" in form:
        as_pytorch_bin(model, folder, old=form == "old bin")
    assert (folder / "model.safetensors.index.json").exists() == (form == "shards")
    assert trim(tmp_path) == 0
    trimmed = assert_same_outputs(model, tmp_path)
    assert trimmed.dtype == dtype and (trimmed.lm_head.weight is trimmed.model.shared.weight) == tied
    kept = json.loads((tmp_path / "out" / "kept_token_ids.json").read_text())
    assert [kept[i] for i in trimmed.generation_config.suppress_tokens] == [
        i for i in model.generation_config.suppress_tokens if i in kept
    ]


def test_an_mt5_with_padded_rows_is_trimmed(tokenizer, tmp_path):
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces_of(tokenizer)]
    t5 = T5Tokenizer(vocab=vocab + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)])
    torch.manual_seed(0)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 1, "num_heads": 3, "decoder_start_token_id": 0}
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=len(t5) + 5, **sizes)).eval()
    save(model, t5, tmp_path / "full")
    assert trim(tmp_path, "--allow-unused-rows") == 0
    assert_same_outputs(model, tmp_path)


def test_an_m2m100_is_trimmed(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = M2M100Config(vocab_size=len(tokenizer), **SIZES, decoder_start_token_id=2, tie_word_embeddings=True)
    model = M2M100ForConditionalGeneration(config).eval()
    save(model, tokenizer, tmp_path / "full")
    assert trim(tmp_path) == 0
    assert_same_outputs(model, tmp_path)


@pytest.mark.parametrize(
    ("num_tokens", "rows", "model_type", "fits"),
    [
        (250027, 250027, "mbart", True),
        (250100, 250112, "mt5", True),
        (32100, 32128, "t5", True),
        (256204, 256206, "m2m_100", True),
        (256204, 256206, "mbart", False),
        (100, 128, "t5", False),
        (250027, 250026, "mbart", False),
    ],
)
def test_only_padding_may_separate_the_sizes_of_model_and_tokenizer(num_tokens, rows, model_type, fits):
    if fits:
        check_vocabulary_sizes(num_tokens, rows, model_type)
        return
    message = f"the model has {rows} token embeddings and the tokenizer has {num_tokens} tokens"
    with pytest.raises(InputError, match=message):
        check_vocabulary_sizes(num_tokens, rows, model_type)
    if num_tokens < rows:
        check_vocabulary_sizes(num_tokens, rows, model_type, allow_unused_rows=True)


@pytest.fixture()
def folder(tokenizer, tmp_path):
    save(make_mbart(tokenizer), tokenizer, tmp_path / "full")
    return tmp_path


def test_the_command_writes_a_loadable_model_and_reports_unknown_words(folder, tokenizer, capsys):
    dev, test = folder / "dev.tsv", folder / "test.txt"
    dev.write_text("der fuchs weht", encoding="utf-8")
    test.write_text("der wind", encoding="utf-8")
    options = ["--dev", dev, "--test", test, "--language", "cs_CZ"]
    assert trim(folder, *options) == 0
    printed = capsys.readouterr().out
    assert "0 of 2 sentences" in printed and "fuchs (" in printed

    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "out")
    trimmed = AutoTokenizer.from_pretrained(folder / "out")
    assert read_marker(folder / "out")["kind"] == "model"
    assert trimmed.convert_ids_to_tokens(model.generation_config.decoder_start_token_id) == "cs_CZ"
    assert trimmed.convert_ids_to_tokens(trimmed(text_target="der wind")["input_ids"])[-2:] == ["</s>", "cs_CZ"]

    report = json.loads((folder / "out" / "trim_report.json").read_text())
    assert (report["pieces_before"], report["pieces_kept"]) == (len(tokenizer), len(trimmed))
    rows = len(tokenizer) - len(trimmed)
    assert report["parameters_before"] - report["parameters_after"] == rows * SIZES["d_model"]
    assert report["bytes_before"] - report["bytes_after"] == 4 * rows * (SIZES["d_model"] + 1)  # 1: final_logits_bias
    assert report["checks"]["dev"]["unknown_words"].keys() == {"fuchs"}
    assert report["checks"]["test"]["unknown_tokens"] == 0


def test_an_mbart50_is_forced_to_begin_with_the_language(tokenizer, tmp_path):
    fifty = MBart50Tokenizer(vocab=[("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *pieces_of(tokenizer)])
    model = make_mbart(tokenizer)
    model.resize_token_embeddings(len(fifty))
    model.config.decoder_start_token_id = 2
    model.generation_config = GenerationConfig(decoder_start_token_id=2, pad_token_id=1, eos_token_id=2)
    save(model, fifty, tmp_path / "full")
    assert trim(tmp_path, "--language", "de_DE") == 0
    config = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").generation_config
    start = [config.decoder_start_token_id, config.forced_bos_token_id]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_ids_to_tokens(start) == ["</s>", "de_DE"]


def test_a_tokenizer_that_is_a_vocabulary_file_alone_gets_its_class_from_the_model(tmp_path):
    (tmp_path / "vocabulary").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(BROAD),
        model_prefix=str(tmp_path / "vocabulary" / "sentencepiece.bpe"),
        vocab_size=35,
        minloglevel=2,
    )
    mbart = MBartTokenizer.from_pretrained(tmp_path / "vocabulary")
    make_mbart(mbart).save_pretrained(tmp_path / "full")
    assert trim(tmp_path, "--tokenizer", tmp_path / "vocabulary", "--language", "de_DE") == 0
    trimmed = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(trimmed) is MBartTokenizer and trimmed.tokenize("der wind") == mbart.tokenize("der wind")


def test_sentences_come_from_a_column_of_a_table(folder):
    (folder / "a.csv").write_text('id,text\n1,"der wind, weht"\n', encoding="utf-8")
    assert trim(folder, "--sentences", folder / "a.csv", "--column", "text") == 0
    assert json.loads((folder / "out" / "trim_report.json").read_text())["sentences"] == 1


@pytest.mark.parametrize("again", [[], ["--sentences"]])
def test_several_text_files_count_together(folder, again):
    (folder / "glosses.txt").write_text("gewitter\n", encoding="utf-8")
    assert trim(folder) == 0
    alone = AutoTokenizer.from_pretrained(folder / "out").get_vocab()
    files = ["--sentences", folder / "train.txt", *again, folder / "glosses.txt"]
    assert trim(folder, *files, "--overwrite") == 0
    assert json.loads((folder / "out" / "trim_report.json").read_text())["sentences"] == len(CORPUS) + 1
    assert alone.keys() < AutoTokenizer.from_pretrained(folder / "out").get_vocab().keys()


def test_all_characters_leave_no_letter_of_another_split_unknown(folder):
    (folder / "dev.txt").write_text("gewitter am dienstag\n", encoding="utf-8")
    unknown = []
    for options in ([], ["--all-characters", "--overwrite"]):
        assert trim(folder, "--dev", folder / "dev.txt", *options) == 0
        report = json.loads((folder / "out" / "trim_report.json").read_text())
        unknown.append(report["checks"]["dev"]["unknown_tokens"])
        assert report["checks"]["dev"]["sentences_tokenized_differently"] == 1
    assert unknown[0] > unknown[1] == 0


def break_config(folder):
    (folder / "config.json").write_text("{")


def change_size(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    model.resize_token_embeddings(model.config.vocab_size + 7)
    model.save_pretrained(folder)


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def pickle_that_runs_code(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"model.shared.weight": print}, folder / "pytorch_model.bin")


def become_a_translation_model(folder):
    FlaConfig.light_t("tiny").save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, "config.json"),
        (change_size, "tokens; pass --allow-unused-rows if"),
        (cut_weights, "model.safetensors"),
        (pickle_that_runs_code, "pytorch_model.bin"),
        (become_a_translation_model, "translation model"),
    ],
)
def test_a_damaged_model_is_one_line_and_leaves_nothing(folder, damage, message, capsys):
    damage(folder / "full")
    assert trim(folder) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out").exists() and not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--language", "xx_XX"], "--language xx_XX"),
        (["--min-count", "0"], "`min_count`"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--tokenizer", "no/such-tokenizer"], "no/such-tokenizer"),
        (["--column", "text"], "text"),
        (["--sentences", "no/such-file.txt"], "no/such-file.txt"),
    ],
)
def test_a_bad_option_is_one_line(folder, options, message, capsys):
    assert trim(folder, *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out").exists()


def test_only_a_model_that_fla_wrote_is_replaced_and_only_when_told(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("x")
    assert trim(folder, "--overwrite") == 2
    assert "holds mine.txt" in capsys.readouterr().err
    (folder / "out" / "mine.txt").unlink()
    assert trim(folder) == 0
    assert trim(folder) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert trim(folder, "--overwrite") == 0


def test_its_own_sources_are_never_replaced(folder, capsys):
    assert trim(folder) == 0
    before = sorted(path.name for path in (folder / "out").iterdir())
    for options in (["--model", folder / "out"], ["--tokenizer", folder / "out"]):
        assert trim(folder, *options, "--overwrite") == 2
        assert "out" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "out").iterdir()) == before
