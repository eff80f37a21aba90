"""Stage 2 on stored features gives the curve of stage 2 on pixels; when features are stored."""

import json
from pathlib import Path

import pytest

from tests.tiny_runs import STAGE2, losses, pack_demo, run, stage1_of_one_step, weights
from training_fla.data.datasets import clip_augmentation
from training_fla.recipe import DataArguments

# Two epochs and a half, with MBart's dropout of 0.1 and clips of unequal length; it learns, so that faults would show.
CURVE = """
learning_rate: 3e-3
max_steps: 24
logging_steps: 1
eval_steps: 24
save_steps: 24
train_sampling_strategy: group_by_length
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cached")
    corpus = pack_demo(folder / "corpus", num_train=39, num_dev=3, num_test=3)
    stage1 = stage1_of_one_step(folder, corpus)
    handed_over = [f"dataset: {corpus}", f"stage1_checkpoint: {stage1}", f"tokenizer: {stage1}"]
    given = [line.split(":")[0] for line in CURVE.splitlines() if line]
    lines = [line for line in STAGE2.splitlines() if line.split(":")[0] not in given]
    (folder / "stage2.yaml").write_text("\n".join([*handed_over, *lines, CURVE]))
    return folder


def stage2(folder: Path, name: str, *lines) -> Path:
    out = folder / name / "run"
    assert run("run_stage2", folder / "stage2.yaml", "--output_dir", out, *lines) == 0
    return out


@pytest.fixture(scope="module")
def pixels(folder) -> Path:
    out = stage2(folder, "pixels", "--feature_cache", "null")
    assert not (folder / "pixels" / "features").exists()
    return out


def test_stored_features_and_pixels_give_one_curve(folder, pixels):
    cached = stage2(folder, "cached")
    assert len(list((folder / "cached" / "features").glob("*/features-00000-of-*.safetensors"))) == 3, "on by default"
    assert len(losses(pixels, 24)) == 24 and losses(pixels, 24)[0] - losses(pixels, 24)[-1] > 0.1
    assert losses(cached, 24) == pytest.approx(losses(pixels, 24), abs=1e-4)
    reports = [json.loads((out / "metrics.json").read_text()) for out in (pixels, cached)]
    for split in ("dev", "test"):
        assert reports[1][split]["loss"] == pytest.approx(reports[0][split]["loss"], abs=1e-4)


def test_a_cache_that_is_there_already_changes_not_a_bit(folder):
    """Making it draws no random number that training would have drawn."""
    made, found = (stage2(folder, name, "--feature_cache", folder / "shared") for name in ("made", "found"))
    assert losses(made, 24) == losses(found, 24)
    first, second = weights(made), weights(found)
    assert all(first[name].equal(second[name]) for name in first)


def test_half_precision_is_another_cache_and_nearly_the_same_curve(folder, pixels):
    half = stage2(folder, "half", "--feature_dtype", "bfloat16")
    assert losses(half, 24) == pytest.approx(losses(pixels, 24), abs=2e-2)
    sizes = {name: total_size(folder / name / "features") for name in ("cached", "half")}
    assert 0.4 < sizes["half"] / sizes["cached"] < 0.9


def total_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def test_augmented_clips_are_not_stored(folder, capsys):
    lines = ("--random_frame_phase", "true", "--max_steps", 2, "--eval_steps", 2, "--save_steps", 2)
    stage2(folder, "augmented", *lines)
    assert not (folder / "augmented" / "features").exists()
    argv = (folder / "stage2.yaml", "--output_dir", folder / "refused", *lines)
    assert run("run_stage2", *argv, "--feature_cache", folder / "shared") == 2
    assert "features are stored once, so clips cannot vary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "learns", "probability", "phase"),
    [
        ({}, True, 0.5, True),
        ({}, False, None, False),
        ({"augmentation_probability": 0.3}, False, 0.3, False),
        ({"augmentation_probability": 0.0}, True, 0.0, True),
        ({"augmentation_probability": 0.0, "random_frame_phase": False}, True, None, False),
    ],
)
def test_clips_vary_where_something_learns_from_it_or_the_recipe_says_so(lines, learns, probability, phase):
    augmentation, has_phase = clip_augmentation(DataArguments(**lines), learns)
    assert (augmentation and augmentation.probability, has_phase) == (probability, phase)
