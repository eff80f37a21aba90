"""Batches: every clip once on any number of processes, in the order of 0.3.0; within a budget memory is flat."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from tests.tiny_runs import STAGE2, losses, pack_demo, run, run_together, stage1_of_one_step, weights
from training_fla.data.batching import NO_CLIP, ClipBatchSampler, ClipLoader, FilledBatches, check_batching
from training_fla.errors import InputError
from training_fla.training.trainer import SignTranslationTrainer

LENGTHS = np.random.default_rng(0).integers(1, 60, 333).tolist()
# Eleven clips, seed 3, batches of two, epochs 0 and 1, as 0.3.0 printed them.
BY_LENGTH_OF_030 = [[7, 5, 6, 8, 10, 9, 3, 4, 2, 1, 0], [3, 4, 6, 8, 1, 9, 7, 5, 2, 10, 0]]


def padded_frames(batch: list[int], lengths=LENGTHS) -> int:
    return len(batch) * max(lengths[clip] for clip in batch)


def sampler_of(lengths=LENGTHS, batch_size=1000, seed=3, epoch=0, **options) -> ClipBatchSampler:
    sampler = ClipBatchSampler(SimpleNamespace(lengths=lengths), batch_size, seed, **options)
    sampler.set_epoch(epoch)
    return sampler


def on_all_processes(num_processes: int, **options) -> list[list[list[int]]]:
    """The batches of each process."""
    places = range(num_processes)
    return [list(sampler_of(num_processes=num_processes, process_index=index, **options)) for index in places]


def clips_of(batches: list[list[int]]) -> list[int]:
    return [clip for batch in batches for clip in batch]


@pytest.mark.parametrize("max_clips", [1000, 4])
def test_every_clip_comes_once_and_no_batch_exceeds_the_budget(max_clips):
    sampler = sampler_of(batch_size=max_clips, frames_per_batch=128)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(clips_of(batches)) == list(range(333))
    assert all(padded_frames(batch) <= 128 for batch in batches)
    assert max(map(len, batches)) <= max_clips


def test_little_of_a_batch_is_padding():
    batches = list(sampler_of(frames_per_batch=240))
    padded = sum(map(padded_frames, batches))
    assert sum(LENGTHS) / padded > 0.85
    assert padded / len(batches) > 0.8 * 240  # and the budget is used


@pytest.mark.parametrize("corpus", [LENGTHS, LENGTHS * 20, LENGTHS[:9], [7] * 100])
@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_every_epoch_within_a_budget_is_as_long_on_every_process(corpus, accumulation, processes):
    orders = set()
    for epoch in range(4):
        options = {"lengths": corpus, "epoch": epoch, "frames_per_batch": 128, "accumulation": accumulation}
        apart = on_all_processes(processes, **options)
        assert {len(order) for order in apart} == {len(sampler_of(num_processes=processes, **options))}
        assert len(apart[0]) % accumulation == 0, "every step must have all its batches"
        assert sorted(clips_of(clips_of(apart))) == list(range(len(corpus)))
        orders.add((len(apart[0]), str(apart)))
    assert len({length for length, _ in orders}) == 1, "the schedule counts on it"
    assert len(orders) == 4 or len(corpus) < 10, "but the batches differ"


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 11, 30, 403])
def test_every_clip_comes_once_on_any_number_of_processes(count, processes, by_length):
    """Equally many batches, shares of the last round that differ by one clip at most, and the steps of one process."""
    lengths = np.random.default_rng(count).integers(5, 60, count)
    options = {"lengths": lengths, "by_length": by_length}
    apart = on_all_processes(processes, batch_size=2, accumulation=2, **options)
    assert {len(batches) for batches in apart} == {len(sampler_of(batch_size=2, num_processes=processes, **options))}
    rounds = list(zip(*apart, strict=True))
    assert sorted(clips_of(clips_of(rounds))) == list(range(count))
    assert all(len(share) == 2 for shares in rounds[:-1] for share in shares)
    last = [len(share) for share in rounds[-1]]
    assert max(last) - min(last) <= 1 and max(last) > 0
    alone = list(sampler_of(batch_size=2 * processes, accumulation=2, **options))
    assert [clips_of(shares) for shares in rounds] == alone


def test_the_order_is_that_of_030():
    """A run that it began sees the same clips when it is resumed."""
    generator = np.random.default_rng([3, 2])
    order = generator.permutation(23).tolist()
    assert clips_of(sampler_of(range(23), batch_size=4, epoch=2)) == order
    lengths = np.random.default_rng(0).integers(5, 60, 11)
    epochs = [clips_of(sampler_of(lengths, 2, epoch=epoch, by_length=True)) for epoch in (0, 1)]
    assert epochs == BY_LENGTH_OF_030


def test_the_order_follows_from_seed_and_epoch():
    for options in ({"batch_size": 4}, {"batch_size": 4, "by_length": True}, {"frames_per_batch": 128}):
        epochs = [list(sampler_of(seed=5, epoch=epoch, **options)) for epoch in (0, 1)]
        assert epochs[0] != epochs[1]
        assert list(sampler_of(seed=5, epoch=1, **options)) == epochs[1]
        assert list(sampler_of(seed=6, epoch=1, **options)) != epochs[1]


def test_grouping_puts_clips_of_similar_length_together():
    lengths = np.random.default_rng(0).integers(5, 100, 403)
    batches = list(sampler_of(lengths, 4, by_length=True))
    spreads = [np.ptp(lengths[batch]) for batch in batches[:100]]
    assert np.mean(spreads) < 5, "four random clips would spread over about 57 frames"
    order = clips_of(batches)
    assert order != sorted(order, key=lambda clip: lengths[clip])


def test_processes_make_the_batches_that_one_process_accumulates():
    alone = list(sampler_of(frames_per_batch=128, accumulation=2))
    pair = on_all_processes(2, frames_per_batch=128)
    assert [batch for shares in zip(*pair, strict=True) for batch in shares] == alone


def test_the_batches_of_a_step_are_about_as_large():
    batches = list(sampler_of(LENGTHS * 20, frames_per_batch=128, accumulation=4))
    sizes = np.array([padded_frames(batch, LENGTHS * 20) for batch in batches]).reshape(-1, 4)
    assert np.mean(np.ptp(sizes, axis=1)) < 2, "a process would wait for the others"


def test_the_dataset_learns_which_epoch_begins():
    epochs = []
    dataset = SimpleNamespace(lengths=[3, 4], set_epoch=epochs.append)
    loader = ClipLoader(FilledBatches(dataset), batch_sampler=ClipBatchSampler(dataset, 1, seed=0))
    loader.set_epoch(4)
    assert epochs == [4] and loader.batch_sampler.epoch == 4


class Examples(list):
    """A dataset of as many examples, read in batches of their indices."""

    lengths = property(lambda self: [1] * len(self))


def indices(examples: list[dict]) -> dict[str, torch.Tensor]:
    return {"indices": torch.tensor([example["index"] for example in examples])}


def test_a_process_without_a_clip_computes_one_that_counts_for_nothing():
    """Seven clips on three processes, two each: the last round has one."""
    dataset = Examples({"index": index} for index in range(7))
    seen = []
    for index in range(3):
        sampler = ClipBatchSampler(dataset, 2, seed=1, num_processes=3, process_index=index)
        batches = list(ClipLoader(FilledBatches(dataset), batch_sampler=sampler, collate_fn=indices))
        assert len(batches) == 2
        seen.append(batches[-1]["indices"].tolist())
    assert seen[0] != [NO_CLIP] and seen[1:] == [[NO_CLIP], [NO_CLIP]]


def test_a_stream_that_ends_early_repeats_clips_that_count_for_nothing():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([{"index": index} for index in range(3)])

        def __len__(self):
            return 8

    batches = [batch["indices"].tolist() for batch in ClipLoader(Stream(), batch_size=2, collate_fn=indices)]
    assert batches == [[0, 1], [2], [NO_CLIP], [NO_CLIP]]


def test_a_process_that_a_stream_brings_no_clip_is_told_so():
    class Empty(IterableDataset):
        def __len__(self):
            return 2

        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match="clip.* processes"):
        list(ClipLoader(Empty(), collate_fn=indices))


def test_a_clip_beyond_the_budget_is_named():
    with pytest.raises(InputError, match="clip 1 .*9 .*8"):
        sampler_of([3, 9, 5], frames_per_batch=8)
    named = SimpleNamespace(lengths=[3, 9, 5], ids=["a", "b", "c"])
    with pytest.raises(InputError, match="clip b .*9 .*8 .* max_source_frames"):
        ClipBatchSampler(named, 4, seed=0, frames_per_batch=8)


def test_too_few_clips_for_a_batch_each_are_refused():
    with pytest.raises(InputError, match="3 clips .*3 batches .*9 .*steps of 2"):
        sampler_of([9, 9, 9], frames_per_batch=9, num_processes=2)


def test_no_clips_make_no_batches():
    assert list(sampler_of([], frames_per_batch=8)) == [] and list(sampler_of([])) == []


@pytest.mark.parametrize("name", ["split_batches", "dispatch_batches"])
def test_lines_by_which_accelerate_would_cut_batches_are_refused(name):
    args = SimpleNamespace(accelerator_config=SimpleNamespace(split_batches=False, dispatch_batches=None))
    check_batching(args)
    setattr(args.accelerator_config, name, True)
    with pytest.raises(InputError, match=f"accelerator_config.{name} .* total_batch_size"):
        check_batching(args)


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
    """One process, two batches a step; notes of which batches the loss was computed."""
    shapes, compute_loss = [], SignTranslationTrainer.compute_loss

    def noting(self, model, inputs, **options):
        shapes.append((inputs["sign_features"].shape[:2], options["num_items_in_batch"].item()))
        return compute_loss(self, model, inputs, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SignTranslationTrainer, "compute_loss", noting)
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
