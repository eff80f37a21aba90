"""The paper's ablation tables, a row being one recipe a stage: `fla ablate` runs them, ours beside the paper's."""

import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_fla.experiments.ablation_figure import plot_epochs
from training_fla.files import InputError, atomic_file
from training_fla.recipe import Stage1Arguments, Stage2Arguments, VisualArguments, read_overrides, read_recipe

ROOT = Path(__file__).resolve().parents[2]
# The differences are the same lines for every corpus; they are written where the paper made its tables.
DIFFERENCES = ROOT / "recipes" / "phoenix14t" / "ablations"
SCORES = {"R": "rouge_l", "B1": "bleu1", "B2": "bleu2", "B3": "bleu3", "B4": "bleu4"}
JOURNAL = "ablation_runs.json"
# A stage 2 that trains the visual encoder augments as stage 1 does; one that does not reads stored features.
AUGMENTATION = ("random_frame_phase", "augmentation_probability", "rotate_degrees", "resize_factor")
AUGMENTATION += ("translate_pixels", "color_jitter")


@dataclass
class Row:
    """One row of a table.

    Args:
        label (`str`): as the paper names it.
        paper (`tuple[float, ...]`): R, B1, B2, B3, B4 on PHOENIX14T's test split, or B4 alone, or nothing.
        stage1 (`str`, *optional*): recipe of stage 1; none where the visual encoder is not initialised.
        stage2 (`str`, *optional*): recipe of stage 2; none where stage 1's own translations are scored.
    """

    label: str
    paper: tuple[float, ...]
    stage1: str | None = "stage1"
    stage2: str | None = "stage2"

    @property
    def paper_scores(self) -> dict[str, float]:
        """`dict[str, float]`: by the names in `SCORES`."""
        names = list(SCORES) if len(self.paper) == len(SCORES) else ["B4"]
        return dict(zip(names, self.paper, strict=False))


@dataclass
class Table:
    """One table of the paper.

    Args:
        title (`str`): its caption in short.
        rows (`list[Row]`): in the paper's order.
        stage1_hours (`dict[str, float]`): Table 6's column of hours, by label.
    """

    title: str
    rows: list[Row]
    stage1_hours: dict[str, float] = field(default_factory=dict)


WHOLE = (45.27, 46.29, 35.33, 28.03, 23.09)  # Paper: the method itself, the same row in Tables 4, 5, 6, 8, 9, 10
TABLES = {
    "table4": Table(
        "factorized learning",
        [
            Row("joint", (32.52, 31.96, 21.96, 16.32, 12.90), stage1=None, stage2="stage2_joint"),
            Row("factorized", WHOLE),
        ],
    ),
    "table5": Table(
        "each stage alone",
        [
            Row("stage 2 only", (17.33, 17.64, 10.51, 7.37, 5.62), stage1=None, stage2="stage2_untrained_encoder"),
            Row("stage 1 only", (38.67, 39.09, 28.20, 21.83, 17.69), stage2=None),
            Row("both", WHOLE),
        ],
    ),
    "table6": Table(
        "downsampling rate",
        [
            Row("100%", (44.55, 45.68, 35.01, 27.82, 22.96), "stage1_rate_100", "stage2_rate_100"),
            Row("50%", (44.60, 46.22, 35.12, 27.90, 23.04), "stage1_rate_50", "stage2_rate_50"),
            Row("25%", WHOLE),
            Row("12.5%", (40.77, 42.42, 31.62, 24.68, 20.02), "stage1_rate_12", "stage2_rate_12"),
        ],
        {"100%": 17.90, "50%": 9.85, "25%": 4.75, "12.5%": 3.55},
    ),
    "table7": Table(
        "size of Light-T",
        [
            Row("tiny", (22.52,), "stage1_light_t_tiny"),
            Row("small", (22.36,), "stage1_light_t_small"),
            Row("base", (23.09,)),
            Row("large", (22.49,), "stage1_light_t_large"),
        ],
    ),
    "table8": Table(
        "input features",
        [
            Row("frame-wise", (41.59, 42.54, 31.72, 24.82, 20.30), stage2="stage2_frame_features"),
            Row("sign-wise", WHOLE),
            Row("hidden states", (45.16, 45.41, 34.74, 27.47, 22.60), stage2="stage2_hidden_states"),
        ],
    ),
    "table9": Table(
        "frozen blocks",
        [
            Row("nothing", (40.72, 40.74, 29.79, 22.65, 17.86), stage2="stage2_nothing_frozen"),
            Row("backbone", (39.86, 41.64, 31.48, 24.86, 20.40), stage2="stage2_backbone_frozen"),
            Row("backbone, temporal module", WHOLE),
        ],
    ),
    "table10": Table(
        "language models",
        [
            Row("MBart w/o pre", (40.18, 37.18, 26.99, 20.54, 16.19), stage2="stage2_mbart_without"),
            Row("MT5-Base w/o pre", (22.71, 18.02, 12.21, 9.17, 7.39), stage2="stage2_mt5_without"),
            Row("MBart w/ pre", WHOLE),
            Row("MT5-Base w/ pre", (41.06, 41.96, 31.20, 24.24, 19.71), stage2="stage2_mt5"),
        ],
    ),
    "figure4": Table(
        "epochs of visual initialing",
        # Unstated: the figure's points; its text names 75 and 100.
        [
            row
            for epochs in (25, 50, 75, 100)
            for stage1 in ("stage1" if epochs == 75 else f"stage1_epochs_{epochs}",)
            for row in (
                Row(f"{epochs}, stage 1", (17.69,) if epochs == 75 else (), stage1, None),
                Row(f"{epochs}, stage 2", (23.09,) if epochs == 75 else (), stage1),
            )
        ],
    ),
}


