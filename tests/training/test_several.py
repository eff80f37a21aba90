"""Two corpora of two languages in one run: parts of everything it leaves, resumed, on two processes, and streamed."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Tokenizer,
    pipeline,
)

from experiments.drawn.demo import CORPUS_OF_LANGUAGE, read_demo
from processing_fla import normalize_text
from tests.tiny_runs import STAGE1, STAGE2, losses, run, run_together, weights
from training_fla.cli import main
from training_fla.corpora.clips import write_clip
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.data.packing import pack
from training_fla.data.several.datasets import SeveralDatasets, epoch_counts
from training_fla.data.several.streams import SeveralStreams
from training_fla.data.streaming import SignVideoStream
from training_fla.errors import InputError
from training_fla.recipe import CorpusEntry, DataArguments, Stage1Arguments, Stage2Arguments, parse_recipe
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.stages.building import open_splits
from training_fla.stages.launch import training_arguments
from training_fla.tables import read_table
from training_fla.training.parts import OF_FRAMES

COLUMNS = ("id", "prediction", "reference")
COUNTS = {"german": (9, 3, 4), "chinese": (6, 4, 3)}
LANGUAGES = dict(zip(COUNTS, CORPUS_OF_LANGUAGE, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two packed corpora, stage 1 of one step on both, and a recipe of stage 2."""
    folder = tmp_path_factory.mktemp("several")
    for name, counts in COUNTS.items():
        counts = dict(zip(("num_train", "num_dev", "num_test"), counts, strict=True))
        rows = read_demo(size=24, language=LANGUAGES[name], **counts)
        pack(rows, folder / name, size=24, num_workers=0, corpus=CORPUS_OF_LANGUAGE[LANGUAGES[name]])
    dataset = f"dataset: [{folder / 'german'}, {folder / 'chinese'}]\n"
    first = STAGE1.replace("train_tokenizer_pieces: 120", "train_tokenizer_pieces: 200")
    (folder / "stage1.yaml").write_text(dataset + first)
    given = f"stage1_checkpoint: {folder}/stage1\ntokenizer: {folder}/stage1\n"
    second = STAGE2 + "language_model_overrides: {dropout: 0.0}\n"
    (folder / "stage2.yaml").write_text(dataset + given + second)
    lines = ("--max_steps", 1, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end=false")
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", folder / "stage1", *lines) == 0
    return folder


@pytest.fixture(scope="module")
def finished(folder) -> Path:
    """Stage 2, chosen by one of the corpora."""
    lines = ("--metric_for_best_model", "chinese_bleu4", "--output_dir", folder / "stage2")
    assert run("run_stage2", folder / "stage2.yaml", *lines) == 0
    return folder / "stage2"


def test_each_corpus_has_its_part_in_its_convention(folder, finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for split, place in (("dev", 1), ("test", 2)):
        for name, counts in COUNTS.items():
            rows = [row for _, row in read_table(finished / f"predictions_{split}_{name}.tsv", COLUMNS)]
            corpus = PackedCorpus(folder / name, split)
            assert [row["id"] for row in rows] == list(corpus.ids) and len(rows) == counts[place]
            assert [row["reference"] for row in rows] == list(corpus.sentences)
            metric = SignTranslationMetric({"german": "words", "chinese": "characters"}[name])
            sides = {"predictions": [row["prediction"] for row in rows], "references": list(corpus.sentences)}
            scores = metrics[split]["corpora"][name]
            assert metric.compute(**sides).items() <= scores.items()
        both = [metrics[split]["corpora"][name]["bleu1"] for name in COUNTS]
        assert metrics[split]["bleu1"] == pytest.approx(np.mean(both))
    assert metrics["data"]["corpora"]["chinese"]["languages"] == ["zh_CN"]
    log = json.loads((finished / "trainer_state.json").read_text())
    assert "chinese_bleu4" in (finished / "evaluations.txt").read_text()
    best = [row["eval_chinese_bleu4"] for row in log["log_history"] if "eval_chinese_bleu4" in row]
    assert log["best_metric"] == pytest.approx(max(best), abs=1e-6)
    names = {file.name.split("_")[0] for file in (finished / "sample_frames").iterdir()}
    assert names == {f"{row:05}" for row in range(7)}


def test_the_card_and_the_report_have_a_part_for_each(folder, finished):
    from training_fla.viewing.report import write_report

    card = (finished / "README.md").read_text()
    for text in ("- `german` (de_DE): The demo", "| chinese | train | 6 |", "### chinese", "### Mean of the corpora"):
        assert text in card
    assert "It writes de_DE or zh_CN" in card and "a sentence in German or Chinese out" in card
    assert "language:\n- de\n- zh\n" in card and "- demo\n- demo_chinese\n" in card
    write_report([finished], finished / "report.html", overwrite=True)
    page = (finished / "report.html").read_text()
    for table in ("scores-test", "scores-test-german", "scores-dev-chinese"):
        assert f'id="{table}"' in page
    assert "german/test-00000" in page and "chinese/test-00002" in page


def test_the_saved_model_speaks_both_languages(folder, finished):
    model = AutoModelForSeq2SeqLM.from_pretrained(finished)
    processor = AutoProcessor.from_pretrained(finished)
    assert model.languages == ["de_DE", "zh_CN"]
    videos = SignVideoDataset(PackedCorpus(folder / "chinese", "test"), processor)
    rows = [row for _, row in read_table(finished / "predictions_test_chinese.tsv", COLUMNS)]
    pixels = videos[0]["pixel_values_videos"][None]
    ids = model.generate(pixel_values_videos=pixels, language="zh_CN")
    assert processor.batch_decode(ids, skip_special_tokens=True)[0] == rows[0]["prediction"]
    assert processor.tokenizer.convert_ids_to_tokens(int(ids[0, 0])) == "zh_CN"
    default = model.generate(pixel_values_videos=pixels)
    assert processor.tokenizer.convert_ids_to_tokens(int(default[0, 0])) == "de_DE"


def test_check_counts_all_corpora(folder, finished, capsys):
    words = [folder / "stage2.yaml", "--output_dir", folder / "checked", "--check", "--sampling_temperature", 2]
    assert run("run_stage2", *words) == 0
    printed = capsys.readouterr().out
    assert "train     15 clips" in printed and "test      7 clips" in printed


def test_translate_asks_for_a_language(folder, finished, tmp_path, capsys):
    (row, *_) = [row for row in read_demo(size=24, language="zh_CN") if row.split == "test"]
    clip = tmp_path / "clip.mp4"
    write_clip(clip, row.video.frames(), row.video.fps)
    translate = pipeline("sign-language-translation", model=str(finished))
    capsys.readouterr()
    for language in (None, "de_DE", "zh_CN"):
        asked = ["--language", language] if language else []
        assert main(["translate", str(finished), str(clip), *asked]) == 0
        options = {"language": language} if language else {}
        sentence = translate(str(clip), **options)["translation_text"]
        assert capsys.readouterr().out == f"{clip}\t{sentence}\n"
    assert main(["translate", str(finished), str(clip), "--language", "fr_XX"]) == 2
    error = capsys.readouterr().err
    assert "fr_XX" in error and "de_DE, zh_CN" in error


def test_stored_features_of_both_train_stage_2(folder, finished, tmp_path):
    for name in COUNTS:
        words = ["features", folder / name, "--model", folder / "stage1", "--out", tmp_path / name]
        assert main(list(map(str, words))) == 0
    dataset = json.dumps([str(tmp_path / name) for name in COUNTS])
    lines = "".join(line for line in STAGE2.splitlines(True) if line.split(":")[0] not in OF_FRAMES)
    (tmp_path / "stage2.yaml").write_text(lines + f"tokenizer: {folder}/stage1\n")
    words = [tmp_path / "stage2.yaml", "--dataset", dataset, "--output_dir", tmp_path / "run", "--max_steps", 2]
    assert run("run_stage2", *words) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["test"]["corpora"]) == list(COUNTS)
    with pytest.raises(InputError, match="german.*chinese.*do not hold the same"):
        opened(folder, [str(tmp_path / "german"), str(folder / "chinese")])


def save_t5(out: Path, folder: Path) -> None:
    """A tiny MT5 whose pieces are the characters of both corpora."""
    texts = [(folder / name / "train.sentences.txt").read_text() for name in COUNTS]
    letters = sorted({"\u2581", *normalize_text("".join(texts))} - set(" \n"))
    pieces = ["<pad>", "</s>", "<unk>", *letters, *(f"<extra_id_{number}>" for number in range(99, -1, -1))]
    tokenizer = T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces])
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    MT5ForConditionalGeneration(MT5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(out)
    tokenizer.save_pretrained(out)


def test_a_t5_gets_tokens_of_languages_and_learns_with_them(folder, finished, tmp_path):
    save_t5(tmp_path / "mt0", folder)
    files = [folder / name / "train.sentences.txt" for name in COUNTS]
    words = ["trim", "--model", tmp_path / "mt0", "--sentences", *files, "--out", tmp_path / "trimmed"]
    assert main([*map(str, words), "--language", "de_DE", "zh_CN"]) == 0
    lines = ("--language_model_config", "null", "--language_model", tmp_path / "trimmed", "--tokenizer", "null")
    lines = (*lines, "--language_model_overrides", "{dropout_rate: 0.0}", "--max_steps", 2)
    assert run("run_stage2", folder / "stage2.yaml", *lines, "--output_dir", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "generation_config.json").read_text())
    assert config["forced_bos_token_id"] == config["language_token_ids"]["de_DE"]
    assert config["decoder_start_token_id"] != config["forced_bos_token_id"]
    predictions = (tmp_path / "run" / "predictions_test_chinese.tsv").read_text()
    assert "zh_CN" not in predictions and "de_DE" not in predictions


