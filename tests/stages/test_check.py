"""`--check` of both stages: what is printed is what the run has, and nothing is written."""

import re
import tempfile
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, stage1_of_one_step
from training_fla.data.packed_corpus import PackedCorpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    corpus = pack_demo(folder / "packed", 11, 4, 5)
    stage1_of_one_step(folder, corpus)
    for name, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{name}.yaml").write_text(f"dataset: {corpus}\n{text}")
    return folder


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def printed(capsys) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def test_stage1_is_counted_and_timed_and_nothing_is_written(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = everything(folder)
    out = folder / "runs" / "new"
    lines = ("--output_dir", out, "--check", "--norm_logging_steps", 1, "--early_stopping_patience", 2)
    assert run("run_stage1", folder / "stage1.yaml", *lines, "--num_train_epochs", 4) == 0
    assert everything(folder) == before and not list(tmp_path.iterdir())
    found, split = printed(capsys), PackedCorpus(folder / "packed", "train")
    frames, sampled = sum(split.num_frames), sum(-(-length // 4) for length in split.num_frames)
    assert found["train"] == f"11 clips, {frames:,} frames, {sampled:,} of them sampled"
    assert found["steps"] == "12 of 4 clips", "four epochs of three steps"
    assert "4 evaluations" in found["time"] and found["output"] == str(out) and "features" not in found
    longest = max(-(-length // 4) for length in split.num_frames)
    assert longest <= int(re.search(r"has (\d+) frames", found["memory"])[1]) <= 4 * longest
    # Three of four checkpoints lie there at one time, with SGD's momentum.
    size = sum(tensor.nbytes for tensor in load_file(folder / "stage1" / "model.safetensors").values()) / 1000
    checkpoint, model = map(
        float, re.search(r"3 checkpoints of ([\d.]+) kB; the model ([\d.]+) kB", found["disk"]).groups()
    )
    assert model == pytest.approx(size, rel=0.05) and checkpoint == pytest.approx(2 * size, rel=0.05)


def test_stage2_says_where_features_will_be_stored_and_stores_none(folder, capsys):
    before = everything(folder)
    words = ["--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1", "--check"]
    words = [folder / "stage2.yaml", "--output_dir", folder / "runs" / "stage2", *words]
    assert run("run_stage2", *words) == 0
    assert everything(folder) == before
    found = printed(capsys)
    sampled = sum(int(re.search(r"(\d+) of them", found[split])[1]) for split in ("train", "dev", "test"))
    assert f"features {sampled * 16 * 4 / 1000:.1f} kB" in found["disk"]
    assert found["features"] == str(folder / "runs" / "features") and "storing features" in found["time"]
    assert run("run_stage2", *words, "--feature_cache", "null") == 0
    assert "features" not in printed(capsys)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["--resume"], "resume"),
        (["--streaming", "true"], "streaming"),
        (["--output_dir", "{folder}/packed"], "which is read"),
        (["--dataset", "null", "--manifest", "{folder}/table.csv"], "fla prepare manifest"),
    ],
)
def test_what_cannot_be_checked_is_refused_and_left_alone(folder, lines, named, capsys):
    video = folder / "packed" / "missing.mp4"
    (folder / "table.csv").write_text(f"video,sentence,split\n{video.name},Hallo,train\n")
    before = everything(folder)
    lines = [line.format(folder=folder) for line in lines]
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", folder / "new", "--check", *lines) == 2
    assert named in capsys.readouterr().err and everything(folder) == before


def test_a_run_that_is_there_is_not_removed(folder, capsys):
    before = everything(folder)
    lines = ["--output_dir", folder / "stage1", "--check"]
    assert run("run_stage1", folder / "stage1.yaml", *lines) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("run_stage1", folder / "stage1.yaml", *lines, "--overwrite") == 0
    assert "in place of the run" in printed(capsys)["output"] and everything(folder) == before
