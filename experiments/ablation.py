"""`fla ablate` runs the rows of a table of the paper, one recipe a stage, and prints our scores beside the paper's."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.comparing import table_of
from experiments.running import CommandLog, Run, own_folder, show_table
from training_fla.clone import ROOT
from training_fla.console import note
from training_fla.errors import InputError
from training_fla.hub.card import read_facts
from training_fla.recipe import (
    PAPERS_CLIPS_A_STEP,
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
from training_fla.viewing.report import FinishedRun

# The differences are the same lines for every corpus; they are written where the paper made its tables.
DIFFERENCES = ROOT / "recipes" / "phoenix14t" / "ablations"
LOG_OF_0_3 = "ablation_runs.json"  # the commands of runs by their folders
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


def run_table(table: str, ablation: Ablation) -> int:
    """Run what is not done yet of a table, then write and print it; 0, or the exit status of the run that failed."""
    plans = {row.label: [runs_of(row, ablation, seed) for seed in ablation.seeds] for row in TABLES[table].rows}
    runs = {}  # by folder: rows share runs
    for of_one_seed in zip(*plans.values(), strict=True):
        runs |= {run.folder: run for of_row in of_one_seed for run in of_row}
    status = run_all(list(runs.values()), ablation)
    if status:
        return status
    title = f"{table}: {TABLES[table].title}; {len(ablation.seeds)} seed(s)"
    show_table(ablation.out / f"{table}.md", *table_of(table, plans, title))
    return 0


def run_all(runs: list[Run], ablation: Ablation) -> int:
    """Print what is to run, and run it; the exit status of the run that failed, or 0."""
    note_plan(runs, ablation)
    log = open_log(ablation)
    steps = [run.step(ablation.out) for run in runs]
    log.check(steps)
    return log.run(steps)


def open_log(ablation: Ablation) -> CommandLog:
    """The log of the commands in `--out`; that of 0.3.0 is read where there is no other."""
    own_folder(ablation.out, "ablation", ablation.out / LOG_OF_0_3)
    log = CommandLog(ablation.out, "fla ablate", launcher=ablation.launcher)
    if not log.entries:
        for name, command in read_facts(ablation.out / LOG_OF_0_3).items():
            seconds = FinishedRun(ablation.out / name).metrics.get("seconds")
            log.entries[name] = {"command": log.logged(command), "seconds": seconds}
    return log


def runs_of(row: Row, ablation: Ablation, seed: int) -> list[Run]:
    """The one or two runs a row needs, in order; the last one's scores are the row's."""
    folder, runs = ablation.out / f"seed-{seed}", []
    if row.stage1:
        runs.append(plan_run("stage1", row.stage1, folder / row.stage1, ablation, seed))
    if row.stage2:
        lines = stage2_lines(row, ablation)
        if row.stage1:
            lines["stage1_checkpoint"] = str(folder / row.stage1)
        runs.append(plan_run("stage2", row.stage2, folder / row.folder, ablation, seed, lines))
    return runs


def plan_run(
    stage: str, name: str, folder: Path, ablation: Ablation, seed: int, lines: dict[str, Any] | None = None
) -> Run:
    """One run of a row's recipe on the ablation's corpus; what makes the row wins over everything else."""
    lines = (lines or {}) | given_lines(stage, ablation) | {"seed": seed}
    lines |= differences(stage, name, ablation.recipes)
    return Run(folder, stage, ablation.recipes / f"{stage}.yaml", lines)


def stage2_lines(row: Row, ablation: Ablation) -> dict[str, Any]:
    """What stage 2 takes over from stage 1's recipe: its augmentation, or the encoder it would have trained."""
    first, second = (read_lines(stage, ablation.recipes / f"{name}.yaml") for name, stage in STAGES.items())
    lines = second | differences("stage2", row.stage2, ablation.recipes)
    names: list[str] = []
    is_frozen = lines.get("freeze_vision_backbone", True) and lines.get("freeze_temporal_module", True)
    if not is_frozen or lines.get("augmentation_probability"):
        names += [name for name in AUGMENTING if name not in second]
    if not row.stage1:
        names += [field.name for field in dataclasses.fields(VisualArguments)]
    taken = {name: first[name] for name in names if name in first}
    return taken if row.stage1 else {"imagenet_weights": None} | taken


