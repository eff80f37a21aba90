"""`fla report`: one page of some runs beside the paper's figures, made from their folders alone."""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training_fla.clone import shipped_file
from training_fla.corpora.registry import convention_of
from training_fla.errors import InputError
from training_fla.folders import atomic_file
from training_fla.hub.card import TITLES, DescribedCorpus, clips_per_step, costs, described, read_facts
from training_fla.recipe import BATCH_LINES, DECIDED_LATER, STAGES, clips_a_step, default_lines, read_lines, stage_of
from training_fla.scoring.conventions import CONVENTIONS, TextForm, convention_for
from training_fla.scoring.predictions import PredictionFile, read_predictions
from training_fla.tables import mean_and_deviation, read_table
from training_fla.training import plots
from training_fla.training.callbacks import read_norms
from training_fla.viewing import paper_tables
from training_fla.viewing.pages import jpeg_url, render

# The paper's rows by the folders that `fla ablate` gives their runs; of equal ones the first.
ROWS = {r.folder: (name, r) for name, t in reversed(paper_tables.TABLES.items()) for r in t.rows if r.paper}
# Lines of a recipe that change nothing that is learnt.
NO_MATTER = ("output_dir", "seed", "disable_tqdm", "logging_steps", "norm_logging_steps", "dataloader_num_workers")


@dataclass
class FinishedRun:
    """What a run left in its folder."""

    folder: Path
    name: str = ""

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return read_facts(self.folder / "metrics.json")

    @cached_property
    def recipe(self) -> dict[str, Any]:
        return read_facts(self.folder / "recipe.yaml")

    @property
    def corpus(self) -> str:
        return " and ".join(corpus.facts.get("corpus") or "unknown" for corpus in self.corpora)

    @property
    def corpora(self) -> list[DescribedCorpus]:
        """One, or several in the order of their clips."""
        return described(self.metrics.get("data", {}))

    def scores(self, split: str, corpus: str = "") -> dict[str, Any]:
        """The scores of a split; of several corpora their mean, or those of one."""
        scores = self.metrics[split]
        return scores["corpora"][corpus] if corpus else scores

    @property
    def signatures(self) -> list[str]:
        """How the test split was scored, once for each corpus."""
        return [corpus.scores(self.metrics, "test").get("signature", "unknown") for corpus in self.corpora]

    @property
    def stage(self) -> str:
        return stage_of(self.recipe)

    @property
    def lines(self) -> dict[str, Any]:
        """All lines; up to 0.3.0 a run kept only those that were given."""
        return default_lines(STAGES[self.stage]) | self.recipe

    @property
    def kind(self) -> str:
        """Which run of the paper it is, a key of `ROWS`."""
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
        lines = {name: self.without_seed(value) for name, value in self.lines.items() if name not in BATCH_LINES}
        lines["clips"] = clips_per_step(self.metrics, self.recipe)
        return json.dumps(lines | {"seed": "", "output_dir": ""}, sort_keys=True)

    @cached_property
    def history(self) -> list[dict]:
        """The training log; up to 0.2.0 only checkpoints hold it."""
        files = [*self.folder.glob("checkpoint-*/trainer_state.json"), *self.folder.glob("trainer_state.json")]
        return max(map(read_facts, files), key=lambda state: state["global_step"], default={}).get("log_history", [])

    @cached_property
    def norms(self) -> list[list[float]]:
        file = self.folder / "norms.tsv"
        return read_norms(file) if file.is_file() else []

    @cached_property
    def predictions(self) -> PredictionFile:
        """Of the test split."""
        return read_predictions(self.folder / "predictions_test.tsv")

    @property
    def text_form(self) -> TextForm:
        """How its sentences were scored."""
        convention = self.recipe.get("score_convention", "auto")
        if convention == "auto":
            convention = convention_of(self.metrics.get("data", {}).get("corpus") or "auto")
        return CONVENTIONS[convention_for(convention, self.predictions.references)]

    @cached_property
    def translations(self) -> dict[str, dict[str, str]]:
        """`prediction` and `reference` of the test clips by id, in order; of several corpora behind its name."""
        rows = {}
        for corpus in self.corpora:
            file = self.folder / f"predictions_test{'_' * bool(corpus.name)}{corpus.name}.tsv"
            for _, row in read_table(file, ("id", "prediction", "reference")) if file.is_file() else []:
                rows[f"{corpus.name}/{row['id']}" if corpus.name else row["id"]] = row
        return rows

    def frames(self, place: int) -> list[tuple[str, str]]:
        """When each frame of a sample clip is shown, and the frame."""
        files = sorted(self.folder.glob(f"{plots.SAMPLES}/{place:05}_*.jpg"))
        return [(file.stem.split("_")[2], jpeg_url(file.read_bytes())) for file in files]

    @cached_property
    def costs(self) -> dict[str, str]:
        return costs(self.folder, self.metrics, self.recipe, read_facts(self.folder / "config.json"))

    @property
    def paper(self) -> tuple[str, dict[str, float]]:
        """Where the paper's row of the same kind of run on this corpus stands, and its scores; nothing without one."""
        if self.kind == "stage2" and self.corpus in paper_tables.CORPORA:
            label, values = paper_tables.CORPORA[self.corpus].values()
            return label, dict(zip(paper_tables.SCORES.values(), values, strict=True))
        if self.corpus != "phoenix14t":
            return "", {}
        table, row = ROWS[self.kind]
        label = f"{re.sub('(?=[0-9])', ' ', table, count=1).title()}, {row.label}"
        return label, {paper_tables.SCORES[short]: score for short, score in row.paper_scores.items()}

    def recipe_differences(self) -> tuple[str, list[tuple[str, str, str]]]:
        """The paper's recipe of this kind of run, and the lines (name, there, here) in which this one differs."""
        row = ROWS[self.kind][1]
        name = f"{row.stage2 or row.stage1}.yaml"
        corpus = self.corpus if self.corpus in paper_tables.CORPORA else "phoenix14t"
        places = (f"recipes/{corpus}/{name}", f"recipes/phoenix14t/ablations/{name}")
        recipe = next(filter(shipped_file, places), "")
        if not recipe:  # the packages were copied
            return "", []
        paper_lines = read_lines(STAGES[self.stage], shipped_file(recipe))
        rows = []
        clips = clips_a_step(paper_lines), clips_per_step(self.metrics, self.recipe)
        if None not in clips and clips[0] != clips[1]:
            rows.append(("clips a step", *map(str, clips)))
        lines = default_lines(STAGES[self.stage]) | paper_lines
        for name in lines | self.lines:
            there, here = (value_text(values.get(name)) for values in (lines, self.lines))
            is_left_open = name in DECIDED_LATER and lines.get(name) is None
            if name not in (*NO_MATTER, *BATCH_LINES) and there != here and not is_left_open:
                rows.append((name, there, here))
        return recipe, rows