@dataclass
class Ablation:
    """What to run, where, and how.

    Args:
        recipes (`Path`): folder with `stage1.yaml` and `stage2.yaml` of the corpus.
        out (`Path`): runs are shared by all tables that need them.
        overrides (`dict`): recipe lines for every run; a line that one stage does not know goes to the other only.
        launcher (`list[str]`): before the script's name, e.g. `accelerate launch ...`; empty: this Python.
        seeds (`list[int]`): every row is run with each.
    """

    recipes: Path
    out: Path
    overrides: dict[str, Any]
    launcher: list[str]
    seeds: list[int]


@dataclass
class Run:
    """One run of one script.

    Args:
        folder (`Path`): its output.
        script (`str`): `run_stage1.py` or `run_stage2.py`.
        recipe (`Path`): the stage's recipe of the corpus, or one that builds on it.
        lines (`dict`): further recipe lines.
    """

    folder: Path
    script: str
    recipe: Path
    lines: dict[str, Any]

    @property
    def is_done(self) -> bool:
        """`bool`: whether it has left its scores."""
        return (self.folder / "metrics.json").is_file()

    def command(self) -> list[str]:
        """The run as a person would type it, without the launcher.

        Returns:
            `list[str]`: script, recipe and lines.
        """
        words = []
        for key, value in self.lines.items():
            words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
        return [self.script, str(self.recipe), *words, "--output_dir", str(self.folder)]


def differences(name: str) -> dict[str, Any]:
    """The lines in which an ablation's recipe differs from the stage's recipe.

    Args:
        name (`str`): of a file in `DIFFERENCES`, without `.yaml`; `stage1` and `stage2` differ in nothing.

    Returns:
        `dict[str, Any]`: key to value.
    """
    if name in ("stage1", "stage2"):
        return {}
    whole, base = read_recipe(DIFFERENCES / f"{name}.yaml"), read_recipe(DIFFERENCES.parent / f"{name[:6]}.yaml")
    return {key: value for key, value in whole.items() if key not in base or base[key] != value}


