"""The moving average of the weights: by hand, over a whole run, and after an interruption."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, weights
from training_fla.training.weight_average import FILE, WeightAverage


def test_the_average_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 4))
    model[2].requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    assert set(average.average) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
    }  # fmt: skip
    expected = model[0].weight.detach().clone()
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (9, 0.5)):
        with torch.no_grad():
            model[0].weight.add_(step)
            model[1].running_mean.add_(step)
        average.update(step)
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
        assert torch.allclose(average.average["0.weight"], expected)
    own = model[0].weight.detach().clone()
    with average.in_model():
        assert torch.allclose(model[0].weight, expected)
        assert model[1].running_mean[0] < 12
    assert model[0].weight.equal(own) and model[1].running_mean[0] == 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    for stage, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        (folder / f"{stage}.yaml").write_text(f"dataset: {corpus}\n{text}")
    assert run("run_stage1", folder / "stage1.yaml", "--output_dir", folder / "stage1", "--ema_decay", 0.9) == 0
    return folder


def test_the_best_average_is_what_is_saved(folder):
    """BatchNorm's running statistics of stage 1 are averaged with the weights."""
    saved = weights(folder / "stage1")
    matching = []
    for checkpoint in folder.joinpath("stage1").glob("checkpoint-*"):
        from safetensors.torch import load_file

        average, own = load_file(checkpoint / FILE), weights(checkpoint)
        assert any("running_var" in name for name in average)
        assert any(not average[name].equal(own[name]) for name in average)
        matching.append(all(average[name].equal(saved[name]) for name in average if name in saved))
    assert sum(matching) == 1


def test_a_resumed_average_is_the_same(folder, tmp_path):
    argv = [folder / "stage2.yaml", "--stage1_checkpoint", folder / "stage1", "--tokenizer", folder / "stage1"]
    argv += ["--ema_decay", 0.9, "--load_best_model_at_end", "false", "--output_dir", tmp_path / "out"]
    assert run("run_stage2", *argv) == 0
    undisturbed = weights(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    (tmp_path / "out" / "model.safetensors").unlink()
    assert run("run_stage2", *argv, "--resume") == 0
    resumed = weights(tmp_path / "out")
    assert all(undisturbed[name].equal(resumed[name]) for name in undisturbed)
    assert not all(
        undisturbed[name].equal(value) for name, value in weights(tmp_path / "out" / "checkpoint-4").items()
    )


def test_a_compiled_run_saves_what_an_uncompiled_one_saves(folder, tmp_path):
    """The backend `eager` traces as every other does, and needs no compiler on the machine."""
    argv = [folder / "stage1.yaml", "--max_steps", 3, "--light_t_overrides", "{d_model: 16, dropout: 0.0}"]
    compiled = ("--torch_compile", "true", "--torch_compile_backend", "eager")
    assert run("run_stage1", *argv, "--output_dir", tmp_path / "plain") == 0
    assert run("run_stage1", *argv, "--output_dir", tmp_path / "compiled", *compiled) == 0
    plain, other = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == other.keys()
    for name in plain:
        assert torch.allclose(plain[name], other[name], atol=1e-5), name
