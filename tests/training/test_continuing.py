"""What follows a run: the command it prints, its tokenizer, its language model, and more epochs."""

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from processing_fla import train_tokenizer
from tests.processing.drawing import marked_frame, write_video
from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.cli import main

ONE_STEP = ("--max_steps", 1, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("continuing")
    corpus = pack_demo(folder / "corpus", num_train=6, num_dev=2, num_test=2)
    stage1_of_one_step(folder, corpus)
    (folder / "stage2.yaml").write_text(
        f"dataset: {corpus}\noutput_dir: elsewhere/stage2\n{STAGE2}".replace("max_steps: 4", "num_train_epochs: 1")
    )
    train_tokenizer(["ab"], 60).save_pretrained(folder / "other")
    return folder


@pytest.fixture(scope="module")
def stage2(folder) -> Path:
    """A stage 2 whose recipe names no tokenizer."""
    lines = ("--stage1_checkpoint", folder / "stage1", "--output_dir", folder / "stage2")
    assert run("run_stage2", folder / "stage2.yaml", *lines) == 0
    return folder / "stage2"


def vocabulary(run_folder: Path) -> dict:
    return json.loads((run_folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]


def printed_words(text: str, script: str) -> list[str]:
    """The words behind a script in the last line that names it."""
    line = next(line for line in reversed(text.splitlines()) if script in line)
    return shlex.split(line[line.index(script) :])


def test_a_random_language_model_has_the_tokenizer_of_its_stage_1(folder, stage2):
    assert vocabulary(stage2) == vocabulary(folder / "stage1")


def test_a_tokenizer_that_cannot_write_what_stage_1_writes_is_refused(folder, tmp_path, capsys):
    lines = ("--stage1_checkpoint", folder / "stage1", "--output_dir", tmp_path / "out")
    assert run("run_stage2", folder / "stage2.yaml", *lines, "--tokenizer", folder / "other") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(folder / "other") in error and str(folder / "stage1") in error and "`tokenizer`" in error
    assert not (tmp_path / "out").exists()


def test_words_that_no_tokenizer_knows_are_named(folder, tmp_path, capsys):
    lines = ("--tokenizer", folder / "other", "--train_tokenizer_pieces", "null", "--output_dir", tmp_path / "out")
    assert run("run_stage1", folder / "stage1.yaml", *lines, *ONE_STEP) == 0
    assert "unknown to the tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "lines"),
    [
        ("stage1.yaml", ()),
        ("stage1_warm_start.yaml", ("--frame_size", 30, "--crop_size", 26)),
        ("stage1.yaml", ("--dev_split", "train", "--test_split", "train")),
    ],
)
def test_the_command_that_stage_1_prints_runs_as_it_is_printed(folder, tmp_path, monkeypatch, capsys, recipe, lines):
    monkeypatch.chdir(tmp_path)
    corpus = folder / "corpus"
    if "train" in lines:
        corpus = pack_demo(tmp_path / "only_train", num_train=3, num_dev=0, num_test=0)
    Path("stage1.yaml").write_text(f"dataset: {corpus}\noutput_dir: runs/stage1\n{STAGE1}")
    reset = "".join(f"{name}: null\n" for name in ("vision_backbone", "visual_feature_size", "imagenet_weights"))
    warm = f"base: stage1.yaml\nstage1_checkpoint: {folder / 'stage1'}\noutput_dir: runs/warm\n{reset}"
    Path("stage1_warm_start.yaml").write_text(warm)
    second = f"dataset: nowhere\ntokenizer: {folder / 'other'}\n{STAGE2}\noutput_dir: elsewhere/stage2\n"
    Path("stage2.yaml").write_text(second.replace("max_steps: 4", "max_steps: 2"))
    assert run("run_stage1", recipe, *lines, *ONE_STEP) == 0
    words = printed_words(capsys.readouterr().err, "run_stage2.py")
    assert run("run_stage2", *words[1:]) == 0, words
    (out,) = [path.parent for path in Path("runs").glob("*/metrics.json") if "stage2" in path.parent.name]
    (first,) = [path.parent for path in Path("runs").glob("*/metrics.json") if path.parent != out]
    assert vocabulary(out) == vocabulary(first)
    sizes = [
        json.loads((path / "processor_config.json").read_text())["video_processor"]["size"] for path in (first, out)
    ]
    assert sizes[0] == sizes[1]


def test_the_language_model_of_a_finished_run_is_taken(folder, stage2, tmp_path):
    lines = ("--stage1_checkpoint", folder / "stage1", "--language_model_config", "null", *ONE_STEP)
    lines += ("--learning_rate", 0, "--language_model_overrides", "{dropout: 0.3}")
    out = tmp_path / "out"
    argv = (folder / "stage2.yaml", "--language_model", stage2, "--output_dir", out, *lines)
    assert run("run_stage2", *argv) == 0
    before, after = weights(stage2), weights(out)
    language = [name for name in before if name.startswith("language_model.")]
    assert language and all(torch.equal(before[name], after[name]) for name in language)
    assert json.loads((out / "config.json").read_text())["text_config"]["dropout"] == 0.3
    assert vocabulary(out) == vocabulary(stage2)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_more_epochs_begin_with_the_finished_run_as_the_message_says(folder, stage2, stage, tmp_path, capsys):
    script, out = f"run_{stage}", tmp_path / "run"
    lines = ["--stage1_checkpoint", folder / "stage1"] if stage == "stage2" else []
    argv = [folder / f"{stage}.yaml", "--output_dir", out, *lines, "--num_train_epochs", 1]
    assert run(script, *argv) == 0
    capsys.readouterr()
    assert run(script, *argv, "--resume", "--num_train_epochs", 2) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "num_train_epochs" in error
    remedy = shlex.split(error[error.index("--stage1_checkpoint") :])
    assert (
        run(script, *argv, "--num_train_epochs", 2, *remedy, "--learning_rate", 0, "--adapter_learning_rate", 0) == 0
    )
    new = Path(f"{out}-more")
    assert json.loads((new / "metrics.json").read_text())["start"]["new"] == "nothing"
    before, after = weights(out), weights(new)
    learnt = [name for name in before if "running_" not in name and "batches_tracked" not in name]
    assert all(torch.equal(before[name], after[name]) for name in learnt)
    assert yaml.safe_load((new / "recipe.yaml").read_text())["stage1_checkpoint"] == str(out)


def test_after_trimming_each_printed_command_leads_to_the_next(folder, tmp_path, monkeypatch, capsys):
    """A base model, `fla trim`, stage 1 with its tokenizer, stage 2 with its weights."""
    monkeypatch.chdir(tmp_path)
    Path("recipes/own_clips").mkdir(parents=True)
    Path("recipes/own_clips/stage1.yaml").write_text(f"output_dir: runs/stage1\n{STAGE1}")
    Path("recipes/own_clips/stage2.yaml").write_text(f"output_dir: runs/stage2\n{STAGE2}")
    sentences = folder / "corpus" / "train.sentences.txt"
    argv = ["--text", sentences, "--out", "base", "--width", 64, "--layers", 1, "--max-steps", 1, "--vocab-size", 200]
    assert main(["denoise", *map(str, argv)]) == 0
    assert main(printed_words(capsys.readouterr().err, "fla trim")[1:]) == 0
    for script in ("run_stage1", "run_stage2"):
        words = printed_words(capsys.readouterr().err, f"{script}.py")
        assert run(script, *words[1:], *ONE_STEP) == 0, words
    assert yaml.safe_load(Path("runs/stage2/recipe.yaml").read_text())["language_model"] == "base-trimmed"


def test_own_clips_of_one_split_and_another_language_are_named_in_the_next_command(tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "a.mp4", [marked_frame(number) for number in range(8)])
    (tmp_path / "t.csv").write_text("video,sentence,language\n" + "a.mp4,guten tag,de_DE\n" * 2)
    out = tmp_path / "packed clips"
    options = ["--root", tmp_path / "t.csv", "--out", out, "--size", 24, "--workers", 0]
    assert main(["prepare", "manifest", *map(str, options)]) == 0
    words = printed_words(capsys.readouterr().err, "run_stage1.py")
    monkeypatch.chdir(tmp_path)
    Path("recipes/own_clips").mkdir(parents=True)
    recipe = STAGE1.replace("language_code: de_DE", "language_code: en_XX").replace("120", "60")
    Path("recipes/own_clips/stage1.yaml").write_text(f"output_dir: runs/stage1\n{recipe}")
    assert run("run_stage1", *words[1:], *ONE_STEP) == 0, words
    assert yaml.safe_load(Path("runs/stage1/recipe.yaml").read_text())["language_code"] == "de_DE"
