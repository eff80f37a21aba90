"""What a run prints and reports, Figure 2's norms by hand, and the counts of a resumed run."""

import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import MT5Config, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from tests.tiny_runs import STAGE1, pack_demo, run
from training_fla.training.callbacks import (
    NORMS,
    EvaluationLines,
    LayerNorms,
    RecipeReport,
    Throughput,
    last_layers,
    read_norms,
)
from training_fla.training.plots import (
    Panel,
    curve_panels,
    figure_of,
    inline_svg,
    norm_panels,
    save_picture,
    spread,
    styled,
)
from training_fla.training.trainer import SignTranslationTrainer


def test_an_evaluation_is_one_line_and_two_translations(tmp_path, capsys):
    state = SimpleNamespace(is_world_process_zero=True, epoch=1.5, global_step=7)
    trainer = SimpleNamespace(
        last_translations=[f"guess {i}" for i in range(6)],
        eval_dataset=SimpleNamespace(sentences=[f"truth {i}" for i in range(6)]),
        state=state,
    )
    trainer.samples = partial(SignTranslationTrainer.samples, trainer)
    figures = {"eval_bleu4": 12.345, "eval_rouge_l": 40.0, "eval_runtime": 3.2}
    EvaluationLines(trainer, tmp_path).on_evaluate(None, state, None, figures)
    shown = capsys.readouterr().err
    counts = {"eval_exact_matches": 2, "eval_num_sentences": 6, "eval_distinct_predictions": 5}
    EvaluationLines(trainer, tmp_path).on_evaluate(None, state, None, figures | counts)
    assert "2 of 6 exact, 5 distinct" in capsys.readouterr().err
    assert "epoch 1.50  step 7  bleu4 12.35  rouge_l 40.00  (3 s)" in shown
    for place in (1, 4):
        assert f"'guess {place}'" in shown and f"'truth {place}'" in shown
    assert "bleu4 12.35" in (tmp_path / "evaluations.txt").read_text()


def test_the_curve_is_drawn_even_of_a_run_too_short_to_log(tmp_path):
    for name, history in (("empty", []), ("full", [{"step": 1, "loss": 2.0}, {"step": 2, "eval_bleu4": 5.0}])):
        save_picture(curve_panels({"": history}), tmp_path / f"{name}.png")
        assert Image.open(tmp_path / f"{name}.png").size == (1638, 351), "three panels of one size"


def test_a_panel_says_in_words_and_in_a_page_what_it_draws():
    losses, dev_losses, scores = curve_panels(
        {"a": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1}], "b": [{"step": 9}]}
    )
    assert losses.in_words() == "training loss (nats per token) over step: a from 2.5 to 1" and not scores.lines
    assert not dev_losses.lines
    gradients, parameters = norm_panels([[2, 1.0, 2.0, 3.0, 4.0], [4, 5.0, 6.0, 7.0, 8.0]])
    assert gradients.lines == {"visual encoder": [(2, 1.0), (4, 5.0)], "language model": [(2, 2.0), (4, 6.0)]}
    assert parameters.lines["language model"] == [(2, 4.0), (4, 8.0)]
    lines = {"a": [(1, 2.0, 0.5), (2, 3.0, 0.5)], "b": [(1, 1.0, 0), (2, 2.0, 0)]}
    with styled():
        text = inline_svg(figure_of([Panel("score (%)", "epochs", lines)]))
    assert text.startswith("<svg") and "score (%)" in text and ">epochs<" in text, "letters stay letters"
    assert "currentColor" in text and "#333333" not in text and not re.search(r'id="\w+_\d+"', text)


def test_axes_of_scores_go_from_0_to_100_and_both_losses_share_theirs():
    rows = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}]
    rows += [{"step": step, "eval_loss": 3.0, "eval_bleu1": 50.0, "eval_bleu4": 1.05 + step / 100} for step in (1, 2)]
    for history, title in ((rows, "dev BLEU-4 (0 to 100)"), ([row | {"eval_bleu4": 0} for row in rows], "dev BLEU-1")):
        panels = curve_panels({"": history})
        training, dev, scores = [axis.get_ylim() for axis in figure_of(panels).axes]
        assert training == dev and training[0] == 0 and training[1] > 4 and scores == (0, 100)
        assert panels[1].lines == {"": [(1, 3.0), (2, 3.0)]} and panels[2].title.startswith(title)


def test_places_are_spread_from_the_first_to_the_last():
    assert [spread(count, 5) for count in (1, 3, 5, 101)] == [[0], [0, 1, 2], [0, 1, 2, 3, 4], [0, 25, 50, 75, 100]]


def batch(frames: int, tokens: int) -> dict:
    labels = torch.tensor([[5] * tokens + [-100]])
    return {
        "pixel_values_videos": None,
        "attention_mask": torch.tensor([[1] * frames + [0]]),
        "labels": labels,
    }


def test_a_resumed_run_counts_frames_tokens_and_seconds_on():
    first, saving = Throughput(), TrainerControl(should_save=True)
    first.count(batch(3, 2))
    first.count(batch(4, 5))
    first.on_step_end(None, None, saving)
    first.count(batch(9, 9))  # after the checkpoint: lost with what was killed
    first.began -= 50
    kept = first.state()
    second = Throughput(**kept["args"])
    for name, value in kept["attributes"].items():
        setattr(second, name, value)
    assert second.earlier_seconds == pytest.approx(50, abs=1)
    second.seconds = 2.0
    assert second.figures()["frames"] == 7, "a resumed run that is finished already"
    second.count(batch(1, 1))
    assert second.figures() == {
        "training_seconds": 2.0, "frames": 8, "target_tokens": 8,
        "frames_per_second": 4.0, "target_tokens_per_second": 4.0,
    }  # fmt: skip


