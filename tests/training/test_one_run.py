"""One-run training: which loss reaches what, and that the run leaves one plain model."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from tests.tiny_runs import NETWORK, STAGE2, pack_demo, run, weights
from training_fla.errors import InputError
from training_fla.training.callbacks import read_norms
from training_fla.training.one_run import OneRunModel, add_light_t, without_light_t
from training_fla.training.trainer import SignTranslationTrainer, token_loss

IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 3}
SIZES = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "dropout": 0.0}


@pytest.fixture
def model() -> OneRunModel:
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 4, "hidden_sizes": [6], "depths": [1]}
    vision = FlaVisionConfig(backbone_config=backbone, hidden_size=10)
    model = OneRunModel(FlaConfig.light_t("tiny", vocab_size=20, vision_config=vision, **SIZES, **IDS))
    add_light_t(model, "tiny", SIZES, IDS)
    return model.train()


def batch() -> dict:
    torch.manual_seed(1)
    return {
        "pixel_values_videos": torch.randint(0, 255, (2, 4, 3, 16, 20), dtype=torch.uint8),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "decoder_input_ids": torch.tensor([[3, 5, 6], [3, 7, 2]]),
        "labels": torch.tensor([[5, 6, 2], [7, 2, -100]]),
    }


def gradients(model, loss) -> dict:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def outputs_of(model):
    """As the trainer calls the model: without labels."""
    return model(**{name: value for name, value in batch().items() if name != "labels"})


def test_only_light_t_teaches_the_visual_encoder(model):
    labels = batch()["labels"]
    ours = gradients(model, token_loss(outputs_of(model).logits, labels, smoothing=0.1))
    light_t = gradients(model, token_loss(outputs_of(model).light_t_logits, labels, smoothing=0.1))
    assert {name.split(".")[0] for name in ours} == {"adapter", "language_model"}
    assert {name.split(".")[0] for name in light_t} == {"light_t", "visual_encoder"}


def test_the_loss_of_a_step_is_the_sum_of_both(model):
    """The trainer's, of a batch that is a third of the step's ten tokens and more."""
    trainer = object.__new__(SignTranslationTrainer)
    trainer.args = SimpleNamespace(label_smoothing_factor=0.1, average_tokens_across_devices=True)
    trainer.accelerator = SimpleNamespace(num_processes=1)
    trainer.optimization = SimpleNamespace(freeze_batch_norm_statistics=False)
    trainer.loss_check = SimpleNamespace(check=lambda loss, indices: None)
    trainer.real_frames = None
    inputs = batch() | {"indices": torch.tensor([0, 1]), "num_frames": 7}
    loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=torch.tensor(10))
    losses = [token_loss(logits, inputs["labels"], 10, 0.1) for logits in (outputs.logits, outputs.light_t_logits)]
    torch.testing.assert_close(loss, sum(losses))


def test_light_t_reads_what_stage_1_would_read(model):
    """Its scores are those of a stage-1 model of the same parts."""
    first = FlaForConditionalGeneration(model.config, model.visual_encoder, model.light_t.language_model)
    first.adapter = model.light_t.adapter
    with torch.no_grad():
        for layer in model.modules():  # BatchNorm's momentum aside: what is compared is one forward in training
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.momentum = 0.0
        torch.testing.assert_close(outputs_of(model.train()).light_t_logits, outputs_of(first.train()).logits)


def test_what_is_kept_is_plain_and_unchanged(model, tmp_path):
    model.eval()
    with torch.no_grad():
        before = model(**batch()).logits
        plain = without_light_t(model)
        plain.save_pretrained(tmp_path)
        loaded = FlaForConditionalGeneration.from_pretrained(tmp_path)
        assert type(plain) is FlaForConditionalGeneration
        torch.testing.assert_close(loaded(**batch()).logits, before)


def test_one_script_run_leaves_one_checkpoint_and_resumes(tmp_path):
    from processing_fla import train_tokenizer

    corpus = pack_demo(tmp_path / "corpus", num_train=8, num_dev=3, num_test=3)
    sentences = (Path(corpus) / "train.sentences.txt").read_text(encoding="utf-8").splitlines()
    train_tokenizer(sentences, 120, ("de_DE",)).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "one_run.yaml").write_text(f"""dataset: {corpus}
tokenizer: {tmp_path / "tokenizer"}
freeze_vision_backbone: false
freeze_temporal_module: false
one_run_light_t: tiny
one_run_light_t_overrides: {{d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24}}
visual_learning_rate: 1e-3
norm_logging_steps: 2
{NETWORK}{STAGE2}""")
    argv = [tmp_path / "one_run.yaml", "--output_dir", tmp_path / "out", "--load_best_model_at_end", "false"]
    assert run("run_stage2", *argv) == 0
    saved, checkpoint = weights(tmp_path / "out"), weights(tmp_path / "out" / "checkpoint-4")
    assert any(name.startswith("light_t.") for name in checkpoint)
    assert saved.keys() == {name for name in checkpoint if not name.startswith("light_t.")}
    assert all(saved[name].equal(checkpoint[name]) for name in saved)
    FlaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "one_run.py").exists() and (tmp_path / "out" / "modeling_fla.py").exists()

    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    (tmp_path / "out" / "model.safetensors").unlink()
    assert run("run_stage2", *argv, "--resume") == 0
    resumed = weights(tmp_path / "out")
    assert all(saved[name].equal(resumed[name]) for name in saved)
    norms = read_norms(tmp_path / "out" / "norms.tsv")
    assert [row[0] for row in norms] == [2, 4] and all(value > 0 for row in norms for value in row)
    assert (tmp_path / "out" / "norms.png").exists()


def test_a_frozen_encoder_cannot_be_taught(model):
    model.freeze_visual_encoder()
    with pytest.raises(InputError, match="set freeze_vision_backbone and freeze_temporal_module to false"):
        add_light_t(model, "tiny", SIZES, IDS)
