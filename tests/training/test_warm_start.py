"""Stage 1 from another model: what is taken, what is new, where that is written down, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import run_stage1
from experiments.drawn.pairs import read_pairs
from experiments.drawn.signs import DEMO_SIGNS
from modeling_fla import FlaConfig, FlaForConditionalGeneration
from processing_fla import train_tokenizer
from tests.tiny_runs import NETWORK, ROOT, STAGE1, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.recipe import Stage1Arguments, parse_recipe
from training_fla.stages.building import make_processor
from training_fla.training import parts

LATER = STAGE1.replace(NETWORK, "\n").replace("train_tokenizer_pieces: 120\n", "")
NO_STEP = ("--max_steps", 1, "--learning_rate", 0, "--eval_strategy", "no", "--save_strategy", "no")
NO_STEP += ("--load_best_model_at_end", "false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    corpus = pack_demo(folder / "corpus", num_train=6, num_dev=2, num_test=2)
    stage1_of_one_step(folder, corpus)
    (folder / "later.yaml").write_text(f"dataset: {corpus}\nstage1_checkpoint: {folder / 'stage1'}\n{LATER}")
    (folder / "stage2.yaml").write_text(f"dataset: {corpus}\ntokenizer: {folder / 'stage1'}\n{STAGE2}")
    train_tokenizer(["morgen regen"], 60).save_pretrained(folder / "other")
    return folder


def build(folder: Path, *lines):
    """The recipe and the model it describes, as `run_stage1.py` makes them before training."""
    argv = [folder / "later.yaml", "--output_dir", folder / "out", *lines]
    recipe = parse_recipe(Stage1Arguments, [str(word) for word in argv], "usage")
    tokenizer = parts.load_tokenizer(recipe.text.tokenizer or str(folder / "other"))
    return recipe, run_stage1.build_model(recipe, make_processor(recipe, tokenizer))


def parts_that_are_equal(before: dict, after: dict) -> set[str]:
    names = {name.split(".")[0] for name in before}
    same = {name for name in before if name in after and torch.equal(before[name], after[name])}
    return {part for part in names if all(name in same for name in before if name.startswith(part))}


def test_all_three_parts_are_taken_where_tokenizer_and_sizes_fit(folder, tmp_path, capsys):
    out = tmp_path / "out"
    argv = (folder / "later.yaml", "--output_dir", out, "--tokenizer", folder / "stage1")
    assert run("run_stage1", *argv, *NO_STEP) == 0
    before = {name: tensor for name, tensor in weights(folder / "stage1").items() if "batches_tracked" not in name}
    learnt = {name: tensor for name, tensor in before.items() if "running_" not in name}  # the one step counts frames
    assert parts_that_are_equal(learnt, weights(out)) == {"visual_encoder", "adapter", "language_model"}
    printed = capsys.readouterr().err.splitlines()
    assert f"taken from {folder / 'stage1'}: visual encoder, VL-Adapter and Light-T" in printed
    assert "new: nothing" in printed
    start = json.loads((out / "metrics.json").read_text())["start"]
    assert start["taken"] == "visual encoder, VL-Adapter and Light-T" and start["new"] == "nothing"
    card, name = (out / "README.md").read_text(), "-".join((folder / "stage1").parts[-2:])
    assert f"began with the visual encoder, VL-Adapter and Light-T of `{name}`." in card
    assert str(folder) not in card.split("## Use")[0]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "of another tokenizer"),
        (("--tokenizer", "{}", "--light_t_overrides", "{{d_model: 24, encoder_ffn_dim: 24}}"), "of other sizes"),
        (("--tokenizer", "{}", "--light_t_overrides", "{{d_model: 16, encoder_layers: 2}}"), "of other sizes"),
        (("--tokenizer", "{}", "--adapter_hidden_size", "7"), "of other sizes"),
    ],
)
def test_only_the_visual_encoder_is_taken_where_they_do_not(folder, lines, reason):
    recipe, model = build(folder, *(line.format(folder / "stage1") for line in lines))
    assert parts_that_are_equal(weights(folder / "stage1"), model.state_dict()) == {"visual_encoder"}
    assert recipe.start["taken"] == "visual encoder"
    assert recipe.start["new"] == f"VL-Adapter and Light-T ({reason})"


def test_the_encoder_of_a_stage_2_is_trained_on_and_its_own_stage_2_names_it(folder, tmp_path):
    argv = (folder / "stage2.yaml", *NO_STEP, "--output_dir")
    assert run("run_stage2", *argv, tmp_path / "stage2", "--stage1_checkpoint", folder / "stage1") == 0
    assert "start" not in json.loads((tmp_path / "stage2/metrics.json").read_text())
    recipe, model = build(folder, "--stage1_checkpoint", tmp_path / "stage2", "--tokenizer", folder / "stage1")
    assert parts_that_are_equal(weights(folder / "stage1"), model.state_dict()) == {"visual_encoder"}
    assert all(parameter.requires_grad for parameter in model.visual_encoder.parameters())
    model.train()
    assert not model.visual_encoder.frozen_parts
    facts = {"start": {**recipe.start, "model": "/home/me/asl/stage1"}}
    (tmp_path / "stage2/metrics.json").write_text(json.dumps(facts))  # as if it had been warm-started itself
    assert run("run_stage2", *argv, tmp_path / "last", "--stage1_checkpoint", tmp_path / "stage2") == 0
    assert "training began with the visual encoder of `asl-stage1`." in (tmp_path / "last/README.md").read_text()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("--vision_backbone", "{model_type: resnet}"), "`vision_backbone`"),
        (("--imagenet_weights", "torchvision"), "`imagenet_weights`"),
        (("--visual_feature_size", 512), "`visual_feature_size`"),
        (("--temporal_kernel_size", 5), "`temporal_kernel_size`"),
        (("--stage1_checkpoint", "nowhere"), "stage1_checkpoint from nowhere"),
    ],
)
def test_a_line_without_effect_and_a_model_that_is_not_there_are_refused(folder, tmp_path, capsys, lines, message):
    argv = (folder / "later.yaml", "--tokenizer", folder / "stage1", "--output_dir", tmp_path / "out")
    assert run("run_stage1", *argv, *lines) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_visual_encoder_is_refused(folder, tmp_path, capsys):
    config = FlaConfig.light_t("tiny", vocab_size=40, d_model=16)
    FlaForConditionalGeneration(FlaConfig(text_config=config.text_config, sign_feature_size=8)).save_pretrained(
        tmp_path / "features"
    )
    argv = (folder / "later.yaml", "--tokenizer", folder / "stage1", "--output_dir", tmp_path / "out")
    assert run("run_stage1", *argv, "--stage1_checkpoint", tmp_path / "features") == 2
    assert "features" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_market_has_other_signs_and_sentences_than_the_demo():
    rows = read_pairs(ROOT / "examples/market.tsv", size=16)
    assert [sum(row.split == split for row in rows) for split in ("train", "dev", "test")] == [60, 20, 60]
    signs = {sign for row in rows for sign in row.video.draw.signs}
    assert len(signs) == 20 and not signs & set(DEMO_SIGNS.values())
    assert len({row.sentence for row in rows}) == 140, "no sentence is in two splits"


def test_the_recipe_names_what_the_checkpoint_decides():
    lines = yaml.safe_load((ROOT / "recipes/own_clips/stage1_warm_start.yaml").read_text())
    demo = yaml.safe_load((ROOT / "recipes/demo/stage1.yaml").read_text())
    assert {name: demo[name] for name in ("frame_size", "crop_size")}.items() <= lines.items()
