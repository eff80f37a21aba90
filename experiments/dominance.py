"""`fla ablate dominance`: does a language model keep the visual encoder that is trained with it from learning?

Encoders are trained beside different language models at equal rates of the encoder, then frozen and measured alike: by
a fresh stage 2, and by probes that read glosses.
"""

import itertools
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.ablation import Ablation, given_lines, note_plan, open_log
from experiments.comparing import difference_cells
from experiments.gloss_errors import gloss_error_rate, gloss_statistics
from experiments.norms import gradient_ratio
from experiments.running import Run, show_table
from training_fla.errors import InputError, one_line
from training_fla.folders import write_text
from training_fla.hub.card import read_facts
from training_fla.recipe import STAGES, RecipeLoader, read_lines
from training_fla.scoring.resampling import Score, holm, ratio_of, score_difference, score_interval
from training_fla.scoring.scores import sentence_statistics
from training_fla.tables import mean_and_deviation, moments, p_text
from training_fla.training.plots import Panel

# What an encoder is measured by; all but stage 2 are probes.
STAGE2 = "bleu4"
MEASURES = {
    "linear": "gloss errors, linear probe (%)",
    "hidden": "gloss errors, probe with a hidden layer (%)",
    "five": "gloss errors, linear probe of five positions (%)",
    STAGE2: "BLEU-4 of stage 2 on the frozen encoder",
}
# Unstated: differences that would matter, in points; two encoders are equivalent if theirs is smaller.
MARGINS = {"linear": 5.0, "hidden": 5.0, "five": 5.0, STAGE2: 1.5}


@dataclass
class SeedRuns:
    """The runs of one encoder and one seed: the one that trains it, and stage 2 on it."""

    training: Run
    stage2: Run

    def needed(self, measures: list[str]) -> list[Run]:
        """Those that the measures need."""
        return [self.training, self.stage2] if STAGE2 in measures else [self.training]

    def probe_file(self, kind: str, seed: int) -> Path:
        """What a probe of this encoder read."""
        folder = self.training.folder
        return folder.with_name(f"probe-{kind}-{seed}-{folder.name}.json")


@dataclass
class Encoder:
    """A visual encoder: what it is trained with, its rate, and its runs, one pair a seed."""

    label: str
    rate: float
    runs: list[SeedRuns]


@dataclass
class Measurement:
    """An encoder's figures by a key of `MEASURES`: a value for each run and probe, and what each test clip adds."""

    values: list[float]
    clips: np.ndarray  # (S, n, K): of a probe the mean over its seeds
    score: Score  # of sums over the clips
    probe_deviation: float | None = None  # of one encoder, from the seed of its probe alone

    def cells(self) -> list[str]:
        """Mean, deviation over all values, in brackets that of the probe's seed, and the interval."""
        low, high = score_interval(self.clips, self.score)
        mean = mean_and_deviation(self.values)
        if self.probe_deviation is not None:
            mean += f" ({self.probe_deviation:.2f})"
        return [mean, f"{low:.1f} to {high:.1f}"]


@dataclass
class Figures:
    """All that is measured of an encoder on the test split, a value a seed."""

    encoder: Encoder
    measurements: dict[str, Measurement]
    bleu4_as_trained: list[float]
    gradient_ratios: list[float]
    probes_cut_off: int  # that were still improving after the most epochs


def read_encoders(ablation: Ablation, comparison: str) -> list[Encoder]:
    """The encoders that a comparison of `dominance.yaml` names, the untrained one first."""
    file = ablation.recipes / "dominance.yaml"
    try:
        plan = yaml.load(file.read_text(encoding="utf-8"), RecipeLoader)
        if comparison not in plan["comparisons"]:
            names = ", ".join(plan["comparisons"])
            raise InputError(f"--comparison {comparison}: {file} has no such; it has {names}")
        chosen = plan["comparisons"][comparison]
        arms = itertools.product(chosen["visual_learning_rates"], chosen["arms"].items())
        untrained = plan_runs("untrained-encoder", plan["untrained"], 0.0, ablation)
        encoders = [Encoder("untrained encoder", 0.0, untrained)]
        for rate, (label, lines) in arms:
            name = "-".join([*label.replace(",", "").split(), f"{rate:g}"])
            encoders.append(Encoder(label, rate, plan_runs(name, lines, rate, ablation)))
        return encoders
    except FileNotFoundError:
        raise InputError(f"{ablation.recipes} has no dominance.yaml; recipes/phoenix_drawn has one") from None
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{file} is not as recipes/phoenix_drawn/dominance.yaml: {one_line(error)}") from None


