"""`make demo` in miniature: the very commands, with fewer clips and steps, and what it leaves behind."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from experiments import demonstration, running
from experiments.demonstration import SCORES, demo_steps, run_demo, run_seeds
from experiments.running import Step, run_command
from tests.tiny_runs import ROOT, run
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.folders import locked_folder
from training_fla.scoring.predictions import read_predictions

FEWER = {
    "prepare": ["--num-train", "8", "--num-dev", "2", "--num-test", "3", "--workers", "0", "--clips", "1"],
    "denoise": ["--max-steps", "2", "--batch-size", "4", "--width", "64", "--layers", "1"],
    "stage1": ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2"],
    "stage2": ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2"],
}


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Smaller steps, run in this process but for the last, which saves importing torch for each; what was run."""
    done = []

    def steps(out: Path, seed: int, ablations: bool) -> list[Step]:
        return [Step(s.name, s.command + FEWER.get(s.name, []), s.output) for s in demo_steps(out, seed, ablations)]

    def run_here(words, launcher, environment):
        done.append(words)
        if words[1] == "translate":
            return run_command(words, launcher, environment)
        return main(words[1:]) if words[0] == "fla" else run(words[0].removesuffix(".py"), *words[1:])

    monkeypatch.setattr(demonstration, "demo_steps", steps)
    monkeypatch.setattr(running, "run_command", run_here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return done


def names(commands: list[list[str]]) -> list[str]:
    return [words[1] if words[0] == "fla" else words[0] for words in commands]


ALL = ["prepare", "denoise", "trim", "run_stage1.py", "run_stage2.py", "score", "translate", "inspect"]


def test_the_demo_goes_on_after_an_interruption_shows_its_table_again_and_deletes_nothing(
    commands, tmp_path, monkeypatch, capfd
):
    out, whole = tmp_path / "demo", running.run_command
    monkeypatch.setattr(
        running, "run_command", lambda words, *more: 130 if "run_stage2.py" in words else whole(words, *more)
    )
    assert run_demo(out) == 130
    monkeypatch.setattr(running, "run_command", whole)
    assert run_demo(out) == 0
    assert names(commands) == ALL, "no step is run twice"
    shown, printed = capfd.readouterr()
    assert "$ fla translate" in printed
    assert "stage 1 (visual initialing)" in shown and "stage 2 (LLM fine-tuning)" in shown
    summary = json.loads((out / "summary.json").read_text())
    for stage in ("stage1", "stage2"):
        assert summary[stage].keys() == {*SCORES, "seconds"}
        assert all(isinstance(value, float) for value in summary[stage].values())
    assert summary["seconds"] > 0
    assert str(out / "corpus" / "clips" / "test-00000.mp4") in shown and str(out / "test-00000.png") in shown
    assert (out / "test-00000.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_predictions(out / "stage2" / "predictions_test.tsv").ids) == 3

    (out / "notes.txt").write_text("important")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert run_demo(out) == 0 and len(commands) == len(ALL)
    shown, printed = capfd.readouterr()
    assert "holds a finished demo of seed 0" in printed and "stage 2 (LLM fine-tuning)" in shown
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    with pytest.raises(InputError, match="prepare .*--seed 0.*; .*--out .*--overwrite"):
        run_demo(out, seed=1)

    monkeypatch.setattr(running, "run_command", lambda words, *more: commands.append(words) or 0)
    assert run_demo(out, seed=1, overwrite=True) == 0
    again = commands[len(ALL) :]
    assert names(again) == ALL
    assert [words[-1] for words in again[:5]] == ["--overwrite"] * 5, "each command replaces what it wrote itself"
    assert (out / "notes.txt").read_text() == "important"


def test_the_ablations_are_the_recipes_of_the_papers_tables(tmp_path):
    plain, more = (demo_steps(tmp_path, 0, ablations) for ablations in (False, True))
    added = [step.name for step in more[len(plain) :]]
    assert added == ["joint", "untrained_encoder", "random_language_model", "one_run"]
    assert all(name in demonstration.ROWS for name in added)


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    for work in (run_demo, lambda out: run_seeds(out, [0, 1])):
        with pytest.raises(InputError, match="thesis.tex .*.fla-llm.json"):
            work(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_two_demos_do_not_share_a_folder(tmp_path):
    folder, refused = tmp_path / "demo", pytest.raises(InputError, match="demo .*another run")
    with locked_folder(folder, folder), refused:
        run_demo(folder, overwrite=True)


def test_a_failing_command_ends_the_demo_with_its_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "run_command", lambda words, *more: 2 * (words[1] == "denoise"))
    assert run_demo(tmp_path / "demo") == 2
    assert "`denoise` ended with status 2" in capsys.readouterr().err


def test_without_a_clone_there_is_neither_demo_nor_ablation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training_fla.clone.ROOT", tmp_path)
    for words in (["demo"], ["ablate", "table4"], ["prepare", "demo", "--out", str(tmp_path / "demo")]):
        assert main(words) == 2
        name = " ".join(words[: 1 + (words[0] == "prepare")])
        assert f"`fla {name}` needs a clone" in capsys.readouterr().err


def test_the_demo_takes_two_threads_only_where_two_cores_are_idle_and_the_users_number_wins(monkeypatch, tmp_path):
    monkeypatch.setattr(running.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(running, "LOAD", tmp_path / "loadavg")
    assert running.num_threads() == 1, "nothing says how busy the cores are"
    for at_work, threads in ((1, 2), (2, 1)):  # this process counts itself; the average lags behind and is not read
        (tmp_path / "loadavg").write_text(f"{3 - at_work}.90 0.10 0.10 {at_work}/200 4711\n")
        assert running.num_threads() == threads

    environments = []

    def note(words, env):
        environments.append(env)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(running.subprocess, "run", note)
    for users in ("7", None):
        monkeypatch.setenv("OMP_NUM_THREADS", users) if users else monkeypatch.delenv("OMP_NUM_THREADS")
        running.run_command(["fla", "score"], defaults={"OMP_NUM_THREADS": "1"})
    assert [environment["OMP_NUM_THREADS"] for environment in environments] == ["7", "1"]


def test_the_makefile_runs_the_demo_command():
    dry = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert "fla demo" in dry.stdout


def fake_demo(calls, status=0):
    def run(out, seed, ablations, overwrite):
        calls.append(seed)
        if status:
            return status
        out.mkdir(parents=True, exist_ok=True)
        figures = {score: 80.0 + 10 * seed for score in (*SCORES, "seconds")}
        (out / "summary.json").write_text(json.dumps({"stage1": figures, "stage2": figures, "seconds": 1.0}))
        return 0

    return run


def test_several_seeds_are_compared_by_mean_and_deviation(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(demonstration, "run_demo", fake_demo(calls))
    assert run_seeds(tmp_path, [0, 1]) == 0
    assert "| stage 2 (LLM fine-tuning) | 85.00 ± 7.07 |" in capsys.readouterr().out
    assert run_seeds(tmp_path, [0, 1, 2]) == 0
    assert "90.00 ± 10.00" in (tmp_path / "seeds.md").read_text()


def test_several_seeds_stop_at_the_first_failure_and_refuse_a_seed_given_twice(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demonstration, "run_demo", fake_demo(calls, status=3))
    assert run_seeds(tmp_path, [4, 5]) == 3 and calls == [4]
    with pytest.raises(InputError, match="--seeds 1 1: a seed is given twice"):
        run_seeds(tmp_path, [1, 1])
