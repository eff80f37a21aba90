"""Cues are read as each kind of file means them, and what cannot be read is named by its line."""

from pathlib import Path

import pytest

from training_fla.corpora.recordings.cue_files import read_cues
from training_fla.errors import InputError
from training_fla.tables import BadRows

VIDEO = Path("talk.mp4")
ASS = "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
SSA = ASS.replace("Layer", "Marked")


def write(tmp_path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def cues_of(file: Path, tier: str = "", video: Path = VIDEO) -> list[tuple]:
    bad = BadRows()
    cues = read_cues(file, video, tier, bad)
    bad.refuse()
    return [(cue.start, cue.end, cue.text, cue.place) for cue in cues]


def test_subrip(tmp_path):
    text = """1
00:00:01,000 --> 00:00:02,500 X1:10
{\\an8}<i>Guten</i> <font color="red">Abend</font>,
a < b &amp; c

und mehr
2
00:00:03,000 --> 00:00:03,000

3
01:00:04.5 --> 01:00:05.000
Wir haben
12
"""
    assert cues_of(write(tmp_path, "a.srt", text)) == [
        (1.0, 2.5, "Guten Abend,\na < b & c\n\nund mehr", 2),
        (3.0, 3.0, "", 8),
        (3604.5, 3605.0, "Wir haben\n12", 11),
    ]


def test_webvtt(tmp_path):
    text = """WEBVTT - title

STYLE
::cue { color: red }

NOTE of two
lines

intro
00:01.000 --> 00:02.500 align:start
<v Bob>Guten <00:00:01.200><c.x> Abend</c><00:00:01.900></v> &amp; {mehr}
42

NOTE 00:03 --> nothing

00:00:03.000 --> 00:00:04.000
Zwei
"""
    assert cues_of(write(tmp_path, "a.vtt", text)) == [
        (1.0, 2.5, "Guten  Abend & {mehr}\n42", 10),
        (3.0, 4.0, "Zwei", 16),
    ]


def test_sbv(tmp_path):
    text = "0:00:01.000,0:00:02.500\nGuten[br]Abend\n7\n\n0:00:03.000,0:00:04.000\nZwei\n"
    assert cues_of(write(tmp_path, "a.sbv", text)) == [(1.0, 2.5, "Guten\nAbend\n7", 1), (3.0, 4.0, "Zwei", 5)]


@pytest.mark.parametrize(("suffix", "head"), [(".ass", ASS), (".ssa", SSA)])
def test_substation(tmp_path, suffix, head):
    text = (
        "[Script Info]\nDialogue: a\n" + head + "Comment: 0,0:00:00.00,0:00:01.00,D,,0,0,0,,no\n"
        "Dialogue: 0,0:00:01.00,0:00:02.50,D,,0,0,0,,{\\an8}Guten{\\i1} Abend,\\Nja{note}\n"
        "Dialogue: 0,0:00:01.00,0:00:02.50,D,,0,0,0,,{\\p1}m 0 0 l 1 1\n"
        "Dialogue: 0,0:00:03.00,0:00:04.00,D,,0,0,0,,Zwei\n"
    )
    assert cues_of(write(tmp_path, f"a{suffix}", text)) == [(1.0, 2.5, "Guten Abend,\nja", 6), (3.0, 4.0, "Zwei", 8)]


@pytest.fixture
def eaf(tmp_path) -> Path:
    """Translations aligned and, in tiers below, referring; one tier is included in another."""
    import pympi

    elan = pympi.Eaf(author="")
    elan.add_linked_file("file:///C:/Meine%20Videos/talk.mp4", "./talk.mp4", "video/mp4", time_origin=500)
    elan.add_linguistic_type("included", "Included_In")
    elan.add_linguistic_type("one", "Symbolic_Association", timealignable=False)
    elan.add_tier("Satz")
    elan.add_tier("Teil", "included", "Satz")
    elan.add_tier("Übersetzung", "one", "Teil")
    for start, end, text in ((1000, 2500, "EINS"), (3000, 4000, "ZWEI")):
        elan.add_annotation("Satz", start, end, text)
        elan.add_annotation("Teil", start + 100, end, text.lower())
    for reference, text in (("a3", "Guten Abend."), ("a5", "Zwei")):
        name = elan.generate_annotation_id()
        elan.annotations[name] = "Übersetzung"
        elan.tiers["Übersetzung"][1][name] = (reference, text, None, None)
    elan.to_file(str(tmp_path / "a.eaf"))
    return tmp_path / "a.eaf"


def test_elan(eaf):
    assert [cue[:3] for cue in cues_of(eaf, "Satz", Path("other.mp4"))] == [(1.0, 2.5, "EINS"), (3.0, 4.0, "ZWEI")]
    # ELAN hides what lies before the offset of a video; what refers has the times of what it refers to.
    cues = cues_of(eaf, "U\u0308bersetzung")
    assert [cue[:3] for cue in cues] == [(1.6, 3.0, "Guten Abend."), (3.6, 4.5, "Zwei")]
    assert len({cue[3] for cue in cues}) == 2
    with pytest.raises(InputError, match="a.eaf has several tiers.*--tier: 'Satz' with 2 annotations; 'Teil'.*2 ann"):
        cues_of(eaf)
    with pytest.raises(InputError, match="a.eaf has no tier 'x': 'Satz' with 2"):
        cues_of(eaf, "x")


def test_an_annotation_without_times_is_named(eaf):
    eaf.write_text(eaf.read_text().replace('TIME_VALUE="1000"', ""))
    with pytest.raises(InputError, match="a.eaf, annotation a2: .*no times.*--tier"):
        cues_of(eaf, "Satz")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.srt", "1\n00:00:01 --> 00:00:02,000\nx\n", "a.srt, line 2: '00:00:01 --> 00:00:02,000' is no line of two"),
        ("a.srt", "1\n100:00:01,0 --> 100:00:02,0\nx\n", "line 2: '100:00"),
        ("a.srt", "1\n-00:00:01,0 --> 00:00:02,0\nx\n", "line 2: '-00:00"),
        ("a.srt", "no subtitles", "a.srt holds no cue"),
        ("a.srt", "", "a.srt is empty"),
        ("a.vtt", "1\n00:00:01,000 --> 00:00:02,000\nx\n", "a.vtt, line 1: .*WEBVTT.*name it .srt"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\n00:03.0 --> 00:04.000\ny", "a.vtt, line 6: '00:03.0"),
        ("a.sbv", "0:00:01.000,0:00:02.000\nx\n\n0:00:03,0:00:04\ny\n", "a.sbv, line 4: '0:00:03,0:00:04'"),
        ("a.ass", ASS + "Dialogue: 0,0:00:01.00,x,D,,0,0,0,,y\n", "a.ass, line 3: .*'x'"),
        ("a.ass", ASS + "Dialogue: 0,0:00:01.00,y\n", "a.ass, line 3: it has 3 columns, not 10"),
        ("a.ass", ASS.replace("Start, End", "End, Start") + "Dialogue: x\n", "a.ass, line 2: .*order"),
        ("a.eaf", "<ANNOTATION_DOCUMENT>\n<TIER\n", "a.eaf, line 2: .*ELAN"),
        ("a.eaf", "<html/>", "a.eaf: .*ELAN"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        cues_of(write(tmp_path, name, text))


def test_another_encoding_is_named_by_its_line(tmp_path):
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nfür\n".encode("latin-1"))
    with pytest.raises(InputError, match="a.srt, line 3: not UTF-8.*save it as UTF-8"):
        cues_of(tmp_path / "a.srt")


@pytest.mark.parametrize(("module", "name"), [("pysubs2", "a.srt"), ("pympi", "a.eaf")])
def test_an_absent_library_is_named_with_its_extra(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=rf'a\....*{module}.*pip install "fla-llm\[recordings\]"'):
        cues_of(write(tmp_path, name, "1\n00:00:01,000 --> 00:00:02,000\nx\n"))