def test_evaluating_and_saving_are_not_counted_as_training():
    clock, control = Throughput(), TrainerControl()
    for event in (clock.on_evaluate, clock.on_save):
        clock.since -= 100
        event(None, None, control)
    clock.since -= 7
    clock.on_step_end(None, None, control)
    assert clock.seconds == pytest.approx(7, abs=1)


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
    callback, state = LayerNorms(None, tmp_path, every=2), TrainerState(is_world_process_zero=True)
    for _ in range(5):
        step(callback, model, state)
    callback.on_train_end(None, state, None)
    rows = read_norms(tmp_path / "norms.tsv")
    assert [row[0] for row in rows] == [2, 4]
    layers = (model.visual_encoder.temporal_module, model.language_model.model.decoder.layers[1])
    by_hand = [torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item() for layer in layers]
    by_hand += [torch.cat([p.detach().flatten() for p in layer.parameters()]).norm().item() for layer in layers]
    assert rows[0][1:] == pytest.approx(by_hand, rel=1e-5)
    assert (tmp_path / "norms.tsv").read_text().splitlines()[0].split("\t") == list(NORMS)
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")


def test_a_frozen_encoder_has_no_gradient(tmp_path):
    model = small_model().train()
    model.freeze_visual_encoder()
    model(torch.zeros(1, 3, 3, 16, 20, dtype=torch.uint8), labels=torch.tensor([[5, 2]])).loss.backward()
    callback = LayerNorms(None, tmp_path, every=1)
    step(callback, model, TrainerState(is_world_process_zero=True))
    assert callback.rows[0][1] == 0 < callback.rows[0][2]


def test_a_resumed_run_forgets_the_norms_after_its_checkpoint(tmp_path):
    model, state = small_model(), TrainerState(is_world_process_zero=True)
    callback = LayerNorms(None, tmp_path, every=1)
    for _ in range(4):
        step(callback, model, state)
    callback.on_save(None, state, None)
    resumed, state.global_step = LayerNorms(None, tmp_path, every=1), 3
    resumed.on_train_begin(None, state, None)
    step(resumed, model, state)
    assert [row[0] for row in resumed.rows] == [1, 2, 3, 4]


def test_t5_calls_its_layers_blocks():
    text = MT5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, decoder_start_token_id=0)
    model = FlaForConditionalGeneration(FlaConfig(vision_config=FlaVisionConfig(hidden_size=10), text_config=text))
    assert last_layers(model)[1] is model.language_model.decoder.block[1]


def test_a_model_that_reads_features_has_no_last_visual_layer():
    text = MT5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, decoder_start_token_id=0)
    model = FlaForConditionalGeneration(FlaConfig(text_config=text, sign_feature_size=10))
    callback = LayerNorms(None, Path(), every=1)
    step(callback, model, TrainerState(is_world_process_zero=True))
    _, visual_gradient, _, visual, language = callback.rows[0]
    assert visual_gradient == visual == 0 < language


class TensorBoardCallback(TrainerCallback):
    """Named as transformers', and keeps what that would write."""

    texts: dict = {}
    logs: list = []

    def __init__(self):
        self.tb_writer = SimpleNamespace(add_text=self.texts.__setitem__)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, logs))


@pytest.fixture
def recipe(tmp_path):
    corpus = pack_demo(tmp_path / "corpus", num_train=8, num_dev=3, num_test=3)
    (tmp_path / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}")
    return tmp_path / "stage1.yaml"


def test_losses_scores_norms_translations_and_the_recipe_arrive(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", TensorBoardCallback)
    lines = ("--report_to", "tensorboard", "--norm_logging_steps", 2, "--max_steps", 3, "--output_dir", tmp_path / "o")
    assert run("run_stage1", recipe, *lines) == 0
    told = {}
    for at, logs in TensorBoardCallback.logs:
        for name, value in logs.items():
            told.setdefault(name, {})[at] = value
    assert set(told["loss"]) == {2} and set(told["learning_rate"]) == {2}
    assert set(told["visual_grad_norm"]) == {2} and told["language_parameter_norm"][2] > 0
    assert set(told["eval_bleu4"]) == {3} == set(told["eval_sample_1"])
    assert " for " in told["eval_sample_1"][3] and told["eval_sample_1"] != told["eval_sample_2"]
    assert "light_t: tiny" in TensorBoardCallback.texts["recipe"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_recipe_becomes_part_of_the_configuration(monkeypatch, name):
    config = {}
    package = SimpleNamespace(config=SimpleNamespace(update=lambda lines, allow_val_change: config.update(lines)))
    monkeypatch.setitem(sys.modules, name, package)
    integration = type(f"{name.title()}Callback", (), {})()
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[integration]))
    report = RecipeReport(trainer, {"light_t": "base"})
    report.on_train_begin(None, SimpleNamespace(is_world_process_zero=False), None)
    assert config == {}
    report.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
    assert config == {"recipe": {"light_t": "base"}}


def test_what_cannot_be_reported_to_is_one_line_before_training(recipe, tmp_path, monkeypatch, capsys):
    class Missing(TrainerCallback):
        def __init__(self):
            raise RuntimeError("requires trackio to be installed")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "trackio", Missing)
    for name, message in (
        ("trackio", "requires trackio to be installed"),
        ("paper", "paper is not supported, only "),
    ):
        assert run("run_stage1", recipe, "--report_to", name, "--output_dir", tmp_path / "o") == 2
        assert f"run_stage1.py: error: report_to: {message}" in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "o").exists()
