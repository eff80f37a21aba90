"""What every command does alike: its last line, `--quiet`, progress, and errors in one line."""

import io
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.pages import FRAMES, NETWORK, ONE_STEP
from tests.tiny_runs import ROOT, run
from training_fla.cli import COMMANDS, exit_status, main
from training_fla.console import Done, note, progress, size_text, time_text
from training_fla.errors import InputError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (None, 0, ""),
        (InputError("two\nlines"), 2, "fla: error: two lines"),
        (KeyboardInterrupt(), 130, "fla: interrupted"),
        (OSError(28, "No space left"), 2, "fla: error: the disk is full: [Errno 28] No space left; make room, then"),
    ],
)
def test_an_outcome_becomes_an_exit_status_and_one_line(error, status, line, capsys):
    def work(words):
        if error:
            raise error

    assert exit_status(work, [], "fla") == status
    assert capsys.readouterr().err.startswith(line)
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda words: 1 // 0, [], "fla")


def run_python(work: str, shell: str, **environment) -> subprocess.CompletedProcess:
    script = f"import sys\nfrom training_fla.cli import exit_status\nsys.exit(exit_status({work}, [], 'fla x'))"
    command = ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {shell}', sys.executable, script]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, encoding="utf-8")


def test_a_reader_that_leaves_ends_the_command_quietly():
    done = run_python("lambda words: [print(n, flush=True) for n in range(10**5)] and 0", "| head -n 1")
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 141)
    assert run_python("lambda words: print('x' * 10**6)", "| head -c 1").stderr == ""
    other = run_python("lambda words: (_ for _ in ()).throw(BrokenPipeError('a worker'))", "")
    assert "a worker" in other.stderr, "a pipe of the program's own"


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=str)
def test_output_is_utf8_whatever_the_locale(environment):
    done = run_python(r"lambda words: print('sch\xf6n \u4eca\u5929')", "", **environment)
    assert (done.stdout, done.stderr, done.returncode) == ("schön 今天\n", "", 0)


SMALL = "--width 64 --layers 1 --vocab-size 200 --max-steps 1 --warmup-steps 0 --batch-size 2"
ROAD = {
    "prepare": "demo --out corpus --num-train 4 --num-dev 2 --num-test 2 --clips 1 --size 24 --workers 0",
    "denoise": f"--text corpus/train.sentences.txt --out mbart {SMALL}",
    "trim": "--model mbart --sentences corpus/train.sentences.txt --language de_DE --out trimmed",
    "run_stage1": "recipes/demo/stage1.yaml --dataset corpus --tokenizer trimmed --output_dir stage1"
    f" {NETWORK}{ONE_STEP}{FRAMES}",
    "train": "stage2 recipes/demo/stage2.yaml --dataset corpus --language_model trimmed --stage1_checkpoint stage1"
    f" --output_dir stage2 {ONE_STEP}{FRAMES}",
    "features": "corpus --model stage1 --out stored",
    "report": "stage1 stage2 --out runs.html",
    "score": "stage2/predictions_test.tsv --corpus demo --samples 20 --html report.html",
    "translate": "stage2 corpus/clips",
    "live": "stage2 --source corpus/clips/test-00000.mp4 --out captions.vtt --device cpu",
    "inspect": "corpus/clips/test-00000.mp4 --model stage2 --out picture.html",
    "export": "stage2 --out exported",
    "push": "stage2 me/model --dry-run",
    "serve": "stage2 --write-space space",
    "demo": "--out demo",
    "ablate": "table6 --recipes recipes/phoenix14t --out ablations",
}
PRINTS = {"run_stage1", "train", "trim", "score", "translate", "push"}


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """What each command of the road prints on stdout and stderr, which are no terminals, and with `--quiet`."""
    from transformers.utils import logging

    from experiments import ablation, demonstration
    from training_fla import exporting

    logging.disable_progress_bar()  # which only a process of its own does by itself: see below
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        printed["folder"] = tmp_path_factory.mktemp("road")
        patch.chdir(printed["folder"])
        os.symlink(ROOT / "recipes", "recipes")
        patch.setattr(demonstration, "run_demo", lambda *args, **options: 0)
        patch.setattr(exporting, "export_model", lambda *args, **options: 1e-6)  # tests/test_exporting.py
        patch.setattr(ablation, "run_table", lambda *args, **options: 0)
        for name, words in ROAD.items():
            overwrite = [] if name in ("translate", "push", "ablate") else ["--overwrite"]
            for quiet in ([], ["--quiet"]):
                patch.setattr(sys, "stdout", out := io.StringIO())
                patch.setattr(sys, "stderr", err := io.StringIO())
                argv = [*shlex.split(words), *overwrite, *quiet]
                status = run(name, *argv) if name.startswith("run_") else main([name, *argv])
                printed[name, bool(quiet)] = status, out.getvalue(), err.getvalue()
    return printed


