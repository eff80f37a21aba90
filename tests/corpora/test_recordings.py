"""Recordings are paired with their files, cues become sentences, and no recording is in two splits."""

from pathlib import Path

import pytest

from training_fla.corpora.recordings.cue_files import TimedText
from training_fla.corpora.recordings.pairs import Recording, find_pairs, read_pairs, with_splits
from training_fla.corpora.recordings.sentences import CueRules, Findings, sentences_of
from training_fla.errors import InputError
from training_fla.tables import BadRows

FILE = Path("talk.srt")
TIMES = [number / 25 for number in range(250)]  # 10 s


def sentences(cues, **rules) -> tuple[list[tuple], Findings]:
    """Start, end, text and line of each sentence; cues are start, end and text, a line each."""
    findings = Findings()
    cues = [TimedText(*cue, line) for line, cue in enumerate(cues, start=1)]
    found = sentences_of(FILE, cues, Path("talk.mp4"), TIMES, CueRules(**rules), findings)
    return [(cue.start, cue.end, cue.text, cue.place) for cue in found], findings


def test_bad_cues_are_named_and_left_out():
    cues = [
        (1.0, 1.0, "reversed"),
        (2.0, 1.5, "reversed"),
        (2.0, 3.0, " \n"),
        (10.0, 11.0, "after"),
        (9.0, 12.0, "mostly after"),
        (-2.0, 0.0, "before"),
        (4.01, 4.03, "between two frames"),
        (5.0, 6.0, "good"),
    ]
    found, findings = sentences(cues)
    assert found == [(5.0, 6.0, "good", 8)] and not findings.odd.found
    reasons = ["1.000 s, not after", "1.500 s, not after", "is empty", "end of its recording at 10.000", "12.0 s"]
    reasons += ["before its recording", "no frame is shown between 4.010 s and 4.030 s"]
    for line, (named, reason) in enumerate(zip(findings.left_out.lines(), reasons, strict=True), start=1):
        assert named.startswith(f"talk.srt, line {line}: ") and reason in named


def test_overlaps_and_ends_beyond_the_recording_are_named_and_kept():
    found, findings = sentences([(-0.5, 2.0, "a"), (1.5, 3.0, "b"), (1.8, 1.9, "c"), (9.0, 10.1, "d"), (8, 10.5, "e")])
    assert found == [(0, 2, "a", 1), (1.5, 3, "b", 2), (1.8, 1.9, "c", 3), (8, 10, "e", 5), (9, 10, "d", 4)]
    named = findings.odd.lines()
    assert len(named) == 5 and not findings.left_out.found
    assert "line 1: it is from -0.500 s" in named[0] and "line 5: it is from 8.000 s to 10.500 s" in named[1]
    assert "line 2: it begins 0.500 s before the end of line 1" in named[2]
    assert "line 3: it begins 1.200 s before the end of line 2" in named[3]
    assert "line 4: it begins 1.000 s before the end of line 5" in named[4]


def test_cues_are_joined_up_to_the_end_of_a_sentence():
    cues = [
        (0, 1, "Heute"),
        (1.5, 2, "regnet\nes."),
        (2, 3, "Und „morgen?“"),
        (3, 4, "Ja"),
        (6, 7, "und nein!"),
        (8, 9, "x"),
    ]
    assert sentences(cues)[0] == [(*cue[:2], " ".join(cue[2].split()), line) for line, cue in enumerate(cues, 1)]
    found, _ = sentences(cues, merge=1)
    assert [cue[2:] for cue in found] == [
        ("Heute regnet es.", 1),
        ("Und „morgen?“", 3),
        ("Ja", 4),
        ("und nein!", 5),
        ("x", 6),
    ]
    assert found[0][:2] == (0, 2)
    assert [cue[2] for cue in sentences(cues, merge=2)[0]] == [
        "Heute regnet es.",
        "Und „morgen?“",
        "Ja und nein!",
        "x",
    ]
    found, findings = sentences([(0, 1, "a"), (1, 2, "b")], merge=1)
    assert len(found) == 2 and "none are joined" in findings.odd.lines()[0]
    assert sentences([(0, 1, "今天"), (1, 2, "下雨。"), (2, 3, "好")], merge=1)[0][0] == (0, 2, "今天 下雨。", 1)