def plan_runs(name: str, lines: dict[str, Any], rate: float, ablation: Ablation) -> list[SeedRuns]:
    """The run that trains an encoder, by a recipe and lines that change it, and its stage 2; a pair a seed."""
    recipe = ablation.recipes / f"{lines['recipe']}.yaml"
    stage = "stage1" if lines["recipe"].startswith("stage1") else "stage2"
    changes = {name: value for name, value in lines.items() if name != "recipe"}
    runs = []
    for seed in ablation.seeds:
        folder = ablation.out / f"seed-{seed}"
        first = given_lines(stage, ablation) | {"visual_learning_rate": rate} | changes | {"seed": seed}
        second = given_lines("stage2", ablation) | {"stage1_checkpoint": str(folder / name), "seed": seed}
        training = Run(folder / name, stage, recipe, first)
        stage2 = Run(folder / f"stage2-after-{name}", "stage2", ablation.recipes / "stage2.yaml", second)
        runs.append(SeedRuns(training, stage2))
    return runs


def run_dominance(ablation: Ablation, comparison: str, measures: list[str], probe_seeds: int) -> int:
    """Train, probe, compare, print; 0, or the exit status of the run that failed."""
    encoders = read_encoders(ablation, comparison)
    runs = [run for encoder in encoders for pair in encoder.runs for run in pair.needed(measures)]
    note_plan(runs, ablation)
    log = open_log(ablation)
    log.check(run.step(ablation.out) for run in runs)
    for place, _ in enumerate(ablation.seeds):
        for encoder in encoders:
            pair = encoder.runs[place]
            status = log.run(run.step(ablation.out) for run in pair.needed(measures))
            if status:
                return status
            probe_encoder(pair, measures, probe_seeds)
    figures = [measure(encoder, measures, probe_seeds) for encoder in encoders]
    file = ablation.out / f"dominance_{comparison}.md"
    show_figures(figures, file, len(ablation.seeds), probe_seeds)
    show_differences(figures, file.with_stem(f"{file.stem}_differences"))
    return 0


def probe_encoder(pair: SeedRuns, measures: list[str], probe_seeds: int) -> None:
    """Read glosses from an encoder, on its corpus; what has been read is not read again."""
    missing = {}
    for kind, seed in itertools.product(probes_of(measures), range(probe_seeds)):
        file = pair.probe_file(kind, seed)
        if not file.exists():
            missing[file] = kind, seed
    if not missing:
        return
    from experiments.probe import encode_splits, probe_glosses  # brings torch

    dataset = Path(read_lines(STAGES[pair.training.stage], pair.training.folder / "recipe.yaml")["dataset"])
    splits = encode_splits(pair.training.folder, dataset, pair.training.folder.with_name("features"))
    for file, (kind, seed) in missing.items():
        write_text(file, json.dumps(probe_glosses(splits, kind, seed), ensure_ascii=False))


def probes_of(measures: list[str]) -> list[str]:
    """Those measures that are probes."""
    return [name for name in measures if name != STAGE2]


def measure(encoder: Encoder, measures: list[str], probe_seeds: int) -> Figures:
    """Gather an encoder's figures from the folders of its runs."""
    measurements, cut_off = {}, 0
    for kind in probes_of(measures):
        readings = [[read_facts(pair.probe_file(kind, seed)) for seed in range(probe_seeds)] for pair in encoder.runs]
        measurements[kind] = measure_probe(readings)
        cut_off += sum(not reading["converged"] for of_seed in readings for reading in of_seed)
    if STAGE2 in measures:
        measurements[STAGE2] = measure_stage2([pair.stage2 for pair in encoder.runs])
    norms = [pair.training.folder / "norms.tsv" for pair in encoder.runs]
    return Figures(
        encoder=encoder,
        measurements=measurements,
        bleu4_as_trained=[pair.training.finished.metrics["test"]["bleu4"] for pair in encoder.runs],
        gradient_ratios=[gradient_ratio(file) for file in norms if file.exists()],
        probes_cut_off=cut_off,
    )


