"""Batches within a budget of frames: every clip once, memory flat, and the same on any number of processes."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_fla import FlaForConditionalGeneration
from tests.tiny_runs import STAGE2, losses, pack_demo, run, stage1_of_one_step, weights
from tests.training.test_two_processes import run_together
from training_fla.data.batching import FrameBudgetSampler, check_batching
from training_fla.errors import InputError
from training_fla.training.trainer import SignTranslationTrainer

LENGTHS = np.random.default_rng(0).integers(1, 60, 333).tolist()


def padded_frames(batch: list[int], lengths=LENGTHS) -> int:
    return len(batch) * max(lengths[clip] for clip in batch)


@pytest.mark.parametrize("max_clips", [None, 4])
def test_every_clip_comes_once_and_no_batch_exceeds_the_budget(max_clips):
    sampler = FrameBudgetSampler(LENGTHS, 128, max_clips, seed=3)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(clip for batch in batches for clip in batch) == list(range(333))
    assert all(padded_frames(batch) <= 128 for batch in batches)
    assert max_clips is None or max(map(len, batches)) <= max_clips


def test_little_of_a_batch_is_padding():
    batches = list(FrameBudgetSampler(LENGTHS, 240, seed=1))
    padded = sum(map(padded_frames, batches))
    assert sum(LENGTHS) / padded > 0.85
    assert padded / len(batches) > 0.8 * 240  # and the budget is used


@pytest.mark.parametrize("corpus", [LENGTHS, LENGTHS * 20, LENGTHS[:9], [7] * 100])
@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_every_epoch_is_as_long_on_every_process(corpus, accumulation, processes):
    def batches(epoch, **place):
        sampler = FrameBudgetSampler(corpus, 128, seed=3, accumulation=accumulation, **place)
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    orders = set()
    for epoch in range(4):
        apart = [batches(epoch, num_processes=processes, process_index=index) for index in range(processes)]
        assert len({len(order) for order in apart}) == 1, "processes must make equally many steps"
        assert len(apart[0]) % accumulation == 0, "every step must have all its batches"
        assert sorted(clip for order in apart for batch in order for clip in batch) == list(range(len(corpus)))
        orders.add((len(apart[0]), str(apart)))
    assert len({length for length, _ in orders}) == 1, "the schedule counts on it"
    assert len(orders) == 4 or len(corpus) < 10, "but the batches differ"


def test_processes_make_the_batches_that_one_process_accumulates():
    alone = list(FrameBudgetSampler(LENGTHS, 128, seed=3, accumulation=2))
    pair = [FrameBudgetSampler(LENGTHS, 128, seed=3, num_processes=2, process_index=index) for index in (0, 1)]
    assert [batch for step in zip(*pair, strict=True) for batch in step] == alone


def test_the_batches_of_a_step_are_about_as_large():
    batches = list(FrameBudgetSampler(LENGTHS * 20, 128, seed=3, num_processes=1, accumulation=4))
    sizes = np.array([padded_frames(batch, LENGTHS * 20) for batch in batches]).reshape(-1, 4)
    assert np.mean(np.ptp(sizes, axis=1)) < 2, "a process would wait for the others"


def test_the_order_follows_from_seed_and_epoch():
    first, again = (FrameBudgetSampler(LENGTHS, 128, seed=5) for _ in range(2))
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)
    first.set_epoch(1)
    assert list(first) == list(again)


def test_a_clip_beyond_the_budget_is_named():
    with pytest.raises(InputError, match="clip 1 has 9 frames, more than the budget of 8"):
        FrameBudgetSampler([3, 9, 5], 8)
    with pytest.raises(InputError, match="clip b has 9 frames, more than the budget of 8 .* max_source_frames"):
        FrameBudgetSampler([3, 9, 5], 8, names=["a", "b", "c"])


def test_too_few_clips_for_a_batch_each_are_refused():
    with pytest.raises(InputError, match="3 clips make 3 batches of 9 frames and cannot be dealt out to steps of 2"):
        FrameBudgetSampler([9, 9, 9], 9, num_processes=2)


def test_no_clips_make_no_batches():
    assert list(FrameBudgetSampler([], 8)) == []


@pytest.mark.parametrize("name", ["split_batches", "dispatch_batches"])
def test_lines_that_contradict_a_budget_are_refused(name):
    config = SimpleNamespace(split_batches=False, dispatch_batches=None)
    args = SimpleNamespace(accelerator_config=config)
    check_batching(args, frames_per_batch=100)
    setattr(config, name, True)
    check_batching(args, frames_per_batch=None)
    with pytest.raises(InputError, match=f"accelerator_config.{name} is for batches of equally many clips"):
        check_batching(args, frames_per_batch=100)


# Two and a half epochs of batches of one to six clips; the longest clip has 17 sampled frames.
BUDGET = """
frames_per_batch: 40
per_device_train_batch_size: 6
max_steps: 20
logging_steps: 1
eval_steps: 20
save_steps: 20
language_model_overrides: {dropout: 0.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    corpus = pack_demo(folder / "corpus", num_train=23, num_dev=3, num_test=3)
    given = ["total_batch_size", *(line.split(":")[0] for line in BUDGET.splitlines() if line)]
    lines = [line for line in STAGE2.splitlines() if line.split(":")[0] not in given]
    stage1 = stage1_of_one_step(folder, corpus)
    handed_over = [f"stage1_checkpoint: {stage1}", f"tokenizer: {stage1}"]
    (folder / "stage2.yaml").write_text("\n".join([f"dataset: {corpus}", *handed_over, *lines, BUDGET]))
    return folder


@pytest.fixture(scope="module")
def accumulated(folder) -> Path:
    """One process, two batches a step; notes what its model was given."""
    shapes, forward = [], FlaForConditionalGeneration.forward

    @functools.wraps(forward)  # `generate` reads the names of the arguments
    def noting(self, *args, **kwargs):
        if self.training and torch.is_grad_enabled():
            shapes.append((kwargs["sign_features"].shape[:2], kwargs["num_items_in_batch"].item()))
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlaForConditionalGeneration, "forward", noting)
        out = folder / "accumulated"
        argv = (folder / "stage2.yaml", "--output_dir", out, "--gradient_accumulation_steps", 2)
        assert run("run_stage2", *argv) == 0
    (folder / "shapes.json").write_text(json.dumps(shapes))
    return out


