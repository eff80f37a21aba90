import errno
import json
import os
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch

from tests.corpora.corpus_trees import clip, drawn_rows, write_video
from training_fla.corpora.row import CorpusRow, DrawnVideo, FrameFolder, VideoFile
from training_fla.data import packing
from training_fla.data.packed_corpus import file_sha256
from training_fla.data.packing import PackedCorpus, ensure_packed, pack, packed_splits, verify_packed
from training_fla.files import InputError


def quiet(rows, out, **options):
    options = {"num_workers": 0, "progress": False, "size": (18, 22), "shard_clips": 2, **options}
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
    with pytest.raises(IndexError, match="'dev0' has 3 frames, frame 3 was asked for"):
        corpus.read_frames(0, [0, 3])
    with pytest.raises(IndexError, match="no frame was asked for"):
        corpus.read_frames(0, [])
    with pytest.raises(InputError, match="has no split 'trial', only train, dev, test"):
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
    assert [jpeg[:2] for jpeg in opened["dev"][1]["frames"]] == [b"\xff\xd8"] * 4


def test_sentences_are_written_one_a_line(packed):
    assert (packed / "dev.sentences.txt").read_text() == "satz dev0\nsatz dev1\n"


def test_bytes_do_not_depend_on_workers_machines_or_interruptions(packed, tmp_path):
    quiet(drawn_rows(), tmp_path / "parallel", num_workers=2, corpus="demo")
    assert contents(tmp_path / "parallel") == contents(packed)
    for part in (3, 1, 2):
        done = quiet(drawn_rows(), tmp_path / "parts", machine=(part, 3), corpus="demo")
        assert (done is not None) == (part == 2)
    assert contents(tmp_path / "parts") == contents(packed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parallel", "parts"]


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

    with pytest.raises(InputError, match=r"dev clip 'dev1' \(dev1\): broken on purpose; --on-error skip"):
        quiet(rows([], "dev1"), tmp_path / "out", corpus="demo")
    assert not (tmp_path / "out").exists()
    calls = []
    quiet(rows(calls, None), tmp_path / "out", corpus="demo")
    assert "dev1" in calls and "test1" in calls
    # The estimate draws a few clips; writing draws each once, and nothing of train was written again.
    assert not {"train1", "train3"} & set(calls)
    assert contents(tmp_path / "out") == contents(packed)


def test_bad_clips_are_skipped_with_their_reason_when_asked(tmp_path):
    rows = drawn_rows(3, 1, 0)
    bad = [
        CorpusRow("undrawn", DrawnVideo(failing, name="undrawn"), "x", "train"),
        CorpusRow("mute", DrawnVideo(partial(clip, 2)), "", "train"),
        CorpusRow("still", DrawnVideo(partial(np.zeros, (0, 18, 22, 3), np.uint8)), "x", "train"),
        CorpusRow("gone", FrameFolder(tmp_path / "gone"), "x", "dev"),
    ]
    with pytest.raises(InputError, match="1 of 8 clips are missing; dev clip 'gone'.*--on-error skip"):
        quiet(rows + bad, tmp_path / "out")
    quiet(rows + bad, tmp_path / "out", on_error="skip", num_workers=2)
    assert PackedCorpus(tmp_path / "out", "train").ids == ["train0", "train1", "train2"]
    assert PackedCorpus(tmp_path / "out", "dev").ids == ["dev0"]
    skipped = [line.split("\t") for line in (tmp_path / "out/skipped.tsv").read_text().splitlines()]
    assert skipped[0] == ["split", "id", "reason"]
    assert [line[:2] for line in skipped[1:]] == [
        ["train", "undrawn"], ["train", "mute"], ["train", "still"], ["dev", "gone"],
    ]  # fmt: skip
    reasons = ("broken on purpose", "sentence is empty", "no frames", "missing")
    assert all(reason in line[2] for line, reason in zip(skipped[1:], reasons, strict=True))
    with pytest.raises(InputError, match="every clip was bad, the first: train clip 'undrawn'"):
        quiet(bad[:1], tmp_path / "none", on_error="skip")


def crash():
    os.kill(os.getpid(), 9)


def test_a_decoder_that_crashes_costs_one_clip(tmp_path):
    rows = drawn_rows(4, 0, 0)
    rows.insert(2, CorpusRow("poison", DrawnVideo(crash, name="poison"), "x", "train", num_frames=1))
    options = {"num_workers": 2, "shard_clips": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "check_disk", lambda *_: None)  # draws clips in this process
        with pytest.raises(InputError, match="clip 'poison': the process that decoded it ended with status -9"):
            quiet(rows, tmp_path / "out", **options)
        quiet(rows, tmp_path / "out", on_error="skip", **options)
    assert PackedCorpus(tmp_path / "out", "train").ids == ["train0", "train1", "train2", "train3"]
    assert "poison\tclip 'poison': the process" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_decoder_that_hangs_costs_one_clip(tmp_path, monkeypatch):
    import time

    from training_fla.data import shard_workers

    monkeypatch.setattr(shard_workers, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(packing, "check_disk", lambda *_: None)
    rows = [*drawn_rows(1, 0, 0), CorpusRow("slow", DrawnVideo(partial(time.sleep, 60)), "x", "train")]
    quiet(rows, tmp_path / "out", on_error="skip", num_workers=1)
    assert "slow\tclip 'slow': no progress in 1 seconds" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_full_disk_is_explained_and_resumable(packed, tmp_path, monkeypatch):
    from training_fla.data import shard_writing

    written = []

    def sha256_of_a_full_disk(file):
        written.append(file)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return file_sha256(file)

    monkeypatch.setattr(shard_writing, "file_sha256", sha256_of_a_full_disk)
    with pytest.raises(InputError, match=r"is full \(.*make room; run the same command again, it goes on"):
        quiet(drawn_rows(), tmp_path / "out", corpus="demo")
    quiet(drawn_rows(), tmp_path / "out", corpus="demo")
    assert len(written) == 3 + 3  # 5 shards: two before the disk was full, three after
    assert contents(tmp_path / "out") == contents(packed)


def test_a_corpus_too_large_for_the_disk_is_refused_before_it_starts(tmp_path, monkeypatch):
    from training_fla.data import packing_estimate

    monkeypatch.setattr(packing_estimate.shutil, "disk_usage", lambda _: Free())
    with pytest.raises(InputError, match="packing needs about .* MB and .* has 0.0 MB free: choose another disk"):
        quiet(drawn_rows(), tmp_path / "out")


class Free:
    free = 10


def test_the_estimate_is_near_the_truth(packed):
    from training_fla.data.packing_estimate import estimated_bytes
    from training_fla.data.shard_writing import PackParameters

    truth = sum(path.stat().st_size for path in packed.glob("*.arrow"))
    assert 0.3 < estimated_bytes(drawn_rows(), PackParameters((18, 22))) / truth < 1.5


def test_the_same_corpus_is_not_packed_twice_and_another_not_over_it(packed, tmp_path):
    before = (packed / "manifest.json").stat().st_mtime_ns
    assert quiet(drawn_rows(), packed, corpus="demo") == packed
    assert (packed / "manifest.json").stat().st_mtime_ns == before
    quiet(drawn_rows(2, 0, 0), tmp_path / "out")
    with pytest.raises(InputError, match="holds a packed corpus already: .*--overwrite"):
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
        ({"size": 0}, "size must be 1 to 4096"),
        ({"quality": 101}, "quality must be 1 to 100, not 101"),
        ({"frame_stride": 0}, "frame_stride must be at least 1"),
        ({"shard_clips": 0}, "at least one clip, not 0"),
        ({"on_error": "ask"}, "on_error must be 'fail' or 'skip', not 'ask'"),
        ({"machine": (3, 2)}, "1 <= i <= n, not 3/2"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        quiet(drawn_rows(1, 0, 0), tmp_path / "out", **options)


def test_double_ids_and_empty_corpora_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 ids come twice in split train, the first is 'train0'"):
        quiet(drawn_rows(1, 0, 0) * 2, tmp_path / "out")
    with pytest.raises(InputError, match="no clips to pack"):
        quiet([], tmp_path / "out")


def damaged(packed, tmp_path, name, change):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(packed, folder)
    data = bytearray((folder / name).read_bytes())
    change(data)
    (folder / name).write_bytes(data)
    return folder


def test_a_changed_sentence_is_noticed_on_opening(packed, tmp_path):
    def change(data):
        data[data.index(b"satz train0")] ^= 1

    folder = damaged(packed, tmp_path, "train-00000-of-00003.arrow", change)
    with pytest.raises(InputError, match="train-00000-of-00003.arrow is damaged: its index does not match"):
        PackedCorpus(folder, "train")
    assert verify_packed(folder, progress=False) == [
        f"{folder}/train-00000-of-00003.arrow is damaged: its hash is not the one in manifest.json"
    ]


def test_a_changed_pixel_is_noticed_on_reading(packed, tmp_path):
    def change(data):
        data[data.rindex(b"\xff\xda") + 20] ^= 1  # in the entropy-coded part of the last frame

    corpus = PackedCorpus(damaged(packed, tmp_path, "dev-00000-of-00001.arrow", change), "dev")
    assert corpus.read_frames(1, [2]).shape == (1, 3, 18, 22)
    with pytest.raises(InputError, match="frame 3 of dev clip 'dev1' is damaged"):
        corpus.read_frames(1, [3])


def test_a_truncated_or_missing_shard_is_named(packed, tmp_path):
    folder = damaged(packed, tmp_path, "dev-00000-of-00001.arrow", lambda data: data.__delitem__(slice(-9, None)))
    with pytest.raises(InputError, match="dev-00000-of-00001.arrow is damaged: .* bytes instead of"):
        PackedCorpus(folder, "dev")
    (folder / "dev-00000-of-00001.arrow").unlink()
    with pytest.raises(InputError, match="dev-00000-of-00001.arrow is missing"):
        PackedCorpus(folder, "dev")
    assert "is missing" in verify_packed(folder, progress=False)[0]


def test_an_altered_manifest_and_other_folders_are_refused(packed, tmp_path):
    folder = damaged(packed, tmp_path, "manifest.json", lambda data: data.replace(b"de_DE", b"de_AT"))
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("de_DE", "de_AT"))
    with pytest.raises(InputError, match="manifest.json is damaged"):
        packed_splits(folder)
    with pytest.raises(InputError, match="is not a packed corpus .no manifest.json.: make one with `fla prepare`"):
        packed_splits(tmp_path)


def test_a_manifest_of_videos_is_packed_once_until_it_changes(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"video": "a.mp4", "sentence": "x", "split": "train"}) + "\n")
    options = {"pack_options": {"size": 16, "num_workers": 0, "progress": False}}
    out = ensure_packed(table, tmp_path / "out", **options)
    first = (out / "manifest.json").stat().st_mtime_ns
    assert PackedCorpus(out, "train").read_frames(0, [0, 3]).shape == (2, 3, 16, 16)
    ensure_packed(table, out, **options)
    assert (out / "manifest.json").stat().st_mtime_ns == first
    write_video(tmp_path / "b.mp4", 3)
    with table.open("a") as stream:
        stream.write(json.dumps({"video": "b.mp4", "sentence": "y", "split": "train"}) + "\n")
    ensure_packed(table, out, **options)
    assert PackedCorpus(out, "train").num_frames == [4, 3]