def runs_of(row: Row, ablation: Ablation, seed: int) -> list[Run]:
    """The runs a row needs, in order; the last one's scores are the row's.

    Args:
        row ([`Row`]): one of a table.
        ablation ([`Ablation`]): recipes and folders.
        seed (`int`): of all its runs.

    Returns:
        `list[Run]`: one or two.
    """
    folder, runs = ablation.out / f"seed-{seed}", []
    if row.stage1:
        runs.append(plan(folder / row.stage1, row.stage1, ablation, seed, {}))
    if row.stage2 is None:
        return runs
    name = row.stage2 + ("" if row.stage1 in (None, "stage1") else f"-after-{row.stage1}")
    first, second = (read_recipe(ablation.recipes / f"{stage}.yaml") for stage in ("stage1", "stage2"))
    frozen = (second | differences(row.stage2)).get
    learns = not (frozen("freeze_vision_backbone", True) and frozen("freeze_temporal_module", True))
    lines = {name: first[name] for name in AUGMENTATION if learns and name in first and name not in second}
    if row.stage1:
        lines |= {"stage1_checkpoint": str(folder / row.stage1)}
    else:
        # The visual encoder that stage 1 would have trained, but for its weights.
        visual = [f.name for f in dataclasses.fields(VisualArguments)]
        lines |= {"imagenet_weights": None} | {name: first[name] for name in visual if name in first}
    return [*runs, plan(folder / name, row.stage2, ablation, seed, lines)]


def plan(folder: Path, name: str, ablation: Ablation, seed: int, lines: dict[str, Any]) -> Run:
    """One run of a named recipe on the corpus of `ablation`.

    Args:
        folder (`Path`): its output.
        name (`str`): `stage1...` or `stage2...`.
        ablation ([`Ablation`]): recipes and overrides.
        seed (`int`): of the run.
        lines (`dict`): which stage 1, or which untrained encoder.

    Returns:
        [`Run`]: the ablation's own lines win over everything else.
    """
    own, other = (
        (Stage1Arguments, Stage2Arguments) if name.startswith("stage1") else (Stage2Arguments, Stage1Arguments)
    )
    only_other = {f.name for f in dataclasses.fields(other)} - {f.name for f in dataclasses.fields(own)}
    given = {key: value for key, value in ablation.overrides.items() if key not in only_other}
    difference = differences(name)
    if "imagenet_weights" in lines:  # the corpus's own start of the backbone, which may be none
        difference.pop("imagenet_weights", None)
    stage = name[:6]
    return Run(
        folder, f"run_{stage}.py", ablation.recipes / f"{stage}.yaml", lines | given | {"seed": seed} | difference
    )


def run_table(table: str, ablation: Ablation) -> int:
    """Run what is not done yet of a table, then write and print it.

    Args:
        table (`str`): a key of `TABLES`.
        ablation ([`Ablation`]): recipes and folders.

    Returns:
        `int`: 0, or the exit status of the run that failed.

    Raises:
        InputError: a recipe is not there, or a finished run was made with other arguments.
    """
    for stage in ("stage1", "stage2"):
        if not (ablation.recipes / f"{stage}.yaml").is_file():
            raise InputError(f"{ablation.recipes} has no {stage}.yaml")
    if not DIFFERENCES.is_dir():
        raise InputError(f"{ROOT} has no recipes: run ablations from a clone of the repository")
    rows = TABLES[table].rows
    for seed in ablation.seeds:
        for run in (run for row in rows for run in runs_of(row, ablation, seed)):
            status = run_once(run, ablation)
            if status:
                print(
                    f"fla ablate: {run.folder} ended with status {status}; the same command goes on", file=sys.stderr
                )
                return status
    lines = table_lines(table, ablation)
    with atomic_file(ablation.out / f"{table}.md", overwrite=True) as file:
        Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines))
    if table == "figure4":
        scores = {row.label: [pair[-1]["test"]["bleu4"] for pair in reports(row, ablation)] for row in rows}
        plot_epochs(scores, ablation.out / "figure4.png")
        print(f"\ndrawn as {ablation.out / 'figure4.png'}")
    return 0