def test_the_road_walks_every_command():
    assert ROAD.keys() - {"run_stage1"} == COMMANDS.keys(), "add the new command to ROAD"


@pytest.mark.parametrize("name", ROAD)
def test_a_command_ends_with_what_it_made_and_what_to_type_next(name, walked):
    status, _, err = walked[name, False]
    assert status == 0
    last = err.splitlines()[-1]
    assert re.fullmatch(r"\S.* \((\d+\.\d s|\d+ min \d+ s)\)(; next: \S.*)?", last), last
    assert "; next: " in last or name in ("score", "live", "inspect", "ablate", "report"), last


@pytest.mark.parametrize("name", ROAD)
def test_quiet_leaves_results_alone(name, walked):
    (_, loud, _), (status, out, err) = walked[name, False], walked[name, True]
    assert (status, err) == (0, "")
    assert bool(out) == (name in PRINTS) or name == "inspect", "an untrained model's sentence may be empty"
    assert re.sub(r"\d+\.\d+", "", out) == re.sub(r"\d+\.\d+", "", loud)


@pytest.mark.parametrize("name", ROAD)
def test_no_control_characters_go_where_there_is_no_terminal(name, walked):
    for quiet in (False, True):
        for text in walked[name, quiet][1:]:
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), text


def test_bars_of_libraries_do_not_come_through(walked, tmp_path):
    words = shlex.split(ROAD["trim"].replace("trimmed", str(tmp_path / "trimmed")))
    command = [sys.executable, "-m", "training_fla.cli", "trim", *words]
    done = subprocess.run(command, cwd=walked["folder"], capture_output=True, text=True)
    assert done.returncode == 0 and "\r" not in done.stderr and "Loading" not in done.stderr, done.stderr


def test_errors_stay_with_quiet(capsys):
    assert main(["inspect", "--quiet", "nowhere.mp4"]) == 2
    assert capsys.readouterr().err == "fla inspect: error: there is no clip nowhere.mp4\n"
    note("told")
    assert capsys.readouterr().err == "told\n", "the next command is not quiet"


def test_a_command_that_another_starts_is_quiet_too(capfd):
    code = "from training_fla.console import note; note('not to be seen')"
    exit_status(lambda words: subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode, ["--quiet"], "fla")
    assert capfd.readouterr().err == ""


def test_the_last_line_carries_status_and_next_command(capsys):
    assert exit_status(lambda words: Done("two of three", "try again", 2), [], "fla") == 2
    assert capsys.readouterr() == ("", "two of three (0.0 s); next: try again\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tqdm reads and tests move."""
    from tqdm import tqdm

    now = [0.0]
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", err := io.StringIO())
    for _ in progress(range(100), desc="packing", unit="clip"):
        clock[0] += 1.0
    lines = err.getvalue().splitlines()
    assert [line.split(" [")[0] for line in lines] == [f"packing: {n}/100" for n in (2, 4, 8, 16, 32, 62, 92, 100)]
    assert lines[0] == "packing: 2/100 [00:02<01:38,  1.00clip/s]"


def test_progress_names_no_total_that_is_not_known(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", err := io.StringIO())
    for _ in progress(iter(range(5)), desc="pauses", unit="frame"):
        clock[0] += 1.0
    assert err.getvalue().splitlines()[0] == "pauses: 2 [00:02,  1.00frame/s]"


def test_what_is_done_in_two_seconds_shows_no_progress(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", err := io.StringIO())
    for _ in progress(range(3), desc="packing"):
        clock[0] += 0.5
    assert err.getvalue() == ""


def test_on_a_terminal_progress_is_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", err := Terminal())
    list(progress(range(3), desc="packing", unit="clip"))
    assert "\rpacking: 100%|" in err.getvalue()


@pytest.mark.parametrize(
    ("number", "text"), [(812, "812 bytes"), (4_520, "4.5 kB"), (4_520_000, "4.5 MB"), (1_234_000_000, "1.2 GB")]
)
def test_sizes_are_in_units_people_read(number, text):
    assert size_text(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(4.25, "4.2 s"), (59.96, "1 min 0 s"), (200, "3 min 20 s"), (7502, "2 h 5 min")]
)
def test_times_are_in_units_people_read(number, text):
    assert time_text(number) == text