def test_a_clip_that_its_video_cuts_off_is_bad(tmp_path):
    file = write_video(tmp_path / "v.mp4", 20, fps=10.0)
    rows = [CorpusRow("late", VideoFile(file, 1.0, 4.0), "x", "train")]
    message = re.escape("only 10 of about 30 frames: it is to end at 4.0 s, after the end of its video")
    with pytest.raises(InputError, match=message):
        quiet(rows, tmp_path / "out")


@pytest.mark.real_data
def test_the_real_how2sign_clips_pack_and_come_back(real_data, tmp_path):
    from PIL import Image

    from training_fla.corpora.manifest import read_manifest

    rows = [row for row in read_manifest(real_data / "how2sign/clips", video_column="file") if row.split == "dev"]
    quiet(rows, tmp_path / "out", size=256, num_workers=2)
    corpus = PackedCorpus(tmp_path / "out", "dev")
    for index, row in enumerate(rows[:2]):
        frames = list(row.video.frames())
        assert corpus.num_frames[index] == len(frames)
        kept = range(0, len(frames), 9)
        packed = corpus.read_frames(index, kept).permute(0, 2, 3, 1).numpy().astype(float)
        resized = [Image.fromarray(frames[n]).resize((256, 256), Image.Resampling.BICUBIC) for n in kept]
        error = ((packed - np.stack([np.asarray(image) for image in resized])) ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 34
