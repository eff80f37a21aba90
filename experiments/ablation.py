"""`fla ablate` runs the rows of a table of the paper, one recipe a stage, and prints our scores beside the paper's."""

import dataclasses
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.running import own_folder, run_command, show_table
from training_fla.clone import ROOT
from training_fla.files import InputError, write_text
from training_fla.hub.card import read_facts
from training_fla.recipe import STAGES, VisualArguments, read_lines, read_overrides
from training_fla.tables import mean_and_deviation, moments
from training_fla.training.plots import Panel
from training_fla.viewing.paper_tables import SCORES, TABLES, Row

# The differences are the same lines for every corpus; they are written where the paper made its tables.
DIFFERENCES = ROOT / "recipes" / "phoenix14t" / "ablations"
JOURNAL = "ablation_runs.json"
# A stage 2 that trains the visual encoder augments as stage 1 does; one that does not reads stored features.
AUGMENTING = ("random_frame_phase", "augmentation_probability", "rotate_degrees", "resize_factor", "translate_pixels")


@dataclass
class Ablation:
    """What to run, where, and how."""

    recipes: Path  # holds `stage1.yaml` and `stage2.yaml` of the corpus
    out: Path  # runs are shared by all tables that need them
    overrides: dict[str, Any]  # recipe lines for every run of a stage that knows them
    launcher: list[str]  # before the script's name; empty: this Python
    seeds: list[int]


@dataclass
class Run:
    """One run of one script: the corpus's recipe of the stage and further lines."""

    folder: Path
    script: str
    recipe: Path
    lines: dict[str, Any]

    def command(self) -> list[str]:
        """The run as a person would type it, without the launcher."""
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.lines.items()}
        words = [word for key, value in values.items() for word in (f"--{key}", value)]
        return [self.script, str(self.recipe), *words, "--output_dir", str(self.folder)]

    def report(self) -> dict[str, Any]:
        """What the finished run left in `metrics.json`."""
        return read_facts(self.folder / "metrics.json")


def make_ablation(recipes: Path, out: Path, words: list[str], launcher: str, seeds: list[int]) -> Ablation:
    """Check what the command line gave."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise InputError(f"--set takes name=value, got {wrong[0]}")
    overrides = read_overrides([f"--{word}" for word in words])
    for name in ("seed", "output_dir", "resume", "overwrite", "stage1_checkpoint"):
        if name in overrides:
            raise InputError(f"{name} is chosen by `fla ablate`; see its --out and --seeds")
    for stage in STAGES:
        if not (recipes / f"{stage}.yaml").is_file():
            raise InputError(f"{recipes} has no {stage}.yaml")
    return Ablation(recipes, out, overrides, shlex.split(launcher), seeds)


def differences(name: str, recipes: Path = DIFFERENCES.parent) -> dict[str, Any]:
    """The lines in which a row's recipe, the corpus's own if it has one, differs from its stage's."""
    if name in STAGES:
        return {}
    stage, own, plain = STAGES[name[:6]], recipes / "ablations" / f"{name}.yaml", f"{name[:6]}.yaml"
    file = own if own.is_file() else DIFFERENCES / own.name
    whole, base = read_lines(stage, file), read_lines(stage, file.parents[1] / plain)
    lines = {key: value for key, value in whole.items() if key not in base or base[key] != value}
    if {"dataset", "output_dir"} & lines.keys():
        raise InputError(f"{file} is no row of ../{plain}: that must be its base")
    if file != own:
        lines.pop("imagenet_weights", None)  # the corpus has its own start of the backbone, which may be none
        if "language_model" in lines and read_lines(stage, recipes / plain)["dataset"] != base["dataset"]:
            raise InputError(f"{lines['language_model']} is cut to PHOENIX14T; write {own}, with base: ../{plain}")
    return lines


def runs_of(row: Row, ablation: Ablation, seed: int) -> list[Run]:
    """The one or two runs a row needs, in order; the last one's scores are the row's."""
    folder, runs = ablation.out / f"seed-{seed}", []
    if row.stage1:
        runs.append(plan(folder / row.stage1, row.stage1, ablation, seed, {}))
    if row.stage2:
        start = {"stage1_checkpoint": str(folder / row.stage1)} if row.stage1 else {}
        runs.append(plan(folder / row.folder, row.stage2, ablation, seed, stage2_lines(row, ablation) | start))
    return runs


