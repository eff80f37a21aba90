"""`fla report`: one page of some runs beside the paper's figures, made from their folders alone."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from training_fla.corpora.registry import CORPORA
from training_fla.experiments import paper_tables
from training_fla.experiments.ablation import DIFFERENCES, STAGES, mean_and_deviation
from training_fla.experiments.running import ROOT
from training_fla.files import InputError, atomic_file
from training_fla.hub.card import TITLES, costs, read_facts
from training_fla.recipe import COMMON, TRAINING_DEFAULTS, read_lines, recipe_parser
from training_fla.scoring.predictions import read_predictions
from training_fla.training.callbacks import read_norms
from training_fla.training.plots import (
    SAMPLE_CLIPS,
    SAMPLES,
    Panel,
    curve_panels,
    figure_of,
    inline_svg,
    norm_panels,
    spread,
    styled,
)
from training_fla.viewing.pages import jpeg_url, render

# The paper's row of each run that `fla ablate` makes, by the run's folder.
ROWS = {
    row.folder: (table, row)
    for table, content in reversed(paper_tables.TABLES.items())
    for row in content.rows
    if row.paper
}
# Lines of a recipe that change nothing that is learnt.
NO_MATTER = ("output_dir", "seed", "disable_tqdm", "logging_steps", "norm_logging_steps", "dataloader_num_workers")


@dataclass
class Run:
    """A finished run, as its folder tells it."""

    folder: Path
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    name: str = ""

    @property
    def stage(self) -> str:
        """By what only a recipe of stage 2 can say."""
        says = {"stage1_checkpoint", "language_model", "language_model_config"} & self.recipe.keys()
        return "stage2" if says else "stage1"

    @property
    def kind(self) -> str:
        """Which run of the paper it is, as `fla ablate` names their folders."""
        if self.folder.name in ROWS and self.folder.name not in STAGES:
            return self.folder.name
        if self.stage == "stage1" or self.recipe.get("stage1_checkpoint") or self.recipe.get("one_run_light_t"):
            return self.stage
        return "stage2_untrained_encoder" if self.recipe.get("freeze_vision_backbone", True) else "stage2_joint"

    def without_seed(self, value: Any) -> Any:
        """A path in which `seed-0` stands, say, as it is for all seeds."""
        seed = rf"(?i)(seed[-_ ]?){self.recipe.get('seed', 42)}(?!\d)"
        return re.sub(seed, r"\1*", value) if isinstance(value, str) else value

    @property
    def system(self) -> str:
        """What its seeds have in common: all lines of the recipe but the seed."""
        lines = {name: self.without_seed(value) for name, value in self.recipe.items()}
        return json.dumps(lines | {"seed": "", "output_dir": ""}, sort_keys=True)

    @cached_property
    def history(self) -> list[dict]:
        """The training log; up to 0.2.0 only checkpoints hold it."""
        states = sorted(self.folder.glob("checkpoint-*/trainer_state.json"), key=lambda f: int(f.parts[-2][11:]))
        states += filter(Path.is_file, [self.folder / "trainer_state.json"])
        return read_facts(states[-1])["log_history"] if states else []

    @cached_property
    def translations(self) -> dict[str, tuple[str, str]]:
        """Prediction and reference of the test clips by id, in order."""
        file = self.folder / "predictions_test.tsv"
        table = read_predictions(file) if file.is_file() else None
        return (
            dict(zip(table.ids, zip(table.predictions, table.references, strict=True), strict=True)) if table else {}
        )

    @cached_property
    def costs(self) -> dict[str, str]:
        """Size, speed, hardware and versions, as the model card has them."""
        return costs(self.folder, self.metrics, self.recipe, read_facts(self.folder / "config.json"))


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs of some folders, refused where one is none, has not ended, or is of another corpus."""
    runs = []
    for folder in folders:
        if not (folder / "recipe.yaml").is_file():
            raise InputError(f"{folder} is not the folder of a run: it holds no recipe.yaml")
        run = Run(folder.resolve(), read_facts(folder / "metrics.json"), read_facts(folder / "recipe.yaml"))
        if "bleu4" not in run.metrics.get("test", {}):
            raise InputError(f"{folder} holds a run that has not ended (no scores in metrics.json): --resume goes on")
        runs.append(run)
    corpora = {str(run.metrics.get("data", {}).get("corpus", "")) for run in runs}
    if len(corpora) > 1:
        raise InputError(f"the runs are of different corpora ({', '.join(sorted(corpora))}): make a report of each")
    if len({run.folder for run in runs}) < len(runs):
        raise InputError("a run is given twice")
    above = os.path.commonpath([run.folder.parent for run in runs])
    for run in runs:
        run.name = str(run.folder.relative_to(above))
    return runs


@dataclass
class ScoreRow:
    """A row of a table of scores; `cells` have a figure and what is said beside it, by score."""

    name: str
    kind: str  # paper, system, run
    cells: dict[str, tuple[float, str]] = field(default_factory=dict)


