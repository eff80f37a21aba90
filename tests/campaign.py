"""Kill commands and damage files at random: `python -m tests.campaign --files 20000 --kills 300 --seed 0`.

A command that is killed by SIGKILL and given again ends at the same bytes as one that nobody disturbed. A damaged
video, table or packed folder is read, or refused by an error that names it, within ten seconds. Whatever else happens
is a finding; the last lines are a table of both.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import video_campaign
from tests.tiny_runs import ROOT, STAGE1, STAGE2
from tests.video_campaign import SECONDS, TooSlowError, damaged
from training_fla.corpora.manifest import read_manifest
from training_fla.data.packed_corpus import PackedCorpus, packed_splits
from training_fla.errors import InputError
from training_fla.viewing.reading_process import ReadingProcess

LIMIT_SECONDS = 600  # for one command
CLIPS = ("--num-train", "11", "--num-dev", "3", "--num-test", "3", "--size", "24")
SMALL_MBART = ("--width", "64", "--layers", "1", "--vocab-size", "120", "--batch-size", "4")
STEPS = {"max_steps": 30, "eval_steps": 5, "save_steps": 5, "save_total_limit": 2}


@dataclass
class Command:
    """A command line, what resumes it, and the files that must come out the same."""

    words: list[str]
    resume: tuple[str, ...]
    out: Path | None  # `None`: it writes nothing, and is compared by what it prints
    files: str = "*"


def commands(folder: Path) -> dict[str, Command]:
    """What is killed, in the order in which one needs the other's output."""
    made = {name: folder / name for name in ("corpus", "mbart", "trimmed", "stage1", "stage2")}
    text = str(made["corpus"] / "train.sentences.txt")
    for stage, recipe in (("stage1", STAGE1), ("stage2", STAGE2)):
        kept = [line for line in recipe.splitlines() if line.split(":")[0] not in {*STEPS, "num_train_epochs"}]
        lines = "\n".join([f"dataset: {made['corpus']}", *kept, *(f"{name}: {n}" for name, n in STEPS.items())])
        (folder / f"{stage}.yaml").write_text(f"{lines}\n")
    fla, python = [sys.executable, "-m", "training_fla.cli"], sys.executable
    started = ["--stage1_checkpoint", str(made["stage1"]), "--tokenizer", str(made["stage1"])]
    run1 = [python, f"{ROOT}/run_stage1.py", f"{folder}/stage1.yaml", "--output_dir", str(made["stage1"])]
    run2 = [python, f"{ROOT}/run_stage2.py", f"{folder}/stage2.yaml", "--output_dir", str(made["stage2"]), *started]
    denoise = [*fla, "denoise", "--text", text, "--out", str(made["mbart"]), *SMALL_MBART]
    trim = [*fla, "trim", "--model", str(made["mbart"]), "--sentences", text, "--out", str(made["trimmed"])]
    return {
        "prepare": Command([*fla, "prepare", "demo", *CLIPS, "--out", str(made["corpus"])], (), made["corpus"]),
        "denoise": Command(
            [*denoise, "--max-steps", "40", "--save-steps", "10"], ("--resume",), made["mbart"], "*.safetensors"
        ),
        "trim": Command(trim, (), made["trimmed"]),
        "run_stage1": Command(run1, ("--resume",), made["stage1"], "model.safetensors"),
        "run_stage2": Command(run2, ("--resume",), made["stage2"], "model.safetensors"),
        "push --dry-run": Command([*fla, "push", str(made["stage2"]), "owner/name", "--dry-run"], (), None),
    }