def test_a_resumed_run_is_an_uninterrupted_one(folder, finished, tmp_path):
    lines = ("--metric_for_best_model", "chinese_bleu4", "--output_dir", tmp_path / "out")
    shutil.copytree(finished, tmp_path / "out", ignore=shutil.ignore_patterns("checkpoint-4", "metrics.json"))
    assert run("run_stage2", folder / "stage2.yaml", *lines, "--resume") == 0
    for part in ("", "checkpoint-4"):
        ours, theirs = weights(tmp_path / "out" / part), weights(finished / part)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_do_what_one_does(folder, tmp_path):
    words = ["run_stage2", folder / "stage2.yaml", "--sampling_temperature", 3]
    assert run(*words, "--output_dir", tmp_path / "one") == 0
    run_together([*words, "--output_dir", tmp_path / "two"])
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert two["processes"] == 2 and one["processes"] == 1
    assert losses(tmp_path / "two", 4) == pytest.approx(losses(tmp_path / "one", 4), abs=1e-4)
    assert two["dev"]["loss"] == pytest.approx(one["dev"]["loss"], abs=1e-4)
    for name in COUNTS:
        file = f"predictions_test_{name}.tsv"
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()


def test_the_feature_cache_is_one_a_corpus_and_shared_with_runs_on_one(folder, finished, tmp_path):
    caches = folder / "features"
    before = {file: file.stat().st_mtime_ns for file in caches.rglob("*.safetensors")}
    assert len(list(caches.iterdir())) == 6
    for name, counts in COUNTS.items():
        lines = ("--dataset", folder / name, "--language_code", LANGUAGES[name], "--feature_cache", caches)
        out = tmp_path / name
        assert run("run_stage2", folder / "stage2.yaml", *lines, "--max_steps", 2, "--output_dir", out) == 0
        assert json.loads((out / "metrics.json").read_text())["dev"]["num_sentences"] == counts[1]
    assert before == {file: file.stat().st_mtime_ns for file in caches.rglob("*.safetensors")}


