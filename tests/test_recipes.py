"""Every recipe parses, and every number it ascribes to the paper is the paper's."""

import re
from pathlib import Path

import pytest
import yaml

from training_fla.arguments import Stage1Arguments, Stage2Arguments, parse_recipe, read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
STAGES = [file for file in RECIPES if file.parent.name != "accelerate"]

# What the paper states, with its place. A recipe line tagged `# Paper:` may say nothing else.
PAPER = {
    "frame_stride": {4},  # Sec. 4.2, Table 6: 25 %
    "imagenet_weights": {"torchvision", "microsoft/resnet-18"},  # Sec. 5.2: ResNet18 pre-trained on ImageNet
    "light_t": {"base"},  # Sec. 5.2: 3 layers, 8 heads, 512, 2048; Table 7
    "optimizer": {"sgd", "adam"},  # Sec. 5.2: stage 1, stage 2
    "momentum": {0.9},  # Sec. 5.2
    "learning_rate": {1e-2, 1e-5},  # Sec. 5.2: stage 1, language model of stage 2
    "adapter_learning_rate": {1e-3},  # Sec. 5.2
    "lr_scheduler_type": {"cosine"},  # Sec. 5.2
    "label_smoothing_factor": {0.2},  # Sec. 5.2
    "generation_num_beams": {5},  # Sec. 5.2
    "num_train_epochs": {75},  # Sec. 5.4.2, Figure 4
    "per_device_train_batch_size": {4, 8, 16},  # Sec. 5.2: 8 across 2 GPUs; 16 on 1 GPU
    "freeze_vision_backbone": {True},  # Table 9
    "freeze_temporal_module": {True},  # Table 9
    "input_features": {"sign"},  # Table 8
}
BY_STAGE = {
    "stage1.yaml": {"optimizer": "sgd", "learning_rate": 1e-2, "num_train_epochs": 75},
    "stage2.yaml": {"optimizer": "adam", "learning_rate": 1e-5, "adapter_learning_rate": 1e-3},
}


def stage_class(file: Path) -> type:
    return Stage1Arguments if file.name.startswith("stage1") else Stage2Arguments


def test_there_are_recipes_for_the_corpora_of_the_paper():
    for corpus in ("phoenix14t", "csl_daily", "how2sign", "demo"):
        for stage in ("stage1.yaml", "stage2.yaml"):
            assert ROOT / "recipes" / corpus / stage in RECIPES


@pytest.mark.parametrize("file", STAGES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_recipe_parses_and_says_only_true_things_of_the_paper(file):
    recipe = parse_recipe(stage_class(file), [str(file)], "usage")
    values = {**vars(recipe.stage), **vars(recipe.data), **vars(recipe.optimization), **recipe.training}
    for line in file.read_text(encoding="utf-8").splitlines():
        key = re.match(r"(\w+):", line)
        if key and "# Paper:" in line and key[1] in PAPER:
            assert values[key[1]] in PAPER[key[1]], f"{file}: {line}"
        if key and "# Paper:" in line:
            assert re.search(r"(Sec\.|Table|Figure) ?\d", line), f"{file}: {line} names no place in the paper"


@pytest.mark.parametrize("corpus", ["phoenix14t", "csl_daily", "how2sign"])
@pytest.mark.parametrize("stage", BY_STAGE)
def test_the_corpora_of_the_paper_are_trained_as_the_paper_says(corpus, stage):
    lines = read_recipe(ROOT / "recipes" / corpus / stage)
    for key, value in BY_STAGE[stage].items():
        assert float(lines[key]) == value if isinstance(value, float) else lines[key] == value
    assert lines["frame_stride"] == 4 and lines["label_smoothing_factor"] == 0.2 and lines["generation_num_beams"] == 5


def test_every_top_level_line_of_the_papers_recipes_says_where_it_comes_from():
    plain = {"dataset", "tokenizer", "language_code", "output_dir", "stage1_checkpoint", "language_model", "seed"}
    plain |= {"per_device_eval_batch_size", "save_strategy", "train_sampling_strategy", "dataloader_num_workers"}
    plain |= {"feature_dtype", "language_model_overrides"}
    for corpus in ("phoenix14t", "csl_daily", "how2sign"):
        for stage in BY_STAGE:
            tagged_before = False
            for line in (ROOT / "recipes" / corpus / stage).read_text(encoding="utf-8").splitlines():
                key = re.match(r"(\w+):", line)
                tagged = re.search(r"# (Paper|Differs|Unstated):", line)
                # "this and the next three" covers lines below it.
                assert not key or key[1] in plain or tagged or tagged_before, f"{corpus}/{stage}: {line}"
                tagged_before = bool(tagged) or (tagged_before and key is not None)


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda file: file.name)
def test_accelerate_reads_its_configurations(file):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(file))
    assert config.num_processes == yaml.safe_load(file.read_text())["num_processes"]