def test_memory_is_flat_and_the_loss_is_a_mean_over_the_tokens_of_a_step(folder, accumulated):
    shapes = json.loads((folder / "shapes.json").read_text())
    frames = [clips * length for (clips, length), _ in shapes]
    assert len(shapes) == 40 and max(frames) <= 40 and np.mean(frames) > 25
    assert len({clips for (clips, _), _ in shapes}) > 2, "batches of short clips have more of them"
    tokens = [count for _, count in shapes]
    assert tokens[::2] == tokens[1::2], "both batches of a step are divided by the step's tokens"
    assert len(losses(accumulated, 20)) == 20


def test_two_processes_follow_the_curve_of_one_that_accumulates(folder, accumulated):
    two = folder / "two"
    run_together(["run_stage2", folder / "stage2.yaml", "--output_dir", two])
    assert json.loads((two / "metrics.json").read_text())["processes"] == 2
    assert losses(two, 20) == pytest.approx(losses(accumulated, 20), abs=1e-4)
    state = json.loads((two / "checkpoint-20" / "trainer_state.json").read_text())
    assert state["epoch"] == json.loads((accumulated / "checkpoint-20" / "trainer_state.json").read_text())["epoch"]


def test_interrupted_in_an_epoch_and_resumed_it_ends_at_the_same_weights(folder, tmp_path, monkeypatch):
    """With dropout, which shows whether the resumed run draws what the undisturbed one drew."""
    argv = [folder / "stage2.yaml", "--save_steps", 3, "--eval_steps", 3, "--language_model_overrides={dropout: 0.2}"]
    assert run("run_stage2", *argv, "--output_dir", tmp_path / "undisturbed") == 0
    out, step = tmp_path / "interrupted", SignTranslationTrainer.training_step

    def interrupted(self, *args):
        if self.state.global_step == 8:
            raise InterruptedError
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SignTranslationTrainer, "training_step", interrupted)
        with pytest.raises(InterruptedError):
            run("run_stage2", *argv, "--output_dir", out)
    assert json.loads((out / "checkpoint-6" / "trainer_state.json").read_text())["epoch"] % 1, "within an epoch"
    assert run("run_stage2", *argv, "--output_dir", out, "--resume") == 0
    undisturbed, resumed = weights(tmp_path / "undisturbed"), weights(out)
    for name in undisturbed:
        assert undisturbed[name].equal(resumed[name]), name


def test_a_budget_that_a_clip_exceeds_names_it(folder, tmp_path, capsys):
    argv = (folder / "stage2.yaml", "--output_dir", tmp_path / "out", "--frames_per_batch", 5)
    assert run("run_stage2", *argv) == 2
    assert "clip train-" in capsys.readouterr().err
