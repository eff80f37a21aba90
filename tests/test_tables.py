"""Tables as people have them: what spreadsheets, pandas, R, editors and corpora write."""

import csv
import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing_fla.video_reading_fla import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from training_fla.errors import InputError
from training_fla.file_kinds import kind_of_file
from training_fla.tables import BadRows, read_sentences, read_table, write_table

SENTENCES = [
    'He said "stop" twice.',
    '"Go", she said.',
    "a, b; c | d",
    "ja\u2028doch",
    "zwei\nZeilen",
    "",
    '"',
    "5' 11\"",
]


def cells(file, *columns, **options):
    return [tuple(row.values()) for _, row in read_table(file, columns or ("video", "sentence"), **options)]


def write(file, text, encoding="utf-8"):
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("newline", "quoting"),
    [("\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL), ("\r", csv.QUOTE_ALL)],
)
def test_what_a_csv_writer_writes_comes_back(tmp_path, delimiter, newline, quoting):
    rows = [(f"{number}.mp4", sentence) for number, sentence in enumerate(SENTENCES)]
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=newline, quoting=quoting)
        writer.writerows([("video", "sentence"), *rows])
    assert cells(tmp_path / "t.csv") == rows


CELLS = st.text(st.sampled_from('ab"",;|\t\n '), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), st.sampled_from(",;"), st.booleans())
def test_any_cells_between_commas_come_back(tmp_path_factory, rows, delimiter, all_quoted):
    file = tmp_path_factory.mktemp("tables") / "t.csv"
    rows = [(f"x{first}x", f"x{second}x") for first, second in rows]
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=quoting)
        writer.writerows([("video", "sentence"), *rows])
    assert cells(file) == rows


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from('ab"",;|\t\n \r'), max_size=40), st.sampled_from("\t,;|"))
def test_any_text_gives_rows_or_bad_rows_and_the_rows_behind_it_are_read(tmp_path_factory, text, delimiter):
    file = tmp_path_factory.mktemp("tables") / "t.csv"
    file.write_text(f"video{delimiter}sentence\n{text}\nx{delimiter}y\n", newline="", encoding="utf-8")
    bad = BadRows()
    rows = read_table(file, ("video", "sentence"), bad=bad)
    lines = [line for line, _ in rows]
    assert lines == sorted(set(lines)) and all(set(row) == {"video", "sentence"} for _, row in rows)
    if '"' not in text:
        assert tuple(rows[-1][1].values()) == ("x", "y")


def test_millions_of_marks_delimiters_or_letters_in_a_line_are_read_at_once(tmp_path):
    count = 200_000
    for cell in ("x" * count, '"",' * count, '"x,' * count, '"' * (2 * count + 1), 'x"' * count, '"""x,' * count):
        write(tmp_path / "t.csv", f"video,sentence\na,{cell}\nb,y\n")
        bad = BadRows()
        assert cells(tmp_path / "t.csv", bad=bad)[-1] == ("b", "y")
        assert all(len(reason) < 1000 for reason in bad.lines())


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_bare_quote_marks_between_tabs_are_text(tmp_path, delimiter):
    bare = ['"A Star Is Born" hits theaters.', '"never closed', 'a 2" board', 'Say "hi', '"', 'the 3"']
    lines = [("video", "sentence"), *((f"{number}.mp4", sentence) for number, sentence in enumerate(bare))]
    file = write(tmp_path / "t.tsv", "\n".join(delimiter.join(line) for line in lines))
    assert [sentence for _, sentence in cells(file)] == bare
    assert [line for line, _ in read_table(file, ["video"])] == [2, 3, 4, 5, 6, 7]


