"""`fla prepare subtitles` from recordings to a table that `fla prepare manifest` packs."""

import csv
import re
import shlex
import sys

import pytest

from tests.processing.drawing import marked_frame, number_of, tiny_model, tiny_processor, write_video
from training_fla.cli import main
from training_fla.data.packed_corpus import PackedCorpus

SENTENCES = [(0.4, 1.2, "Guten Abend, meine Damen."), (1.2, 1.6, "Heute"), (1.64, 3.0, "regnet es & schneit.")]


def clock(seconds: float, mark: str = ".", digits: int = 3) -> str:
    return f"0:00:{seconds:0{3 + digits}.{digits}f}".replace(".", mark)


def as_srt() -> str:
    cues = [f"{clock(start, ',')} --> {clock(end, ',')}\n{text}\n" for start, end, text in SENTENCES]
    return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(cues, start=1))


def as_vtt() -> str:
    cues = "NOTE drawn\n"
    for start, end, text in SENTENCES:
        marked = "<v Anna>" + text.replace(" ", " <i>", 1).replace("&", "&amp;") + "</i>"
        cues += f"\nid\n0{clock(start)} --> 0{clock(end)} line:0\n{marked}\n"
    return f"WEBVTT\n\n{cues}"


def as_ass() -> str:
    lines = "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    for start, end, text in SENTENCES:
        text = text.replace(" ", "\\N", 1)
        lines += f"Dialogue: 0,{clock(start, '.', 2)},{clock(end, '.', 2)},D,,0,0,0,,{{\\i1}}{text}\n"
    return lines


