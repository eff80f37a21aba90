"""Commands as a person would type them, printed and run from a clone of the repository, and runs of its scripts."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_fla.clone import ROOT
from training_fla.console import note
from training_fla.folders import check_folder, read_marker, write_marker, write_text
from training_fla.hub.card import read_facts
from training_fla.training.plots import Panel, save_picture

LOAD = Path("/proc/loadavg")  # on Linux alone


@dataclass
class Run:
    """One run of one script: the corpus's recipe of the stage and further lines."""

    folder: Path
    script: str
    recipe: Path
    lines: dict[str, Any]

    def values(self) -> dict[str, str]:
        """The lines as a person would type them."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.lines.items()}

    def command(self) -> list[str]:
        """The run as a person would type it, without the launcher."""
        words = [word for key, value in self.values().items() for word in (f"--{key}", value)]
        return [self.script, str(self.recipe), *words, "--output_dir", str(self.folder)]

    def report(self) -> dict[str, Any]:
        """What the finished run left in `metrics.json`."""
        return read_facts(self.folder / "metrics.json")


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
