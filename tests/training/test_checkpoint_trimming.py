import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Tokenizer,
)

from modeling_fla import trim_token_embeddings
from processing_fla.tokenization_fla import train_tokenizer, trim_tokenizer
from training_fla.cli import main
from training_fla.files import InputError
from training_fla.training.checkpoint_trimming import (
    check_vocabulary_sizes,
    named_token_ids,
    renumbered_config,
    trim_checkpoint,
)

BROAD = ["am dienstag regen und im süden gewitter", "der wind weht schwach aus nordost", "morgen wird es wärmer!"] * 3
CORPUS = ["im süden regen", "der wind weht"]
SIZES = {"d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 3, "encoder_ffn_dim": 20, "decoder_ffn_dim": 28, "max_position_embeddings": 40}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(BROAD, vocab_size=160, language_codes=("de_DE",))


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


def trimmed_and_twin(model, tokenizer, folder, out):
    """The model trimmed on disk and loaded, and the same model trimmed in memory."""
    _, kept_token_ids = trim_tokenizer(tokenizer, CORPUS, extra_token_ids=named_token_ids(folder))
    out.mkdir()
    size = trim_checkpoint(folder, kept_token_ids, out)
    twin = trim_token_embeddings(model, kept_token_ids)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert size.parameters_after == sum(t.numel() for t in load_file(out / "model.safetensors").values())
    return loaded.eval(), twin.eval(), kept_token_ids


def assert_same_outputs(loaded, twin, num_tokens: int) -> None:
    ids = torch.arange(6).reshape(2, 3) % num_tokens + 1
    with torch.no_grad():
        expected = twin(input_ids=ids, decoder_input_ids=ids).logits
        assert torch.equal(loaded(input_ids=ids, decoder_input_ids=ids).logits, expected)
    assert expected.shape[-1] == num_tokens
    assert torch.equal(loaded.generate(ids, num_beams=3), twin.generate(ids, num_beams=3))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", ["safetensors", "shards", "bin", "old bin"])
def test_a_checkpoint_trimmed_on_disk_equals_one_trimmed_in_memory(tokenizer, tied, form, tmp_path):
    model = make_mbart(tokenizer, tie_word_embeddings=tied)
    shards = {"max_shard_size": "8KB"} if form == "shards" else {}
    folder = save(model, tokenizer, tmp_path / "full", **shards)
    if "bin" in form:
        as_pytorch_bin(model, folder, old=form == "old bin")
    assert (folder / "model.safetensors.index.json").exists() == (form == "shards")
    loaded, twin, kept_token_ids = trimmed_and_twin(model, tokenizer, folder, tmp_path / "out")
    assert_same_outputs(loaded, twin, len(kept_token_ids))
    assert (loaded.lm_head.weight is loaded.model.shared.weight) == tied
    assert kept_token_ids[loaded.config.decoder_start_token_id] == tokenizer.lang_code_to_id["de_DE"]
    assert loaded.generation_config.to_dict() == twin.generation_config.to_dict()


def test_bfloat16_and_an_old_pytorch_file_are_trimmed(tokenizer, tmp_path):
    model = make_mbart(tokenizer).to(torch.bfloat16)
    folder = save(model, tokenizer, tmp_path / "full")
    as_pytorch_bin(model, folder, old=True)
    loaded, twin, kept_token_ids = trimmed_and_twin(model, tokenizer, folder, tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    assert_same_outputs(loaded, twin, len(kept_token_ids))


def test_mt5_with_padded_rows_is_trimmed(tmp_path):
    pieces = [(p, -2.0 - i / 9) for i, p in enumerate(train_tokenizer(BROAD, 160).get_vocab()) if len(p) < 9]
    pieces = [(p, s) for p, s in pieces if not p.startswith("<") and "_" not in p]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces]
    tokenizer = T5Tokenizer(vocab=vocab + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)])
    torch.manual_seed(0)
    config = MT5Config(vocab_size=len(tokenizer) + 5, d_model=12, d_kv=4, d_ff=20, num_layers=1, num_heads=3)
    model = MT5ForConditionalGeneration(config).eval()
    folder = save(model, tokenizer, tmp_path / "full")
    loaded, twin, kept_token_ids = trimmed_and_twin(model, tokenizer, folder, tmp_path / "out")
    assert_same_outputs(loaded, twin, len(kept_token_ids))


