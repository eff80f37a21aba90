"""Figure 2's norms against norms taken by hand, and the files a run leaves."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerState

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from training_fla.training.norms import COLUMNS, LayerNorms, last_layers, read_norms


def small_model(**text_config):
    backbone = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 4, "hidden_sizes": [6], "depths": [1]}
    vision = FlaVisionConfig(backbone_config=backbone, hidden_size=10)
    sizes = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12}
    return FlaForConditionalGeneration(
        FlaConfig.light_t("tiny", vocab_size=20, vision_config=vision, **sizes, **text_config)
    )


def step(callback, model, state):
    callback.on_pre_optimizer_step(None, state, SimpleNamespace(), model=model)
    state.global_step += 1


def test_every_second_step_has_a_row_of_true_norms(tmp_path):
    torch.manual_seed(0)
    model = small_model(decoder_layers=2).train()
    video = torch.randint(0, 255, (2, 3, 3, 16, 20), dtype=torch.uint8)
    model(video, labels=torch.tensor([[5, 6, 2], [7, 2, -100]])).loss.backward()
    callback, state = LayerNorms(tmp_path, every=2), TrainerState(is_world_process_zero=True)
    for _ in range(5):
        step(callback, model, state)
    callback.on_train_end(None, state, None)
    rows = read_norms(tmp_path / "norms.tsv")
    assert [row[0] for row in rows] == [2, 4]
    layers = (model.visual_encoder.temporal_module, model.language_model.model.decoder.layers[1])
    by_hand = [torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item() for layer in layers]
    by_hand += [torch.cat([p.detach().flatten() for p in layer.parameters()]).norm().item() for layer in layers]
    assert rows[0][1:] == pytest.approx(by_hand, rel=1e-5)
    assert (tmp_path / "norms.tsv").read_text().splitlines()[0].split("\t") == list(COLUMNS)
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")


def test_a_frozen_encoder_has_no_gradient(tmp_path):
    model = small_model().train()
    model.freeze_visual_encoder()
    model(torch.zeros(1, 3, 3, 16, 20, dtype=torch.uint8), labels=torch.tensor([[5, 2]])).loss.backward()
    callback = LayerNorms(tmp_path, every=1)
    step(callback, model, TrainerState(is_world_process_zero=True))
    assert callback.rows[0][1] == 0 < callback.rows[0][2]


def test_a_resumed_run_forgets_the_rows_after_its_checkpoint(tmp_path):
    model, state = small_model(), TrainerState(is_world_process_zero=True)
    callback = LayerNorms(tmp_path, every=1)
    for _ in range(4):
        step(callback, model, state)
    callback.on_save(None, state, None)
    resumed, state.global_step = LayerNorms(tmp_path, every=1), 3
    resumed.on_train_begin(None, state, None)
    step(resumed, model, state)
    assert [row[0] for row in resumed.rows] == [1, 2, 3, 4]


def test_t5_calls_its_layers_blocks():
    from transformers import MT5Config

    text = MT5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, decoder_start_token_id=0)
    model = FlaForConditionalGeneration(FlaConfig(vision_config=FlaVisionConfig(hidden_size=10), text_config=text))
    assert last_layers(model)[1] is model.language_model.decoder.block[1]