def value_text(value: Any) -> str:
    """A value as a recipe has it; of a path only the name, which two machines may have in common."""
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if isinstance(value, str) else json.dumps(value)


def read_runs(folders: list[Path]) -> list[FinishedRun]:
    """The runs of some folders, refused where one is none, has not ended, or is of another corpus."""
    runs = []
    for folder in folders:
        if not (folder / "recipe.yaml").is_file():
            raise InputError(f"{folder} is not the folder of a run: it holds no recipe.yaml")
        run = FinishedRun(folder.resolve())
        if "bleu4" not in run.metrics.get("test", {}):
            raise InputError(f"{folder} holds a run that has not ended (no scores in metrics.json): --resume goes on")
        runs.append(run)
    corpora = sorted({run.corpus for run in runs})
    if len(corpora) > 1:
        raise InputError(f"the runs are of different corpora ({', '.join(corpora)}): make a report of each")
    if len({run.folder for run in runs}) < len(runs):
        raise InputError("a run is given twice")
    above = os.path.commonpath([run.folder.parent for run in runs])
    for run in runs:
        run.name = str(run.folder.relative_to(above))
    return runs


def pooled(group: list[FinishedRun], split: str, corpus: str, score: str) -> str:
    """Mean and deviation of a score over the seeds of a system."""
    return mean_and_deviation([run.scores(split, corpus).get(score, 0) for run in group])


def panel_pictures(panels: list[plots.Panel]) -> list[dict[str, str]]:
    """Panels that show something, as parts of a page, with what they show in words."""
    pictures = []
    with plots.styled():
        for panel in panels:
            if panel.lines:
                pictures.append({"svg": plots.inline_svg(plots.figure_of([panel])), "words": panel.in_words()})
    return pictures


def write_report(folders: list[Path], out: Path, with_frames: bool = True, overwrite: bool = False) -> None:
    """Write the page; it holds sentences of the corpus, and frames."""
    with atomic_file(out, overwrite) as file:
        runs = read_runs(folders)
        groups: dict[str, list[FinishedRun]] = {}
        for run in runs:
            groups.setdefault(run.system, []).append(run)
        lead = max(runs, key=lambda run: (bool(run.frames(0)), bool(run.translations)))
        page = render(
            "report.html",
            runs=runs,
            groups=list(groups.values()),
            lead=lead,
            places=plots.spread(len(lead.translations), plots.SAMPLE_CLIPS),
            with_frames=with_frames,
            titles_and_terms=[
                (corpus.known.title, corpus.known.terms)
                if corpus.known
                else (corpus.facts.get("corpus") or "unknown", "")
                for corpus in runs[0].corpora
            ],
            parts=[corpus.name for corpus in runs[0].corpora if corpus.name],
            in_paper=runs[0].corpus in paper_tables.CORPORA,
            titles=TITLES,
            on_dev=all("bleu4" in run.metrics.get("dev", {}) for run in runs),
            pooled=pooled,
            curves=panel_pictures(plots.curve_panels({run.name: run.history for run in runs})),
            norms={run.name: panel_pictures(plots.norm_panels(run.norms)) for run in runs if run.norms},
            costs=list(dict.fromkeys(name for run in runs for name in run.costs)),
        )
        file.write_text(page, encoding="utf-8")
