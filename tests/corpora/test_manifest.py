import json
import os

import pytest

from tests.corpora.corpus_trees import write_video
from training_fla.corpora.manifest import manifest_fingerprint, read_manifest
from training_fla.corpora.row import VideoFile
from training_fla.files import InputError

TABLE = [
    {"video": "a.mp4", "sentence": 'He said "go", slowly.', "split": "train"},
    {"video": "b.mp4", "sentence": "ja\u2028doch", "split": "valid"},
    {"video": "deep/c.mp4", "sentence": "  viele   worte ", "split": "test"},
]


def write_table(file, records):
    columns = list(records[0])
    if file.suffix == ".jsonl":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    elif file.suffix == ".tsv":
        text = "\n".join("\t".join(line) for line in [columns, *(record.values() for record in records)])
    else:
        cells = [['"' + cell.replace('"', '""') + '"' for cell in record.values()] for record in records]
        text = "\n".join(",".join(line) for line in [columns, *cells])
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
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
    (row,) = read_manifest(file, "file", "text", signer="who", default_split="test", language="de_DE")
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


def test_a_folder_with_a_table_a_split_is_read(tmp_path):
    for name in ("train", "validation"):
        write_table(tmp_path / f"{name}.tsv", [{"video": f"{name}.mp4", "sentence": "x"}])
    assert [(row.id, row.split) for row in read_manifest(tmp_path)] == [("train", "train"), ("validation", "dev")]
    write_table(tmp_path / "more.tsv", TABLE)
    with pytest.raises(InputError, match="holds several tables"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\tsentence\na\tb\n", "line 2: there is no column 'video'.*'file', 'sentence'.*--video-column"),
        ("video\tsentence\na.mp4\n", "line 2 has 1 fields, the header has 2"),
        ("video\tsentence\tsplit\na.mp4\tx\ttrial\n", "line 2: unknown split 'trial'"),
        ("video\tsentence\n../a.mp4\tx\n", r"line 2: path '\.\./a\.mp4' leaves"),
        ("video\tsentence\na.mp4\tx\na.mp4\ty\n", "line 3: id 'a' came before, at .*line 2"),
        ("video\tsentence\tstart\na.mp4\tx\tsoon\n", "line 2: 'soon' in column 'start' is not a time"),
        ("video\tsentence\tstart\tend\na.mp4\tx\t2\t1\n", "line 2: the clip ends at 1.0 s, not after its start"),
        ("video\tsentence\n", "has no rows"),
        ("", "has no rows"),
        ("video\tsentence\na\0.mp4\tx\n", "holds zero bytes"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match="t.tsv.*" + message):
        read_manifest(tmp_path / "t.tsv")


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"video": "a.mp4"\n')
    (tmp_path / "l.jsonl").write_text("[1]\n")
    (tmp_path / "q.csv").write_text('video,sentence\na.mp4,"never closed\n')
    (tmp_path / "x.csv").write_bytes(b"video,sentence\na,\xff\n")
    (tmp_path / "t.txt").write_text("video\n")
    for name, message in {
        "t.jsonl": "line 1 is not JSON",
        "l.jsonl": "line 1 is not a JSON object",
        "q.csv": "unexpected end of data",
        "x.csv": "not UTF-8",
        "t.txt": "is not a .csv, .tsv, .jsonl file",
        "absent": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            read_manifest(tmp_path / name)


def test_the_fingerprint_changes_with_table_options_and_videos(tmp_path):
    file = write_table(tmp_path / "t.tsv", TABLE)
    seen = {manifest_fingerprint(file), manifest_fingerprint(file, language="de_DE")}
    video = write_video(tmp_path / "a.mp4", 2)
    seen.add(manifest_fingerprint(file))
    os.utime(video, (1, 1))
    seen.add(manifest_fingerprint(file))
    file.write_text(file.read_text(encoding="utf-8").replace("slowly", "fast"), encoding="utf-8")
    seen.add(manifest_fingerprint(file))
    assert len(seen) == 5
    assert manifest_fingerprint(file) in seen


@pytest.mark.real_data
def test_the_real_how2sign_clips_are_found(real_data):
    rows = read_manifest(real_data / "how2sign/clips", video_column="file", language="en_XX")
    assert len(rows) == 34
    assert all(row.video.path.is_file() for row in rows)
    assert {row.split for row in rows} == {"train", "dev", "test"}