def score_rows(systems: list[list[Run]], split: str) -> list[ScoreRow]:
    """Every run with its intervals; several of one system also as mean and deviation; the paper's row below."""
    rows = []
    for runs in systems:
        scores = [(run.name, run.metrics[split]) for run in runs if "bleu4" in run.metrics.get(split, {})]
        shown = [name for name in TITLES if all(name in values for _, values in scores)] if scores else []
        if len(scores) > 1:
            cells = {name: [values[name] for _, values in scores] for name in shown}
            pooled = {n: (sum(v) / len(v), mean_and_deviation(v).partition(" ")[2]) for n, v in cells.items()}
            name = runs[0].without_seed(runs[0].name)
            rows.append(ScoreRow(f"{name}, mean of {len(scores)}", "system", pooled))
        for name, values in scores:
            intervals = values.get("confidence_intervals", {})
            text = {n: "{:.1f} to {:.1f}".format(*intervals[n]) if n in intervals else "" for n in shown}
            note = " (clips that were trained on)" if values.get("on_training_clips") else ""
            rows.append(ScoreRow(name + note, "run", {n: (values[n], text[n]) for n in shown}))
        if split == "test":
            rows.append(paper_row(runs[0]))
    return rows


def paper_row(run: Run) -> ScoreRow:
    """The paper's figures of the same kind of run, on the same corpus where the paper has them."""
    corpus, source = str(run.metrics.get("data", {}).get("corpus", "")), "phoenix14t"
    if run.kind == "stage2":
        source = corpus if corpus in paper_tables.CORPORA else source
        table, scores = paper_tables.CORPORA[source].values()
        scores = dict(zip(paper_tables.SCORES, scores, strict=True))
    else:
        name, row = ROWS[run.kind]
        table, scores = f"{re.sub(r'(?=[0-9])', ' ', name, count=1).title()}, {row.label}", row.paper_scores
    other = "" if source == corpus else f" (on {source})"
    cells = {paper_tables.SCORES[short]: (score, "") for short, score in scores.items()}
    return ScoreRow(f"paper, {table}{other}", "paper", cells)


def recipe_differences(run: Run) -> tuple[str, list[tuple[str, str, str]]]:
    """The paper's recipe of this kind of run, and the lines (name, there, here) in which the run's differs."""
    corpus = run.metrics.get("data", {}).get("corpus")
    folder = ROOT / "recipes" / corpus if corpus in paper_tables.CORPORA else DIFFERENCES.parent
    row = ROWS[run.kind][1]
    name = (row.stage2 or row.stage1) if run.kind not in STAGES else run.kind
    file = folder / f"{name}.yaml" if name in STAGES else DIFFERENCES / f"{name}.yaml"
    if not file.is_file():  # installed without a clone
        return "", []
    stage = STAGES[run.stage]
    fields = [f for cls in (stage, *COMMON) for f in dataclasses.fields(cls)]
    own = {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}
    defaults = recipe_parser(stage)[2] | own | TRAINING_DEFAULTS
    lines = read_lines(stage, file), run.recipe
    names = [name for name in {**lines[0], **lines[1]} if name not in NO_MATTER]
    rows = [(name, *(_written(given.get(name, defaults.get(name))) for given in lines)) for name in names]
    return str(file.relative_to(ROOT)), [row for row in rows if row[1] != row[2]]


def _written(value: Any) -> str:
    """A value as a recipe has it; of a path only the name, which two machines may have in common."""
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if isinstance(value, str) else json.dumps(value)


def sample_clips(systems: list[list[Run]], with_frames: bool) -> list[dict]:
    """A few test clips, spread over the split: id, reference, translations by run, and frames with their times."""
    runs = [runs[0] for runs in systems if runs[0].translations]
    ids = list(runs[0].translations) if runs else []
    clips = []
    for place in spread(len(ids), SAMPLE_CLIPS) if ids else ():
        pattern = f"{SAMPLES}/{place:05}_*.jpg"
        files = (sorted(run.folder.glob(pattern)) for run in runs if with_frames and list(run.translations) == ids)
        frames = [(file.stem.split("_")[2], jpeg_url(file.read_bytes())) for file in next(filter(None, files), [])]
        said = {run.name: run.translations[ids[place]] for run in runs if ids[place] in run.translations}
        clips.append({"id": ids[place], "reference": said[runs[0].name][1], "translations": said, "frames": frames})
    return clips


def drawn(panels: list[Panel]) -> list[dict[str, str]]:
    """Panels that show something, as parts of a page, with what they show in words."""
    with styled():
        return [{"svg": inline_svg(figure_of([p])), "words": p.in_words()} for p in panels if p.lines]


def write_report(folders: list[Path], out: Path, with_frames: bool = True, overwrite: bool = False) -> None:
    """Write the page; it holds sentences of the corpus, and frames."""
    with atomic_file(out, overwrite) as file:
        runs = read_runs(folders)
        systems: dict[str, list[Run]] = {}
        for run in runs:
            systems.setdefault(run.system, []).append(run)
        groups = list(systems.values())
        data = runs[0].metrics.get("data", {})
        known = CORPORA.get(data.get("corpus", ""))
        page = render(
            "report.html",
            runs=runs,
            titles=TITLES,
            corpus=known.title if known else data.get("corpus") or "unknown",
            terms=known.terms if known else "",
            in_paper=data.get("corpus") in paper_tables.CORPORA,
            data=data,
            language=str(data.get("language") or "").split("_")[0],
            scores={split: score_rows(groups, split) for split in ("test", "dev")},
            signatures=sorted({run.metrics["test"].get("signature", "unknown") for run in runs}),
            curves=drawn(curve_panels({run.name: run.history for run in runs})),
            norms=[
                (run.name, drawn(norm_panels(read_norms(run.folder / "norms.tsv"))))
                for run in runs
                if (run.folder / "norms.tsv").is_file()
            ],
            clips=sample_clips(groups, with_frames),
            with_frames=with_frames,
            recipes=[(group[0].name, *recipe_differences(group[0])) for group in groups],
            cost_names=list(dict.fromkeys(key for run in runs for key in run.costs)),
        )
        file.write_text(page, encoding="utf-8")
