"""Packing and reading again: the same bytes from any run, nothing of others replaced, damage refused."""

import copy
import errno
import json
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.corpora.corpus_trees import CrashingVideo, clip, drawn_rows, write_frames, write_video
from tests.tiny_runs import ROOT
from tests.windows_rules import windows_rules  # noqa: F401  a fixture
from training_fla.corpora.clips import DrawnVideo, FrameFolder, VideoFile
from training_fla.corpora.row import CorpusRow
from training_fla.data import packing, worker_processes
from training_fla.data.checking import rates_and_shapes
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import (
    OLD_FORMAT,
    OLD_GLOSS_SCHEMA,
    OLD_SCHEMA,
    PackedCorpus,
    file_sha256,
    index_digest,
    manifest_digest,
    packed_splits,
    read_packed_manifest,
    read_shards,
    verify_packed,
)
from training_fla.data.packing import ensure_packed, pack
from training_fla.errors import InputError
from training_fla.folders import locked_folder


def quiet(rows, out, **options):
    options = {"num_workers": 0, "size": (18, 22), "shard_clips": 2, **options}
    return pack(rows, out, **options)


def contents(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return quiet(drawn_rows(), tmp_path_factory.mktemp("packed") / "out", corpus="demo")


def test_a_packed_corpus_gives_back_rows_and_frames(packed):
    corpus = PackedCorpus(packed, "train")
    rows = [row for row in drawn_rows() if row.split == "train"]
    assert packed_splits(packed) == ["train", "dev", "test"]
    assert (len(corpus), corpus.corpus, corpus.language, corpus.frame_stride) == (5, "demo", "de_DE", 1)
    assert corpus.ids == [row.id for row in rows]
    assert corpus.sentences == [row.sentence for row in rows]
    assert corpus.signers == [row.signer for row in rows]
    assert corpus.num_frames == [3, 4, 5, 6, 7]
    frames = corpus.read_frames(3, [5, 0, 2])
    assert frames.shape == (3, 3, 18, 22)
    assert frames.dtype == torch.uint8
    source = torch.from_numpy(clip(6, seed=3)[[5, 0, 2]]).permute(0, 3, 1, 2)
    assert (frames.int() - source.int()).abs().float().mean() < 4  # JPEG is lossy


def test_frames_that_are_not_there_are_refused(packed):
    corpus = PackedCorpus(packed, "dev")
    with pytest.raises(IndexError, match="'dev0' .*3 frames.*frame 3"):
        corpus.read_frames(0, [0, 3])
    with pytest.raises(IndexError, match="no frame was asked for"):
        corpus.read_frames(0, [])
    with pytest.raises(InputError, match="'trial'.*train, dev, test"):
        PackedCorpus(packed, "trial")


def test_an_opened_corpus_can_be_pickled(packed):
    corpus = PackedCorpus(packed, "test")
    size = len(pickle.dumps(corpus))
    assert size < 5000  # no pixels
    again = pickle.loads(pickle.dumps(corpus))
    assert torch.equal(again.read_frames(1, [1]), corpus.read_frames(1, [1]))


def test_datasets_opens_a_packed_folder(packed, tmp_path):
    import datasets

    opened = datasets.load_dataset(str(packed), cache_dir=str(tmp_path))
    assert {split: len(table) for split, table in opened.items()} == {"train": 5, "dev": 2, "test": 2}
    assert opened["dev"][1]["sentence"] == "satz dev1"
    frames = opened["dev"][1]["frames"]
    corpus = PackedCorpus(packed, "dev")
    assert [frame.size for frame in frames] == [(22, 18)] * 4
    np.testing.assert_array_equal(np.stack(frames), corpus.read_frames(1, range(4)).permute(0, 2, 3, 1))
    assert opened["train"].features.arrow_schema.equals(corpus.schema, check_metadata=False)


def test_a_row_of_a_packed_folder_goes_into_the_processor(packed_demo, demo_processor, tmp_path):
    """As an array of the same frames does."""
    import datasets

    row = datasets.load_dataset(str(packed_demo), split="dev", cache_dir=str(tmp_path))[1]
    corpus = PackedCorpus(packed_demo, "dev")
    frames = corpus.read_frames(1, range(corpus.num_frames[1]))
    from_row = demo_processor(videos=row["frames"], text=row["sentence"], return_tensors="pt")
    from_frames = demo_processor(videos=frames, text=corpus.sentences[1], return_tensors="pt")
    assert from_row.keys() == from_frames.keys() and all(from_row[key].equal(from_frames[key]) for key in from_row)


def test_sentences_are_written_one_a_line(packed):
    assert (packed / "dev.sentences.txt").read_text() == "satz dev0\nsatz dev1\n"


def test_bytes_do_not_depend_on_the_number_of_workers(packed, tmp_path):
    quiet(drawn_rows(), tmp_path / "parallel", num_workers=2, corpus="demo")
    assert contents(tmp_path / "parallel") == contents(packed)
    assert [path.name for path in tmp_path.iterdir()] == ["parallel"]


def counted(calls, draw, name):
    calls.append(name)
    return draw()


def failing():
    raise ValueError("broken on purpose")


def test_a_failed_run_goes_on_without_redoing_finished_shards(packed, tmp_path):
    def rows(calls, broken):
        return [
            CorpusRow(
                row.id,
                DrawnVideo(
                    failing if row.id == broken else partial(counted, calls, row.video.draw, row.id), name=row.id
                ),
                *(row.sentence, row.split, row.signer, row.language),
            )
            for row in drawn_rows()
        ]

    with pytest.raises(
        InputError,
        match=r"dev clip 'dev1' \(dev1\): broken on purpose; --on-error skip .* goes on from .*/\.out\.packing holds",
    ):
        quiet(rows([], "dev1"), tmp_path / "out", corpus="demo")
    assert not (tmp_path / "out").exists()
    calls = []
    quiet(rows(calls, None), tmp_path / "out", corpus="demo")
    assert "dev1" in calls and "test1" in calls
    # Each clip is drawn once, and nothing of train is written again.
    assert not {"train1", "train3"} & set(calls)
    assert contents(tmp_path / "out") == contents(packed)


def test_bad_clips_are_skipped_with_their_reason_when_asked(tmp_path):
    rows = drawn_rows(3, 1, 0)
    bad = [
        CorpusRow("undrawn", DrawnVideo(failing, name="undrawn"), "x", "train"),
        CorpusRow("mute", DrawnVideo(partial(clip, 2)), "", "train"),
        CorpusRow("still", DrawnVideo(partial(np.zeros, (0, 18, 22, 3), np.uint8)), "x", "train"),
        CorpusRow("gone", FrameFolder(tmp_path / "gone"), "x", "dev"),
        CorpusRow("lost", FrameFolder(tmp_path / "lost"), "x", "dev"),
    ]
    with pytest.raises(InputError, match="2 of 9 clips are missing; dev clip 'gone'.*; dev clip 'lost'.*--on-error"):
        quiet(rows + bad, tmp_path / "out")
    quiet(rows + bad, tmp_path / "out", on_error="skip", num_workers=2)
    assert PackedCorpus(tmp_path / "out", "train").ids == ["train0", "train1", "train2"]
    assert PackedCorpus(tmp_path / "out", "dev").ids == ["dev0"]
    skipped = [line.split("\t") for line in (tmp_path / "out/skipped.tsv").read_text().splitlines()]
    assert skipped[0] == ["split", "id", "reason"]
    assert [line[:2] for line in skipped[1:]] == [
        ["train", "undrawn"], ["train", "mute"], ["train", "still"], ["dev", "gone"], ["dev", "lost"],
    ]  # fmt: skip
    reasons = ("broken on purpose", "sentence is empty", "no frames", "missing", "missing")
    assert all(reason in line[2] for line, reason in zip(skipped[1:], reasons, strict=True))
    with pytest.raises(InputError, match="every clip .*train clip 'undrawn'"):
        quiet(bad[:1], tmp_path / "none", on_error="skip")


def test_under_windows_rules_a_corpus_is_packed_and_packed_anew(packed, windows_rules, tmp_path):  # noqa: F811
    quiet(drawn_rows(), tmp_path / "out", corpus="demo", quality=50)
    quiet(drawn_rows(), tmp_path / "out", corpus="demo", overwrite=True)
    assert contents(tmp_path / "out") == contents(packed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_workers_that_are_not_forked_pack_the_same_bytes(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker_processes, "START_METHOD", "spawn")
    quiet(drawn_rows(), tmp_path / "out", corpus="demo", num_workers=1)  # each imports torch for seconds
    assert contents(tmp_path / "out") == contents(packed)
    assert "working in one process" not in capsys.readouterr().err


def test_a_script_without_a_main_guard_does_not_wait_for_itself(packed, tmp_path):
    options = "size=(18, 22), shard_clips=2, corpus='demo', num_workers=2, wait=True"
    lines = [
        "from tests.corpora.corpus_trees import drawn_rows",
        "from training_fla.data import packing, worker_processes",
        "worker_processes.START_METHOD = 'spawn'",
        f"packing.pack(drawn_rows(), {str(tmp_path / 'out')!r}, {options})",
    ]
    (tmp_path / "script.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0 and 'under `if __name__ == "__main__":`' in done.stderr
    assert contents(tmp_path / "out") == contents(packed)


def test_clips_that_cannot_be_sent_to_a_worker_are_packed_by_this_process(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker_processes, "START_METHOD", "spawn")
    rows = drawn_rows()
    for row in rows:
        object.__setattr__(row.video, "draw", (lambda draw: lambda: draw())(row.video.draw))
    quiet(rows, tmp_path / "out", corpus="demo", num_workers=2)
    assert contents(tmp_path / "out") == contents(packed)
    assert "working in one process: its clips cannot be sent" in capsys.readouterr().err


def test_a_decoder_that_crashes_costs_one_clip(tmp_path):
    rows = drawn_rows(8, 0, 0)
    rows.insert(2, CorpusRow("poison", CrashingVideo("poison"), "x", "train", num_frames=1))
    rows.insert(7, CorpusRow("poison2", CrashingVideo("poison2"), "x", "train", num_frames=1))
    options = {"num_workers": 2, "shard_clips": 3}
    with pytest.raises(InputError, match=r"clip 'poison' \(poison\): the process that decodes.*skip leaves"):
        quiet(rows, tmp_path / "out", **options)
    quiet(rows, tmp_path / "out", on_error="skip", **options)
    assert PackedCorpus(tmp_path / "out", "train").ids == [f"train{number}" for number in range(8)]
    assert "poison2\ttrain clip 'poison2' (poison2): the process" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_decoder_that_crashes_in_a_worker_that_is_not_forked_costs_one_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_processes, "START_METHOD", "spawn")
    rows = [*drawn_rows(1, 0, 0), CorpusRow("poison", CrashingVideo(), "x", "train")]
    quiet(rows, tmp_path / "out", on_error="skip", num_workers=1)
    assert PackedCorpus(tmp_path / "out", "train").ids == ["train0"]
    assert "poison\ttrain clip 'poison' (crashing clip): the process" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_decoder_that_hangs_costs_one_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_processes, "SILENCE_SECONDS", 1)
    rows = [*drawn_rows(1, 0, 0), CorpusRow("slow", DrawnVideo(partial(time.sleep, 60)), "x", "train")]
    quiet(rows, tmp_path / "out", on_error="skip", num_workers=1)
    assert "slow\ttrain clip 'slow' (drawn clip): the process" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_full_disk_is_explained_and_resumable(packed, tmp_path, monkeypatch):
    written = []

    def sha256_of_a_full_disk(file):
        written.extend([file] if "-of-" in file.name else [])
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return file_sha256(file)

    monkeypatch.setattr(packing, "file_sha256", sha256_of_a_full_disk)
    with pytest.raises(InputError, match=r"is full \(.*make room; .*same command"):
        quiet(drawn_rows(), tmp_path / "out", corpus="demo")
    quiet(drawn_rows(), tmp_path / "out", corpus="demo")
    assert len(written) == 3 + 3  # 5 shards: two before the disk was full, three after
    assert contents(tmp_path / "out") == contents(packed)


def test_the_same_corpus_is_not_packed_twice_and_another_not_over_it(packed, tmp_path):
    before = (packed / "manifest.json").stat().st_mtime_ns
    assert quiet(drawn_rows(), packed, corpus="demo") == packed
    assert (packed / "manifest.json").stat().st_mtime_ns == before
    quiet(drawn_rows(2, 0, 0), tmp_path / "out")
    with pytest.raises(InputError, match="holds a packed corpus already.*--overwrite"):
        quiet(drawn_rows(3, 0, 0), tmp_path / "out")
    quiet(drawn_rows(3, 0, 0), tmp_path / "out", overwrite=True)
    assert len(PackedCorpus(tmp_path / "out", "train")) == 3


def test_frames_may_be_left_out_or_kept_at_their_size(tmp_path):
    quiet(drawn_rows(0, 0, 2), tmp_path / "out", size=None, frame_stride=2)
    corpus = PackedCorpus(tmp_path / "out", "test")
    assert corpus.num_frames == [2, 2]
    assert corpus.frame_stride == 2
    assert corpus.read_frames(0, [1]).shape == (1, 3, 18, 22)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size .*4096"),
        ({"quality": 101}, "quality .*101"),
        ({"frame_stride": 0}, "frame_stride"),
        ({"shard_clips": 0}, "clip.* 0"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        quiet(drawn_rows(1, 0, 0), tmp_path / "out", **options)


def test_double_ids_and_empty_corpora_are_refused(tmp_path):
    with pytest.raises(InputError, match="split train: 1 id .*'train0'"):
        quiet(drawn_rows(1, 0, 0) * 2, tmp_path / "out")
    with pytest.raises(InputError, match="no clips to pack"):
        quiet([], tmp_path / "out")


def damaged(packed, tmp_path, name, change):
    folder = tmp_path / "damaged"
    shutil.copytree(packed, folder)
    data = bytearray((folder / name).read_bytes())
    change(data)
    (folder / name).write_bytes(data)
    return folder


def without_index(packed, folder):
    """As 0.1.0 packed: no index beside the shards, no mark."""
    shutil.copytree(packed, folder)
    (folder / ".fla-llm.json").unlink()
    manifest = read_packed_manifest(folder)
    for split in manifest["splits"].values():
        (folder / split.pop("index")["file"]).unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": manifest_digest(manifest)}))
    return folder


def as_packed_by_030(packed, folder):
    """Frames as bare bytes, and nothing of the size of the source's."""
    folder.mkdir()
    manifest = read_packed_manifest(packed)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            rows = pa.ipc.open_stream(packed / shard["file"]).read_all().to_pylist()
            schema = OLD_GLOSS_SCHEMA if "glosses" in rows[0] else OLD_SCHEMA
            with pa.OSFile(str(folder / shard["file"]), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
                for row in rows:
                    values = row | {"frames": [frame["bytes"] for frame in row["frames"]]}
                    stream.write_batch(pa.RecordBatch.from_pylist([values], schema))
            file = folder / shard["file"]
            table = pa.ipc.open_stream(file).read_all()
            shard |= {"bytes": file.stat().st_size, "sha256": file_sha256(file), "index_sha256": index_digest(table)}
        file = folder / split["index"]["file"]
        index = read_shards(folder, split["shards"], check=True)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, index.schema) as writer:
            writer.write_table(index)
        split["index"] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    write_manifest(folder, manifest | {"format": OLD_FORMAT})
    shutil.copy(packed / ".fla-llm.json", folder)
    return folder


def write_manifest(folder, manifest):
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": manifest_digest(manifest)}))


def test_a_corpus_that_030_packed_is_read(packed, tmp_path):
    old, new = (PackedCorpus(folder, "train") for folder in (as_packed_by_030(packed, tmp_path / "old"), packed))
    for name in ("ids", "sentences", "signers", "num_frames"):
        assert getattr(old, name) == getattr(new, name)
    assert torch.equal(pickle.loads(pickle.dumps(old)).read_frames(4, [6, 0]), new.read_frames(4, [6, 0]))
    assert verify_packed(old.folder) == []
    assert (old.source_size(3), new.source_size(3)) == (None, (18, 22))
    without = PackedCorpus(without_index(old.folder, tmp_path / "older"), "train")
    assert torch.equal(without.read_frames(4, [6, 0]), new.read_frames(4, [6, 0]))


def test_the_size_of_the_source_is_stored(tmp_path):
    """Of a video file, a folder of frames and drawn frames; a turned video's is that of its upright frames."""
    write_frames(tmp_path / "frames", clip(2, height=26, width=21), "%d.png", first=0)
    videos = [
        VideoFile(write_video(tmp_path / "a.mp4", 3, height=36, width=64)),
        FrameFolder(tmp_path / "frames"),
        DrawnVideo(partial(clip, 2, height=40, width=30)),
    ]
    rows = [CorpusRow(str(number), video, "x", "train") for number, video in enumerate(videos)]
    corpus = PackedCorpus(quiet(rows, tmp_path / "out", size=16), "train")
    assert [corpus.source_size(index) for index in range(3)] == [(36, 64), (26, 21), (40, 30)]
    kept = PackedCorpus(quiet(rows, tmp_path / "kept", size=None), "train")
    assert [tuple(kept.read_frames(index, [0]).shape[-2:]) for index in range(3)] == [(36, 64), (26, 21), (40, 30)]


def test_a_longer_table_takes_over_the_shards_that_stay_the_same(tmp_path, monkeypatch):
    rows = [
        CorpusRow(
            f"c{number}", VideoFile(write_video(tmp_path / f"{number}.mp4", 3, number)), f"satz {number}", "train"
        )
        for number in range(8)
    ]
    encode, encoded = packing.encode_frame, []
    monkeypatch.setattr(packing, "encode_frame", lambda *arguments: encoded.append(1) or encode(*arguments))
    out = quiet(rows[:5], tmp_path / "out")
    assert len(encoded) == 15
    with pytest.raises(InputError, match="--overwrite; shards"):
        quiet(rows, out)
    quiet(rows, out, overwrite=True)
    assert len(encoded) == 15 + 12  # the third shard had one clip, and now has two; the fourth is new
    quiet(rows, tmp_path / "anew")
    assert contents(out) == contents(tmp_path / "anew")
    encoded.clear()
    (tmp_path / "6.mp4").unlink()
    write_video(tmp_path / "6.mp4", 4, 9)
    changed = [*rows[:2], CorpusRow("c2", rows[2].video, "anders", "train"), *rows[3:]]
    quiet(changed, out, overwrite=True)
    assert len(encoded) == 6 + 7
    assert PackedCorpus(out, "train").sentences[2] == "anders" and PackedCorpus(out, "train").num_frames[6] == 4
    encoded.clear()
    quiet(changed, out, overwrite=True, quality=90)
    assert len(encoded) == 25


def test_rates_and_shapes_are_counted_and_remarked_on_where_they_are_mixed():
    assert rates_and_shapes([25.0] * 3 + [24.0], [(260, 210)] * 4) == [
        "frames a second: 25 (3 clips), 24 (1 clip)", "width x height: 210 x 260 (4 clips)"
    ]  # fmt: skip
    mixed = rates_and_shapes([24.0, 50.0, 0.0], [(720, 1280), (1280, 720), (720, 1280)])
    assert mixed[0] == "frames a second: 24 (1 clip), 50 (1 clip), unknown (1 clip)"
    assert "24 to 50 frames a second are mixed" in mixed[2] and "convert them to one rate" in mixed[2]
    assert "0.56 to 1.78 times as wide as high are mixed" in mixed[3] and "crop or pad" in mixed[3]
    assert "and 3 more" in rates_and_shapes(range(1, 10), [])[0] and rates_and_shapes([], []) == []


def test_a_corpus_that_010_packed_is_read(packed, tmp_path):
    old, new = (PackedCorpus(folder, "train") for folder in (without_index(packed, tmp_path / "old"), packed))
    for name in ("ids", "sentences", "signers", "num_frames", "fingerprint"):
        assert getattr(old, name) == getattr(new, name)
    assert torch.equal(pickle.loads(pickle.dumps(old)).read_frames(4, [6, 0]), new.read_frames(4, [6, 0]))
    assert verify_packed(old.folder) == []
    file = old.folder / "train-00000-of-00003.arrow"
    file.write_bytes(file.read_bytes().replace(b"satz train0", b"satz train1"))
    with pytest.raises(InputError, match=r"train-00000-of-00003\.arrow"):
        PackedCorpus(old.folder, "train")


def test_a_changed_sentence_is_noticed_on_opening(packed, tmp_path):
    def change(data):
        data[data.index(b"satz train0")] ^= 1

    folder = damaged(packed, tmp_path, "train.index.arrow", change)
    with pytest.raises(InputError, match=r"train\.index\.arrow"):
        PackedCorpus(folder, "train")
    assert verify_packed(folder) == [
        f"{folder}/train.index.arrow is damaged: its hash is not the one in manifest.json"
    ]


def test_clips_in_the_place_of_others_are_noticed(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "swapped")
    for name in ("train-00000-of-00003.arrow", "dev-00000-of-00001.arrow"):
        data = (packed / name).read_bytes()
        ids = [name.split("-")[0].encode() + digit for digit in (b"0", b"1")]
        data = data.replace(ids[0], ids[0][:-1] + b"x").replace(ids[1], ids[0]).replace(ids[0][:-1] + b"x", ids[1])
        (tmp_path / "swapped" / name).write_bytes(data)
        with pytest.raises(InputError, match="is damaged: pack it again"):
            PackedCorpus(tmp_path / "swapped", name.split("-")[0]).read_frames(0, [0])


def test_a_changed_pixel_is_noticed_on_reading(packed, tmp_path):
    def change(data):
        data[data.rindex(b"\xff\xda") + 20] ^= 1  # in the entropy-coded part of the last frame

    corpus = PackedCorpus(damaged(packed, tmp_path, "dev-00000-of-00001.arrow", change), "dev")
    assert corpus.read_frames(1, [2]).shape == (1, 3, 18, 22)
    with pytest.raises(InputError, match="frame 3 .*'dev1'"):
        corpus.read_frames(1, [3])


def test_a_truncated_or_missing_shard_is_named(packed, tmp_path):
    folder = damaged(packed, tmp_path, "dev-00000-of-00001.arrow", lambda data: data.__delitem__(slice(-9, None)))
    with pytest.raises(InputError, match=r"dev-00000-of-00001\.arrow.* bytes"):
        PackedCorpus(folder, "dev")
    (folder / "dev-00000-of-00001.arrow").unlink()
    with pytest.raises(InputError, match="dev-00000-of-00001.arrow is missing"):
        PackedCorpus(folder, "dev")
    assert "is missing" in verify_packed(folder)[0]


def test_an_altered_manifest_and_other_folders_are_refused(packed, tmp_path):
    folder = damaged(packed, tmp_path, "manifest.json", lambda data: data.replace(b"de_DE", b"de_AT"))
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("de_DE", "de_AT"))
    with pytest.raises(InputError, match="manifest.json is damaged"):
        packed_splits(folder)
    with pytest.raises(InputError, match=r"manifest\.json.*`fla prepare`"):
        packed_splits(tmp_path)


def write_table(file, *videos):
    lines = [json.dumps({"video": video, "sentence": "x", "split": "train"}) for video in videos]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_manifest_of_videos_is_packed_once_and_a_changed_one_beside_it(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    table = write_table(tmp_path / "t.jsonl", "a.mp4")
    ensure = partial(ensure_packed, table, tmp_path / "packed", num_workers=0)
    first = ensure(size=16)
    assert first.parent == tmp_path / "packed" and first.name.startswith("t-")
    written = (first / "manifest.json").stat().st_mtime_ns
    assert PackedCorpus(first, "train").read_frames(0, [0, 3]).shape == (2, 3, 16, 16)
    assert ensure(size=16) == first
    assert (first / "manifest.json").stat().st_mtime_ns == written
    write_video(tmp_path / "b.mp4", 3)
    write_table(table, "a.mp4", "b.mp4")
    second = ensure(size=16)
    assert PackedCorpus(second, "train").num_frames == [4, 3]
    larger = ensure(size=20)
    assert len({first, second, larger}) == 3
    assert PackedCorpus(first, "train").num_frames == [4], "what another run reads stays"


def test_a_foreign_folder_is_not_replaced(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="out .*thesis.tex .*.fla-llm.json"):
        quiet(drawn_rows(), tmp_path / "out", overwrite=True)
    (tmp_path / ".other.packing").mkdir()
    (tmp_path / ".other.packing/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other.packing .*notes.txt .*.fla-llm.json"):
        quiet(drawn_rows(), tmp_path / "other", overwrite=True)
    of_010 = without_index(packed, tmp_path / "of_010")
    with pytest.raises(InputError, match=".fla-llm.json"):
        quiet(drawn_rows(2, 0, 0), of_010, overwrite=True)
    assert len(PackedCorpus(of_010, "train")) == 5


def test_the_folder_of_the_videos_is_not_replaced(tmp_path):
    def with_a_video(folder):
        write_video(folder / "a.mp4", 3)

    out = quiet(drawn_rows(), tmp_path / "out", add_files=with_a_video)
    rows = [CorpusRow("a", VideoFile(out / "a.mp4"), "x", "train")]
    with pytest.raises(InputError, match="out .*choose another folder"):
        quiet(rows, out, overwrite=True)
    assert (out / "a.mp4").is_file() and len(PackedCorpus(out, "train")) == 5


def slow(folder):
    time.sleep(0.5)


def in_two_processes(*calls):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_two_processes_that_want_one_corpus_make_it_once(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("training_fla.folders.POLL_SECONDS", 0.05)
    call = partial(quiet, drawn_rows(), tmp_path / "out", wait=True, corpus="demo", add_files=slow)
    assert in_two_processes(call, call) == [0, 0]
    assert contents(tmp_path / "out") == contents(packed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_processes_of_a_run_pack_a_manifest_once_and_wait(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 4)
    table, packed_dir = write_table(tmp_path / "t.jsonl", "a.mp4"), tmp_path / "packed"
    encode, drawn = packing.encode_frame, multiprocessing.get_context("fork").Value("i", 0)

    def slowly(frame, quality):
        time.sleep(0.2)
        with drawn.get_lock():
            drawn.value += 1
        return encode(frame, quality)

    monkeypatch.setattr(packing, "encode_frame", slowly)
    monkeypatch.setattr("training_fla.folders.POLL_SECONDS", 0.05)
    call = partial(ensure_packed, table, packed_dir, size=16, num_workers=0)
    assert in_two_processes(call, call) == [0, 0]
    assert drawn.value == 4
    assert [path.name for path in packed_dir.iterdir()] == [call().name]
    in_use = pytest.raises(InputError, match="out .*another run")
    with locked_folder(tmp_path / ".out.packing", tmp_path / "out"), in_use:
        quiet(drawn_rows(), tmp_path / "out")


def test_a_killed_packing_leaves_no_process_and_goes_on(packed, tmp_path):
    """SIGKILL while a worker draws a clip: the lock is free at once, and finished shards are kept."""
    shards = tmp_path / ".out.packing/folder"
    rows = drawn_rows()
    rows[4] = CorpusRow("train4", DrawnVideo(partial(time.sleep, 60)), *("satz train4", "train"))
    process = multiprocessing.get_context("fork").Process(
        target=quiet, args=(rows, tmp_path / "out"), kwargs={"num_workers": 2, "corpus": "demo"}
    )
    process.start()
    while len(list(shards.glob("*.arrow"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    quiet(drawn_rows(), tmp_path / "out", wait=True, corpus="demo")
    assert contents(tmp_path / "out") == contents(packed)


def test_a_clip_that_its_video_cuts_off_is_bad(tmp_path):
    file = write_video(tmp_path / "v.mp4", 20, fps=10.0)
    rows = [CorpusRow("late", VideoFile(file, 1.0, 4.0), "x", "train")]
    message = re.escape("its frames end at 1.90 s, but it is to end at 4.0 s, after the end of its video")
    with pytest.raises(InputError, match=message):
        quiet(rows, tmp_path / "out")


RAW = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}


def processed(processor, source):
    return processor(videos=source, **RAW)["pixel_values_videos"][0]


@pytest.mark.parametrize("limit", [None, 20], ids=["whole", "thinned"])
@pytest.mark.parametrize("kind", ["mp4", "frames"])
def test_a_packed_clip_is_what_the_processor_makes_of_its_file_but_for_jpeg(tmp_path, demo_processor, kind, limit):
    """Before JPEG the frames are equal; JPEG of quality 95 moves 256 levels by 1.5 on average, by 15 at most."""
    processor = copy.deepcopy(demo_processor)
    processor.video_processor.max_source_frames = limit
    processor.video_processor.size = {"height": 72, "width": 72}
    processor.video_processor.crop_size = {"height": 64, "width": 64}
    if kind == "mp4":
        source = write_video(tmp_path / "clip.mp4", 30, height=200, width=260)
        video = VideoFile(source)
    else:
        source = tmp_path / "clip"
        write_frames(source, clip(30, height=200, width=260), "%04d.png", first=1)
        video = FrameFolder(source)
    quiet([CorpusRow("a", video, "x", "train")], tmp_path / "out", size=72)
    videos = SignVideoDataset(PackedCorpus(tmp_path / "out", "train"), processor)
    alone, packed = processed(processor, source), videos[0]["pixel_values_videos"]
    assert len(alone) == len(packed) == (8 if limit is None else 5)
    scaled = np.stack(list(video.frames(size=(72, 72))))[videos.kept(30), 4:-4, 4:-4]
    assert torch.equal(torch.from_numpy(scaled).permute(0, 3, 1, 2), alone)
    difference = (packed.int() - alone.int()).abs().float()
    assert difference.mean() < 1.5 and difference.max() < 16


@pytest.mark.real_data
def test_the_real_how2sign_clips_pack_and_come_back(real_data, tmp_path):
    from processing_fla import FlaVideoProcessor
    from training_fla.corpora.manifest import read_manifest

    rows = [row for row in read_manifest(real_data / "how2sign/clips", video_column="file") if row.split == "dev"][:2]
    quiet(rows, tmp_path / "out", size=256, num_workers=2)
    corpus, processor = PackedCorpus(tmp_path / "out", "dev"), FlaVideoProcessor()
    for index, row in enumerate(rows):
        alone = processor(row.video.path, **RAW)["pixel_values_videos"][0]
        kept = processor.sample_frame_indices(corpus.num_frames[index])
        difference = corpus.read_frames(index, kept)[..., 16:-16, 16:-16].float() - alone
        assert 10 * torch.log10(255**2 / difference.square().mean()) > 40  # dB
        assert difference.abs().mean() < 1.5


@pytest.mark.real_data
def test_a_real_clip_is_scaled_on_from_the_packed_size_in_every_path(real_data, tmp_path):
    """What `predictions_test.tsv` was made of and what `fla translate` reads, for a model of small frames.

    1280 x 720 to 72 x 72 at once differs by 0.74 of 255 on average and 27 at most, by way of 256 x 256 by 0.57 and 10.
    """
    from processing_fla import FlaVideoProcessor
    from training_fla.corpora.manifest import read_manifest

    rows = [row for row in read_manifest(real_data / "how2sign/clips", video_column="file") if row.split == "dev"][:2]
    quiet(rows, tmp_path / "out", size=256, num_workers=2)
    corpus = PackedCorpus(tmp_path / "out", "dev")
    processor = FlaVideoProcessor(size={"height": 72, "width": 72}, crop_size={"height": 64, "width": 64})
    processor.packed_size = corpus.size_before(processor)
    for index, row in enumerate(rows):
        alone = processor(row.video.path, **RAW)["pixel_values_videos"][0].float()
        packed = corpus.read_frames(index, processor.sample_frame_indices(corpus.num_frames[index]))
        difference = (processor.scale_and_crop(packed).float() - alone).abs()
        assert difference.mean() < 0.7 and difference.max() < 16