def test_m2m100_is_trimmed(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = M2M100Config(vocab_size=len(tokenizer), **SIZES, decoder_start_token_id=2, tie_word_embeddings=True)
    model = M2M100ForConditionalGeneration(config).eval()
    folder = save(model, tokenizer, tmp_path / "full")
    loaded, twin, kept_token_ids = trimmed_and_twin(model, tokenizer, folder, tmp_path / "out")
    assert_same_outputs(loaded, twin, len(kept_token_ids))


def test_every_field_that_names_tokens_is_renumbered():
    new_ids = {0: 0, 1: 1, 2: 2, 50: 3, 60: 4}
    old = {
        "vocab_size": 99,
        "eos_token_id": [2, 50],
        "decoder_start_token_id": 60,
        "forced_bos_token_id": None,
        "suppress_tokens": [50, 51],
        "begin_suppress_tokens": [51],
        "bad_words_ids": [[50, 60], [50, 51]],
        "force_words_ids": [[[50], [51]], [60]],
        "sequence_bias": [[[60], -1.5], [[51], 2.0]],
        "forced_decoder_ids": [[1, 60], [2, 51]],
        "d_model": 50,
        "max_length": 60,
    }
    assert renumbered_config(old, new_ids) == {
        "vocab_size": 5,
        "eos_token_id": [2, 3],
        "decoder_start_token_id": 4,
        "forced_bos_token_id": None,
        "suppress_tokens": [3],
        "begin_suppress_tokens": None,
        "bad_words_ids": [[3, 4]],
        "force_words_ids": [[[3]], [4]],
        "sequence_bias": [[[4], -1.5]],
        "forced_decoder_ids": [[1, 4]],
        "d_model": 50,
        "max_length": 60,
    }
    with pytest.raises(InputError, match="the configuration's pad_token_id is token 7, which is not kept"):
        renumbered_config({"pad_token_id": 7}, new_ids)


@pytest.mark.parametrize(
    ("num_tokens", "config", "fits"),
    [
        (250027, {"vocab_size": 250027}, True),
        (250100, {"vocab_size": 250112}, True),
        (32100, {"vocab_size": 32128}, True),
        (256204, {"vocab_size": 256206, "model_type": "m2m_100"}, True),
        (256204, {"vocab_size": 256206}, False),
        (100, {"vocab_size": 128}, False),
        (250027, {"vocab_size": 250026}, False),
    ],
)
def test_only_padding_may_separate_the_sizes_of_model_and_tokenizer(num_tokens, config, fits):
    if fits:
        check_vocabulary_sizes(num_tokens, config)
        return
    message = f"the model has {config['vocab_size']} token embeddings and the tokenizer has {num_tokens} tokens"
    with pytest.raises(InputError, match=message):
        check_vocabulary_sizes(num_tokens, config)
    if num_tokens < config["vocab_size"]:
        check_vocabulary_sizes(num_tokens, config, allow_unused_rows=True)


@pytest.fixture()
def files(tokenizer, tmp_path):
    """A model folder, a sentence file, and the arguments of `fla trim` for them."""
    model = make_mbart(tokenizer)
    save(model, tokenizer, tmp_path / "full")
    sentences = tmp_path / "train.txt"
    sentences.write_text("\n".join(CORPUS) + "\n", encoding="utf-8")
    arguments = [
        "trim",
        "--model",
        str(tmp_path / "full"),
        "--sentences",
        str(sentences),
        "--out",
        str(tmp_path / "out"),
    ]
    return tmp_path, sentences, arguments


def test_the_command_writes_a_loadable_model_and_reports_unknown_words(files, tokenizer, capsys):
    folder, _, arguments = files
    dev, test = folder / "dev.tsv", folder / "test.txt"
    dev.write_text("der fuchs weht", encoding="utf-8")
    test.write_text("der wind", encoding="utf-8")
    options = ["--dev", str(dev), "--test", str(test), "--language", "cs_CZ", "--report", str(folder / "report.json")]
    assert main(arguments + options) == 0
    printed = capsys.readouterr().out
    assert "0 of 2 sentences are split differently" in printed and "fuchs (" in printed

    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "out")
    trimmed = AutoTokenizer.from_pretrained(folder / "out")
    kept_token_ids = json.loads((folder / "out" / "kept_token_ids.json").read_text())
    assert model.config.vocab_size == len(trimmed) == len(kept_token_ids) < len(tokenizer)
    assert trimmed.convert_ids_to_tokens(model.generation_config.decoder_start_token_id) == "cs_CZ"
    assert trimmed.convert_ids_to_tokens(trimmed(text_target="der wind")["input_ids"])[-2:] == ["</s>", "cs_CZ"]

    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads((folder / "out" / "trim_report.json").read_text())
    assert (report["pieces_before"], report["pieces_kept"]) == (len(tokenizer), len(trimmed))
    rows, width = len(tokenizer) - len(trimmed), SIZES["d_model"]
    assert report["parameters_saved"] == rows * (width + 1)  # 1: final_logits_bias
    assert report["bytes_saved"] == 4 * report["parameters_saved"]
    assert report["checks"]["dev"]["unknown_words"].keys() == {"fuchs"}
    assert report["checks"]["test"]["unknown_tokens"] == 0


