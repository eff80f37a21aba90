"""The log of a study's commands: what ended is not run again, what changed is refused, that of 0.3.0 is read."""

import json

import pytest

from experiments import ablation, demonstration, running
from experiments.ablation import Ablation
from experiments.running import CommandLog, Step
from training_fla.errors import InputError


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What is run; `fail` among the words fails."""
    done = []

    def run(words, launcher, environment):
        done.append(words)
        return 3 if "fail" in words else 0

    monkeypatch.setattr(running, "run_command", run)
    return done


def test_a_killed_study_goes_on_where_it_was_also_after_it_was_moved(tmp_path, commands, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()

    def steps(out, second):
        return [
            Step("first", ["fla", "trim", str(out / "x")]),
            Step("second", ["run_stage1.py", second, str(out)], out),
        ]

    assert CommandLog(old, "fla demo").run(steps(old, "fail")) == 3
    assert "`second` ended with status 3; the same command goes on" in capsys.readouterr().err
    old.rename(new)
    log = CommandLog(new, "fla demo")
    assert log.seconds("first") is not None and log.seconds("second") is None
    log.check(steps(new, "fail"))
    with pytest.raises(InputError, match="second .*fail.*--overwrite"):
        log.check(steps(new, "well"), remedy="pass --overwrite")
    log.run(steps(new, "fail"))
    assert commands[2:] == [["run_stage1.py", "fail", str(new), "--resume"]], "the first is not run again"
    log.clear()
    assert not list(new.iterdir()) and log.seconds("first") is None


def test_what_stands_in_an_output_is_replaced_only_by_a_study_that_made_all_of_it(tmp_path):
    script, other = Step("run", ["run_stage1.py"], tmp_path), Step("pack", ["fla", "prepare"], tmp_path)
    assert CommandLog(tmp_path, "fla demo", replaces=True).words(script)[-1] == "--overwrite"
    assert CommandLog(tmp_path, "fla ablate").words(script)[-1] == "--resume"
    assert CommandLog(tmp_path, "fla ablate").words(other)[-1] == "--overwrite"


def test_the_log_of_an_ablation_of_030_is_read(tmp_path):
    lines = {name: ["run_stage1.py", "--output_dir", f"{tmp_path}/{name}"] for name in ("seed-0/a", "seed-0/b")}
    (tmp_path / "ablation_runs.json").write_text(json.dumps(lines))
    (tmp_path / "seed-0" / "a").mkdir(parents=True)
    (tmp_path / "seed-0" / "a" / "metrics.json").write_text('{"seconds": 7.5}')
    log = ablation.open_log(Ablation(tmp_path, tmp_path, {}, [], [0]))
    assert log.seconds("seed-0/a") == 7.5 and log.seconds("seed-0/b") is None
    log.check([Step("seed-0/b", lines["seed-0/b"])])
    with pytest.raises(InputError, match="was run with other arguments"):
        log.check([Step("seed-0/b", ["run_stage1.py"])])


def test_the_log_of_a_demo_of_030_is_read(tmp_path):
    kept = {"seed": 3, "seconds": {"prepare": 4.5}, "started": ["prepare", "denoise"]}
    (tmp_path / "steps.json").write_text(json.dumps(kept))
    log = demonstration.open_log(tmp_path)
    assert log.entries.keys() == {"prepare", "denoise"} and log.seconds("prepare") == 4.5
    log.check(demonstration.demo_steps(tmp_path, 3, ablations=False))
    with pytest.raises(InputError, match="prepare was run with other arguments"):
        log.check(demonstration.demo_steps(tmp_path, 4, ablations=False))