def stage2_lines(row: Row, ablation: Ablation) -> dict[str, Any]:
    """What stage 2 takes over from stage 1's recipe: its augmentation, or the encoder it would have trained."""
    first, second = (read_lines(stage, ablation.recipes / f"{name}.yaml") for name, stage in STAGES.items())
    lines = second | differences(row.stage2, ablation.recipes)
    names: list[str] = []
    if not (lines.get("freeze_vision_backbone", True) and lines.get("freeze_temporal_module", True)):
        names += [name for name in AUGMENTING if name not in second]
    if not row.stage1:
        names += [field.name for field in dataclasses.fields(VisualArguments)]
    taken = {name: first[name] for name in names if name in first}
    return taken if row.stage1 else {"imagenet_weights": None} | taken


def plan(folder: Path, name: str, ablation: Ablation, seed: int, lines: dict[str, Any]) -> Run:
    """One run of a named recipe on the ablation's corpus; what makes the row wins over everything else."""
    stage = name[:6]
    lines = lines | given_lines(stage, ablation) | {"seed": seed} | differences(name, ablation.recipes)
    return Run(folder, f"run_{stage}.py", ablation.recipes / f"{stage}.yaml", lines)


def given_lines(stage: str, ablation: Ablation) -> dict[str, Any]:
    """The lines of `--set` that a stage knows."""
    fields = {name: {f.name for f in dataclasses.fields(kind)} for name, kind in STAGES.items()}
    only_other = set.union(*fields.values()) - fields[stage]
    return {key: value for key, value in ablation.overrides.items() if key not in only_other}


def run_table(table: str, ablation: Ablation) -> int:
    """Run what is not done yet of a table, then write and print it; 0, or the exit status of the run that failed."""
    plans = {row.label: [runs_of(row, ablation, seed) for seed in ablation.seeds] for row in TABLES[table].rows}
    own_folder(ablation.out, "ablation", ablation.out / JOURNAL)
    for run in (run for seeds in zip(*plans.values(), strict=True) for runs in seeds for run in runs):
        status = run_once(run, ablation)
        if status:
            return status
    reports = {label: [[run.report() for run in runs] for runs in seeds] for label, seeds in plans.items()}
    panels = [epoch_panel(reports)] if table == "figure4" else []
    title = f"{table}: {TABLES[table].title}; {len(ablation.seeds)} seed(s)"
    show_table(ablation.out / f"{table}.md", table_rows(table, reports), title, panels)
    return 0


def run_once(run: Run, ablation: Ablation) -> int:
    """Run, resume or skip, and note what was run; the exit status, 0 for a run that is already done."""
    journal = ablation.out / JOURNAL
    noted = read_facts(journal)
    key, command = str(run.folder.relative_to(ablation.out)), run.command()
    if noted.get(key, command) != command:
        raise InputError(f"{run.folder} was run with other arguments ({shlex.join(noted[key])}); choose another --out")
    if (run.folder / "metrics.json").is_file():
        return 0
    write_text(journal, json.dumps(noted | {key: command}, indent=1))
    status = run_command(command + (["--resume"] if run.folder.exists() else []), ablation.launcher)
    if status:
        print(f"fla ablate: {run.folder} ended with status {status}; the same command goes on", file=sys.stderr)
    return status


def table_rows(table: str, reports: dict[str, list[list[dict]]]) -> list[list[str]]:
    """The table, its head first: the paper's figures, then ours as mean ± deviation over the seeds."""
    hours = TABLES[table].stage1_hours
    head = ["", *(f"{name} paper" for name in SCORES), *(f"{name} ours" for name in SCORES)]
    head += ["stage 1 hours paper", "stage 1 hours ours"] if hours else []
    rows = [head]
    for row, seeds in zip(TABLES[table].rows, reports.values(), strict=True):
        cells = [row.label, *(f"{row.paper_scores[n]:.2f}" if n in row.paper_scores else "" for n in SCORES)]
        cells += [mean_and_deviation([runs[-1]["test"][score] for runs in seeds]) for score in SCORES.values()]
        if hours:
            ours = mean_and_deviation([runs[0]["train"]["seconds"] / 3600 for runs in seeds])
            cells += [f"{hours[row.label]:.2f}", ours]
        rows.append(cells)
    return rows


def epoch_panel(reports: dict[str, list[list[dict]]]) -> Panel:
    """Figure 4 of BLEU-4 of every seed, by labels such as `75, stage 2`: one curve a stage."""
    lines = {}
    for stage, name in {"stage 1": "visual initialing stage", "stage 2": "LLM fine-tuning stage"}.items():
        points = {int(label.split(",")[0]): seeds for label, seeds in reports.items() if label.endswith(stage)}
        scores = {epochs: [runs[-1]["test"]["bleu4"] for runs in seeds] for epochs, seeds in points.items()}
        lines[name] = [(epochs, *moments(values)) for epochs, values in scores.items()]
    return Panel("test BLEU-4 (0 to 100)", "epochs of visual initialing", lines)
