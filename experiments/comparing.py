"""What `fla ablate` prints of runs that are done: the paper's figures, ours, and how far ours differ."""

from collections.abc import Sequence

from experiments.norms import norm_rows
from experiments.running import Run
from training_fla.corpora.registry import convention_of
from training_fla.hub.card import read_facts
from training_fla.scoring.conventions import CONVENTIONS, TextForm, convention_for
from training_fla.scoring.predictions import pair_up, read_predictions
from training_fla.scoring.resampling import Difference, holm
from training_fla.scoring.scores import compare_systems
from training_fla.tables import mean_and_deviation, moments
from training_fla.training.plots import Panel
from training_fla.viewing.paper_tables import SCORES, TABLES


def table_of(table: str, plans: dict[str, list[list[Run]]], title: str) -> tuple[list[list[str]], str, list[Panel]]:
    """Rows, title and pictures of a table whose runs are done, by the label of each row and by seed."""
    if table == "figure2":
        files = {label: [runs[-1].folder / "norms.tsv" for runs in seeds] for label, seeds in plans.items()}
        return norm_rows(files), title, []
    reports = {label: [[run.report() for run in runs] for runs in seeds] for label, seeds in plans.items()}
    columns = table_rows(table, reports)
    whole = next((row.label for row in TABLES[table].rows if row.folder == "stage2"), None)
    if whole is not None:
        tests = compare_with(whole, {label: [runs[-1] for runs in seeds] for label, seeds in plans.items()})
        columns = [[*row, *more] for row, more in zip(columns, tests, strict=True)]
        title += f". BLEU-4 less that of `{whole}`, 95 % interval and p over clips"
        title += " and seeds" if len(next(iter(plans.values()))) > 1 else " alone, as there is one seed"
        title += ", p also by Holm over the rows"
    return columns, title, [epoch_panel(reports)] if table == "figure4" else []


def compare_with(whole: str, runs: dict[str, list[Run]]) -> list[list[str]]:
    """Columns of a table, their heads first: BLEU-4 of each row less that of one, by labels and a run a seed."""
    first = read_predictions(runs[whole][0].folder / "predictions_test.tsv")
    form = text_form(runs[whole][0], first.references)

    def predictions(label: str) -> list[list[str]]:
        tables = [read_predictions(run.folder / "predictions_test.tsv") for run in runs[label]]
        return [pair_up(first, table).predictions for table in tables]

    theirs = predictions(whole)
    tests = {
        label: compare_systems(predictions(label), theirs, first.references, form, names=["bleu4"])["bleu4"]
        for label in runs
        if label != whole
    }
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    cells = {whole: ["", "", "", ""]}
    for label, test in tests.items():
        cells[label] = difference_cells(test, adjusted[label])
    return [["B4 less", "95 %", "p", "p, Holm"], *(cells[label] for label in runs)]


def difference_cells(test: Difference, adjusted: float) -> list[str]:
    """A difference, its 95 % interval, p, and p as adjusted for all tests of the table."""
    interval = "{:+.2f} to {:+.2f}".format(*test.interval)
    return [f"{test.difference:+.2f}", interval, f"{test.p_value:.3f}", f"{adjusted:.3f}"]


def text_form(run: Run, references: Sequence[str]) -> TextForm:
    """How a finished run's sentences were scored."""
    wanted = read_facts(run.folder / "recipe.yaml").get("score_convention", "auto")
    if wanted == "auto":
        wanted = convention_of(run.report().get("data", {}).get("corpus") or "auto")
    return CONVENTIONS[convention_for(wanted, references)]


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
