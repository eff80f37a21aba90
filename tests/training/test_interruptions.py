"""What may go wrong while a run writes: killed five times at random moments, and a disk that is full."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_runs import ROOT, STAGE1, STAGE2, pack_demo, run, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    for stage, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{stage}.yaml").write_text(f"dataset: {corpus}\n{text}")
    return folder


@pytest.fixture(scope="module")
def stage1(folder) -> Path:
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", folder / "stage1") == 0
    return folder / "stage1"


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