def measure_probe(readings: list[list[dict[str, Any]]]) -> Measurement:
    """Gloss errors on test, by seed of the encoder and seed of the probe."""
    rates = [[gloss_error_rate(**reading["test"]) for reading in of_seed] for of_seed in readings]
    clips = [[gloss_statistics(**reading["test"]) for reading in of_seed] for of_seed in readings]
    deviation = None
    if len(rates[0]) > 1:
        deviation = math.sqrt(statistics.mean(statistics.variance(of_seed) for of_seed in rates))
    values = [rate for of_seed in rates for rate in of_seed]
    return Measurement(values, np.array(clips).mean(axis=1), ratio_of, deviation)


def measure_stage2(runs: list[Run]) -> Measurement:
    """BLEU-4 on test of a stage 2 on each of the frozen encoders."""
    tables = [run.finished.predictions for run in runs]
    predictions = [table.predictions for table in tables]
    clips, score = sentence_statistics("bleu4", predictions, tables[0].references, runs[0].finished.text_form)
    return Measurement([run.finished.metrics["test"]["bleu4"] for run in runs], clips, score)


def show_figures(figures: list[Figures], file: Path, seeds: int, probe_seeds: int) -> None:
    """Write, print and draw what each encoder reaches."""
    names = list(figures[0].measurements)
    head = ["encoder trained with", "its rate", *(cell for name in names for cell in (MEASURES[name], "95 %"))]
    head += ["BLEU-4 as trained", "gradient norms, encoder / language model"]
    rows = [head]
    for own in figures:
        cells = [own.encoder.label, f"{own.encoder.rate:g}"]
        for name in names:
            cells += own.measurements[name].cells()
        for values in (own.bleu4_as_trained, own.gradient_ratios):
            cells.append(mean_and_deviation(values) if values else "")
        rows.append(cells)
    title = f"test split, {seeds} seed(s) of each encoder, {probe_seeds} of each probe: mean ± sample deviation, in "
    title += f"brackets that of the probe's seed alone; 95 % intervals over {counted_in(seeds)}"
    cut_off = sum(own.probes_cut_off for own in figures)
    if cut_off:
        title += f"; {cut_off} probes had not converged"
    show_table(file, rows, title, [panel_of(figures, name) for name in names])


def show_differences(figures: list[Figures], file: Path) -> None:
    """Write and print how far each encoder lies from the first arm at its rate, and from the untrained one."""
    pairs = []
    for own in figures:
        first = next(other for other in figures if other.encoder.rate == own.encoder.rate)
        for other in (first, figures[0]):
            if other is not own:
                pairs.append((own, other))
    names, tests, margins = [], [], []
    for measure_name in figures[0].measurements:
        for own, other in pairs:
            ours, theirs = own.measurements[measure_name], other.measurements[measure_name]
            names.append([MEASURES[measure_name], own.encoder.label, f"{own.encoder.rate:g}", other.encoder.label])
            tests.append(score_difference(ours.clips, theirs.clips, ours.score, margin=MARGINS[measure_name]))
            margins.append(f"{MARGINS[measure_name]:g}")
    adjusted = holm([test.p_value for test in tests])
    equivalence = holm([test.equivalence_p for test in tests])
    head = ["measure", "encoder trained with", "its rate", "less", "difference", "95 %", "p", "p, Holm", "margin"]
    rows = [[*head, "p, equivalent within it, Holm"]]
    for cells, test, *p_values, margin in zip(names, tests, adjusted, equivalence, margins, strict=True):
        rows.append([*cells, *difference_cells(test, p_values[0]), margin, p_text(p_values[1])])
    over = counted_in(len(figures[0].encoder.runs))
    title = f"Differences, over {over}; a probe's figure is the mean over its seeds. Holm over all rows"
    show_table(file, rows, title)


def counted_in(seeds: int) -> str:
    """What an interval and a p are over."""
    return "clips and seeds" if seeds > 1 else "clips alone, as there is one seed"


def panel_of(figures: list[Figures], name: str) -> Panel:
    """One measure over the rate of the encoder, a line an arm, and the untrained encoder as a level."""
    rates = sorted({math.log10(own.encoder.rate) for own in figures if own.encoder.rate})
    lines: dict[str, list] = {}
    for own in figures:
        for rate in [math.log10(own.encoder.rate)] if own.encoder.rate else rates:
            point = rate, *moments(own.measurements[name].values)
            lines[own.encoder.label] = sorted([*lines.get(own.encoder.label, []), point])
    return Panel(MEASURES[name], "log10 of the encoder's learning rate", lines)
