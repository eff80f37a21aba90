"""Commands of a study, printed and run from a clone of the repository, and their log: a killed study goes on."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_fla.clone import ROOT
from training_fla.console import note
from training_fla.errors import InputError
from training_fla.folders import check_folder, read_marker, write_marker, write_text
from training_fla.hub.card import read_facts
from training_fla.training.plots import Panel, save_picture
from training_fla.viewing.report import FinishedRun

LOG = "commands.json"
LOAD = Path("/proc/loadavg")  # on Linux alone


@dataclass
class Step:
    """One command of a study, as a person would type it, and what it writes."""

    name: str
    command: list[str]
    output: Path | None = None


@dataclass
class Run:
    """A training run of a study: a recipe of a stage, and lines that change it."""

    folder: Path
    stage: str
    recipe: Path
    lines: dict[str, Any]

    @property
    def finished(self) -> FinishedRun:
        """What the run left in its folder."""
        return FinishedRun(self.folder)

    def values(self) -> dict[str, str]:
        """The lines as a person would type them."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.lines.items()}

    def step(self, study: Path) -> Step:
        """Its command in a study of that folder."""
        words = [word for key, value in self.values().items() for word in (f"--{key}", value)]
        command = [f"run_{self.stage}.py", str(self.recipe), *words, "--output_dir", str(self.folder)]
        return Step(str(self.folder.relative_to(study)), command, self.folder)


@dataclass
class CommandLog:
    """The steps of a study that began, with their commands, and the seconds of those that ended: `commands.json`."""

    folder: Path
    study: str  # the command that runs it
    launcher: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  # that of the user wins
    replaces: bool = False  # what stands in the output of a step that has not begun; else a run resumes it

    def __post_init__(self):
        self.entries: dict[str, dict[str, Any]] = read_facts(self.folder / LOG)

    def seconds(self, name: str) -> float | None:
        """How long a step took, if it has ended."""
        return self.entries.get(name, {}).get("seconds")

    def check(self, steps: Iterable[Step], remedy: str = "choose another --out") -> None:
        """Refuse steps that began with other arguments."""
        for step in steps:
            began = self.entries.get(step.name, {}).get("command", self.logged(step.command))
            if began != self.logged(step.command):
                where = self.folder / step.name
                raise InputError(f"{where} was run with other arguments ({shlex.join(began)}); {remedy}")

    def run(self, steps: Iterable[Step]) -> int:
        """Run, in order, the steps that have not ended; the exit status of the one that failed, or 0."""
        for step in steps:
            if self.seconds(step.name) is not None:
                continue
            words = self.words(step)
            start = time.perf_counter()
            self.write(step, seconds=None)
            status = run_command(words, self.launcher, self.environment)
            if status:
                print(
                    f"{self.study}: `{step.name}` ended with status {status}; the same command goes on",
                    file=sys.stderr,
                )
                return status
            self.write(step, seconds=round(time.perf_counter() - start, 1))
        return 0

    def words(self, step: Step) -> list[str]:
        """The command; what stands in its output is resumed or replaced by the command itself."""
        if step.output is None or not step.output.exists():
            return step.command
        is_script = step.command[0].endswith(".py")
        is_resumed = is_script and (step.name in self.entries or not self.replaces)
        return [*step.command, "--resume" if is_resumed else "--overwrite"]

    def write(self, step: Step, seconds: float | None) -> None:
        """Note a step as begun, or as ended."""
        self.entries[step.name] = {"command": self.logged(step.command), "seconds": seconds}
        write_text(self.folder / LOG, json.dumps(self.entries, indent=1) + "\n")

    def logged(self, command: list[str]) -> list[str]:
        """A command without the place of the study, which may be moved."""
        return [word.replace(str(self.folder), "OUT") for word in command]

    def clear(self) -> None:
        """All steps are to run again."""
        (self.folder / LOG).unlink(missing_ok=True)
        self.entries = {}


def run_command(words: Sequence[str], launcher: Sequence[str] = (), defaults: Mapping[str, str] | None = None) -> int:
    """Print and run `fla ...` or a script of the repository; the user's environment wins over `defaults`."""
    is_script = words[0].endswith(".py")
    note(f"\n$ {shlex.join([*(launcher or ['python']), *words] if is_script else words)}")
    program = [str(ROOT / words[0])] if is_script else ["-m", "training_fla.cli"]
    is_ours = [word.startswith("recipes/") and not Path(word).exists() for word in words]
    arguments = [str(ROOT / word) if ours else word for word, ours in zip(words, is_ours, strict=True)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**(defaults or {}), **os.environ, "PYTHONPATH": path}
    return subprocess.run([*(launcher or [sys.executable]), *program, *arguments[1:]], env=environment).returncode


def num_threads() -> int:
    """One thread, or two where two cores are idle: OpenMP threads spin while they wait, slow on busy cores."""
    cores, running = os.cpu_count() or 1, []
    for _ in range(5 if LOAD.exists() else 0):
        running.append(int(LOAD.read_text().split()[3].partition("/")[0]) - 1)  # without this process
        time.sleep(0.1)
    return 2 if cores - min(running, default=cores) >= 2 else 1


def own_folder(out: Path, kind: str, file: Path) -> None:
    """Make and mark a folder of runs; refuse one that holds something and neither our marker nor `file`."""
    if (read_marker(out) or {}).get("kind") != kind and not file.exists():
        check_folder(out, kind)
    out.mkdir(parents=True, exist_ok=True)
    write_marker(out, kind)


def show_table(file: Path, rows: list[list[str]], title: str = "", panels: Sequence[Panel] = ()) -> None:
    """Write a table, its head first, in Markdown, print it, and draw what belongs to it."""
    head, *others = ("| " + " | ".join(row) + " |" for row in rows)
    lines = [*([title, ""] if title else []), head, "|---" * len(rows[0]) + "|", *others]
    write_text(file, "\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    if panels:
        save_picture(panels, file.with_suffix(".png"))
        print(f"\ndrawn as {file.with_suffix('.png')}")
