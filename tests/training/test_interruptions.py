"""What may go wrong while a run writes: killed five times at random moments, and a disk that is full."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.tiny_runs import ROOT, STAGE1, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.errors import disk_is_full
from training_fla.folders import MARKER


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    for stage, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{stage}.yaml").write_text(f"dataset: {corpus}\n{text}")
    return folder


@pytest.fixture(scope="module")
def stage1(folder) -> Path:
    return stage1_of_one_step(folder, folder / "corpus")


def given(folder: Path, stage: str, stage1: Path) -> list:
    handed_over = ["--stage1_checkpoint", stage1, "--tokenizer", stage1] if stage == "stage2" else []
    return [folder / f"{stage}.yaml", *handed_over]


def newest_checkpoint(out: Path) -> int:
    """Its step, whole or not."""
    return max([int(path.name.split("-")[1]) for path in out.glob("checkpoint-*")], default=0)


def kill_after_a_checkpoint(command: list[str], out: Path, delay: float) -> None:
    """Start, wait until a checkpoint begins to appear, and kill some time after that: while it is saved, or later."""
    before = newest_checkpoint(out)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while newest_checkpoint(out) <= before and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists(), "killed too late to show anything"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_killed_five_times_it_ends_at_the_same_weights(folder, stage1, tmp_path, stage):
    """SGD with dropout, augmentation and BatchNorm in stage 1; Adam on stored features in stage 2."""
    long = ["--max_steps", 90, "--save_steps", 3, "--eval_steps", 3, "--save_total_limit", 2]
    argv = [*given(folder, stage, stage1), *long]
    assert run(f"run_{stage}", *argv, "--output_dir", tmp_path / "undisturbed") == 0
    out = tmp_path / "killed"
    command = [sys.executable, ROOT / f"run_{stage}.py", *argv, "--output_dir", out, "--resume"]
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for _ in range(5):
        kill_after_a_checkpoint([str(word) for word in command], out, delay=moments.uniform(0, 0.3))
    assert run(f"run_{stage}", *argv, "--output_dir", out, "--resume") == 0
    undisturbed, killed = weights(tmp_path / "undisturbed"), weights(out)
    assert undisturbed.keys() == killed.keys()
    for name in undisturbed:
        assert undisturbed[name].equal(killed[name]), f"{name} (seed {seed})"


@pytest.mark.parametrize("refused", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_full_disk_leaves_the_checkpoint_before(folder, stage1, tmp_path, monkeypatch, capsys, refused):
    """The second checkpoint meets a full disk at one of its files; with room again the run ends as if nothing was."""
    argv = [*given(folder, "stage2", stage1), "--output_dir", tmp_path / "out"]
    with monkeypatch.context() as patch:
        fill_the_disk(patch, refused)
        assert run("run_stage2", *argv) == 2
    error = capsys.readouterr().err
    assert "checkpoint-4: " in error and "No space left on device" in error and "--resume" in error
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    assert run("run_stage2", *argv, "--resume") == 0
    assert run("run_stage2", *argv[:-1], tmp_path / "roomy") == 0
    full, roomy = weights(tmp_path / "out"), weights(tmp_path / "roomy")
    assert all(full[name].equal(roomy[name]) for name in roomy)


MORE_FILES = ["recipe.yaml", "norms.tsv", "norms.png", "predictions_dev.tsv", "predictions_test.tsv"]
MORE_FILES += ["training_curve.png", "README.md", ".model.partial"]


@pytest.mark.parametrize(
    "refused", ["metrics.json", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_FILES)]
)
def test_a_full_disk_beside_the_checkpoints_is_one_line_and_the_run_goes_on(
    folder, stage1, tmp_path, monkeypatch, capsys, refused
):
    out = tmp_path / "out"
    # The last weights, so that a step too many would show.
    argv = [*given(folder, "stage2", stage1), "--load_best_model_at_end", "false"]
    argv += ["--norm_logging_steps", 2, "--output_dir", out]
    with monkeypatch.context() as patch:
        refuse(patch, refused)
        assert run("run_stage2", *argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("run_stage2.py: error: the disk is full: ") and "--resume goes on" in error
    assert not (out / refused).exists() and [path.name for path in out.glob(".*")] == [MARKER]
    assert run("run_stage2", *argv, "--resume") == 0
    assert run("run_stage2", *argv[:-1], tmp_path / "roomy") == 0
    full, roomy = weights(out), weights(tmp_path / "roomy")
    assert all(full[name].equal(roomy[name]) for name in roomy)
    names = [{path.name for path in folder.iterdir()} for folder in (out, tmp_path / "roomy")]
    assert names[0] == names[1]


def test_a_run_that_stopped_early_is_not_trained_on(folder, stage1, tmp_path, monkeypatch):
    """At a rate of 0 nothing changes, and the second evaluation without a gain is the last."""
    out, lines = tmp_path / "out", ["--early_stopping_patience", 2, "--eval_steps", 2, "--save_steps", 2]
    lines += ["--learning_rate", 0, "--adapter_learning_rate", 0]
    argv = [*given(folder, "stage2", stage1), *lines, "--max_steps", 30, "--output_dir", out]
    with monkeypatch.context() as patch:
        refuse(patch, "metrics.json")
        assert run("run_stage2", *argv) == 2
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("checkpoint-*")}
    assert sorted(before) == ["checkpoint-2", "checkpoint-6"]
    assert run("run_stage2", *argv, "--resume") == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("checkpoint-*")} == before
    # Interrupted before its end, it counts on.
    shutil.rmtree(out / "checkpoint-6")
    (out / "metrics.json").unlink()
    state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["EarlyStoppingCallback"]["attributes"] == {"early_stopping_patience_counter": 0}
    assert run("run_stage2", *argv, "--resume") == 0
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]


def refuse(patch: pytest.MonkeyPatch, refused: str) -> None:
    """There is no room for the bytes of that file, which is noticed when they are sent to the disk."""
    import safetensors
    from transformers import modeling_utils

    from training_fla import folders as output_folder

    sync, save = output_folder.sync_file, modeling_utils.safe_save_file

    def full_for_small(path):
        if path.name.startswith(f".{refused}."):
            raise OSError(28, "No space left on device", str(path))
        sync(path)

    def full_for_weights(content, file, *args, **kwargs):
        if Path(str(file)).parent.name == refused:
            Path(str(file)).write_bytes(b"half")
            raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
        return save(content, file, *args, **kwargs)

    patch.setattr(output_folder, "sync_file", full_for_small)
    patch.setattr(modeling_utils, "safe_save_file", full_for_weights)


def test_a_limit_on_file_sizes_meets_the_feature_store_first(folder, stage1, tmp_path, capsys):
    """The kernel refuses here, not a patch: no file may be larger than two kilobytes."""
    argv = [*given(folder, "stage2", stage1), "--feature_cache", tmp_path / "features", "--output_dir", tmp_path / "o"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        status = run("run_stage2", *argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and "File too large" in error and "make room" in error
    for shard in (tmp_path / "features").rglob("*.safetensors"):
        assert load_file(shard), "a shard that is there is whole"
    assert run("run_stage2", *argv, "--overwrite") == 0


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(27, "File too large"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("no space"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = error
    assert disk_is_full(error) is full and disk_is_full(wrapped) is full and not disk_is_full(None)


def fill_the_disk(patch: pytest.MonkeyPatch, refused: str) -> None:
    """Writing a file of that name in `checkpoint-4` writes some bytes and then fails, as each library would."""
    import safetensors
    import torch
    from transformers import TrainerState, modeling_utils

    def failing(write, error):
        def wrapper(content, file, *args, **kwargs):
            path = Path(str(file))
            if path.name == refused and path.parent.name == "checkpoint-4":
                path.write_bytes(b"half")
                raise error
            return write(content, file, *args, **kwargs)

        return wrapper

    message = "No space left on device"
    safe = safetensors.SafetensorError(f"Error while serializing: I/O error: {message} (os error 28)")
    patch.setattr(modeling_utils, "safe_save_file", failing(modeling_utils.safe_save_file, safe))
    patch.setattr(torch, "save", failing(torch.save, RuntimeError(f"unexpected pos 64 vs 0: {message}")))
    patch.setattr(TrainerState, "save_to_json", failing(TrainerState.save_to_json, OSError(28, message)))
