import csv
import json
import os
import re
import unicodedata

import pytest

from training_fla.cli import main
from training_fla.scoring.predictions import pair_up, read_predictions
from training_fla.scoring.report import COLUMNS, align
from training_fla.tables import read_table

ROWS = [
    ("a", "der wind weht schwach", "der wind weht schwach aus nord"),
    ("b", "", "im süden regen"),
    ("c", 'er sagt "gut" 你', "er sagt gut"),
    ("d", "morgen wird es wärmer", "morgen wird es wärmer"),
]


def write(path, rows=ROWS, header=("id", "prediction", "reference")):
    path.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n", encoding="utf-8")
    return path


def score_json(capsys, *arguments) -> dict:
    assert main(["score", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_is_one_object_with_scores_signature_and_alternatives(tmp_path, capsys):
    report = score_json(capsys, write(tmp_path / "p.tsv"), "--corpus", "phoenix14t", "--samples", 50)
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf"):
        low, high = report["confidence_intervals"][name]
        assert 0 <= low < high <= 100
    assert report["num_sentences"] == 4, "the empty prediction counts"
    assert "case:lc" in report["signature"]
    assert {"with_final_period", "13a", "rouge_l_p_over_r", "rouge_score"} < report["alternatives"].keys()
    assert report["alternatives"]["13a"].keys() > {"bleu1", "bleu4", "rouge_l", "signature"}


def test_a_csv_file_and_files_without_ids_are_read(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text('reference,prediction\r\n"a, b","say ""hi"""\r\nc,\r\n', encoding="utf-8-sig")
    table = read_predictions(file)
    assert (table.ids, table.predictions, table.references) == (["1", "2"], ['say "hi"', ""], ["a, b", "c"])


def test_sentences_are_written_worst_first_with_what_was_missed(tmp_path, capsys):
    out = tmp_path / "sentences.tsv"
    write(tmp_path / "p.tsv")
    assert main(["score", str(tmp_path / "p.tsv"), "--corpus", "words", "--sentences", str(out)]) == 0
    rows = [row for _, row in read_table(out, COLUMNS)]
    assert [row["id"] for row in rows] == ["b", "c", "a", "d"]
    assert rows[0]["missed"] == "im süden regen" and rows[0]["prediction"] == ""
    assert rows[1]["inserted"] == '"gut" 你' and rows[1]["foreign_script"] == "你"
    assert (rows[2]["prediction_length"], rows[2]["reference_length"]) == ("4", "6")
    assert float(rows[3]["rouge_l"]) == 100


def test_the_page_needs_no_other_file_and_escapes_what_it_shows(tmp_path, capsys):
    rows = [*ROWS, ("e", "<script>alert(1)</script>", "nichts & niemand")]
    page = tmp_path / "report.html"
    assert main(["score", str(write(tmp_path / "p.tsv", rows)), "--corpus", "words", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;" in text and "nichts &amp; niemand" in text
    assert not re.search(r"(src|href)=|@import|url\(", text)
    assert '<span class="missed">nord</span>' in text and '<span class="inserted">你</span>' in text
    assert "1 predictions" in text and "reference" in text
    assert main(["score", str(tmp_path / "p.tsv"), "--corpus", "words", "--html", str(page)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_alignment_marks_missed_and_inserted_tokens_in_reading_order():
    alignment = align(["a", "x", "b"], ["a", "b", "c"])
    assert alignment == [("same", "a"), ("inserted", "x"), ("same", "b"), ("missed", "c")]
    assert align([], ["a"]) == [("missed", "a")] and align(["a"], []) == [("inserted", "a")]


def test_two_systems_are_compared_on_the_same_ids(tmp_path, capsys):
    other = [(i, reference, reference) for i, _, reference in reversed(ROWS)]
    first, second = write(tmp_path / "a.tsv"), write(tmp_path / "b.tsv", other)
    report = score_json(capsys, first, "--corpus", "words", "--against", second, "--samples", 100)
    test = report["against"]["significance"]["rouge_l"]
    assert report["against"]["rouge_l"] == 100 and test["difference"] == pytest.approx(report["rouge_l"] - 100)
    assert 0 < test["p_value"] <= 1
    assert main(["score", str(first), "--corpus", "words", "--against", str(second), "--samples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "difference -" in printed and "; p " in printed and "by Holm" in printed


def test_systems_are_equivalent_within_a_margin_or_are_not_shown_to_be(tmp_path, capsys):
    files = write(tmp_path / "a.tsv"), write(tmp_path / "b.tsv")
    asked = ["score", str(files[0]), "--corpus", "words", "--against", str(files[1]), "--samples", "100"]
    assert main([*asked, "--margin", "0.5"]) == 0
    assert "p 1.000, by Holm 1.000; p that it is 0.5 or more 0.010, by Holm 0.059" in capsys.readouterr().out
    perfect = write(tmp_path / "perfect.tsv", [(i, reference, reference) for i, _, reference in ROWS])
    report = score_json(capsys, files[0], "--corpus", "words", "--against", perfect, "--samples", 100, "--margin", 1)
    test = report["against"]["significance"]["rouge_l"]
    assert report["against"]["margin"] == 1 and test["adjusted_equivalence_p"] >= test["equivalence_p"] > 0.9
    for words in (["--against", str(perfect), "--margin", "0"], ["--margin", "1"]):
        assert main(["score", str(files[0]), "--corpus", "words", *words]) == 2
        assert "must be above 0, and needs --against" in capsys.readouterr().err


def test_ids_and_references_of_two_files_are_paired_in_either_form_of_unicode(tmp_path):
    rows = [("grüße", "x", "schön"), ("날씨", "y", "b")]
    tables = []
    for form, order in (("NFC", rows), ("NFD", rows[::-1])):
        content = [tuple(unicodedata.normalize(form, cell) for cell in row) for row in order]
        tables.append(read_predictions(write(tmp_path / f"{form}.tsv", content)))
    assert pair_up(*tables).predictions == ["x", "y"]


def test_seeds_are_compared_with_as_many(tmp_path, capsys):
    perfect = write(tmp_path / "perfect.tsv", [(i, reference, reference) for i, _, reference in ROWS])
    ours, theirs = [write(tmp_path / "1.tsv"), perfect], [perfect, perfect]
    report = score_json(capsys, *ours, "--corpus", "words", "--against", *theirs, "--samples", 200)
    test = report["against"]["significance"]["rouge_l"]
    assert report["against"]["files"] == list(map(str, theirs)) and report["against"]["rouge_l"] == 100
    assert test["difference"] == pytest.approx(report["rouge_l"] - 100)
    assert test["interval"][0] < test["difference"] < test["interval"][1] and test["p_value"] >= test["smallest_p"]
    assert main(["score", *map(str, ours), "--corpus", "words", "--against", str(perfect)]) == 2
    assert "given are 2 FILE and 1 OTHER" in capsys.readouterr().err


def test_too_few_sentences_to_tell_are_said_to_be(tmp_path, capsys):
    """Of four sentences three differ: 2 of 8 swaps lie as far from 0 as the difference."""
    one, other = ([(f"{n}", text, "a b c d") for n, text in enumerate(texts)] for texts in
                  (["a b c d"] * 4, ["a", "b", "c", "a b c d"]))  # fmt: skip
    files = write(tmp_path / "one.tsv", one), write(tmp_path / "other.tsv", other)
    report = score_json(capsys, files[0], "--corpus", "words", "--against", files[1])
    for test in report["against"]["significance"].values():
        assert test["p_value"] == test["smallest_p"] == 0.25
    assert main(["score", str(files[0]), "--corpus", "words", "--against", str(files[1])]) == 0
    printed = capsys.readouterr().out
    assert "p 0.250, by Holm 1.000" in printed and "show is 0.25" in printed


def test_several_files_are_seeds(tmp_path, capsys):
    second = [(i, reference, reference) for i, _, reference in ROWS]
    files = [write(tmp_path / "1.tsv"), write(tmp_path / "2.tsv", second)]
    report = score_json(capsys, *files, "--corpus", "words")
    one, two = (seed["bleu1"] for seed in report["seeds"])
    assert report["bleu1"] == pytest.approx((one + two) / 2) and two == pytest.approx(100)
    assert report["deviation"]["bleu1"] == pytest.approx(abs(one - two) / 2**0.5)
    assert report["alternatives"]["none"]["bleu1"] < 100
    assert main(["score", *map(str, files), "--corpus", "words"]) == 0
    assert "over 2 seeds" in capsys.readouterr().out


HEADER = "id\tprediction\treference\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "p.tsv is empty"),
        (HEADER.encode(), "p.tsv"),
        (b"id\tprediction\n1\ta\n", r"p\.tsv, line 1: .*'reference'.*'id', 'prediction'"),
        (b"prediction\tPrediction\treference\n", r"p\.tsv, line 1: column 'Prediction'"),
        ((HEADER + "1\ta\tb\n2\ta\n").encode(), r"p\.tsv, line 3: .*2 cells.* 3"),
        ((HEADER + "1\ta\tb\tc\n").encode(), r"p\.tsv, line 2: .*4 cells.* 3"),
        ((HEADER + "1\tNaN\tb\n").encode(), r"p\.tsv, line 2: column 'prediction': 'NaN'"),
        ((HEADER + "1\ta\tnan\n").encode(), r"p\.tsv, line 2: column 'reference': 'nan'"),
        ((HEADER + "1\ta\tb\n2\ta\t \n").encode(), r"p\.tsv, line 3: column 'reference'"),
        (HEADER.encode() + b"1\t\xff\tb\n", r"p\.tsv, line 2: .*0xff.*'CSV UTF-8'"),
    ],
)
def test_a_bad_file_is_one_line_naming_row_and_column(tmp_path, capsys, content, message):
    (tmp_path / "p.tsv").write_bytes(content)
    assert main(["score", str(tmp_path / "p.tsv"), "--corpus", "words"]) == 2
    out, err = capsys.readouterr()
    assert re.search(message, err) and err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:2], "b.tsv has 2 rows and"),
        ([*ROWS[:3], ("z", "x", "y")], r"b\.tsv, column 'id': .*'d'"),
        ([*ROWS[:3], ("d", "x", "y")], r"b\.tsv, row 5, column 'reference': 'y' .*'morgen wird es wärmer'"),
    ],
)
def test_files_with_other_sentences_cannot_be_compared(tmp_path, capsys, rows, message):
    first, second = write(tmp_path / "a.tsv"), write(tmp_path / "b.tsv", rows)
    assert main(["score", str(first), "--corpus", "words", "--against", str(second)]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "klingon"], "--corpus klingon: .*phoenix14t, csl_daily, how2sign, demo.*words"),
        (["--corpus", "words", "--rouge", "x"], r"--rouge x: .*beta1\.2, p_over_r"),
        (["--corpus", "words", "--samples", "-1"], "--samples -1: must be 0 or more"),
        (["p.tsv", "--corpus", "words", "--html", "x.html"], "seeds"),
        (["--corpus", "words", "--samples", "0", "--against", "p.tsv"], "--samples 0 .*--against"),
        (["--corpus", "words", "--sentences", "x.html", "--html", "./x.html"], "--sentences and --html .*x.html"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.tsv")
    assert main(["score", "p.tsv", *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert os.listdir() == ["p.tsv"], "nothing is written"


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["score", str(tmp_path / "none.tsv"), "--corpus", "words"]) == 2
    assert "none.tsv: No such file" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "corpus"), [("csl_daily_dev", "csl_daily"), ("openasl_dev", "how2sign")])
def test_released_predictions_score_what_their_authors_and_sacrebleu_say(real_data, capsys, name, corpus):
    folder = real_data / "predictions"
    report = score_json(capsys, folder / f"{name}.tsv", "--corpus", corpus, "--samples", 0)
    with open(folder / "scores.tsv", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines, delimiter="\t") if row["file"] == name]
    assert len(rows) == 2
    for row in rows:
        assert [f"{report[f'bleu{n}']:.2f}" for n in (1, 2, 3, 4)] == [row[f"BLEU-{n}"] for n in (1, 2, 3, 4)]
        if "own" not in row["scorer"]:  # the authors take the `rouge` package of PyPI
            assert f"{report['rouge_l']:.2f}" == row["ROUGE-L"]
