import json
import os
import unicodedata

import numpy as np
import pytest

from tests.corpora.corpus_trees import clip, write_frames, write_video
from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.manifest import manifest_fingerprint, read_manifest
from training_fla.corpora.row import Reading, clip_times
from training_fla.errors import InputError

TABLE = [
    {"video": "a.mp4", "sentence": 'He said "go", slowly.', "split": "train"},
    {"video": "b.mp4", "sentence": "ja\u2028doch", "split": "valid"},
    {"video": "deep/c.mp4", "sentence": "  viele   worte ", "split": "test"},
]


def write_table(file, records):
    columns = list(records[0])
    if file.suffix == ".json":
        text = json.dumps(records)
    elif file.suffix == ".jsonl":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    elif file.suffix == ".tsv":
        text = "\n".join("\t".join(line) for line in [columns, *(record.values() for record in records)])
    else:
        cells = [['"' + cell.replace('"', '""') + '"' for cell in record.values()] for record in records]
        text = "\n".join(",".join(line) for line in [columns, *cells])
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path, suffix):
    rows = read_manifest(write_table(tmp_path / f"t{suffix}", TABLE), language="de_DE")
    assert [row.split for row in rows] == ["train", "dev", "test"]
    assert [row.id for row in rows] == ["a", "b", "deep/c"]
    assert [row.sentence for row in rows] == ['He said "go", slowly.', "ja doch", "viele worte"]
    assert rows[2].video == VideoFile(tmp_path / "deep/c.mp4")
    assert {row.language for row in rows} == {"de_DE"}


def test_optional_columns_are_read_and_may_have_other_names(tmp_path):
    record = {"file": "a.mp4", "text": "x", "id": "7", "who": "s1", "start": "0.5", "end": "2", "language": "en_XX"}
    file = write_table(tmp_path / "t.tsv", [record])
    (row,) = read_manifest(
        file, video_column="file", sentence_column="text", signer_column="who", default_split="test", language="de_DE"
    )
    assert row.video == VideoFile(tmp_path / "a.mp4", 0.5, 2.0)
    assert (row.id, row.signer, row.language, row.split) == ("7", "s1", "en_XX", "test")


def test_clips_of_one_video_are_told_apart_by_their_times(tmp_path):
    records = [{"video": "a.mp4", "sentence": "x", "start": start, "end": ""} for start in ("0", "1.5")]
    assert [row.id for row in read_manifest(write_table(tmp_path / "t.csv", records))] == ["a_0-", "a_1.5-"]


