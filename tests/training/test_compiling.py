"""`torch_compile`: one graph for batches of every size, and the same numbers."""

import copy
import os
import types

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import ResNetConfig

from modeling_fla import FlaVisionConfig, FlaVisualEncoder
from tests.tiny_runs import STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.errors import InputError
from training_fla.training.acceleration import compile_visual_encoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    backbone = ResNetConfig(layer_type="basic", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    encoder = FlaVisualEncoder(FlaVisionConfig(backbone_config=backbone, hidden_size=16))
    for norm in encoder.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.weight.data.uniform_(0.5, 2)
            norm.bias.data.normal_()
    return encoder.train()


def batch(lengths):
    """Videos, where their frames are real, and the places of those."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    video = torch.randint(0, 256, (len(lengths), longest, 3, 40, 32), dtype=torch.uint8)
    return video, mask.long(), mask.flatten().nonzero().squeeze(1)


def test_one_graph_of_each_part_serves_fifty_shapes(encoder):
    """No graph break (`fullgraph` raises), no recompilation, and the features of the plain encoder."""
    plain = copy.deepcopy(encoder)
    names = list(plain.state_dict())
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compile_visual_encoder(types.SimpleNamespace(visual_encoder=encoder), False, backend=counter, fullgraph=True)
    shapes = [(8 + number % 23, 9 + number % 17, 10)[: 2 + number % 2] for number in range(50)]
    assert len({(len(row), max(row), sum(row)) for row in shapes}) == 50
    for row in shapes:
        video = batch(row)
        compiled, true = encoder(*video).last_hidden_state, plain(*video).last_hidden_state
        compiled.sum().backward()
        torch.testing.assert_close(compiled, true, atol=1e-4, rtol=1e-4)
    assert counter.frame_count == 2, "backbone and temporal module"
    with torch.no_grad():
        for row in shapes[:5]:
            encoder.eval()(*batch(row))
    assert counter.frame_count == 4, "and once more for evaluation"
    assert list(encoder.state_dict()) == names
    copy.deepcopy(encoder)(*video)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    stage1_of_one_step(folder, corpus)
    given = f"dataset: {corpus}\nstage1_checkpoint: {folder}/stage1\ntokenizer: {folder}/stage1\n"
    (folder / "stage2.yaml").write_text(given + STAGE2)
    return folder


NO_DROPOUT = ("--language_model_overrides", "{dropout: 0.0}")  # which would draw for the padding, too
COMPILED = ("--torch_compile", "true", "--torch_compile_backend", "aot_eager")


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("run_stage1", ("--max_steps", 6, "--light_t_overrides", "{d_model: 16, dropout: 0.0}")),
        ("run_stage2", NO_DROPOUT),
        ("run_stage2", (*NO_DROPOUT, "--feature_cache", "null", "--freeze_temporal_module", "false")),
    ],
    ids=["stage 1", "stored features", "trained temporal module"],
)
def test_a_compiled_run_leaves_what_a_plain_one_leaves_and_goes_on(folder, tmp_path, script, lines):
    """Weights, names, translations, resuming; nothing is left for the next run of the process to compile."""
    torch._dynamo.reset()
    argv = [folder / f"{script[4:]}.yaml", *lines]
    for name, more in {"plain": (), "compiled": COMPILED}.items():
        assert run(script, *argv, *more, "--output_dir", tmp_path / name) == 0
    assert not [name for name in os.environ if name.startswith("ACCELERATE_DYNAMO")]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert (plain / "predictions_test.tsv").read_text() == (compiled / "predictions_test.tsv").read_text()
    for file in ("model.safetensors", "checkpoint-2/model.safetensors", "checkpoint-3/model.safetensors"):
        if (plain / file).exists():
            ours, true = weights((compiled / file).parent), weights((plain / file).parent)
            assert ours.keys() == true.keys()
            assert all(torch.allclose(ours[name], true[name], atol=1e-4) for name in true)
    if script == "run_stage1":
        before = weights(compiled)
        (compiled / "model.safetensors").unlink()
        for last in (compiled / "checkpoint-6").iterdir():
            last.unlink()
        assert run(script, *argv, *COMPILED, "--output_dir", compiled, "--resume") == 0
        after = weights(compiled)
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_activation_checkpointing_and_compiling_are_refused_together(folder, tmp_path, capsys):
    argv = [folder / "stage1.yaml", *COMPILED, "--activation_checkpointing", "true", "--output_dir", tmp_path / "out"]
    assert run("run_stage1", *argv) == 2 and not (tmp_path / "out").exists()
    message = "torch_compile and activation_checkpointing cannot be combined: set one of them to false"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_a_mode_that_fails_on_a_gpu_is_refused_with_the_reason(folder, tmp_path, capsys, mode):
    argv = [folder / "stage1.yaml", *COMPILED[:2], "--torch_compile_mode", mode, "--output_dir", tmp_path / "out"]
    assert run("run_stage1", *argv) == 2 and not (tmp_path / "out").exists()
    message = capsys.readouterr().err
    assert f"torch_compile_mode: {mode} fails on a GPU" in message and "drop the line" in message


def test_a_run_in_shards_is_refused_and_a_model_of_features_is_left_alone(encoder):
    with pytest.raises(InputError, match="^torch_compile and FSDP cannot be combined: set torch_compile to false$"):
        compile_visual_encoder(types.SimpleNamespace(visual_encoder=encoder), True, backend="eager")
    compile_visual_encoder(types.SimpleNamespace(visual_encoder=None), False, backend="eager")