def write_eaf(file) -> None:
    import pympi

    elan = pympi.Eaf(author="")
    elan.add_tier("Translation")
    for start, end, text in SENTENCES:
        elan.add_annotation("Translation", round(1000 * start), round(1000 * end), text)
    elan.to_file(str(file))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A recording of 3.2 s whose frames are numbered from 0 to 24, over and over."""
    folder = tmp_path_factory.mktemp("drawn")
    return write_video(folder / "talk.mp4", [marked_frame(number % 25) for number in range(80)])


def recorded(drawn, folder, text: str = "", name: str = "talk.de.srt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "talk.mp4").write_bytes(drawn.read_bytes())
    if name.endswith(".eaf"):
        write_eaf(folder / name)
    else:
        (folder / name).write_text(text or as_srt(), encoding="utf-8")
    return folder


def prepared(folder, *words, table="table.csv") -> list[dict]:
    assert main(["prepare", "subtitles", "--root", str(folder), "--out", str(folder / table), *words]) == 0
    with (folder / table).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_one_table_comes_of_four_formats(drawn, tmp_path):
    tables = []
    for name, text in (("talk.srt", as_srt()), ("talk.vtt", as_vtt()), ("talk.ass", as_ass()), ("talk.eaf", "")):
        rows = prepared(recorded(drawn, tmp_path / name, text, name), "--merge", "0.5")
        assert [row.pop("file") for row in rows] == [name, name]
        lines = [row.pop("line") for row in rows]
        assert lines == {"talk.srt": ["2", "6"], "talk.vtt": ["6", "10"], "talk.ass": ["3", "4"]}.get(
            name, ["a2", "a3"]
        )
        tables.append(rows)
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert [list(row.values()) for row in tables[0]] == [
        ["talk.mp4", "0.400", "1.200", "Guten Abend, meine Damen.", "train"],
        ["talk.mp4", "1.200", "3.000", "Heute regnet es & schneit.", "train"],
    ]


def test_the_table_is_packed_frame_by_frame(drawn, tmp_path, capsys):
    folder = recorded(drawn, tmp_path / "rec")
    prepared(folder)
    command = capsys.readouterr().err.rpartition("next: ")[2]
    words = shlex.split(command)[1:-2]
    assert words == ["prepare", "manifest", "--root", str(folder / "table.csv")]
    assert main([*words, "--out", str(tmp_path / "out"), "--size", "64", "--workers", "0"]) == 0
    corpus = PackedCorpus(tmp_path / "out", "train")
    assert corpus.sentences == [text for *_, text in SENTENCES]
    for index, (start, end, _) in enumerate(SENTENCES):
        frames = corpus.read_frames(index, range(corpus.num_frames[index])).permute(0, 2, 3, 1).numpy()
        assert [number_of(frame) for frame in frames] == [n % 25 for n in range(round(25 * start), round(25 * end))]


def test_a_table_elsewhere_names_the_folder_of_the_videos(drawn, tmp_path, capsys):
    folder, table = recorded(drawn, tmp_path / "rec"), tmp_path / "elsewhere/table.tsv"
    assert main(["prepare", "subtitles", "--root", str(folder), "--out", str(table)]) == 0
    words = shlex.split(capsys.readouterr().err.rpartition("next: ")[2])[1:]
    assert words[2:6] == ["--root", str(table), "--video-root", str(folder)]
    assert main([*words[:6], "--check", "--workers", "0"]) == 0
    # A folder above: paths in the table say where below it the recordings lie.
    assert main(["prepare", "subtitles", "--root", str(folder), "--out", str(tmp_path / "above.csv")]) == 0
    assert "rec/talk.mp4,0.400" in (tmp_path / "above.csv").read_text(encoding="utf-8")
    assert main(["prepare", "manifest", "--root", str(tmp_path / "above.csv"), "--check", "--workers", "0"]) == 0


def test_cues_that_are_amiss_are_named_and_the_others_written(drawn, tmp_path, capsys):
    text = as_srt() + "\n4\n00:00:02,000 --> 00:00:01,000\nreversed\n\n5\n00:00:02,500 --> 00:00:03,100\noverlaps\n"
    folder = recorded(drawn, tmp_path / "rec", text)
    (folder / "alone.vtt").touch()
    assert main(["prepare", "subtitles", "--root", str(folder), "--check"]) == 1
    report = capsys.readouterr().out
    assert "cues left out: 1\n" in report and "cues to look at: 1\n" in report and "counterpart: 1\n" in report
    assert [row["sentence"] for row in prepared(folder)] == [*(text for *_, text in SENTENCES), "overlaps"]
    named = capsys.readouterr().err
    assert "talk.de.srt, line 14: it ends at 1.000 s" in named and "alone.vtt has no recording" in named
    assert "line 18: it begins 0.500 s before the end of line 10" in named
    assert main(["prepare", "subtitles", "--root", str(folder), "--check", "--suffix", ".de", "--longest", "1"]) == 1
    assert "left out: 1 clip longer than --longest" in capsys.readouterr().out


def test_corrected_splits_are_kept(drawn, tmp_path):
    for name in "abcd":
        recorded(drawn, tmp_path / "rec" / name)
    rows = prepared(tmp_path / "rec")
    assert sorted(row["split"] for row in rows[::3]) == ["dev", "test", "train", "train"]
    table = tmp_path / "rec/table.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace(",dev,", ",test,"), encoding="utf-8")
    again = prepared(tmp_path / "rec", "--splits", str(table), "--dev", "0", "--seed", "7", table="again.csv")
    assert again == [row | {"split": row["split"].replace("dev", "test")} for row in rows]
    table.write_text("video,split\nother.mp4,train\n")
    words = ["--root", str(tmp_path / "rec"), "--splits", str(table), "--check"]
    assert main(["prepare", "subtitles", *words]) == 2


def test_nothing_half_done_is_written_and_no_table_lost(drawn, tmp_path, capsys):
    folder = recorded(drawn, tmp_path / "rec")
    prepared(folder)
    before = (folder / "table.csv").read_bytes()
    words = ["prepare", "subtitles", "--root", str(folder), "--out", str(folder / "table.csv")]
    assert main(words) == 2 and "table.csv exists already" in capsys.readouterr().err
    (folder / "talk.de.srt").write_text("1\n00:00:01 --> 00:00:02\nx\n")
    assert main([*words, "--overwrite"]) == 2
    assert "talk.de.srt, line 2: " in capsys.readouterr().err and (folder / "table.csv").read_bytes() == before
    (folder / "talk.de.srt").write_text("1\n00:01:01,000 --> 00:01:02,000\nx\n")
    assert main([*words, "--overwrite"]) == 2
    assert "no sentence is left of 1 recording: --check" in capsys.readouterr().err
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "broken.srt").write_text(as_srt())
    assert main([*words, "--overwrite"]) == 2
    assert "broken.mp4" in capsys.readouterr().err and (folder / "table.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "t.csv"], "--root is missing"),
        (["--root", "."], "--out FILE is missing"),
        (["--root", ".", "--out", "t.xlsx"], "t.xlsx: .*.csv or .tsv"),
        (["--root", ".", "--check", "--dev", "0.5", "--test", "0.5"], "nothing to train on"),
        (["--root", ".", "--check", "--shortest", "2", "--longest", "1"], "--shortest 2"),
        (["--root", ".", "--check", "--pairs", "p.csv", "--suffix", "de"], "--suffix.*--pairs"),
        (["--root", "absent", "--check"], "absent is not a folder"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "subtitles", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error) and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, processor = tmp_path_factory.mktemp("model"), tiny_processor()
    tiny_model(processor.tokenizer, seed=3).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["srt", "vtt", "eaf"])
def test_what_is_translated_comes_back_as_a_table_and_a_corpus(drawn, model, tmp_path, capsys, form):
    """Times keep to a frame on the way from subtitles to a table, to a packed corpus and to subtitles again."""
    folder = recorded(drawn, tmp_path / "rec", "x", "talk.txt")
    words = [str(model), str(folder / "talk.mp4"), "--window", "1.25", "--max-new-tokens", "6"]
    assert main(["translate", *words, "--format", form]) == 0
    written = capsys.readouterr().out
    (folder / f"talk.{form}").write_text(written, encoding="utf-8")
    rows = prepared(folder)
    times = [(row["start"], row["end"]) for row in rows]
    assert times == [("0.000", "1.250"), ("1.280", "2.500"), ("2.520", "3.200")]
    assert main(["prepare", "manifest", "--root", str(folder / "table.csv"), "--out", str(tmp_path / "out"),
                 "--size", "64", "--workers", "0"]) == 0  # fmt: skip
    corpus = PackedCorpus(tmp_path / "out", "train")
    capsys.readouterr()
    assert main(["translate", *words, "--format", "srt"]) == 0
    cues = re.findall(r"(\S+) --> (\S+)\n(.+)", capsys.readouterr().out)
    assert len(cues) == len(rows) == len(corpus.sentences)
    first = 0
    for index, (start, end, sentence) in enumerate(cues):
        begins, ends = (float(time.replace(",", ".")[-6:]) for time in (start, end))
        frames = corpus.read_frames(index, range(corpus.num_frames[index])).permute(0, 2, 3, 1).numpy()
        assert [number_of(frame) for frame in frames] == [n % 25 for n in range(first, first + len(frames))]
        assert abs(begins - first / 25) < 1 / 25 and abs(ends - (first + len(frames)) / 25) < 1 / 25
        assert corpus.sentences[index] == " ".join(sentence.split())
        first += len(frames)
    assert first == 80


def test_elan_finds_the_video_and_one_tier(drawn, model, tmp_path, capsys, monkeypatch):
    from xml.etree import ElementTree

    video = tmp_path / "ein Gespräch.mp4"
    video.write_bytes(drawn.read_bytes())
    words = ["translate", str(model), str(video), "--format", "eaf", "--window", "2", "--max-new-tokens", "6"]
    assert main(words) == 0
    document = ElementTree.fromstring(capsys.readouterr().out.encode())
    (media,) = document.iter("MEDIA_DESCRIPTOR")
    assert media.attrib["MEDIA_URL"] == f"file://{video.resolve()}" and media.attrib["MIME_TYPE"] == "video/mp4"
    assert media.attrib["RELATIVE_MEDIA_URL"] == "./ein Gespräch.mp4"
    (tier,) = document.iter("TIER")
    kinds = {kind.attrib["LINGUISTIC_TYPE_ID"] for kind in document.iter("LINGUISTIC_TYPE")}
    assert tier.attrib["TIER_ID"] == "Translation" and tier.attrib["LINGUISTIC_TYPE_REF"] in kinds
    assert [slot.attrib["TIME_VALUE"] for slot in document.iter("TIME_SLOT")] == ["0", "2000", "2000", "3200"]
    # The order that the schema of EAF 2.8 asks for.
    order = [element.tag for element in document if element.tag != "CONSTRAINT"]
    assert order == ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", document.attrib["DATE"])
    monkeypatch.setitem(sys.modules, "pympi", None)
    assert main(words) == 2
    assert 'pip install "fla-llm[recordings]"' in capsys.readouterr().err