def differences(stage: str, name: str, recipes: Path = DIFFERENCES.parent) -> dict[str, Any]:
    """The lines in which a row's recipe, the corpus's own if it has one, differs from that of its stage."""
    if name == stage:
        return {}
    kind, plain = STAGES[stage], f"{stage}.yaml"
    own = recipes / "ablations" / f"{name}.yaml"
    file = own if own.is_file() else DIFFERENCES / own.name
    whole, base = read_lines(kind, file), read_lines(kind, file.parents[1] / plain)
    lines = {key: value for key, value in whole.items() if key not in base or base[key] != value}
    if {"dataset", "output_dir"} & lines.keys():
        raise InputError(f"{file} is no row of ../{plain}: that must be its base")
    if file != own:
        lines.pop("imagenet_weights", None)  # the corpus has its own start of the backbone, which may be none
        corpus = read_lines(kind, recipes / plain)
        if "language_model" in lines and corpus["dataset"] != base["dataset"]:
            raise InputError(f"{lines['language_model']} is cut to PHOENIX14T; write {own}, with base: ../{plain}")
        check_meaning(stage, lines, base, corpus, own)
    return lines


def check_meaning(stage: str, lines: dict[str, Any], base: dict[str, Any], corpus: dict[str, Any], own: Path) -> None:
    """Refuse a row of PHOENIX14T's that changes what the corpus's own recipe has otherwise."""
    defaults = default_lines(STAGES[stage])
    for key in lines.keys() - UNCOMPARED:
        there = base.get(key, defaults.get(key))
        here = corpus.get(key, defaults.get(key))
        if there != here:
            raise InputError(
                f"{own.stem} is no row of {own.parents[1]}: it changes `{key}`, {json.dumps(there)} on PHOENIX14T and "
                f"{json.dumps(here)} here; to vary it here write {own}, with base: ../{stage}.yaml"
            )


def given_lines(stage: str, ablation: Ablation) -> dict[str, Any]:
    """The lines of `--set` that a stage knows."""
    fields = {name: {f.name for f in dataclasses.fields(kind)} for name, kind in STAGES.items()}
    only_other = set.union(*fields.values()) - fields[stage]
    return {key: value for key, value in ablation.overrides.items() if key not in only_other}


def note_plan(runs: list[Run], ablation: Ablation) -> None:
    """Print one line a run before anything runs: its clips a step, all processes together, and its rates."""
    for run in runs:
        lines = typed_lines(STAGES[run.stage], override(read_recipe(run.recipe), run.values(), "fla ablate"))
        clips = clips_a_step(lines, num_processes(ablation.launcher))
        paper = PAPERS_CLIPS_A_STEP[run.stage]
        other = "" if clips == paper else f" (the paper: {paper})"
        rates = ", ".join(f"{name} {lines[name]:g}" for name in RATES if lines.get(name) is not None)
        note(f"{run.folder.relative_to(ablation.out)}: {clips} clips a step{other}, {rates}")


def num_processes(launcher: Sequence[str]) -> int:
    """How many processes a launcher starts, by its options or by accelerate's configuration; else one."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--num_processes", "--nproc_per_node", "--nproc-per-node", type=int)
    options.add_argument("--config_file", type=Path)
    chosen, _ = options.parse_known_args(list(launcher))
    if chosen.num_processes is None and chosen.config_file is not None:
        return yaml.safe_load(chosen.config_file.read_text(encoding="utf-8")).get("num_processes", 1)
    return chosen.num_processes or 1