@pytest.mark.parametrize(
    ("text", "without_sounds", "without_speakers"),
    [
        ("[Musik]\nHallo (lacht) du", "Hallo du", "[Musik] Hallo (lacht) du"),
        ("* Er lacht. * Ja", "Ja", "* Er lacht. * Ja"),
        ("♪ la la ♪", "", "♪ la la ♪"),
        ("- Hallo\n- ANNA SCHMIDT: Du", "- Hallo - ANNA SCHMIDT: Du", "Hallo Du"),
        (">> DR. O'NEIL: Hi", ">> DR. O'NEIL: Hi", "Hi"),
        ("Wichtig: -5 Grad um 12:30", "Wichtig: -5 Grad um 12:30", "Wichtig: -5 Grad um 12:30"),
        ("UM 12:30 UHR", "UM 12:30 UHR", "UM 12:30 UHR"),
        ("BOB (lacht): Ja", "BOB : Ja", "BOB (lacht): Ja"),
    ],
)
def test_sounds_and_speakers_are_dropped_when_asked(text, without_sounds, without_speakers):
    assert [cue[2] for cue in sentences([(1, 2, text)])[0]] == [" ".join(text.split())]
    found, findings = sentences([(1, 2, text)], drop_sounds=True)
    assert [cue[2] for cue in found] == ([without_sounds] if without_sounds else [])
    assert findings.dropped == (not without_sounds) and not findings.left_out.found
    assert [cue[2] for cue in sentences([(1, 2, text)], drop_speakers=True)[0]] == [without_speakers]


def test_times_are_shifted_widened_and_limited():
    cues = [(0.2, 1, "a"), (2, 3, "b"), (4, 8, "c"), (9, 9.9, "d")]
    assert [cue[:2] for cue in sentences(cues, margin=0.5)[0]] == [(0, 1.5), (1.5, 3.5), (3.5, 8.5), (8.5, 10)]
    found, findings = sentences(cues, shift=-0.5)
    assert [cue[:2] for cue in found] == [(0, 0.5), (1.5, 2.5), (3.5, 7.5), (8.5, 9.4)]
    assert "line 1: it is from -0.300 s" in findings.odd.lines()[0]
    found, findings = sentences(cues, shortest=1, longest=2, margin=0.05)
    assert [cue[2] for cue in found] == ["b", "d"] and (findings.too_short, findings.too_long) == (1, 1)


