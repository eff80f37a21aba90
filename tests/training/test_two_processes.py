"""Two processes with half the batch each, or four small batches one after the other, do what one big batch does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_runs import NETWORK, ROOT, STAGE1, STAGE2, pack_demo, run, run_together, weights
from training_fla.errors import InputError
from training_fla.recipe import OptimizationArguments
from training_fla.training.acceleration import check_sharding

# Twenty steps of eight clips; no dropout, which draws differently in every process.
CURVE = """
max_steps: 20
logging_steps: 1
eval_steps: 20
save_steps: 20
per_device_eval_batch_size: 2
train_sampling_strategy: group_by_length
"""
RECIPES = {
    "stage1": STAGE1.replace("light_t_overrides: {", "light_t_overrides: {dropout: 0.0, ")
    + "random_frame_phase: true\n",
    "stage2": STAGE2 + "language_model_overrides: {dropout: 0.0}\n",
}
# Variants of stage 2 that wrap or extend the model: each must still be one model to DistributedDataParallel.
VARIANTS = {
    "one_run": RECIPES["stage2"]
    + NETWORK
    + """
freeze_vision_backbone: false
freeze_temporal_module: false
one_run_light_t: tiny
one_run_light_t_overrides: {d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24, dropout: 0.0}
""",
    "lora": RECIPES["stage2"] + "peft: {type: lora, r: 2}\n",
}
LINES_OF_SHARDED = [
    (),
    ("--peft", "{type: lora, r: 2}"),
    ("--language_model_overrides", "{dropout: 0.0, tie_word_embeddings: false}"),
]
OVERRIDDEN = ("max_steps", "logging_steps", "eval_steps", "save_steps", "per_device_eval_batch_size")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nineteen clips: an epoch ends with a batch of three. Five and seven are odd too."""
    folder = tmp_path_factory.mktemp("two")
    corpus = pack_demo(folder / "corpus", num_train=19, num_dev=5, num_test=7)
    for stage, text in {**RECIPES, **VARIANTS}.items():
        lines = [line for line in text.splitlines() if line.split(":")[0] not in OVERRIDDEN]
        (folder / f"{stage}.yaml").write_text("\n".join([f"dataset: {corpus}", *lines, CURVE]))
    return folder