def test_videos_are_found_in_the_folder_of_their_split_too(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val/b.mp4").write_bytes(b"")
    rows = read_manifest(write_table(tmp_path / "t.csv", TABLE))
    assert rows[1].video.path == tmp_path / "val/b.mp4"
    assert rows[0].video.path == tmp_path / "a.mp4"


def test_names_are_found_as_a_mac_stores_them_and_without_a_suffix(tmp_path):
    """The id stays as the table writes it; in the split's folder names are found too."""
    stored = {"grüße.mp4": "grüße.mp4", "abc123": "abc123.mp4", "clip.v2": "clip.v2.webm", "zählen": "zählen"}
    stored |= {"dort": "val/dort.mkv"}
    (tmp_path / "val").mkdir()
    for name in stored.values():
        (tmp_path / unicodedata.normalize("NFD", name)).touch()
    (tmp_path / unicodedata.normalize("NFD", "zählen")).unlink()
    write_frames(tmp_path / unicodedata.normalize("NFD", "zählen"), clip(3), "%d.png", first=1)
    records = [{"video": name, "sentence": "x", "split": "dev"} for name in stored]
    rows = read_manifest(write_table(tmp_path / "t.csv", records))
    paths = [tmp_path / unicodedata.normalize("NFD", name) for name in stored.values()]
    assert [row.video.path for row in rows] == paths and not any(row.video.is_missing for row in rows)
    assert [row.id for row in rows] == ["grüße", "abc123", "clip.v2", "zählen", "dort"]


@pytest.mark.parametrize("path", ["a/" * 300_000, "a\\" * 300_000, "x" * 300, "a/" * 3000])
def test_a_path_that_no_system_opens_is_a_bad_row_at_once(tmp_path, path):
    file = tmp_path / "t.csv"
    file.write_text(f"video,sentence,end\n{path},Hi.,\na.mp4,x,{'1' * 5000}:00:00\nb.mp4,x,{'9' * 500_000}\n")
    reading = Reading(skip_bad_rows=True)
    assert read_manifest(file, reading) == []
    lines = reading.bad.lines()
    assert [line.partition(": ")[0] for line in lines] == [f"{file}, line {line}" for line in (2, 3, 4)]
    assert "too long" in lines[0] and "seconds" in lines[1]
    assert max(map(len, lines)) < 1000


def test_a_folder_with_a_table_a_split_is_read(tmp_path):
    for name in ("train", "validation"):
        write_table(tmp_path / f"{name}.tsv", [{"video": f"{name}.mp4", "sentence": "x"}])
    assert [(row.id, row.split) for row in read_manifest(tmp_path)] == [("train", "train"), ("validation", "dev")]
    write_table(tmp_path / "more.tsv", TABLE)
    with pytest.raises(InputError, match="more.tsv.*train.tsv"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file\tsentence\na\tb\n",
            "line 1: .*'video'.*'file', 'sentence'",
        ),
        ("video\tsentence\na.mp4\n", "line 2: .*1 cell.* 2"),
        ("video\tsentence\tsplit\na.mp4\tx\ttrial\n", "line 2: .*split 'trial'"),
        ("video\tsentence\n../a.mp4\tx\n", r"line 2: path '\.\./a\.mp4' leaves"),
        ("video\tsentence\na.mp4\tx\na.mp4\ty\n", "line 3: id 'a' .*line 2: "),
        ("video\tsentence\tid\na.mp4\tx\t1\na.mp4\tx\t1\n", "line 3: id '1' .*line 2"),
        ("video\tsentence\tstart\na.mp4\tx\tsoon\n", "line 2: 'soon'.*time"),
        ("video\tsentence\tend\na.mp4\tx\t0\n", "line 2: .*ends at 0.*start at 0"),
        ("video\tsentence\na.mp4\t \n", "line 2: .*sentence"),
        ("video\tsentence\na.mp4\tNaN\n", "line 2: 'NaN'.*sentence"),
        ("video\tsentence\tfps\n.\tx\tfast\n", "line 2: 'fast'.*time"),
        ("video\tsentence\nC:\\a.mp4\tx\n", "line 2: .*'C:.*a.mp4'.*Windows"),
        ("video\tsentence\n", "rows"),
        ("", "is empty"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match="t.tsv.*" + message):
        read_manifest(tmp_path / "t.tsv")


def test_all_bad_rows_of_all_tables_are_named_at_once_or_skipped(tmp_path):
    header = "video,sentence,start,end\n"
    (tmp_path / "train.csv").write_text(header + "a.mp4,Good.,0,1\na.mp4,Zero length.,1,1\n../a.mp4,Out.,1.2,1\n")
    (tmp_path / "dev.csv").write_text(header + 'a.mp4,"Open.,0,1\na.mp4,Good.,0,1\na.mp4,Good.,0,1\n')
    with pytest.raises(InputError) as error:
        read_manifest(tmp_path)
    message = str(error.value)
    for part in ("train.csv, line 3: the clip ends", "; line 4: path '../a.mp4'", "dev.csv, line 2: cell 2 begins"):
        assert part in message
    assert "3 bad rows" in message and "`--on-error skip`" in message
    reading = Reading(skip_bad_rows=True)
    rows = read_manifest(tmp_path, reading=reading)
    assert [(row.split, row.id) for row in rows] == [("train", "a_0-1"), ("dev", "a_0-1"), ("dev", "a_0-1#2")]
    assert len(reading.bad.lines()) == 3
    assert "1 row repeats another and is kept; the first" in reading.notes[0]


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [
        ("0,5", "1,25", (0.5, 1.25)),
        ("00:01:25.480", "0:01:26,5", (85.48, 86.5)),
        ("1:05", " 65.5 ", (65.0, 65.5)),
        ("0", ".5", (0.0, 0.5)),
        ("1e-05", "", (1e-05, None)),
        ("100:00:00", "360001", (360000.0, 360001.0)),
    ],
)
def test_times_are_read_as_people_and_programs_write_them(tmp_path, start, end, seconds):
    (tmp_path / "t.tsv").write_text(f"video\tsentence\tstart\tend\na.mp4\tx\t{start}\t{end}\n")
    (row,) = read_manifest(tmp_path / "t.tsv")
    assert (row.video.start_seconds, row.video.end_seconds) == seconds


@pytest.mark.parametrize("written", ["-1", "1:60", "1:2:3:4", "1_000", "1.234,5", "nan", "inf", "1e999", "61:05"])
def test_what_is_no_time_is_refused(written):
    with pytest.raises(InputError, match="time.*seconds"):
        clip_times(written, "")


