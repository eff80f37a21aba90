"""`fla ablate dominance`: does a language model keep the visual encoder that is trained with it from learning?

Encoders are trained beside different language models at equal rates of the encoder, then frozen and probed alike: by a
fresh stage 2, and by a linear layer that reads glosses.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.ablation import JOURNAL, Ablation, given_lines, note_plan, run_once
from experiments.gloss_errors import gloss_error_rate, gloss_statistics
from experiments.norms import gradient_ratio
from experiments.running import Run, own_folder, show_table
from training_fla.errors import InputError, one_line
from training_fla.folders import write_text
from training_fla.hub.card import read_facts
from training_fla.recipe import RecipeLoader, Stage2Arguments, read_lines
from training_fla.scoring.conventions import CONVENTIONS, convention_for
from training_fla.scoring.predictions import read_predictions
from training_fla.scoring.resampling import ratio_of, score_difference, score_interval
from training_fla.scoring.scores import sentence_statistics
from training_fla.tables import mean_and_deviation, moments
from training_fla.training.plots import Panel

PROBES = {
    "gloss_errors": "gloss error rate of a linear probe, test (%)",
    "bleu4": "BLEU-4 of stage 2 on the frozen encoder, test (0 to 100)",
}
COLUMNS = [
    "encoder trained with", "its rate", "gloss errors", "95 %", "BLEU-4 of stage 2", "95 %",
    "ROUGE-L of stage 2", "BLEU-4 as trained", "gradient norms, encoder / language model", "p against the first arm",
    "p against untrained",
]  # fmt: skip


@dataclass
class Encoder:
    """A visual encoder: what it is trained with, its rate, and the two runs of each seed, its own and its stage 2."""

    label: str
    rate: float
    runs: list[tuple[Run, Run]]

    def glosses(self, place: int) -> Path:
        """What the linear probe read, of the seed at this place."""
        run = self.runs[place][0]
        return run.folder.with_name(f"glosses-{run.folder.name}.json")


def read_encoders(ablation: Ablation) -> list[Encoder]:
    """The encoders that `dominance.yaml` names, the untrained one first."""
    file = ablation.recipes / "dominance.yaml"
    try:
        plan = yaml.load(file.read_text(encoding="utf-8"), RecipeLoader)
        arms = itertools.product(plan["visual_learning_rates"], plan["arms"].items())
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


def plan_runs(name: str, lines: dict[str, Any], rate: float, ablation: Ablation) -> list[tuple[Run, Run]]:
    """The run that trains an encoder, by a recipe and lines that change it, and its stage 2; a pair a seed."""
    pairs, stage = [], "stage1" if lines["recipe"] == "stage1" else "stage2"
    recipe, own = ablation.recipes / f"{lines['recipe']}.yaml", {k: v for k, v in lines.items() if k != "recipe"}
    for seed in ablation.seeds:
        folder, seeded = ablation.out / f"seed-{seed}", {"seed": seed}
        first = given_lines(stage, ablation) | {"visual_learning_rate": rate} | own | seeded
        second = given_lines("stage2", ablation) | {"stage1_checkpoint": str(folder / name)} | seeded
        stage2 = Run(folder / f"stage2-after-{name}", "run_stage2.py", ablation.recipes / "stage2.yaml", second)
        pairs.append((Run(folder / name, f"run_{stage}.py", recipe, first), stage2))
    return pairs


def run_dominance(ablation: Ablation) -> int:
    """Train, probe, compare, print; 0, or the exit status of the run that failed."""
    encoders = read_encoders(ablation)
    note_plan([run for encoder in encoders for pair in encoder.runs for run in pair], ablation)
    own_folder(ablation.out, "ablation", ablation.out / JOURNAL)
    for place, _ in enumerate(ablation.seeds):
        for encoder in encoders:
            for run in encoder.runs[place]:
                status = run_once(run, ablation)
                if status:
                    return status
            probe_once(encoder.glosses(place), *encoder.runs[place])
    found = [outcome(encoder) for encoder in encoders]
    title = f"test split, {len(ablation.seeds)} seed(s), mean ± sample deviation; intervals and p over clips and seeds"
    peers = [next(other for other in found if other["rate"] == own["rate"]) for own in found]
    rows = [cells_of(own, peer, found[0]) for own, peer in zip(found, peers, strict=True)]
    show_table(ablation.out / "dominance.md", [COLUMNS, *rows], title, [panel(found, key) for key in PROBES])
    return 0


def probe_once(file: Path, run: Run, stage2: Run) -> None:
    """Read glosses from an encoder, on the corpus of its stage 2; a result that is there is kept."""
    if not file.exists():
        from experiments.probe import probe_glosses  # brings torch

        dataset = Path(read_lines(Stage2Arguments, stage2.folder / "recipe.yaml")["dataset"])
        found = probe_glosses(run.folder, dataset, run.folder.with_name("features"), seed=run.lines["seed"])
        write_text(file, json.dumps(found, ensure_ascii=False))


def outcome(encoder: Encoder) -> dict[str, Any]:
    """All figures of an encoder, a value a seed, and sentence statistics of both probes on the test split."""
    glosses = [read_facts(encoder.glosses(place)) for place, _ in enumerate(encoder.runs)]
    own, stage2 = zip(*encoder.runs, strict=True)
    test = [run.report()["test"] for run in stage2]
    tables = [read_predictions(run.folder / "predictions_test.tsv") for run in stage2]
    wanted = read_lines(Stage2Arguments, stage2[0].folder / "recipe.yaml").get("score_convention")
    references = tables[0].references
    form = CONVENTIONS[convention_for(wanted, references)]
    signed = glosses[0]["test"]["references"]
    norms = [run.folder / "norms.tsv" for run in own]
    return {
        "label": encoder.label,
        "rate": encoder.rate,
        "gloss_errors": [gloss_error_rate(**each["test"]) for each in glosses],
        "bleu4": [scores["bleu4"] for scores in test],
        "rouge_l": [scores["rouge_l"] for scores in test],
        "as_trained": [run.report()["test"]["bleu4"] for run in own],
        "norms": [gradient_ratio(file) for file in norms if file.exists()],
        "statistics": {
            "gloss_errors": (
                np.array([gloss_statistics(each["test"]["predictions"], signed) for each in glosses]),
                ratio_of,
            ),
            "bleu4": sentence_statistics("bleu4", [table.predictions for table in tables], references, form),
        },
    }


def cells_of(own: dict[str, Any], peer: dict[str, Any], untrained: dict[str, Any]) -> list[str]:
    """A row of the table; `peer` is the first arm's encoder of the same rate."""
    cells, tests = [own["label"], f"{own['rate']:g}"], ([], [])
    for key in PROBES:
        statistics, score = own["statistics"][key]
        low, high = score_interval(statistics, score)
        cells += [mean_and_deviation(own[key]), f"{low:.1f} to {high:.1f}"]
        for other, values in zip((peer, untrained), tests, strict=True):
            if other is not own:
                theirs, _ = other["statistics"][key]
                values.append(f"{score_difference(statistics, theirs, score).p_value:.3f}")
    cells += [mean_and_deviation(own[key]) if own[key] else "" for key in ("rouge_l", "as_trained", "norms")]
    return [*cells, *(", ".join(values) for values in tests)]


def panel(found: list[dict[str, Any]], key: str) -> Panel:
    """One probe over the rate of the encoder, a line an arm, and the untrained encoder as a level."""
    rates = sorted({math.log10(own["rate"]) for own in found if own["rate"]})
    lines: dict[str, list] = {}
    for own in found:
        for rate in [math.log10(own["rate"])] if own["rate"] else rates:
            lines[own["label"]] = sorted([*lines.get(own["label"], []), (rate, *moments(own[key]))])
    return Panel(PROBES[key], "log10 of the encoder's learning rate", lines)