def test_stage_2_of_both_goes_on_with_one(folder, finished, tmp_path):
    lines = ("--dataset", json.dumps([str(folder / "chinese")]), "--tokenizer", "null", "--language_model", finished)
    lines = (*lines, "--stage1_checkpoint", finished, "--language_model_config", "null", "--max_steps", 2)
    assert run("run_stage2", folder / "stage2.yaml", *lines, "--output_dir", tmp_path / "then") == 0
    config = json.loads((tmp_path / "then" / "generation_config.json").read_text())
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "then").tokenizer
    assert tokenizer.convert_ids_to_tokens(config["decoder_start_token_id"]) == "zh_CN"
    assert "language_token_ids" not in config


def test_streams_are_read_as_often_as_their_share(folder, finished):
    processor = AutoProcessor.from_pretrained(finished)
    args = SimpleNamespace(process_index=0, world_size=1, dataloader_num_workers=0, per_device_train_batch_size=4)
    data = DataArguments(streaming=True, shuffle_buffer=4)
    entries = [CorpusEntry(str(folder / name), name) for name in COUNTS]
    videos = [SignVideoDataset(PackedCorpus(entry.path, "train"), processor) for entry in entries]
    whole = SeveralDatasets(videos, entries, ["words", "characters"])
    streams = [SignVideoStream(part, data, args, entry.path) for part, entry in zip(videos, entries, strict=True)]
    for temperature, times in ((1, [1, 1]), (1e9, [8 / 9, 7 / 6])):
        drawn = epoch_counts([9, 6], [1, 1], temperature)
        stream = SeveralStreams(streams, whole, drawn, seed=0)
        counts = np.zeros(15, int)
        for epoch in range(1 if temperature == 1 else 30):
            stream.set_epoch(epoch)
            for example in stream:
                counts[example["index"]] += 1
        if temperature == 1:
            assert counts.tolist() == [1] * 15
        else:
            means = [counts[:9].mean() / 30, counts[9:].mean() / 30]
            assert means == pytest.approx(times, abs=0.12)


def opened(folder: Path, dataset: list, *lines) -> None:
    words = ["--dataset", json.dumps(dataset), "--output_dir", str(folder / "none"), *lines]
    open_splits(parse_recipe(Stage1Arguments, words, ""))


def test_what_is_missing_of_one_corpus_is_named(folder, tmp_path):
    rows = [row for row in read_demo(size=24, num_train=3, num_dev=1, num_test=1) if row.split != "dev"]
    pack(rows, tmp_path / "half", size=24, num_workers=0, corpus="demo")
    with pytest.raises(InputError, match="half has no split `dev`"):
        opened(folder, [str(folder / "german"), str(tmp_path / "half")])
    with pytest.raises(InputError, match="no packed corpus nowhere"):
        opened(folder, [str(folder / "german"), "nowhere"])
    words = [folder / "stage2.yaml", "--metric_for_best_model", "none_bleu4", "--output_dir", tmp_path / "out"]
    with pytest.raises(InputError, match="none_bleu4.*chinese_bleu4"):
        training_arguments(parse_recipe(Stage2Arguments, list(map(str, words)), ""))