def losses(out: Path) -> list[float]:
    history = json.loads((out / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def rows(out: Path, split: str) -> list[str]:
    return (out / f"predictions_{split}.tsv").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def one(folder) -> dict[str, Path]:
    """One process with batches of eight: what the others are held against."""
    out = {stage: folder / f"{stage}-one" for stage in RECIPES}
    for stage in RECIPES:
        argv = (*given(folder, stage), "--output_dir", out[stage], "--total_batch_size", 8)
        assert run(f"run_{stage}", *argv) == 0
        assert len(losses(out[stage])) == 20 and losses(out[stage])[0] > losses(out[stage])[-1]
    return out


def given(folder: Path, stage: str) -> list:
    first = folder / "stage1-one"
    handed_over = ["--stage1_checkpoint", first, "--tokenizer", first] if stage == "stage2" else []
    return [folder / f"{stage}.yaml", *handed_over]


@pytest.fixture(scope="module")
def two(folder, one) -> dict[str, Path]:
    """Two processes with batches of four, which fill a feature cache of their own."""
    out = {stage: folder / f"{stage}-two" for stage in RECIPES}
    argv = {stage: ["--output_dir", out[stage], "--total_batch_size", 8] for stage in RECIPES}
    argv["stage2"] += ["--feature_cache", folder / "features-of-two"]
    run_together(*([f"run_{stage}", *given(folder, stage), *argv[stage]] for stage in RECIPES))
    return out


@pytest.mark.parametrize("stage", RECIPES)
def test_two_processes_follow_the_curve_of_one(one, two, stage):
    two = two[stage]
    reports = [json.loads((out / "metrics.json").read_text()) for out in (one[stage], two)]
    assert [report["processes"] for report in reports] == [1, 2]
    assert [report["train"]["clips_per_step"] for report in reports] == [8, 8]
    states = [json.loads((out / "checkpoint-20" / "trainer_state.json").read_text()) for out in (one[stage], two)]
    assert [state["epoch"] for state in states] == [pytest.approx(20 / 3)] * 2, "three steps an epoch of 19 clips"
    card = (two / "README.md").read_text(encoding="utf-8")
    assert f"| clips a step | 8 (the paper's: {16 if stage == 'stage2' else 8}) |" in card
    assert losses(two) == pytest.approx(losses(one[stage]), abs=1e-4)
    for split, count in (("dev", 5), ("test", 7)):
        ids = [row.split("\t")[0] for row in rows(two, split)]
        assert ids == ["id"] + [f"{split}-{number:05d}" for number in range(count)]
        assert reports[1][split]["num_sentences"] == count
        assert reports[1][split]["loss"] == pytest.approx(reports[0][split]["loss"], abs=1e-4)
        assert rows(two, split) == rows(one[stage], split)


@pytest.mark.slow
def test_four_processes_follow_one_though_one_has_no_clip_in_an_epochs_last_batch(folder, one):
    """Nineteen clips in batches of two on each: the last three are one each of the first three processes."""
    out = {stage: folder / f"{stage}-four" for stage in RECIPES}
    argv = {stage: ["--output_dir", out[stage], "--total_batch_size", 8] for stage in RECIPES}
    argv["stage2"] += ["--feature_cache", folder / "features-of-four"]
    run_together(*([f"run_{stage}", *given(folder, stage), *argv[stage]] for stage in RECIPES), processes=4)
    for stage in RECIPES:
        assert losses(out[stage]) == pytest.approx(losses(one[stage]), abs=1e-4)
        alone, four = weights(one[stage]), weights(out[stage])
        assert all(torch.allclose(alone[name], four[name], atol=1e-4) for name in alone)
        assert [rows(out[stage], split) for split in ("dev", "test")] == [
            rows(one[stage], split) for split in ("dev", "test")
        ]


@pytest.mark.slow
def test_two_processes_train_from_a_stream(folder, tmp_path):
    """Ten shards, five for each process: ten clips and nine, three batches an epoch on either."""
    lines = ["--streaming", "true", "--train_sampling_strategy", "random", "--total_batch_size", 8]
    run_together(["run_stage1", folder / "stage1.yaml", *lines, "--output_dir", tmp_path / "run"])
    history = json.loads((tmp_path / "run" / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
    assert len(losses(tmp_path / "run")) == 20 and losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    assert [row["epoch"] for row in history if row.get("step") == 18][0] == pytest.approx(6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_follow_the_curve_of_one(folder, one, variant):
    argv = [folder / f"{variant}.yaml", "--tokenizer", one["stage1"]]
    argv += ["--stage1_checkpoint", one["stage1"]] if variant != "one_run" else []
    alone, two = folder / f"{variant}-one", folder / f"{variant}-two"
    assert run("run_stage2", *argv, "--output_dir", alone, "--total_batch_size", 8) == 0
    run_together(["run_stage2", *argv, "--output_dir", two, "--total_batch_size", 8])
    assert len(losses(two)) == 20 and losses(two) == pytest.approx(losses(alone), abs=1e-4)
    reports = [json.loads((out / "metrics.json").read_text())["test"] for out in (alone, two)]
    assert reports[1]["loss"] == pytest.approx(reports[0]["loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lines", LINES_OF_SHARDED, ids=["plain", "lora", "untied"])
def test_shards_follow_the_curve_of_one_and_are_saved_whole(folder, one, tmp_path, lines):
    """FSDP, with the configuration that is shipped; interrupted and resumed."""
    argv = [*given(folder, "stage2"), *lines, "--load_best_model_at_end", "false"]
    alone, shards = tmp_path / "one", tmp_path / "shards"
    assert run("run_stage2", *argv, "--output_dir", alone, "--total_batch_size", 8) == 0
    argv += ["--output_dir", shards, "--total_batch_size", 8, "--save_steps", 10]
    run_in_shards(*argv)
    assert losses(shards) == pytest.approx(losses(alone), abs=1e-4)
    whole, saved = weights(alone), weights(shards)
    assert whole.keys() == saved.keys()
    assert all(torch.allclose(whole[name], saved[name], atol=1e-4) for name in whole)
    assert {file.name for file in alone.glob("*.py")} == {file.name for file in shards.glob("*.py")}
    assert [rows(shards, split) for split in ("dev", "test")] == [rows(alone, split) for split in ("dev", "test")]
    (shards / "model.safetensors").unlink()
    shutil.rmtree(shards / "checkpoint-20")
    run_in_shards(*argv, "--resume", "true")
    again = weights(shards)
    assert all(saved[name].equal(again[name]) for name in saved)


def run_in_shards(*argv) -> None:
    config = ["--config_file", str(ROOT / "recipes" / "accelerate" / "fsdp.yaml"), "--num_processes", "2"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *config, "--main_process_port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / "tests" / "fsdp_without_gpu.py"), *map(str, argv), "--ddp_backend", "gloo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("fields", "lines", "message"),
    [
        ({"fsdp_version": 1}, {}, "fsdp_version is 1: only 2"),
        ({"state_dict_type": "FULL_STATE_DICT"}, {}, "fsdp_state_dict_type must be SHARDED_STATE_DICT"),
        ({}, {"norm_logging_steps": 5}, "norm_logging_steps needs whole weights"),
    ],
)
def test_what_shards_cannot_do_is_refused(fields, lines, message):
    plugin = SimpleNamespace(**{"fsdp_version": 2, "state_dict_type": "SHARDED_STATE_DICT", **fields})
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(InputError, match=message):
        check_sharding(accelerator, OptimizationArguments(**lines))


def test_a_run_goes_on_with_another_number_of_processes_and_says_so(folder, two, tmp_path, capsys):
    """From the last checkpoint, so that it only scores; another batch would have other steps."""
    argv = [*given(folder, "stage2"), "--output_dir", tmp_path / "run", "--total_batch_size"]
    shutil.copytree(two["stage2"], tmp_path / "run")
    lines = ["--feature_cache", folder / "features-of-two", "--resume"]
    assert run("run_stage2", *argv, 8, *lines, "--per_device_train_batch_size=4") == 2
    assert "gives both" in capsys.readouterr().err
    assert run("run_stage2", *argv[:-1], *lines, "--per_device_train_batch_size=4") == 2
    assert "had 8 clips on 2 process(es), now 1 and 4 clips: give --total_batch_size 8" in capsys.readouterr().err
    assert run("run_stage2", *argv, 8, *lines) == 0
    assert "the run had 2 process(es), now 1" in capsys.readouterr().err


@pytest.mark.parametrize("stage", RECIPES)
def test_accumulated_gradients_follow_the_curve_of_a_big_batch(folder, one, stage):
    """Sentences differ in length, so a mean of the small batches' means would be another loss."""
    out = folder / f"{stage}-accumulated"
    sizes = ("--total_batch_size", 8, "--gradient_accumulation_steps", 4)
    assert run(f"run_{stage}", *given(folder, stage), "--output_dir", out, *sizes) == 0
    assert losses(out) == pytest.approx(losses(one[stage]), abs=1e-4)
