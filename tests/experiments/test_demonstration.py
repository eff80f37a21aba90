"""`make demo` in miniature: the very commands, with fewer clips and steps, and what it leaves behind."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from training_fla.experiments import demonstration
from training_fla.experiments.demonstration import (
    SCORES,
    Step,
    demo_steps,
    read_predictions,
    run_demo,
    run_seeds,
    run_step,
)
from training_fla.files import InputError

ROOT = Path(__file__).resolve().parents[2]
FEWER = {
    "prepare": ["--num-train", "8", "--num-dev", "2", "--num-test", "3", "--workers", "0", "--clips", "1"],
    "denoise": ["--max-steps", "2", "--batch-size", "4", "--width", "64", "--layers", "1"],
    "stage1": ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2"],
    "stage2": ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2"],
}


@pytest.fixture
def miniature(monkeypatch):
    def steps(out: Path, seed: int, ablations: bool) -> list[Step]:
        return [Step(s.name, s.command + FEWER.get(s.name, []), s.output) for s in demo_steps(out, seed, ablations)]

    monkeypatch.setattr(demonstration, "demo_steps", steps)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_demo_goes_on_after_an_interruption_and_ends_with_all_it_promises(miniature, tmp_path, monkeypatch, capfd):
    out = tmp_path / "demo"

    def stop_at_stage2(step: Step) -> int:
        return 130 if step.name == "stage2" else run_step(step)

    monkeypatch.setattr(demonstration, "run_step", stop_at_stage2)
    assert run_demo(out) == 130
    done_before = (out / "stage1" / "metrics.json").stat().st_mtime_ns
    monkeypatch.setattr(demonstration, "run_step", run_step)
    assert run_demo(out) == 0
    assert (out / "stage1" / "metrics.json").stat().st_mtime_ns == done_before, "stage 1 was run twice"
    shown = capfd.readouterr().out
    scripts = [f"$ python run_{stage}.py recipes/demo/{stage}.yaml" for stage in ("stage1", "stage2")]
    for typed in (*(f"$ fla {name}" for name in ("prepare demo", "denoise", "trim", "score", "translate")), *scripts):
        assert typed in shown, typed
    assert "stage 1 (visual initialing)" in shown and "stage 2 (LLM fine-tuning)" in shown
    summary = json.loads((out / "summary.json").read_text())
    for stage in ("stage1", "stage2"):
        assert summary[stage].keys() == {*SCORES, "seconds"}
        assert all(isinstance(value, float) for value in summary[stage].values())
    assert summary["seconds"] > 0
    assert (out / "contact_sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert len(read_predictions(out / "stage2" / "predictions_test.tsv")) == 3


def test_the_ablations_are_the_recipes_of_the_papers_tables(tmp_path):
    plain, more = (demo_steps(tmp_path, 0, ablations) for ablations in (False, True))
    names = [step.name for step in more[len(plain) :]]
    assert names == ["joint", "untrained_encoder", "random_language_model", "one_run"]
    assert all(name in demonstration.ROWS for name in names)


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match="is not empty and no demo made it"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_a_failing_command_ends_the_demo_with_its_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demonstration, "run_step", lambda step: 2 if step.name == "denoise" else 0)
    assert run_demo(tmp_path / "demo") == 2
    assert "`denoise` ended with status 2" in capsys.readouterr().err


def test_the_makefile_runs_the_demo_command():
    dry = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert "fla demo" in dry.stdout


def fake_demo(calls, status=0):
    def run(out, seed, ablations, overwrite):
        calls.append(seed)
        if status:
            return status
        out.mkdir(parents=True)
        figures = {score: 80.0 + 10 * seed for score in (*SCORES, "seconds")}
        (out / "summary.json").write_text(json.dumps({"stage1": figures, "stage2": figures, "seconds": 1.0}))
        return 0

    return run


def test_several_seeds_are_compared_by_mean_and_deviation(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(demonstration, "run_demo", fake_demo(calls))
    assert run_seeds(tmp_path, [0, 1]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seeds"] == [0, 1] and summary["rows"]["stage2"]["bleu4"] == [80.0, 90.0]
    assert "| stage 2 (LLM fine-tuning) | 85.0 ± 7.1 |" in capsys.readouterr().out
    assert run_seeds(tmp_path, [0, 1, 2]) == 0
    assert calls == [0, 1, 2], "a finished seed was run again"
    assert "90.0 ± 10.0" in (tmp_path / "summary.md").read_text()


def test_several_seeds_stop_at_the_first_failure_and_refuse_a_seed_given_twice(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demonstration, "run_demo", fake_demo(calls, status=3))
    assert run_seeds(tmp_path, [4, 5]) == 3 and calls == [4]
    with pytest.raises(InputError, match="--seeds 1 1: a seed is given twice"):
        run_seeds(tmp_path, [1, 1])