def start(words: Sequence[str]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def outcome(command: Command, process: subprocess.Popen) -> str:
    """What a command that ended has made: a hash of its files, or the words in which it failed."""
    out, error = process.communicate(timeout=LIMIT_SECONDS)
    if process.returncode:
        last = (error.strip().splitlines() or ["nothing on stderr"])[-1]
        return f"status {process.returncode}: {last}"
    digest = hashlib.sha256(b"" if command.out else out.encode())
    for file in sorted(command.out.rglob(command.files)) if command.out else ():
        if file.is_file() and "checkpoint-" not in str(file):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def clear(command: Command) -> None:
    """Remove what a command wrote, finished or not."""
    for path in command.out.parent.glob(f"*{command.out.name}*") if command.out else ():
        if path.is_dir():
            shutil.rmtree(path)


def kill_commands(num_kills: int, folder: Path, moments: random.Random, report: "Report") -> None:
    """Kill each command equally often, one to three times before it may end."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = commands(folder)
    for place, (name, command) in enumerate(todo.items()):
        clear(command)
        began = time.monotonic()
        right = outcome(command, start(command.words))
        seconds = time.monotonic() - began
        if right.startswith("status"):
            raise SystemExit(f"{name} fails undisturbed: {right}")
        left = len(range(place, num_kills, len(todo)))
        while left:
            clear(command)
            words, killed_at = command.words, []
            for _ in range(min(left, moments.randint(1, 3))):
                process = start(words)
                killed_at.append(round(moments.uniform(0, seconds), 2))
                time.sleep(killed_at[-1])
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                words = [*command.words, *command.resume]
            left -= len(killed_at)
            found = "resumed to the same bytes"
            try:
                end = outcome(command, start(words))
            except subprocess.TimeoutExpired:
                end = f"more than {LIMIT_SECONDS} s"
            # Killed after its end, a run needs no resuming, and a folder is there already.
            if end != right and "holds" in end and "already" in end:
                end = right
            if end != right:
                found = "another end"
                report.finding(f"{name} killed after {killed_at} s: {end} instead of {right}")
            report.count(f"kill {name}", found, len(killed_at))
            for leftover in folder.glob(".*.writing"):
                report.finding(f"{name} killed after {killed_at} s left {leftover.name}")
                shutil.rmtree(leftover)


class Report:
    """Counts and findings; findings are printed as they come."""

    def __init__(self):
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.longest: Counter = Counter()
        self.findings: list[str] = []

    def count(self, what: str, outcome: str, number: int = 1) -> None:
        self.counts[what][outcome] += number

    def finding(self, text: str) -> None:
        self.findings.append(text)
        print(f"FINDING {text}", flush=True)

    def table(self) -> str:
        lines = [f"{'what':<24}{'number':>8}  {'longest':>8}  outcomes"]
        for what, counts in self.counts.items():
            told = ", ".join(f"{outcome} {number}" for outcome, number in counts.most_common())
            longest = f"{self.longest[what]:.1f} s" if what in self.longest else ""
            lines.append(f"{what:<24}{sum(counts.values()):>8}  {longest:>8}  {told}")
        return "\n".join([*lines, f"findings: {len(self.findings)}"])


def table_texts() -> dict[str, bytes]:
    """A good table of each kind."""
    rows = [{"video": f"{n}.mp4", "sentence": f"es regnet {n}", "start": n / 2, "end": n + 1.5} for n in range(8)]
    names = list(rows[0])
    tables = {
        f"table.{ending}": "\n".join([mark.join(names), *(mark.join(map(str, row.values())) for row in rows)])
        for ending, mark in (("csv", ","), ("tsv", "\t"))
    }
    tables["table.jsonl"] = "\n".join(map(json.dumps, rows))
    tables["table.json"] = json.dumps(rows, indent=1)
    return {name: text.encode() for name, text in tables.items()}


def read_table(path: Path) -> int:
    return len(read_manifest(path))


def read_corpus(folder: Path) -> int:
    """Every clip of every split."""
    count = 0
    for split in packed_splits(folder):
        corpus = PackedCorpus(folder, split)
        for index in range(len(corpus)):
            corpus.read_frames(index, range(corpus.num_frames[index]))
            count += 1
    return count


def damage(what: str, files: int, seed: int, report: Report, make: Callable, read: Callable) -> None:
    """Have damaged files read in a process that may crash; `make(draw)` writes one and gives path and content."""
    import numpy as np

    draw, process = np.random.default_rng(seed), ReadingProcess()
    for number in range(files):
        path = make(draw)
        began = time.monotonic()

        def check(began: float = began) -> None:
            if time.monotonic() > began + SECONDS:
                raise TooSlowError(f"more than {SECONDS} s")

        try:
            process.call(read, path, name=path, check=check)
            outcome = "read"
        except InputError as error:
            outcome = "refused" if str(path) in str(error) else "refused without its name"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        report.count(what, outcome.split(":")[0])
        report.longest[what] = max(report.longest[what], time.monotonic() - began if number else 0)
        if outcome not in ("read", "refused"):
            kept = path.parent / f"finding-{what.split()[-1]}-{number}{path.suffix}"
            shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
            report.finding(f"{kept}: {outcome}")
    process.end()


def damage_files(num_files: int, folder: Path, seed: int, report: Report) -> None:
    """Half of the files are videos, a quarter tables and a quarter packed folders."""
    counts, longest, findings = video_campaign.run(num_files // 2, seed, folder / "videos")
    report.counts["damaged videos"].update(counts)
    report.longest["damaged videos"] = longest
    report.findings += findings

    tables = table_texts()
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for number in range(8):
        (folder / f"tables/{number}.mp4").touch()

    def make_table(draw) -> Path:
        name = str(draw.choice(list(tables)))
        path = folder / "tables" / name
        path.write_bytes(damaged(tables[name], draw))
        return path

    damage("damaged tables", num_files // 4, seed, report, make_table, read_table)

    from tests.tiny_runs import pack_demo

    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    pack_demo(whole, num_train=4, num_dev=2, num_test=2)
    copy = folder / "packed"
    contents = {file.name: file.read_bytes() for file in whole.iterdir() if file.suffix in (".json", ".arrow")}

    def make_corpus(draw) -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        hurt = str(draw.choice(list(contents)))
        for name, content in contents.items():
            (copy / name).write_bytes(damaged(content, draw) if name == hurt else content)
        return copy

    damage(
        "damaged packed folders", num_files - num_files // 2 - num_files // 4, seed, report, make_corpus, read_corpus
    )


def run(num_files: int, num_kills: int, seed: int, folder: Path) -> Report:
    report = Report()
    if num_files:
        damage_files(num_files, folder / "files", seed, report)
    if num_kills:
        kill_commands(num_kills, folder / "kills", random.Random(seed), report)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fla-campaign"), help="findings are kept here")
    given = parser.parse_args()
    report = run(given.files, given.kills, given.seed, given.folder)
    print(report.table())
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