def test_between_commas_a_quote_mark_that_does_not_close_its_cell_makes_a_bad_row(tmp_path):
    file = write(tmp_path / "t.csv", 'video,sentence\na,"Go" he said.\nb, "so, ""yes""" \nc,"never closed\nd,x\n')
    bad = BadRows()
    assert cells(file, bad=bad) == [("b", 'so, "yes"'), ("d", "x")]
    reason = "cell 2 begins with a quote mark that does not close it: double those inside"
    assert bad.lines() == [f"{file}, line {line}: {reason}" for line in (2, 4)]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("video,sentence\na,Grüße\n", "utf-8-sig"),
        ("video\tsentence\na\tGrüße\n", "utf-16"),  # Excel's "Unicode text"
        ("\ufeffvideo\tsentence\na\tGrüße\n", "utf-16-be"),
        ("sep=;\r\nvideo;sentence\r\na;Grüße\r\n", "utf-8"),
        ("SEP=,\nvideo,sentence\na,Grüße\n", "utf-8-sig"),
        ("\n\n  Video ; SENTENCE ;;\na;Grüße;;\n;;;\n\n", "utf-8"),
        ("video;sentence\na;Grüße;;\n", "utf-8"),
        ("Nr.;Sentence, cleaned;SENTENCE;video\n1;x;Grüße;a\n", "utf-8"),
        ('"video"\t"sentence"\n"a"\t"Grüße"\n', "utf-8"),
        (",video,sentence\n0,a,Grüße\n", "utf-8"),
    ],
)
def test_other_forms_of_the_same_table_give_the_same_cells(tmp_path, text, encoding):
    assert cells(write(tmp_path / "t.csv", text, encoding)) == [("a", "Grüße")]


def test_lines_are_counted_where_rows_begin(tmp_path):
    file = write(tmp_path / "t.csv", 'sep=,\n\nvideo,sentence\na,"one\ntwo"\n\nb,x\n')
    assert [line for line, _ in read_table(file, ["video"])] == [4, 7]


def test_the_last_cell_may_hold_bare_delimiters(tmp_path):
    file = write(tmp_path / "t.csv", 'id,text\n1,Well, "so" it is, he said.\n2,"a, ""b"""\n3,"open, x\n')
    expected = [("1", 'Well, "so" it is, he said.'), ("2", 'a, "b"'), ("3", '"open, x')]
    assert cells(file, "id", "text", rest_in_last=True) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"PK\x03\x04", r"t\.xlsx .*'CSV UTF-8'"),
        (
            "t.csv",
            b"PK\x03\x04",
            r"t\.csv .*'CSV UTF-8'",
        ),
        ("t.csv", b"\xd0\xcf\x11\xe0", r"t\.csv .*spreadsheet"),
        ("t.csv", "video,sentence\na,Grüße\n".encode("cp1252"), "line 2: .*0xfc.*'CSV"),
        ("t.csv", "video,sentence\na,x\n".encode("utf-16-le"), "'CSV UTF-8'"),
        ("t.csv", b"video,sentence,Sentence\na,x,y\n", "line 1: column 'Sentence'"),
        ("t.csv", b"file,sentence\na,x\n", "line 1: .*'video'.*'file', 'sentence'; ask"),
        (
            "t.txt",
            b"Tier\t00:00:01.0\t1.5\tx\n",
            "line 1: .*'video'.*names",
        ),
        ("t.csv", b"video,sentence\na,x,y\n", "line 2: .*3 cells.* 2.*double quotes"),
        ("t.csv", b"", "t.csv is empty"),
        ("absent.csv", None, r"absent\.csv"),
        ("t.jsonl", b'{"file": "a", "sentence": "x"}\n', "line 1: .*'video'.*'file', 'sentence'; ask"),
    ],
)
def test_files_that_cannot_be_read_are_refused_with_a_remedy(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name, ["video", "sentence"], remedy="ask")


