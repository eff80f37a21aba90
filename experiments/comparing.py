"""What `fla ablate` prints of runs that are done: the paper's figures, ours, and how far ours differ."""

from experiments.norms import norm_rows
from experiments.running import Run
from training_fla.scoring.predictions import pair_up
from training_fla.scoring.resampling import Difference, holm
from training_fla.scoring.scores import compare_systems
from training_fla.tables import mean_and_deviation, moments, p_text
from training_fla.training.plots import Panel
from training_fla.viewing.paper_tables import SCORES, TABLES, Table


def table_of(table: str, plans: dict[str, list[list[Run]]], title: str) -> tuple[list[list[str]], str, list[Panel]]:
    """Rows, title and pictures of a table whose runs are done, by the label of each row and by seed."""
    if table == "figure2":
        files = {label: [runs[-1].folder / "norms.tsv" for runs in seeds] for label, seeds in plans.items()}
        return norm_rows(files), title, []
    reports = {label: [[run.finished.metrics for run in runs] for runs in seeds] for label, seeds in plans.items()}
    columns = table_rows(table, reports)
    whole = next((row.label for row in TABLES[table].rows if row.folder == "stage2"), None)
    if whole is not None:
        tests = compare_with(whole, {label: [runs[-1] for runs in seeds] for label, seeds in plans.items()})
        columns = [[*row, *more] for row, more in zip(columns, tests, strict=True)]
        title += f". BLEU-4 less that of `{whole}`, 95 % interval and p over clips"
        title += " and seeds" if len(next(iter(plans.values()))) > 1 else " alone, as there is one seed"
        title += ", p also by Holm over the rows"
    return columns, title, [epoch_panel(TABLES[table], reports)] if table == "figure4" else []


def compare_with(whole: str, runs: dict[str, list[Run]]) -> list[list[str]]:
    """Columns of a table, their heads first: BLEU-4 of each row less that of one, by labels and a run a seed."""
    first, form = runs[whole][0].finished.predictions, runs[whole][0].finished.text_form

    def predictions(label: str) -> list[list[str]]:
        return [pair_up(first, run.finished.predictions).predictions for run in runs[label]]

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
    return [f"{test.difference:+.2f}", interval, p_text(test.p_value), p_text(adjusted)]


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


def epoch_panel(table: Table, reports: dict[str, list[list[dict]]]) -> Panel:
    """Figure 4 of BLEU-4 of every seed, by the labels of rows: one curve a stage."""
    lines: dict[str, list] = {"visual initialing stage": [], "LLM fine-tuning stage": []}
    for row in table.rows:
        scores = [runs[-1]["test"]["bleu4"] for runs in reports[row.label]]
        curve = lines["LLM fine-tuning stage" if row.stage2 else "visual initialing stage"]
        curve.append((row.stage1_epochs, *moments(scores)))
    return Panel("test BLEU-4 (0 to 100)", "epochs of visual initialing", lines)
