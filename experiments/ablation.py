"""`fla ablate` runs the rows of a table of the paper, one recipe a stage, and prints our scores beside the paper's."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.comparing import table_of
from experiments.running import Run, own_folder, run_command, show_table
from training_fla.clone import ROOT
from training_fla.console import note
from training_fla.errors import InputError
from training_fla.folders import write_text
from training_fla.hub.card import read_facts
from training_fla.recipe import (
    STAGES,
    VisualArguments,
    clips_a_step,
    default_lines,
    override,
    read_lines,
    read_overrides,
    read_recipe,
    typed_lines,
)
from training_fla.viewing.paper_tables import TABLES, Row

# The differences are the same lines for every corpus; they are written where the paper made its tables.
DIFFERENCES = ROOT / "recipes" / "phoenix14t" / "ablations"
JOURNAL = "ablation_runs.json"
# Lines of a row that no corpus's own recipe need share: places, and what changes nothing that is learnt.
UNCOMPARED = {"stage1_checkpoint", "language_model", "language_code", "norm_logging_steps"}
RATES = ("learning_rate", "adapter_learning_rate", "visual_learning_rate")
# A stage 2 that trains the visual encoder augments as stage 1 does, as does one that says so; another reads features.
AUGMENTING = ("random_frame_phase", "augmentation_probability", "rotate_degrees", "resize_factor", "translate_pixels")


@dataclass
class Ablation:
    """What to run, where, and how."""

    recipes: Path  # holds `stage1.yaml` and `stage2.yaml` of the corpus
    out: Path  # runs are shared by all tables that need them
    overrides: dict[str, Any]  # recipe lines for every run of a stage that knows them
    launcher: list[str]  # before the script's name; empty: this Python
    seeds: list[int]


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


def stage_of(name: str) -> str:
    """The stage of a row's recipe: its name begins with it."""
    return name.partition("_")[0]


def differences(name: str, recipes: Path = DIFFERENCES.parent) -> dict[str, Any]:
    """The lines in which a row's recipe, the corpus's own if it has one, differs from its stage's."""
    if name in STAGES:
        return {}
    stage, plain = STAGES[stage_of(name)], f"{stage_of(name)}.yaml"
    own = recipes / "ablations" / f"{name}.yaml"
    file = own if own.is_file() else DIFFERENCES / own.name
    whole, base = read_lines(stage, file), read_lines(stage, file.parents[1] / plain)
    lines = {key: value for key, value in whole.items() if key not in base or base[key] != value}
    if {"dataset", "output_dir"} & lines.keys():
        raise InputError(f"{file} is no row of ../{plain}: that must be its base")
    if file != own:
        lines.pop("imagenet_weights", None)  # the corpus has its own start of the backbone, which may be none
        corpus = read_lines(stage, recipes / plain)
        if "language_model" in lines and corpus["dataset"] != base["dataset"]:
            raise InputError(f"{lines['language_model']} is cut to PHOENIX14T; write {own}, with base: ../{plain}")
        check_meaning(name, lines, base, corpus, own)
    return lines


def check_meaning(name: str, lines: dict[str, Any], base: dict[str, Any], corpus: dict[str, Any], own: Path) -> None:
    """Refuse a row of PHOENIX14T's that changes what the corpus's own recipe has otherwise."""
    plain = f"{stage_of(name)}.yaml"
    defaults = default_lines(STAGES[stage_of(name)])
    for key in lines.keys() - UNCOMPARED:
        there = base.get(key, defaults.get(key))
        here = corpus.get(key, defaults.get(key))
        if there != here:
            raise InputError(
                f"{name} is no row of {own.parents[1]}: it changes `{key}`, {json.dumps(there)} on PHOENIX14T and "
                f"{json.dumps(here)} here; to vary it here write {own}, with base: ../{plain}"
            )


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
    is_frozen = lines.get("freeze_vision_backbone", True) and lines.get("freeze_temporal_module", True)
    if not is_frozen or lines.get("augmentation_probability"):
        names += [name for name in AUGMENTING if name not in second]
    if not row.stage1:
        names += [field.name for field in dataclasses.fields(VisualArguments)]
    taken = {name: first[name] for name in names if name in first}
    return taken if row.stage1 else {"imagenet_weights": None} | taken


def plan(folder: Path, name: str, ablation: Ablation, seed: int, lines: dict[str, Any]) -> Run:
    """One run of a named recipe on the ablation's corpus; what makes the row wins over everything else."""
    stage = stage_of(name)
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
    in_turn = [run for seeds in zip(*plans.values(), strict=True) for runs in seeds for run in runs]
    note_plan(in_turn, ablation)
    own_folder(ablation.out, "ablation", ablation.out / JOURNAL)
    for run in in_turn:
        status = run_once(run, ablation)
        if status:
            return status
    title = f"{table}: {TABLES[table].title}; {len(ablation.seeds)} seed(s)"
    show_table(ablation.out / f"{table}.md", *table_of(table, plans, title))
    return 0


def note_plan(runs: list[Run], ablation: Ablation) -> None:
    """Print one line a run before anything runs: its clips a step, all processes together, and its rates."""
    for run in {run.folder: run for run in runs}.values():  # rows share runs
        stage = Path(run.script).stem.removeprefix("run_")
        lines = typed_lines(STAGES[stage], override(read_recipe(run.recipe), run.values(), "fla ablate"))
        clips = clips_a_step(lines, num_processes(ablation.launcher))
        # Paper: Sec. 5.2
        paper = {"stage1": 8, "stage2": 16}[stage]
        other = "" if clips == paper else f" (the paper: {paper})"
        rates = ", ".join(f"{name} {lines[name]:g}" for name in RATES if lines.get(name) is not None)
        note(f"{run.folder.relative_to(ablation.out)}: {clips} clips a step{other}, {rates}")


def num_processes(launcher: Sequence[str]) -> int:
    """How many processes a launcher starts, by its options or by accelerate's configuration; else one."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--num_processes", "--nproc_per_node", "--nproc-per-node", type=int)
    options.add_argument("--config_file", type=Path)
    given, _ = options.parse_known_args(list(launcher))
    if given.num_processes is None and given.config_file is not None:
        return yaml.safe_load(given.config_file.read_text(encoding="utf-8")).get("num_processes", 1)
    return given.num_processes or 1


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