@pytest.mark.parametrize(
    ("name", "content", "what", "remedy"),
    [
        ("t.parquet", b"PAR1", "a Parquet or Arrow file", "fla prepare dataset .*save it as 'CSV UTF-8'"),
        ("t.csv", b"PAR1\x15", "a Parquet or Arrow file whatever its name", "fla prepare dataset"),
        ("t.pkl", b"x", "a pickle", "save it as 'CSV UTF-8'"),
        ("t.tsv", pickle.dumps(["x"]), "a pickle whatever its name", "save it as 'CSV UTF-8'"),
        ("t.MP4", b"x", "a video", "fla translate"),
        ("t.csv", b"\0\0\0\x20ftypisom", "a video whatever its name", "name it in a table"),
        ("t", b"\x1aE\xdf\xa3", "a video whatever its name", "name it in a table"),
        ("t.ts", b"G@\xf0", "a video", "name it in a table"),
        ("t.tsv", (b"G" + b"\xff" * 187) * 3, "a video whatever its name", "name it in a table"),
        ("t.tsv", (b"time" + b"G" + b"\xff" * 187) * 3, "a video whatever its name", "name it in a table"),
        ("t.JPG", b"\xff\xd8\xff", "a picture", "the folder of a clip's frames"),
        ("t.csv", b"\x89PNG", "a picture whatever its name", "the folder of a clip's frames"),
        ("t.pose", b"x", "a file of poses", "fla prepare features"),
        ("t.h5", b"\x89HDF\r\n", "a file of features", "fla prepare features"),
        ("t.npz", b"PK\x03\x04", "a file of features", "fla prepare features"),
        ("t.safetensors", b"x", "a file of features", "fla prepare features"),
        ("t.tsv.gz", b"\x1f\x8b", "packed", "unpack it"),
        ("t.eaf", b"<?xml", "a file of subtitles or annotations", "fla prepare subtitles"),
        ("t.srt", b"1\n", "a file of subtitles or annotations", "fla prepare subtitles"),
        ("t.ods", b"x", "a spreadsheet", "save it as 'CSV UTF-8'"),
    ],
)
def test_a_file_that_is_no_table_is_called_what_it_is(tmp_path, name, content, what, remedy):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path / name))} is {what}: .*{remedy}"):
        read_table(tmp_path / name, ["video"])


def test_every_suffix_of_a_video_and_a_picture_is_known():
    assert all("a video: " in (kind_of_file(f"t{suffix}") or "") for suffix in VIDEO_SUFFIXES)
    assert all("a picture: " in (kind_of_file(f"t{suffix}") or "") for suffix in IMAGE_SUFFIXES)


def test_all_bad_rows_are_named_at_once_up_to_a_number(tmp_path):
    file = write(tmp_path / "t.tsv", "video\tsentence\n" + "a\tx\nb\n" * 30)
    with pytest.raises(InputError) as error:
        read_table(file, ["video"])
    message = str(error.value)
    assert message.startswith(f"{file}, line 3: the row has 1 cell, the header 2; line 5: the row has")
    assert message.count("line ") == 20 and message.endswith("and 10 more, 30 bad rows in all")


def test_values_of_json_that_are_no_text_are_refused_by_line(tmp_path):
    values = ["x", float("nan"), ["a", "b"], {"en": "a"}, True, None, 5, float("inf"), "\ud800"]
    lines = [json.dumps({"Video": "a", "sentence": value, "keypoints": [1]}) for value in values]
    lines += ["[1]", '{"video": "a"', '{"video": "a", "sentence": "x", "sentence": "y"}', '{"video": "a"}', "", "7 8"]
    bad = BadRows()
    file = write(tmp_path / "t.jsonl", "\n".join(lines))
    assert cells(file, bad=bad) == [("a", "x"), ("a", ""), ("a", "5")]
    assert [(int(line.split()[1]), reason.partition(":")[0]) for _, line, reason in bad.found] == [
        (2, "column 'sentence' holds nan, not text"),
        (3, "column 'sentence' holds a list, not text"),
        (4, "column 'sentence' holds an object, not text"),
        (5, "column 'sentence' holds True, not text"),
        (8, "column 'sentence' holds inf, not text"),
        (9, "column 'sentence' holds half a character (\\ud800)"),
        (10, "not a JSON object"),
        (11, "not JSON"),
        (12, "a column comes twice"),
        (13, "no column 'sentence'"),
        (15, "not JSON"),
    ]


