"""`fla report`: its figures are those of the run folders, and the page needs nothing else."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import check_page
from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.viewing.paper_tables import WHOLE
from training_fla.viewing.report import read_runs


class Tables(HTMLParser):
    """The tables of a page by caption: rows of cells, each a text."""

    def __init__(self, page: str):
        super().__init__()
        self.tables, self.rows, self.inside, self.scopes = {}, [], None, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.scopes += [dict(attributes).get("scope")] if tag == "th" else []
        if tag in ("td", "th", "caption"):
            self.inside = tag
            self.caption = "" if tag == "caption" else self.caption

    def handle_endtag(self, tag):
        if tag == "table":
            self.tables[self.caption] = self.rows
        elif tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside == "caption":
            self.caption += data
        elif self.inside:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Stage 1 once, stage 2 with two seeds, in folders as `fla ablate` has them."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = pack_demo(folder / "corpus", num_train=8, num_dev=3, num_test=7)
    for name, lines in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{name}.yaml").write_text(f"dataset: {corpus}\n{lines}")
    stage1 = folder / "seed-0" / "stage1"
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", stage1, "--max_steps", 6) == 0
    for seed in (0, 1):
        out = folder / f"seed-{seed}" / "stage2"
        lines = (
            "--tokenizer",
            out.with_name("stage1"),
            "--norm_logging_steps",
            2,
            "--seed",
            seed,
            "--output_dir",
            out,
        )
        if seed:  # only the path says that it has another seed
            shutil.copytree(stage1, out.with_name("stage1"))
        assert run("run_stage2", folder / "stage2.yaml", "--stage1_checkpoint", out.with_name("stage1"), *lines) == 0
    return folder


@pytest.fixture(scope="module")
def page(runs) -> Path:
    folders = [runs / name for name in ("seed-0/stage1", "seed-0/stage2", "seed-1/stage2")]
    assert main(["report", *map(str, folders), "--out", str(runs / "report.html")]) == 0
    return runs / "report.html"


def test_its_figures_are_those_of_the_folders(runs, page):
    found = Tables(page.read_text(encoding="utf-8"))
    head, *rows = found.tables["Test split"]
    assert head == ["run", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "chrF", "exact", "distinct"]
    names = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf"]
    table = {row[0]: row[1:] for row in rows}
    assert list(table) == [
        "seed-0/stage1", "seed-*/stage2, mean of 2", "seed-0/stage2", "seed-1/stage2",
    ], "the paper has no figures of this corpus"  # fmt: skip
    for name in ("seed-0/stage1", "seed-0/stage2", "seed-1/stage2"):
        test = metrics_of(runs / name)["test"]
        exact, distinct = table[name].pop(6), table[name].pop(6)
        assert exact == f"{test['exact_matches']} of 7"
        assert distinct == f"{test['distinct_predictions']} ({test['distinct_references']})"
        for cell, score in zip(table[name], names, strict=True):
            low, high = test["confidence_intervals"][score]
            assert cell == f"{test[score]:.2f} {low:.1f} to {high:.1f}"
    both = [metrics_of(runs / f"seed-{seed}/stage2")["test"] for seed in (0, 1)]
    for cell, score in zip(table["seed-*/stage2, mean of 2"][:6], names, strict=True):
        a, b = (test[score] for test in both)
        assert cell == f"{(a + b) / 2:.2f} ± {abs(a - b) / 2**0.5:.2f}"
    assert [row[0] for row in found.tables["Dev split, which chose the model"][1:]] == [
        "seed-0/stage1", "seed-*/stage2, mean of 2", "seed-0/stage2", "seed-1/stage2",
    ]  # fmt: skip
    exact = [float(value) for value in re.findall('<data value="([^"]+)"', page.read_text())]
    assert metrics_of(runs / "seed-1/stage2")["dev"]["bleu1"] in exact
    costs = {row[0]: row[1:] for row in found.tables["As far as the runs noted it"]}
    assert costs["parameters"][0].startswith(f"{metrics_of(runs / 'seed-0/stage1')['parameters']:,}, of them trained")
    assert costs["hardware"][0].startswith("CPU, ") and "torch " in costs["made with"][2]
    assert None not in found.scopes and set(found.scopes) == {"row", "col"}


def test_translations_frames_curves_and_recipes_are_there(runs, page):
    text = page.read_text(encoding="utf-8")
    for row in (runs / "seed-1/stage2/predictions_test.tsv").read_text().splitlines()[1:][::2]:
        clip, prediction, reference = row.split("\t")
        assert f"<h3>{clip}</h3>" in text and f'<dd lang="de">{reference}</dd>' in text
        assert f'<dd lang="de">{prediction or "(empty)"}</dd>' in text
    assert text.count('<img src="data:image/jpeg;base64,') == 30 and 'alt="frame at 0.00s"' in text
    assert "training loss (nats per token) over step: seed-0/stage1 from " in text
    assert (
        text.count("gradient norm of the last layer (Euclidean) over step") == 2 and "<h3>seed-0/stage2</h3>" in text
    )
    lines = {
        row[0]: row[1:] for row in next(v for k, v in Tables(text).tables.items() if k.startswith("seed-0/stage2"))
    }
    assert lines["max_steps"] == ["-1", "4"] and lines["frame_size"] == ["256", "24"] and "optimizer" not in lines
    assert "norm_logging_steps" not in lines and "seed" not in lines


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_it_opens_without_network_and_axe_finds_nothing(page, scheme, width):
    check_page(page, width, scheme)


def test_a_run_of_020_leaves_out_what_it_did_not_keep(runs, tmp_path, capsys):
    """0.2.0 wrote neither its log nor frames, and no norms unless asked; the last checkpoint holds the log."""
    old = shutil.copytree(runs / "seed-0/stage2", tmp_path / "old")
    shutil.rmtree(old / "sample_frames")
    for name in ("trainer_state.json", "norms.tsv"):
        (old / name).unlink()
    metrics = metrics_of(old)
    del metrics["device"]
    (old / "metrics.json").write_text(json.dumps(metrics))
    out = tmp_path / "report.html"
    assert main(["report", str(old), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "training loss" in text and "no run logged them" in text and "the runs kept none" in text
    assert "<img" not in text and ">hardware<" not in text
    for checkpoint in old.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    (old / "predictions_test.tsv").unlink()
    assert main(["report", str(old), "--out", str(out), "--overwrite"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "no run has a training log" in text and "predictions_test.tsv" in text


def test_frames_and_markup_stay_out(runs, tmp_path):
    evil = shutil.copytree(runs / "seed-0/stage2", tmp_path / "stage2")
    table = (evil / "predictions_test.tsv").read_text().splitlines()
    table[1] = "<script>alert(1)</script>\t<b>a</b> & b\tc"
    (evil / "predictions_test.tsv").write_text("\n".join(table) + "\n")
    assert main(["report", str(evil), "--no-frames", "--out", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;b&gt;a&lt;/b&gt; &amp; b" in text
    assert "<img" not in text and "Frames are left out, as asked" in text and "shows frames" not in text


def fake(folder: Path, name: str, **lines) -> Path:
    out = folder / name
    out.mkdir(parents=True)
    corpus = lines.pop("corpus", "phoenix14t")
    (out / "recipe.yaml").write_text(json.dumps(lines))
    (out / "metrics.json").write_text(json.dumps({"test": {"bleu4": 1.0}, "data": {"corpus": corpus}}))
    return out


@pytest.mark.parametrize(
    ("name", "lines", "row", "recipe"),
    [
        ("a", {"light_t": "base"}, "Table 5, stage 1 only", "phoenix14t/stage1"),
        ("a", {"stage1_checkpoint": "b", "language_model": "c"}, "Table 1", "phoenix14t/stage2"),
        ("a", {"stage1_checkpoint": "b", "corpus": "csl_daily"}, "Table 2", "csl_daily/stage2"),
        ("a", {"language_model": "c", "freeze_vision_backbone": False}, "Table 4, joint",
         "phoenix14t/ablations/stage2_joint"),
        ("a", {"language_model": "c"}, "Table 5, stage 2 only",
         "phoenix14t/ablations/stage2_untrained_encoder"),
        ("stage2_rate_50-after-stage1_rate_50", {"stage1_checkpoint": "b"}, "Table 6, 50%",
         "phoenix14t/ablations/stage2_rate_50"),
    ],
)  # fmt: skip
def test_a_run_stands_beside_its_row_and_recipe_of_the_paper(tmp_path, name, lines, row, recipe):
    (found,) = read_runs([fake(tmp_path, name, **lines)])
    assert found.paper[0] == row
    assert found.recipe_differences()[0] == f"recipes/{recipe}.yaml"


@pytest.mark.parametrize(
    ("corpus", "lines", "rows"),
    [
        ("phoenix14t", {"stage1_checkpoint": "b"}, ["paper, Table 1"]),
        ("csl_daily", {"light_t": "base"}, []),
        ("manifest", {"stage1_checkpoint": "b"}, []),
    ],
)
def test_the_papers_figures_stand_only_beside_runs_on_their_corpus(tmp_path, corpus, lines, rows):
    folder = fake(tmp_path, "run", corpus=corpus, **lines)
    assert main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    (_, _, *others) = Tables(text).tables["Test split"]
    rouge_l, *bleu = (f"{figure:.2f}" for figure in WHOLE)
    assert others == [[row, *bleu, rouge_l, "not given", "", ""] for row in rows]
    assert ("23.09" in text) == bool(rows)


def test_what_a_run_did_not_note_is_left_out(tmp_path):
    folder = fake(tmp_path, "stage1", corpus="")
    assert main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Corpus: unknown." in text and "Dev split: left out" in text and "not noted" not in text
    (_, row) = Tables(text).tables["Test split"]
    assert row == ["stage1", "not given", "not given", "not given", "1.00", "not given", "not given", "", ""]


def test_without_the_papers_recipes_one_line_says_so(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("training_fla.clone.ROOT", tmp_path)
    assert main(["report", str(runs / "seed-0/stage2"), "--out", str(tmp_path / "report.html")]) == 0
    assert "the paper’s recipes are not installed" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_bad_input_is_one_line_and_nothing_is_written(runs, tmp_path, capsys):
    unfinished, stage2 = tmp_path / "unfinished", runs / "seed-0/stage2"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text("light_t: tiny\n")
    (tmp_path / "there.html").write_text("mine")
    for words, message in (
        ([tmp_path / "gone"], "recipe.yaml"),
        ([unfinished], "unfinished"),
        ([stage2, stage2], "twice"),
        ([stage2, fake(tmp_path, "other")], "(demo, phoenix14t)"),
        ([stage2, "--out", tmp_path / "there.html"], "there.html"),
        ([stage2, "--out", tmp_path / "report.pdf"], "report.pdf"),
    ):
        out = [] if "--out" in words else ["--out", tmp_path / "report.html"]
        assert main(["report", *map(str, [*words, *out])]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert (tmp_path / "there.html").read_text() == "mine" and not (tmp_path / "report.html").exists()
    for text in ("{", "[1]"):
        (unfinished / "metrics.json").write_text(text)
        with pytest.raises(InputError, match="metrics.json"):
            read_runs([unfinished])