def test_times_can_be_left_unread(tmp_path):
    (tmp_path / "cut.csv").write_text("id,label,start,end\n1.mp4,Uno.,0.2,0.84\n2.mp4,Dos.,33.1,33.0\n")
    rows = read_manifest(
        tmp_path / "cut.csv", video_column="id", sentence_column="label", start_column="", end_column="", id_column=""
    )
    assert [row.video for row in rows] == [VideoFile(tmp_path / "1.mp4"), VideoFile(tmp_path / "2.mp4")]


def test_a_spreadsheets_table_is_read(tmp_path):
    """Semicolons, decimal commas, a byte order mark, empty columns, names in capitals, Windows' paths."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.mp4").touch()
    text = 'sep=;\n Video ;Sentence;Split;Start;END;;\ndeep\\a.mp4;"Eins;\nzwei.";Validation;0,5;1,5;;\n;;;;;;\n'
    (tmp_path / "t.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    (row,) = read_manifest(tmp_path / "t.csv")
    assert row.video == VideoFile(tmp_path / "deep/a.mp4", 0.5, 1.5)
    assert (row.sentence, row.split, row.id) == ("Eins; zwei.", "dev", "deep/a_0,5-1,5")


def test_the_metadata_of_a_datasets_folder_is_a_manifest(tmp_path):
    file = write_table(tmp_path / "metadata.csv", [{"file_name": "a.mp4", "sentence": "x"}])
    assert read_manifest(file)[0].video == VideoFile(tmp_path / "a.mp4")


def test_absolute_paths_below_the_root_are_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for root in ("real", "link"):
        records = [{"video": str(tmp_path / place / "a.mp4"), "sentence": "x"} for place in ("real",)]
        (row,) = read_manifest(write_table(tmp_path / root / "t.csv", records))
        assert row.video == VideoFile(tmp_path / root / "a.mp4") and row.id == "a"
    with pytest.raises(InputError, match="/etc/a.mp4"):
        read_manifest(write_table(tmp_path / "real/t.csv", [{"video": "/etc/a.mp4", "sentence": "x"}]))


def test_links_out_of_the_folder_are_followed_when_they_are_trusted(tmp_path):
    (tmp_path / "snapshot/train").mkdir(parents=True)
    write_video(tmp_path / "blobs/0123", 2)
    (tmp_path / "snapshot/train/a.mp4").symlink_to("../../blobs/0123")
    file = write_table(tmp_path / "snapshot/t.csv", [{"video": "train/a.mp4", "sentence": "x"}])
    with pytest.raises(InputError, match="--follow-links"):
        read_manifest(file)
    (row,) = read_manifest(file, reading=Reading(follow_links=True))
    assert len(list(row.video.frames())) == 2


def test_a_row_may_name_a_folder_of_frames(tmp_path):
    write_frames(tmp_path / "a.b", clip(8), "%d.png", first=5)  # 10.png comes after 9.png
    records = [{"video": "a.b", "sentence": "x", "start": "0.2", "end": "0.6", "fps": "10"}]
    (row,) = read_manifest(write_table(tmp_path / "t.csv", records))
    assert (row.id, row.video) == ("a.b_0.2-0.6", FrameFolder(tmp_path / "a.b", 10.0, 0.2, 0.6))
    np.testing.assert_array_equal(list(row.video.frames()), clip(8)[2:6])


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets/t.xlsx").write_bytes(b"PK\x03\x04")
    for name, message in {
        "sheets": r"\.csv, \.tsv, \.jsonl.*t\.xlsx.*'CSV UTF-8'",
        "sheets/t.xlsx": r"t\.xlsx.*'CSV UTF-8'",
        "absent": "absent",
    }.items():
        with pytest.raises(InputError, match=message):
            read_manifest(tmp_path / name)


def test_the_fingerprint_changes_with_table_options_and_videos(tmp_path):
    file = write_table(tmp_path / "t.tsv", TABLE)

    def fingerprint(**options):
        return manifest_fingerprint(file, read_manifest(file, **options), **options)

    seen = {fingerprint(), fingerprint(language="de_DE")}
    video = write_video(tmp_path / "a.mp4", 2)
    seen.add(fingerprint())
    os.utime(video, (1, 1))
    seen.add(fingerprint())
    file.write_text(file.read_text(encoding="utf-8").replace("slowly", "fast"), encoding="utf-8")
    seen.add(fingerprint())
    assert len(seen) == 5
    assert fingerprint() in seen


@pytest.mark.real_data
def test_the_real_how2sign_clips_are_found(real_data):
    rows = read_manifest(real_data / "how2sign/clips", video_column="file", language="en_XX")
    assert len(rows) == 34
    assert all(row.video.path.is_file() for row in rows)
    assert {row.split for row in rows} == {"train", "dev", "test"}