def test_a_json_list_is_read_too(tmp_path):
    rows = [
        {"video": "a", "sentence": "ja\u2028doch"},
        {"video": "b", "sentence": [1]},
        {"video": "c", "sentence": "z"},
    ]
    bad = BadRows()
    file = write(tmp_path / "t.json", json.dumps(rows, indent=1))
    assert cells(file, bad=bad) == [("a", "ja\u2028doch"), ("c", "z")]
    assert bad.lines() == [f"{file}, entry 2: column 'sentence' holds a list, not text"]


def test_a_written_table_comes_back(tmp_path):
    rows = [("a", 'one\ttwo\nthree "x"'), ("b", ""), ("c", '"Go."'), ("d", '"')]
    write_table(tmp_path / "t.tsv", ("id", "text"), rows)
    assert (tmp_path / "t.tsv").read_text() == 'id\ttext\na\tone two three "x"\nb\t\nc\t"""Go."""\nd\t""""\n'
    assert cells(tmp_path / "t.tsv", "id", "text") == [("a", 'one two three "x"'), *rows[1:]]
    with pytest.raises(InputError, match="t.tsv exists already"):
        write_table(tmp_path / "t.tsv", ("id",), [])


def test_a_written_csv_comes_back_and_tells_spreadsheets_that_it_is_utf_8(tmp_path):
    rows = [("a", 'eins, zwei\nü "x"'), ("b", ""), ("c", '"Go."'), ("d", '"'), ("e", "- a; b")]
    write_table(tmp_path / "t.csv", ("id", "text"), rows)
    assert (tmp_path / "t.csv").read_bytes().startswith(b'\xef\xbb\xbfid,text\na,"eins, zwei ')
    assert cells(tmp_path / "t.csv", "id", "text") == [("a", 'eins, zwei ü "x"'), *rows[1:]]


def test_sentences_come_from_text_or_from_a_column(tmp_path):
    texts = {
        "a.csv": 'id,Text\n1,"der wind, weht"\n',
        "b.tsv": 'id\ttext\n1\tim "süden\n\n',
        "c.csv": "name|text\nx|regen\n",
    }
    files = [write(tmp_path / name, text) for name, text in texts.items()]
    files.append(write(tmp_path / "d.csv", 'text;x\r\n"zwei\r\nZeilen";1\r\n', "utf-8-sig"))
    assert read_sentences(files, "text") == ["der wind, weht", 'im "süden', "regen", "zwei Zeilen"]
    assert read_sentences([write(tmp_path / "e.txt", 'ein\r\n\r\n "zwei" \r\n', "utf-16")]) == ["ein", '"zwei"']


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("text\n", "text", r"t\.txt"),
        (
            "regen\nwi\x07nd\nso\x08\n",
            None,
            r"line 2: .*'\\x07'; line 3",
        ),
        (
            "id\ttext\n1\tx\n",
            None,
            r"'\\t'.*column",
        ),
        ("id\ttext\n1\n", "text", r"t\.txt, line 2: .*1 cell.* 2"),
    ],
)
def test_bad_sentences_are_named(tmp_path, text, column, message):
    with pytest.raises(InputError, match=message):
        read_sentences([write(tmp_path / "t.txt", text)], column)


@pytest.mark.real_data
def test_the_released_annotations_are_read_as_their_owners_wrote_them(real_data):
    for split, count in (("train", 7096), ("dev", 519), ("test", 642)):
        file = real_data / f"phoenix2014t/annotations/manual/PHOENIX-2014-T.{split}.corpus.csv"
        lines = file.read_text(encoding="utf-8").splitlines()
        assert cells(file, "translation") == [(line.split("|")[6],) for line in lines[1:]]
        assert len(lines) == count + 1
    for split, count in (("val", 1741), ("test", 2357)):
        rows = dict(cells(real_data / f"how2sign/how2sign_realigned_{split}.csv", "SENTENCE_NAME", "SENTENCE"))
        assert len(rows) == count
    assert 'called the "handle bar".' in "".join(rows.values())
    openasl = [row[1] for row in cells(real_data / "predictions/openasl_dev.tsv", "id", "prediction")]
    assert '"A Star Is Born" hits theaters in July.' in openasl and len(openasl) == 967
    assert any(sentence.startswith('"Bring it to the ground, bring') for sentence in openasl)