def run_once(run: Run, ablation: Ablation) -> int:
    """Run, resume or skip, and note what was run.

    Args:
        run ([`Run`]): which one.
        ablation ([`Ablation`]): its journal and launcher.

    Returns:
        `int`: exit status; 0 for a run that is already done.

    Raises:
        InputError: the folder holds a run of other arguments.
    """
    journal = ablation.out / JOURNAL
    noted = json.loads(journal.read_text()) if journal.exists() else {}
    key, command = str(run.folder.relative_to(ablation.out)), run.command()
    if noted.get(key, command) != command:
        raise InputError(f"{run.folder} was run with other arguments ({shlex.join(noted[key])}); choose another --out")
    if run.is_done:
        return 0
    ablation.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(journal, overwrite=True) as file:
        Path(file).write_text(json.dumps(noted | {key: command}, indent=1))
    return run_command(command + (["--resume"] if run.folder.exists() else []), ablation.launcher)


def run_command(command: list[str], launcher: list[str]) -> int:
    """Print a command and run it.

    Args:
        command (`list[str]`): begins with a script of the repository.
        launcher (`list[str]`): before it; empty: this Python.

    Returns:
        `int`: its exit status.
    """
    print(f"\n$ {shlex.join([*(launcher or ['python']), *command])}", flush=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    words = [*(launcher or [sys.executable]), str(ROOT / command[0]), *command[1:]]
    return subprocess.run(words, env=os.environ | {"PYTHONPATH": path}).returncode


def table_lines(table: str, ablation: Ablation) -> list[str]:
    """The table in Markdown: the paper's figures, then ours as mean ± deviation over the seeds.

    Args:
        table (`str`): a key of `TABLES`.
        ablation ([`Ablation`]): finished.

    Returns:
        `list[str]`: lines.
    """
    hours = TABLES[table].stage1_hours
    head = ["", *(f"{name} paper" for name in SCORES), *(f"{name} ours" for name in SCORES)]
    head += ["stage 1 hours paper", "stage 1 hours ours"] if hours else []
    lines = [f"{table}: {TABLES[table].title}; {len(ablation.seeds)} seed(s)", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in TABLES[table].rows:
        pairs = reports(row, ablation)
        cells = [row.label, *(f"{row.paper_scores[n]:.2f}" if n in row.paper_scores else "" for n in SCORES)]
        cells += [mean_and_deviation([pair[-1]["test"][score] for pair in pairs]) for score in SCORES.values()]
        if hours:
            ours = mean_and_deviation([pair[0]["train"]["seconds"] / 3600 for pair in pairs])
            cells += [f"{hours[row.label]:.2f}", ours]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def reports(row: Row, ablation: Ablation) -> list[list[dict[str, Any]]]:
    """What a row's finished runs left.

    Args:
        row ([`Row`]): one of a table.
        ablation ([`Ablation`]): finished.

    Returns:
        `list[list[dict]]`: `metrics.json` of each run, for each seed.
    """
    runs = [runs_of(row, ablation, seed) for seed in ablation.seeds]
    return [[json.loads((run.folder / "metrics.json").read_text()) for run in pair] for pair in runs]


def mean_and_deviation(values: list[float]) -> str:
    """Format the figures of several seeds.

    Args:
        values (`list[float]`): one a seed.

    Returns:
        `str`: the mean, and the sample deviation where there are at least two.
    """
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def make_ablation(recipes: Path, out: Path, words: list[str], launcher: str, seeds: list[int]) -> Ablation:
    """Check what the command line gave.

    Args:
        recipes (`Path`): the corpus's folder of recipes.
        out (`Path`): where runs go.
        words (`list[str]`): further recipe lines, `name=value`.
        launcher (`str`): as a person types it.
        seeds (`list[int]`): one or more.

    Returns:
        [`Ablation`]: ready to run.

    Raises:
        InputError: a word that is no line, or a line that belongs to `fla ablate` itself.
    """
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise InputError(f"--set takes name=value, got {wrong[0]}")
    overrides = read_overrides([f"--{word}" for word in words])
    for name in ("seed", "output_dir", "resume", "overwrite", "stage1_checkpoint"):
        if name in overrides:
            raise InputError(f"{name} is chosen by `fla ablate`; see its --out and --seeds")
    return Ablation(recipes, out, overrides, shlex.split(launcher), seeds)
