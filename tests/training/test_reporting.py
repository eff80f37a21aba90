"""What a place to report to is told of a run. The packages themselves are not needed: each is stood in for."""

from types import SimpleNamespace

import pytest
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from tests.tiny_runs import STAGE1, pack_demo, run
from training_fla.training.reporting import RecipeReport


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
    for step, logs in TensorBoardCallback.logs:
        for name, value in logs.items():
            told.setdefault(name, {})[step] = value
    assert set(told["loss"]) == {2} and set(told["learning_rate"]) == {2}
    assert set(told["visual_grad_norm"]) == {2} and told["language_parameter_norm"][2] > 0
    assert set(told["eval_bleu4"]) == {3} == set(told["eval_sample_1"])
    assert " for " in told["eval_sample_1"][3] and told["eval_sample_1"] != told["eval_sample_2"]
    assert "light_t: tiny" in TensorBoardCallback.texts["recipe"]


@pytest.mark.parametrize("name", ["Wandb", "Trackio"])
def test_the_recipe_becomes_part_of_the_configuration(name):
    config = {}
    package = SimpleNamespace(config=SimpleNamespace(update=lambda lines, allow_val_change: config.update(lines)))
    integration = type(f"{name}Callback", (), {f"_{name.lower()}": package})()
    report = RecipeReport({"light_t": "base"})
    report.trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[integration, report]))
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
        ("trackio", "trackio needs its package; pip install trackio"),
        ("paper", "paper is unknown"),
    ):
        assert run("run_stage1", recipe, "--report_to", name, "--output_dir", tmp_path / "o") == 2
        assert f"run_stage1.py: error: report_to: {message}" in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "o").exists()
