"""A run that a signal, a callback or Ctrl-C ends before its last step: what is saved and printed, and --resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback

from tests.tiny_runs import ROOT, STAGE1, pack_demo, run, weights
from training_fla.training.trainer import SignTranslationTrainer

# Twelve clips make three steps an epoch, twelve steps in all.
BY_EPOCH = ("--eval_strategy", "epoch", "--save_strategy", "epoch")
SCORED = ("metrics.json", "README.md", "predictions_dev.tsv", "model.safetensors")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    corpus = pack_demo(folder / "corpus", num_train=12, num_dev=2, num_test=2)
    (folder / "stage1.yaml").write_text(
        f"dataset: {corpus}\n{STAGE1}".replace("num_train_epochs: 2", "num_train_epochs: 4")
    )
    return folder / "stage1.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe) -> Path:
    out = recipe.parent / "undisturbed"
    assert run("run_stage1", recipe, *BY_EPOCH, "--output_dir", out) == 0
    return out


def at_step(monkeypatch, step: int, act) -> None:
    """Do something in the step after so many."""
    training_step = SignTranslationTrainer.training_step

    def disturbed(self, *args):
        if self.state.global_step == step:
            act()
        return training_step(self, *args)

    monkeypatch.setattr(SignTranslationTrainer, "training_step", disturbed)


def evaluated(out: Path) -> list[int]:
    states = [json.loads(file.read_text()) for file in out.rglob("trainer_state.json")]
    history = max(states, key=lambda state: state["global_step"])["log_history"]
    return [row["step"] for row in history if "eval_bleu4" in row]


def assert_ends_as(out: Path, undisturbed: Path) -> None:
    expected, resumed = weights(undisturbed), weights(out)
    assert all(expected[name].equal(resumed[name]) for name in expected)
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (undisturbed, out)]
    assert scores[0]["test"]["loss"] == scores[1]["test"]["loss"]
    assert scores[0]["train"]["frames"] == scores[1]["train"]["frames"]


@pytest.mark.parametrize(("step", "evaluations"), [(4, [3]), (5, [3, 6])], ids=["within an epoch", "at its end"])
@pytest.mark.parametrize("lines", [(), ("--enable_jit_checkpoint", "true")], ids=["alone", "jit"])
def test_sigterm_saves_a_checkpoint_and_scores_nothing(
    recipe, undisturbed, tmp_path, monkeypatch, capsys, step, evaluations, lines
):
    out = tmp_path / "run"
    argv = [recipe, *BY_EPOCH, *lines, "--save_total_limit", 1, "--output_dir", out]
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run("run_stage1", *argv) == 143
    said = capsys.readouterr()
    line = f"stopped at step {step + 1} of 12; the same command with --resume goes on"
    assert said.err.strip().splitlines()[-1] == line and "next" not in said.out + said.err
    assert (out / f"checkpoint-{step + 1}").is_dir() and evaluated(out) == evaluations
    assert not [name for name in SCORED if (out / name).exists()]
    assert signal.getsignal(signal.SIGTERM) == before
    assert run("run_stage1", *argv, "--resume") == 0
    assert_ends_as(out, undisturbed)
    assert evaluated(out) == [3, 6, 9, 12]


def test_a_signal_after_the_last_step_comes_before_scoring(recipe, undisturbed, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 11, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run("run_stage1", recipe, *BY_EPOCH, "--output_dir", out) == 143
    assert "stopped at step 12 of 12" in capsys.readouterr().err and not (out / "metrics.json").exists()
    assert run("run_stage1", recipe, *BY_EPOCH, "--output_dir", out, "--resume") == 0
    assert_ends_as(out, undisturbed)


@pytest.mark.parametrize("event", ["on_step_end", "on_log", "on_evaluate", "on_save", "on_epoch_end"])
def test_a_run_that_a_callback_stops_is_not_finished(recipe, tmp_path, monkeypatch, capsys, event):
    class Limit(TrainerCallback):
        """Stops at step three, or at the event after it."""

    def stop(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= 3

    setattr(Limit, event, stop)
    from training_fla.stages import building

    add = building.add_callbacks

    def add_limit(trainer, recipe):
        trainer.add_callback(Limit())
        add(trainer, recipe)

    monkeypatch.setattr(building, "add_callbacks", add_limit)
    out = tmp_path / "run"
    assert run("run_stage1", recipe, "--output_dir", out) == 1
    assert "stopped at step 3 of 12; the same command with --resume" in capsys.readouterr().err
    assert (out / "checkpoint-3").is_dir() and not (out / "metrics.json").exists()


def test_early_stopping_is_the_end_of_a_run(recipe, tmp_path):
    out = tmp_path / "run"
    lines = ("--early_stopping_patience", 1, "--learning_rate", 0, "--freeze_batch_norm_statistics", "true")
    lines += ("--output_dir", out)
    assert run("run_stage1", recipe, *BY_EPOCH, *lines) == 0
    assert json.loads((out / "metrics.json").read_text())["test"]["num_sentences"] == 2 and max(evaluated(out)) < 12


@pytest.mark.parametrize(
    ("lines", "remedy"),
    [
        ((), "the same command with --resume goes on from step 3"),
        (("--save_steps", 9, "--eval_steps", 9), "no checkpoint yet, the same command with --resume starts anew"),
        (("--save_only_model", "true"), "--overwrite starts anew"),
    ],
)
def test_an_interrupted_run_names_what_goes_on(recipe, tmp_path, monkeypatch, capsys, lines, remedy):
    def interrupt():
        raise KeyboardInterrupt

    at_step(monkeypatch, 4, interrupt)
    assert run("run_stage1", recipe, *lines, "--output_dir", tmp_path / "run") == 130
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("interrupted at step 4 of 12; ") and remedy in error


def test_two_processes_stop_at_the_same_step(recipe, tmp_path):
    """The launcher passes the signal on; the loaders' workers, which get it here too, go on until the step is done."""
    out = tmp_path / "run"
    words = [ROOT / "run_stage1.py", recipe, "--max_steps", 3000, "--output_dir", out, "--dataloader_num_workers", 1]
    words += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--ddp_backend", "gloo"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.Popen(
        [*launcher, *map(str, words)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "checkpoint-3" / "trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    (line,) = [line for line in error.splitlines() if line.startswith("stopped at step ")]
    step = int(line.split()[3].replace(",", ""))
    state = json.loads((out / f"checkpoint-{step}" / "trainer_state.json").read_text())
    assert state["global_step"] == step and not (out / "metrics.json").exists() and process.returncode != 0
    assert len(list((out / f"checkpoint-{step}").glob("rng_state_*.pth"))) == 2