def touch(root: Path, *names: str) -> list[Path]:
    files = [root / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def pairs(root: Path, *options) -> list[tuple[str, str]]:
    return [
        (pair.video.relative_to(root).as_posix(), pair.cues.relative_to(root).as_posix())
        for pair in find_pairs(root, *options)[0]
    ]


def test_files_are_paired_by_name(tmp_path):
    touch(tmp_path, "talk.mp4", "talk.de.srt", "talk.2.mp4", "talk.2.de-AT.vtt", "day/talk.MOV", "day/talk.eaf")
    touch(tmp_path, "u\u0308.webm", "subs/\u00fc.en.sbv", "alone.mp4", "subs/other.ass", "._talk.srt", "talk.txt")
    found = pairs(tmp_path)
    assert found[:3] == [
        ("day/talk.MOV", "day/talk.eaf"),
        ("talk.2.mp4", "talk.2.de-AT.vtt"),
        ("talk.mp4", "talk.de.srt"),
    ]
    assert found[3][1] == "subs/\u00fc.en.sbv" and len(found) == 4
    alone = find_pairs(tmp_path)[1]
    assert [line.split(" has ")[1] for line in alone] == ["no recording of its name", "no subtitles or annotations"]
    assert "other.ass" in alone[0] and "alone.mp4" in alone[1]


def test_what_may_be_paired_in_two_ways_is_named(tmp_path):
    touch(tmp_path, "a/talk.mp4", "a/talk.de.srt", "a/talk.en.srt", "a/talk.eaf")
    with pytest.raises(
        InputError, match="talk.mp4: it has several files, talk.de.srt, talk.eaf, talk.en.srt: .*--suffix"
    ):
        find_pairs(tmp_path)
    for suffix, name in ((".de", "talk.de.srt"), (".de.srt", "talk.de.srt"), (".eaf", "talk.eaf")):
        assert pairs(tmp_path, suffix) == [("a/talk.mp4", f"a/{name}")]
    touch(tmp_path, "b/talk.mp4", "c/talk.de.srt")
    with pytest.raises(InputError, match="talk.de.srt: it may be of a/talk.mp4, b/talk.mp4: .*--pairs"):
        find_pairs(tmp_path, ".de")
    with pytest.raises(InputError, match="with the name of 2 videos and .fr"):
        find_pairs(tmp_path, ".fr")
    with pytest.raises(InputError, match="c holds no .*with the name of a video"):
        find_pairs(tmp_path / "c")


def test_links_out_of_the_folder_are_followed_when_asked(tmp_path):
    touch(tmp_path, "out/talk.mp4", "root/talk.srt")
    (tmp_path / "root/talk.mp4").symlink_to(tmp_path / "out/talk.mp4")
    with pytest.raises(InputError, match="of a video"):
        find_pairs(tmp_path / "root")
    assert pairs(tmp_path / "root", "", True) == [("talk.mp4", "talk.srt")]


def test_a_table_of_pairs(tmp_path):
    touch(tmp_path, "left.mp4", "right.mp4", "talk.eaf", "other.srt")
    (tmp_path / "pairs.csv").write_text(
        "video,subtitles,tier,split\nleft.mp4,talk.eaf,A,val\nright,talk.eaf,B,\nright.mp4,other.srt,,\n"
        "absent.mp4,talk.eaf,,\nleft.mp4,right.mp4,,\n../left.mp4,talk.eaf,,\n"
    )
    bad = BadRows()
    left, right = read_pairs(tmp_path / "pairs.csv", tmp_path, False, bad)
    assert (left.video.name, left.cues.name, left.tier, left.split) == ("left.mp4", "talk.eaf", "A", "dev")
    assert (right.video.name, right.tier, right.split) == ("right.mp4", "B", "")
    named = "; ".join(bad.lines())
    for line, reason in (
        (4, "another file above, talk.eaf"),
        (5, "no file"),
        (6, "right.mp4 is no .ass"),
        (7, "leaves"),
    ):
        assert f"line {line}: " in named and reason in named
    # One conversation, two cameras: one split.
    assert {recording.split for recording in with_splits([left, right], {}, {"dev": 0.1, "test": 0.1}, 0)} == {"dev"}


def test_recordings_keep_their_splits_when_more_are_added():
    recordings = [Recording(Path(f"{number}.mp4"), Path(f"{number}.srt")) for number in range(20)]
    shares = {"dev": 0.1, "test": 0.2}
    first = with_splits(recordings[:10], {}, shares, 3)
    assert [recording.split for recording in first] == [
        recording.split for recording in with_splits(recordings[:10], {}, shares, 3)
    ]
    assert sorted(recording.split for recording in first) == ["dev", "test", "test"] + 7 * ["train"]
    assert first != with_splits(recordings[:10], {}, shares, 4)
    kept = {recording.video: recording.split for recording in first}
    more = with_splits(recordings, kept, shares, 5)
    assert more[:10] == first
    assert sorted(recording.split for recording in more) == 2 * ["dev"] + 4 * ["test"] + 14 * ["train"]
    assert {recording.split for recording in with_splits(recordings[:2], {}, shares, 0)} == {"train"}
    assert len({recording.split for recording in with_splits(recordings[:3], {}, shares, 0)}) == 3
    with pytest.raises(InputError, match="talk.srt are in dev and train"):
        both = [Recording(Path(f"{n}.mp4"), FILE, split) for n, split in enumerate(("train", "dev"))]
        with_splits(both, {}, shares, 0)
