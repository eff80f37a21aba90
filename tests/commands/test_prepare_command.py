import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.corpora.corpus_trees import clip, how2sign, phoenix14t, write_frames, write_video
from tests.processing import drawing
from training_fla.cli import main
from training_fla.data.packed_corpus import PackedCorpus, file_sha256
from training_fla.data.packing import ensure_packed
from training_fla.errors import InputError
from training_fla.tables import read_table

DEMO = ["prepare", "demo", "--num-train", "6", "--num-dev", "2", "--num-test", "2", "--size", "32", "--clips", "1"]


def test_demo_packs_and_leaves_text_and_clips(tmp_path, capsys):
    assert main([*DEMO, "--workers", "0", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert "packed clips: train 6, dev 2, test 2" in told and re.search(r"packed into \S+, [\d.]+ [kM]B ", told)
    corpus = PackedCorpus(tmp_path / "out", "train")
    assert (len(corpus), corpus.corpus, corpus.language) == (6, "demo", "de_DE")
    assert corpus.read_frames(0, [0]).shape == (1, 3, 32, 32)
    assert [path.name for path in (tmp_path / "out/clips").iterdir()] == ["test-00000.mp4"]
    for name in ("demo_text", "broad_text", "train.sentences"):
        assert (tmp_path / f"out/{name}.txt").read_text(encoding="utf-8").count("\n") > 5


def test_demo_draws_a_table_of_glosses(tmp_path):
    (tmp_path / "pairs.tsv").write_text("REGEN MORGEN\tmorgen regnet es\ttrain\nSONNE\tsonne\ttest\n")
    arguments = ["prepare", "demo", "--pairs", str(tmp_path / "pairs.tsv"), "--size", "32", "--workers", "0"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert PackedCorpus(tmp_path / "out", "test").sentences == ["sonne"]
    assert (tmp_path / "out/clips/test-00000.mp4").is_file()
    assert main([*arguments, "--bare-hands", "--out", str(tmp_path / "bare")]) == 0
    gloved, bare = (PackedCorpus(tmp_path / name, "train").read_frames(0, [0]) for name in ("out", "bare"))
    assert gloved.shape == bare.shape and not torch.equal(gloved, bare)


def test_demo_draws_phoenix14t_and_keeps_its_glosses(tmp_path, capsys):
    root = phoenix14t(tmp_path / "root")
    arguments = ["prepare", "demo", "--pairs", "phoenix14t", "--size", "32", "--workers", "0", "--clips", "1"]
    assert main([*arguments, "--root", str(root), "--out", str(tmp_path / "out")]) == 0
    corpus = PackedCorpus(tmp_path / "out", "train")
    assert list(corpus.column("glosses")) == ['WETTER "X', 'WETTER "X']
    assert corpus.read_frames(1, [0]).shape == (1, 3, 32, 32)
    assert (tmp_path / "out/phoenix_text.txt").read_text(encoding="utf-8").count("\n") == 2
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "--pairs phoenix14t needs --root" in capsys.readouterr().err
    assert main([*arguments, "--root", str(root), "--glosses", "0", "--out", str(tmp_path / "other")]) == 2
    assert "--glosses" in capsys.readouterr().err
    assert main([*DEMO, "--glosses", "3", "--out", str(tmp_path / "other")]) == 2
    assert "--pairs phoenix14t" in capsys.readouterr().err


def test_a_corpus_without_glosses_says_so(tmp_path):
    (tmp_path / "t.tsv").write_text("video\tsentence\na.mp4\tHi.\n")
    write_video(tmp_path / "a.mp4", 4)
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.tsv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(InputError, match="out.*glosses"):
        PackedCorpus(tmp_path / "out", "train").column("glosses")


def test_own_videos_are_packed_with_columns_by_name(tmp_path):
    write_video(tmp_path / "train/a.mp4", 4)
    (tmp_path / "t.tsv").write_text("split\tfile\tsentence\ntrain\ta.mp4\tHi.\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.tsv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--video-column", "file", "--out", str(tmp_path / "out")]) == 0
    assert PackedCorpus(tmp_path / "out", "train").read_frames(0, [3]).shape == (1, 3, 16, 16)


def test_a_release_is_checked_and_packed(tmp_path, capsys):
    root = phoenix14t(tmp_path / "root")
    assert main(["prepare", "phoenix14t", "--root", str(root), "--check", "--workers", "0"]) == 1
    report = capsys.readouterr().out
    assert "train: 2 rows instead of 7096" in report and "clips missing on disk: none" in report
    assert not (tmp_path / "out").exists()
    arguments = ["prepare", "phoenix14t", "--root", str(root), "--out", str(tmp_path / "out"), "--size", "16"]
    assert main([*arguments, "--workers", "0"]) == 0
    assert PackedCorpus(tmp_path / "out", "dev").corpus == "phoenix14t"


def test_the_papers_counts_of_how2sign_are_explained(tmp_path, capsys):
    root = how2sign(tmp_path / "root")
    assert main(["prepare", "how2sign", "--root", str(root), "--check", "--workers", "0"]) == 1
    assert "31164, 1740 and 2356" in capsys.readouterr().out


def test_verify_fails_on_damage(tmp_path, capsys):
    (tmp_path / "pairs.tsv").write_text("REGEN\tes regnet\ttrain\n")
    arguments = ["prepare", "demo", "--pairs", str(tmp_path / "pairs.tsv"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--size", "32", "--workers", "0", "--clips", "0"]) == 0
    assert main([*arguments, "--verify"]) == 0
    shard = next((tmp_path / "out").glob("train*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert main([*arguments, "--verify"]) == 1
    assert f"{shard} is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "--out DIR is missing"),
        (["manifest", "--out", "x"], "--root is missing"),
        (["phoenix14t", "--root", "absent", "--check"], "absent"),
        (["demo", "--check", "--verify"], "--check.*--verify"),
        (["demo", "--out", "x", "--workers", "-1"], "--workers -1: must be 0 or more"),
        (["demo", "--out", "absent", "--verify"], "absent.*packed corpus"),
        (["manifest", "--root", "absent", "--out", "x"], "absent"),
    ],
)
def test_bad_use_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("fla prepare: error: ")
    assert re.search(message, line)
    assert list(tmp_path.iterdir()) == []


def test_datasets_of_all_kinds_are_packed(tmp_path):
    import datasets

    files = [write_video(tmp_path / f"{name}.mp4", 4 + number) for number, name in enumerate("ab")]
    folder = tmp_path / "folder/validation"
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as stream:
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
            stream.write(json.dumps({"file_name": file.name, "sentence": f"satz {file.stem}"}) + "\n")
    features = datasets.Features({"clip": datasets.Video(), "text": datasets.Value("string")})
    embedded = {"clip": [{"path": None, "bytes": file.read_bytes()} for file in files], "text": ["x", "y"]}
    table = datasets.Dataset.from_dict(embedded, features=features)
    datasets.DatasetDict({"dev": table, "odd": table}).save_to_disk(str(tmp_path / "saved"))
    names = ["--video-column", "clip", "--sentence-column", "text"]
    for root, options, sentences in (("folder", [], ["satz a", "satz b"]), ("saved", names, ["x", "y"])):
        out = tmp_path / f"out-{root}"
        arguments = ["prepare", "dataset", "--root", str(tmp_path / root), "--out", str(out), "--size", "16"]
        assert main([*arguments, "--workers", "0", *options]) == 0
        corpus = PackedCorpus(out, "dev")
        assert (corpus.sentences, corpus.num_frames) == (sentences, [4, 5])


def test_columns_of_a_dataset_that_are_not_asked_for_are_not_read(tmp_path, capsys):
    """A second video, a picture and a sound that nothing could decode; the sentence lies in a column of its own."""
    import datasets

    kinds = {"video": datasets.Video(), "side": datasets.Video(), "face": datasets.Image(), "voice": datasets.Audio()}
    kinds |= {"json": {"Sentence": datasets.Value("string"), "start": datasets.Value("float32")}}
    kinds |= {"text": datasets.Value("string"), "signer": datasets.Value("string")}
    clip, damaged = write_video(tmp_path / "a.mp4", 30).read_bytes(), {"path": None, "bytes": b"damaged"}
    row = {"video": {"path": None, "bytes": clip}, "side": damaged, "face": damaged, "voice": damaged}
    row |= {"json": {"Sentence": "Hi.", "start": 0.4}, "text": '{"de": {"said": "Hallo."}}', "signer": None}
    features = datasets.Features(kinds)
    table = pa.Table.from_pylist([row, row], schema=features.arrow_schema)
    datasets.Dataset(table, info=datasets.DatasetInfo(features=features)).save_to_disk(str(tmp_path / "d"))
    arguments = ["prepare", "dataset", "--root", str(tmp_path / "d"), "--size", "16", "--workers", "0"]
    for number, (column, sentence) in enumerate((("json.sentence", "Hi."), ("text.de.said", "Hallo."))):
        out = tmp_path / f"out{number}"
        options = ["--sentence-column", column, "--start-column", "json.start"]
        assert main([*arguments, *options, "--out", str(out)]) == 0
        corpus = PackedCorpus(out, "train")
        assert (corpus.sentences, corpus.num_frames, corpus.signers) == ([sentence] * 2, [20] * 2, [""] * 2)
    assert main([*arguments, "--sentence-column", "json.text", "--out", str(tmp_path / "no")]) == 2
    assert "only video, side, face, voice, json.Sentence, json.start" in capsys.readouterr().err
    assert main([*arguments, "--sentence-column", "text.en", "--out", str(tmp_path / "no")]) == 2
    assert "row 0: column 'text.en' holds None" in capsys.readouterr().err


def test_clips_of_a_dataset_are_cut_at_its_times_unless_they_are_switched_off(tmp_path, capsys):
    write_video(tmp_path / "d/train/long.mp4", 100)
    lines = ["file_name,Sentence,start,End", "long.mp4,First.,0,1", "long.mp4,Second.,1,2", 'long.mp4,"So, third.",3,']
    (tmp_path / "d/train/metadata.csv").write_text("\n".join(lines) + "\n")
    arguments = ["prepare", "dataset", "--root", str(tmp_path / "d"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--sentence-column", "text", "--out", str(tmp_path / "none")]) == 2
    assert "'text', only " in (error := capsys.readouterr().err)
    assert error.endswith("--sentence-column\n")
    for options, frames in (([], [25, 25, 25]), (["--no-times"], [100, 100, 100])):
        out = tmp_path / f"out{len(options)}"
        assert main([*arguments, *options, "--out", str(out)]) == 0
        assert PackedCorpus(out, "train").num_frames == frames


def test_two_splits_of_a_dataset_with_one_meaning_are_refused(tmp_path, capsys):
    import datasets

    table = datasets.Dataset.from_dict({"video": [b""], "sentence": ["x"]})
    datasets.DatasetDict({"dev": table, "validation": table}).save_to_disk(str(tmp_path / "d"))
    assert main(["prepare", "dataset", "--root", str(tmp_path / "d"), "--out", str(tmp_path / "out")]) == 2
    assert "'dev' and 'validation'" in capsys.readouterr().err


def test_an_id_of_a_dataset_that_comes_twice_is_a_bad_row(tmp_path, capsys):
    import datasets

    clip = write_video(tmp_path / "a.mp4", 3).read_bytes()
    rows = {"video": [clip] * 3, "sentence": ["x", "y", "z"], "id": ["a", "a", "b"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "d"))
    arguments = ["prepare", "dataset", "--root", str(tmp_path / "d"), "--size", "16", "--workers", "0"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "row 1: id 'a'" in capsys.readouterr().err
    assert main([*arguments, "--on-error", "skip"]) == 0
    assert PackedCorpus(tmp_path / "out", "train").sentences == ["x", "z"]


def test_links_of_a_dataset_are_followed_when_they_are_trusted(tmp_path, capsys):
    write_video(tmp_path / "blobs/0123.mp4", 3)
    (tmp_path / "d/train").mkdir(parents=True)
    (tmp_path / "d/train/a.mp4").symlink_to(tmp_path / "blobs/0123.mp4")
    (tmp_path / "d/train/metadata.csv").write_text("file_name,sentence\na.mp4,Hi.\n")
    arguments = ["prepare", "dataset", "--root", str(tmp_path / "d"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "--follow-links" in capsys.readouterr().err
    assert main([*arguments, "--follow-links", "--out", str(tmp_path / "out")]) == 0
    assert PackedCorpus(tmp_path / "out", "train").num_frames == [3]


BAD_ROWS = """video,sentence,split,start,end
a.mp4,Good.,train,0,1
a.mp4,Zero length.,train,1,1
a.mp4,Backwards.,train,1.2,1
a.mp4,"He said ""go"", and went.",dev,0.5,1.5
"""


def test_all_bad_rows_of_a_table_are_named_and_skip_packs_the_rest(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 40)
    (tmp_path / "t.csv").write_text(BAD_ROWS)
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "t.csv, line 3: " in error and "; line 4: " in error
    assert "2 bad rows" in error and "`--on-error skip`" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--check"]) == 1
    report = capsys.readouterr().out
    assert "rows that cannot be used: 2" in report and "line 4: " in report
    assert "train: 1 row" in report and "dev: 1 row; frames 25 to 25" in report
    assert main([*arguments, "--on-error", "skip", "--out", str(tmp_path / "out")]) == 0
    assert "note: left out: " in capsys.readouterr().err
    assert PackedCorpus(tmp_path / "out", "dev").sentences == ['He said "go", and went.']
    skipped = [row for _, row in read_table(tmp_path / "out/skipped.tsv", ("id", "reason"))]
    assert [row["id"] for row in skipped] == [f"{tmp_path}/t.csv, line 3", f"{tmp_path}/t.csv, line 4"]
    packed = ensure_packed(tmp_path / "t.csv", tmp_path / "packed", on_error="skip", num_workers=0)
    assert (packed / "skipped.tsv").read_bytes() == (tmp_path / "out/skipped.tsv").read_bytes()


def test_cuts_and_counts_go_by_the_frame_times(tmp_path, capsys):
    """A browser's WebM states 1000 frames a second and no length; a picture starts after the sound; rates vary."""
    frames = [drawing.marked_frame(n % 20, 32, 32) for n in range(120)]
    times = [round(1000 * n / 30) for n in range(120)]
    browser = {"container_options": {"live": "1"}, "options": {"deadline": "realtime", "cpu-used": "8"}}
    drawing.write_video(tmp_path / "browser.webm", frames, codec="libvpx", times=times, **browser)
    varying = [*range(0, 1000, 100), *range(1000, 5000, 20)]
    drawing.write_video(tmp_path / "varying.mp4", [frames[0]] * len(varying), times=varying)
    drawing.write_video(tmp_path / "one.mp4", frames[:1])
    drawing.late_video(tmp_path / "late.mp4")  # 10 a second from 2 s to 4 s
    rows = ["browser.webm,1,3", "varying.mp4,0.5,2", "late.mp4,2.5,3.5", "late.mp4,3,4.5", "browser.webm,3,9"]
    rows += ["one.mp4,,"]
    (tmp_path / "t.csv").write_text("\n".join(["video,start,end,sentence", *(f"{row},Hi." for row in rows)]) + "\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--size", "32", "--workers", "0"]
    assert main([*arguments, "--check"]) == 1
    report = capsys.readouterr().out
    assert "train: 6 rows; frames 1 to 60, median 10; words 1 to 1, median 1" in report
    assert "late_3-4.5: it ends at 4.5 s, its video at 4.00 s" in report
    assert "clips unreadable: 1\n  train browser_3-9: its frames end at 3.97 s, but it is to end at 9.0 s" in report
    assert main([*arguments, "--on-error", "skip", "--out", str(tmp_path / "out")]) == 0
    assert "browser_3-9" in (tmp_path / "out/skipped.tsv").read_text()
    corpus = PackedCorpus(tmp_path / "out", "train")
    assert corpus.num_frames == [60, 55, 10, 10, 1]
    numbers = [drawing.number_of(frame) for frame in corpus.read_frames(2, range(10)).permute(0, 2, 3, 1).numpy()]
    assert numbers == list(range(5, 15))


def test_times_of_the_full_video_in_a_table_of_cut_clips_are_explained(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 10)
    (tmp_path / "t.csv").write_text("video,sentence,start,end\na.mp4,Dos.,33.1,33.7\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--workers", "0", "--check"]
    assert main(arguments) == 1
    report = capsys.readouterr().out
    assert "a_33.1-33.7: it starts at 33.1 s, after the end of its video at 0.40 s" in report
    for option in ("--no-times", "--times milliseconds", "--times frames"):
        assert option in report.partition("note: ")[2]
    assert main([*arguments, "--no-times"]) == 0
    assert main([*arguments[:-1], "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "t.csv, line 2: " in error and "33.1 s" in error and "--times milliseconds" in error


def packed_frames(tmp_path, table, *options):
    (tmp_path / "t.csv").write_text(table)
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--out", str(out), *options]) == 0
    return PackedCorpus(out, "train").num_frames


def test_times_are_read_in_the_unit_that_is_named(tmp_path, capsys):
    """25 frames a second in a file, 10 in a folder, and a file whose rate changes after its tenth frame."""
    write_video(tmp_path / "a.mp4", 100)
    write_frames(tmp_path / "b", clip(30), "%d.png", first=1)
    times = [*range(0, 1000, 100), *range(1000, 3000, 20)]
    drawing.write_video(tmp_path / "c.mp4", [drawing.marked_frame(0, 32, 32)] * len(times), times=times)
    header = "video,start,end,fps,sentence\n"
    rows = "a.mp4,{},{},,x\nb,{},{},10,x\nc.mp4,{},{},,x\n"
    seconds = header + rows.format('"0,4"', 2, 0.5, 1, 0.5, 1.1)
    milliseconds = header + rows.format(400, "00:00:02", 500, 1000, 500, 1100)
    frames = header + rows.format(10, 50, 5, "10.0", 5, 15)
    assert packed_frames(tmp_path, seconds) == [40, 5, 10]
    assert packed_frames(tmp_path, milliseconds, "--times", "milliseconds") == [40, 5, 10]
    assert packed_frames(tmp_path, frames, "--times", "frames") == [40, 5, 10]
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--workers", "0", "--times", "frames"]
    (tmp_path / "t.csv").write_text(header + "a.mp4,2.5,9,,x\na.mp4,9,300,,y\ngone.mp4,1,2,,z\n")
    (tmp_path / "d.mp4").write_bytes(b"damaged")
    assert main([*arguments, "--out", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    for reason in ("line 2: '2.5'", "3.96 s", "line 4: "):
        assert reason in error
    assert main([*arguments, "--no-times", "--out", str(tmp_path / "no")]) == 2
    assert "--times frames" in capsys.readouterr().err


def test_check_and_packing_refuse_the_same_rows_all_at_once(tmp_path, capsys):
    """Damage behind the first frame, an index without its frames, times between two frames, no sentence, no file."""
    content = write_video(tmp_path / "a.mp4", 50, height=96, width=128).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])  # the index lies in front
    (tmp_path / "noise.mp4").write_bytes(content[:-4000] + bytes(range(250)) * 16)
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_frames(tmp_path / "b", clip(4), "%d.png", first=1)
    (tmp_path / "b/3.png").write_bytes(b"damaged")
    rows = ["a.mp4,,,good", "cut.mp4,,,x", "noise.mp4,,,x", "empty.mp4,,,x", "b,,,x", "a.mp4,0.01,0.03,x"]
    rows += ["a.mp4,1,5,x", "a.mp4,5,6,x", "gone.mp4,,,x", "gone2.mp4,,,x", "a.mp4,,,"]
    (tmp_path / "t.csv").write_text("video,start,end,sentence\n" + "\n".join(rows) + "\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--on-error", "skip", "--out", str(tmp_path / "out")]) == 0
    corpus = PackedCorpus(tmp_path / "out", "train")
    capsys.readouterr()
    assert main([*arguments, "--check"]) == 1
    report = capsys.readouterr().out
    skipped = [row["id"] for _, row in read_table(tmp_path / "out/skipped.tsv", ("id", "reason"))]
    skipped = {f"line {id_.partition('line ')[2]}:" if "line" in id_ else f"train {id_}: " for id_ in skipped}
    assert len(skipped) + len(corpus) == len(rows) and len(corpus) == 1
    for name in skipped:
        assert report.count(name) == 1, name
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(f"line {line}: " in error for line in (3, 5, 7, 8, 9, 10, 11, 12))


def test_a_clip_in_several_splits_and_one_that_is_not_cut_are_named(tmp_path, capsys):
    """The same file, a copy of it, overlapping times; not: neighbours in one recording, two rows of one split."""
    write_video(tmp_path / "a.mp4", 50)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    write_video(tmp_path / "long.mp4", 400, seed=1)
    rows = [
        "a.mp4,x,train,,",
        "copy.mp4,x,dev,,",
        "long.mp4,x,train,0,2",
        "long.mp4,x,train,1,3",
        "long.mp4,x,dev,3,5",
    ]
    rows += ["long.mp4,two words,test,4,", "long.mp4,frames,train,4.5,15.9"]
    (tmp_path / "t.csv").write_text("video,sentence,split,start,end\n" + "\n".join(rows) + "\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--check"]) == 0
    report = capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    for text in (report, capsys.readouterr().err):
        warnings = sorted(line for line in text.splitlines() if line.startswith("warning: "))
        assert [line.partition(" show")[0] for line in warnings] == [
            "warning: dev long_3-5 and test long_4-",
            "warning: dev long_3-5 and train long_4.5-15.9",
            "warning: test long_4- and train long_4.5-15.9",
            "warning: test long_4-: 300 frames, 12 s, for 2 words: no `end` is given",
            "warning: train a and dev copy",
            "warning: train long_4.5-15.9: 285 frames, 11 s, for 1 word: are its times seconds?",
        ]


def test_a_clip_in_several_splits_of_a_dataset_is_named(tmp_path, capsys):
    """Its bytes lie in the table; of equally long videos only the copy is named."""
    import datasets

    features = datasets.Features({"video": datasets.Video(), "sentence": datasets.Value("string")})
    clip = write_video(tmp_path / "a.mp4", 10).read_bytes()
    videos = {"train": [clip, clip], "dev": [clip[:-1] + b"x"], "test": [clip]}
    tables = {
        split: datasets.Dataset.from_dict(
            {"video": [{"path": None, "bytes": data} for data in of_split], "sentence": ["Hi."] * len(of_split)},
            features=features,
        )
        for split, of_split in videos.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    assert main(["prepare", "dataset", "--root", str(tmp_path / "saved"), "--workers", "0", "--check"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: train 000001-video and test 000000-video show the same frames of video"]


def test_a_copy_of_a_folder_of_frames_in_another_split_is_named(tmp_path, capsys):
    for name, seed in (("a", 0), ("copy", 0), ("other", 1)):
        write_frames(tmp_path / name, clip(5, seed), "%d.png", first=1)
    rows = "a,Hi.,train\ncopy,Hi.,dev\nother,Hi.,test\n"
    (tmp_path / "t.csv").write_text("video,sentence,split\n" + rows)
    assert main(["prepare", "manifest", "--root", str(tmp_path), "--workers", "0", "--check"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert [line.partition(" show")[0] for line in warnings] == ["warning: train a and dev copy"]


def test_a_check_warns_of_missing_frame_numbers(tmp_path, capsys):
    write_frames(tmp_path / "a", clip(5), "%d.png", first=1)
    (tmp_path / "a/3.png").unlink()
    (tmp_path / "t.csv").write_text("video;sentence\na;Hi.\n")
    arguments = ["prepare", "manifest", "--root", str(tmp_path), "--size", "16", "--workers", "0"]
    assert main([*arguments, "--check"]) == 0
    assert f"warning: {tmp_path}/a: " in capsys.readouterr().out
    with pytest.warns(UserWarning, match="between 2 and 4$"):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert PackedCorpus(tmp_path / "out", "train").num_frames == [4]


def test_nothing_foreign_and_no_source_is_replaced(tmp_path, capsys):
    write_video(tmp_path / "clips/a.mp4", 2)
    (tmp_path / "clips/t.csv").write_text("video,sentence\na.mp4,Hi.\n")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("mine")
    table = tmp_path / "clips/t.csv"
    for root, out, message in (
        (table, "thesis", r"thesis .*chapter\.tex.*\.fla-llm\.json"),
        (table, "clips", r"clips .*t\.csv"),
        (tmp_path / "clips", "clips", "clips .*clips"),
        (table, ".", r"t\.csv"),
    ):
        for options in ([], ["--overwrite"]):
            arguments = ["prepare", "manifest", "--root", str(root), "--out", str(tmp_path / out), "--workers", "0"]
            assert main([*arguments, *options]) == 2
            assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.mp4", "chapter.tex", "t.csv"]


def packing(out, clips):
    counts = ["--num-train", str(clips), "--num-dev", "0", "--num-test", "0", "--shard-clips", "8", "--workers", "2"]
    return ["prepare", "demo", "--out", str(out), "--size", "32", *counts, "--clips", "0"]


def until_packing_begins(process, out):
    """Wait for its first shard, where seconds of imports are over."""
    shards = out.with_name(f".{out.name}.packing") / "folder"
    left_behind = set(shards.glob(".*.writing"))
    while process.poll() is None and set(shards.glob(".*.writing")) <= left_behind:
        time.sleep(0.002)


def survive_kills(tmp_path, clips, kills):
    """Pack undisturbed, then again with kills at random moments; return both folders' hashes and the kills made."""
    begun = time.monotonic()
    assert main(packing(tmp_path / "calm", clips)) == 0
    seconds = time.monotonic() - begun
    moments = np.random.default_rng()
    made = 0
    while made < kills:
        command = [sys.executable, "-m", "training_fla.cli", *packing(tmp_path / "killed", clips)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        until_packing_begins(process, tmp_path / "killed")
        try:
            # Finished shards stay, so ever later moments would find the run at its end.
            process.wait(timeout=moments.uniform(0, seconds / kills / 4))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            made += 1
        else:
            errors = process.communicate()[1].decode()
            assert process.returncode == 0, errors
            break
    assert main(packing(tmp_path / "killed", clips)) == 0
    hashes = [
        {path.relative_to(tmp_path / name): file_sha256(path) for path in (tmp_path / name).glob("*.*")}
        for name in ("calm", "killed")
    ]
    return [{path.name: digest for path, digest in one.items()} for one in hashes], made


def test_a_packing_killed_at_a_random_moment_ends_with_the_same_bytes(tmp_path):
    (calm, killed), made = survive_kills(tmp_path, clips=24, kills=1)
    assert made == 1
    assert calm == killed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "killed"]


@pytest.mark.slow
def test_twenty_kills_of_a_corpus_of_200_clips_leave_the_same_bytes(tmp_path):
    (calm, killed), made = survive_kills(tmp_path, clips=200, kills=20)
    assert made >= 15
    assert calm == killed


def test_check_and_packing_state_rates_and_shapes(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", 12, fps=24.0, height=36, width=64)
    write_video(tmp_path / "b.mp4", 12, fps=50.0, height=64, width=36)
    (tmp_path / "t.csv").write_text("video,sentence\na.mp4,eins\nb.mp4,zwei\n")
    assert main(["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--check"]) == 0
    checked = capsys.readouterr().out
    assert main(["prepare", "manifest", "--root", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")]) == 0
    packed = capsys.readouterr().err
    for told in (checked, packed):
        assert "frames a second: 24 (1 clip), 50 (1 clip)" in told
        assert "width x height: 64 x 36 (1 clip), 36 x 64 (1 clip)" in told
        assert "24 to 50 frames a second are mixed" in told and "0.56 to 1.78 times as wide as high" in told