def test_an_mbart50_is_forced_to_begin_with_the_language(tokenizer, tmp_path):
    specials = {*tokenizer.all_special_tokens, *tokenizer.lang_code_to_id}
    pieces = [(p, -2.0 - i / 9) for i, p in enumerate(tokenizer.get_vocab()) if p not in specials]
    fifty = MBart50Tokenizer(vocab=[("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *pieces])
    model = make_mbart(tokenizer)
    model.resize_token_embeddings(len(fifty))
    model.generation_config = GenerationConfig(decoder_start_token_id=2, pad_token_id=1, eos_token_id=2)
    save(model, fifty, tmp_path / "full")
    (tmp_path / "train.txt").write_text("der wind", encoding="utf-8")
    arguments = ["--sentences", str(tmp_path / "train.txt"), "--out", str(tmp_path / "out"), "--language", "de_DE"]
    assert main(["trim", "--model", str(tmp_path / "full"), *arguments]) == 0
    config = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").generation_config
    trimmed = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert trimmed.convert_ids_to_tokens([config.decoder_start_token_id, config.forced_bos_token_id]) == [
        "</s>",
        "de_DE",
    ]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (b"", None, "train.txt is empty"),
        (b" \n\n", None, "train.txt is empty"),
        (b"text\n", "text", "train.txt has no sentences"),
        (b"id\ttext\n1\tregen\n", "translation", "train.txt, line 1: no column 'translation', only 'id', 'text'"),
    ],
)
def test_a_bad_sentence_file_is_one_line_and_exit_status_2(files, content, column, message, capsys):
    folder, sentences, arguments = files
    sentences.write_bytes(content)
    assert main(arguments + (["--column", column] if column else [])) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (folder / "out").exists()


def break_config(folder):
    (folder / "config.json").write_text("{")


def cut_old_weights(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    as_pytorch_bin(model, folder, old=True)
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[:-100])


def empty_pytorch_file(folder):
    remove_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def change_size(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 7}))


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def remove_vocabulary(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))


def remove_embedding(folder):
    save_file({"x": torch.zeros(3)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, "config.json is not JSON"),
        (change_size, "tokens; pass --allow-unused-rows if"),
        (cut_weights, "model.safetensors is not a whole safetensors file"),
        (cut_old_weights, "pytorch_model.bin cannot be read as weights: it is cut short"),
        (empty_pytorch_file, "pytorch_model.bin cannot be read as weights"),
        (remove_weights, "has neither model.safetensors nor pytorch_model.bin"),
        (remove_vocabulary, "config.json has no vocab_size: only a language model can be trimmed"),
        (remove_embedding, "has no embedding of"),
    ],
)
def test_a_damaged_model_is_one_line_and_leaves_nothing(files, damage, message, capsys):
    folder, _, arguments = files
    damage(folder / "full")
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert not (folder / "out").exists() and not list(folder.glob(".*"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(files, zipped, capsys):
    folder, _, arguments = files
    remove_weights(folder / "full")
    file = folder / "full" / "pytorch_model.bin"
    torch.save({"model.shared.weight": print}, file, _use_new_zipfile_serialization=zipped)
    assert main(arguments) == 2
    assert "pytorch_model.bin cannot be read as weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--language", "xx_XX"], "--language xx_XX: the tokenizer has no such language code"),
        (["--min-count", "0"], "`min_count` must be at least 1, got 0"),
        (["--model", "no/such-model"], "--model no/such-model: no such folder"),
        (["--tokenizer", "no/such-tokenizer"], "no tokenizer in no/such-tokenizer"),
    ],
)
def test_a_bad_option_is_one_line(files, options, message, capsys):
    _, _, arguments = files
    assert main(arguments + options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_existing_folder_is_replaced_only_when_told(files, capsys):
    folder, _, arguments = files
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("x")
    assert main(arguments + ["--overwrite"]) == 2
    assert "holds mine.txt" in capsys.readouterr().err
    (folder / "out" / "mine.txt").unlink()
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(arguments + ["--overwrite"]) == 0
