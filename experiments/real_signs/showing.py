"""The tables of a study: what each system and encoder reaches on the signer it has not seen, and what tests say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.comparing import difference_cells
from experiments.gloss_errors import gloss_statistics
from experiments.real_signs.study import ENCODERS, SYSTEMS, Fold, Study
from experiments.running import show_table
from training_fla.hub.card import read_facts
from training_fla.scoring.predictions import PredictionFile, read_predictions
from training_fla.scoring.resampling import Score, holm, ratio_of, score_difference, score_interval
from training_fla.scoring.scores import corpus_scores, sentence_statistics
from training_fla.tables import mean_and_deviation

SCORES = {"bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}
SHUFFLES = 12345  # seed of who is given whose video
# What each of both stages is compared with: itself beside shuffled videos, and other systems.
RIVALS = ("text_alone", "untrained_stage2", "joint", "one_run")


@dataclass
class Reading:
    """What a system says of the test clips of some folds, by seed, and what is right."""

    predictions: list[list[str]]
    references: list[str]


def show(study: Study) -> None:
    """Write and print the tables of all that has been run."""
    folds = {signer: [study.fold(signer, seed) for seed in study.seeds] for signer in study.signers}
    show_systems(study, folds)
    show_differences(study, folds)
    show_encoders(study, folds)


def read_tests(folds: Sequence[Sequence[Fold]], name: str, split: str = "test") -> Reading | None:
    """The predictions of a system, one fold after the other in each seed; nothing where a run of it is not done."""
    files: list[list[PredictionFile]] = []
    for fold in folds:
        paths = [seed.run(name).folder / f"predictions_{split}.tsv" for seed in fold]
        if not all(path.is_file() for path in paths):
            return None
        files.append([read_predictions(path) for path in paths])
    predictions = [[line for fold in files for line in fold[seed].predictions] for seed in range(len(files[0]))]
    return Reading(predictions, [line for fold in files for line in fold[0].references])


def shuffled(reading: Reading, num_folds: int) -> Reading:
    """What a system says where each clip of a fold is given the video of another one."""
    rng = np.random.default_rng(SHUFFLES)
    size, order = len(reading.references) // num_folds, []
    for fold in range(num_folds):
        cycle = rng.permutation(size)  # each gets the video of the next in a circle, so none its own
        places = np.empty(size, int)
        places[cycle] = np.roll(cycle, 1)
        order += (places + fold * size).tolist()
    return Reading([[lines[place] for place in order] for lines in reading.predictions], reading.references)


def readings(folds: Sequence[Sequence[Fold]]) -> dict[str, Reading]:
    """All systems that have run for all of some folds, by their label."""
    found = {label: read_tests(folds, name) for name, label in SYSTEMS.items()}
    for name in ("stage1", "stage2"):
        label = SYSTEMS[name]
        found[f"{label}, seen signers' other clips (dev)"] = read_tests(folds, name, "dev")
        found[f"{label}, shuffled videos"] = found[label] and shuffled(found[label], len(folds))
    return {label: reading for label, reading in found.items() if reading}


def show_systems(study: Study, folds: dict[str, list[Fold]]) -> None:
    """BLEU-4 and ROUGE-L, a column a fold and one of all clips, with its interval."""
    form = study.text_form
    columns = {signer: readings([of_signer]) for signer, of_signer in folds.items()}
    columns["all"] = readings(list(folds.values()))
    labels = list(dict.fromkeys(label for found in columns.values() for label in found))
    head = [f"{title}, {signer}" for title in SCORES.values() for signer in columns]
    rows = [["test split of the unseen signer", *head, *(f"{title}, all, 95 %" for title in SCORES.values())]]
    for label in labels:
        cells, intervals = [], []
        for name in SCORES:
            for signer, found in columns.items():
                reading = found.get(label)
                cells.append("" if reading is None else mean_and_deviation(scores_of(reading, name, form)))
                if signer == "all":
                    intervals.append("" if reading is None else interval_of(reading, name, form))
        rows.append([label, *cells, *intervals])
    seeds = ", ".join(map(str, study.seeds))
    title = f"Signers held out: {', '.join(study.signers)}; seeds {seeds}: mean ± sample deviation"
    title += "; 95 % intervals over clips and seeds"
    show_table(study.out / "systems.md", rows, title)


def scores_of(reading: Reading, name: str, form) -> list[float]:
    """A score of each seed."""
    return [corpus_scores(lines, reading.references, form)[name] for lines in reading.predictions]


def interval_of(reading: Reading, name: str, form) -> str:
    """Low and high of a score."""
    statistics, score = sentence_statistics(name, reading.predictions, reading.references, form)
    low, high = score_interval(statistics, score)
    return f"{low:.1f} to {high:.1f}"


def show_differences(study: Study, folds: dict[str, list[Fold]]) -> None:
    """How far both stages lie from shuffled videos and from other systems, over all folds that are done."""
    form, found = study.text_form, readings(list(folds.values()))
    names, tests = [], []
    for own in ("stage1", "stage2"):
        label = SYSTEMS[own]
        for rival in (f"{label}, shuffled videos", *(SYSTEMS[name] for name in RIVALS), SYSTEMS["stage1"]):
            if label in found and rival in found and rival != label:
                (ours, score), (theirs, _) = (
                    sentence_statistics("bleu4", found[side].predictions, found[side].references, form)
                    for side in (label, rival)
                )
                names.append([label, rival])
                tests.append(score_difference(ours, theirs, score))
    if not tests:
        return
    rows = [["BLEU-4 of", "less that of", "difference", "95 %", "p", "p, Holm"]]
    for cells, test, p_value in zip(names, tests, holm([test.p_value for test in tests]), strict=True):
        rows.append([*cells, *difference_cells(test, p_value)])
    title = f"All test clips of {', '.join(folds)}; intervals and p over clips and seeds; Holm over all rows"
    show_table(study.out / "differences.md", rows, title)


def show_encoders(study: Study, folds: dict[str, list[Fold]]) -> None:
    """Isolated accuracy and gloss errors of each encoder, a column a fold and one of all."""
    rows = [["encoder", *(f"{what}, {signer}" for what in MEASURES.values() for signer in (*folds, "all", "95 %"))]]
    for name, label in ENCODERS.items():
        cells = []
        for measure in MEASURES:
            found = [statistics_of(folds[signer], name, measure) for signer in folds]
            cells += [value_of(statistics) for statistics in found]
            whole = None if any(statistics is None for statistics in found) else np.concatenate(found, axis=1)
            cells.append(value_of(whole))
            cells.append("" if whole is None else "{:.1f} to {:.1f}".format(*score_interval(whole, ratio_of)))
        if any(cells):
            rows.append([label, *cells])
    title = (
        "Of the unseen signer, read by a linear layer on the frozen encoder: signs alone, of which chance reads 1 %, "
    )
    title += "and the glosses of sentences"
    if len(rows) > 1:
        show_table(study.out / "encoders.md", rows, title)


MEASURES = {"isolated": "isolated accuracy (%)", "probe": "gloss errors, linear CTC probe (%)"}


def statistics_of(of_signer: Sequence[Fold], encoder: str, measure: str) -> np.ndarray | None:
    """What each test clip adds to a measure, `(S, n, 2)`; nothing where one of the seeds has not been measured."""
    found = []
    for fold in of_signer:
        file = fold.isolated_file(encoder) if measure == "isolated" else fold.probe_file(encoder)
        if not file.exists():
            return None
        facts = read_facts(file)
        if measure == "isolated":
            pairs = zip(facts["predictions"], facts["references"], strict=True)
            found.append(np.array([(100 * (one == other), 1) for one, other in pairs]))
        else:
            found.append(gloss_statistics(**facts["test"]))
    return np.array(found)


def value_of(statistics: np.ndarray | None, score: Score = ratio_of) -> str:
    """Mean and deviation over the seeds."""
    return "" if statistics is None else mean_and_deviation([score(seed.sum(0)) for seed in statistics])
