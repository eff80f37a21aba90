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


ACCELERATE = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("file", ACCELERATE, ids=lambda file: file.name)
def test_accelerate_reads_its_configurations(file):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    lines = yaml.safe_load(file.read_text())
    config = load_config_from_file(str(file))
    assert (config.num_processes, config.num_machines) == (lines["num_processes"], lines["num_machines"])
    # As `accelerate launch` merges the file with its own options.
    given, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(file), "run.py"]))
    assert given.num_processes == lines["num_processes"] and given.mixed_precision == "no"
    kind = lines["distributed_type"]
    assert (given.multi_gpu, given.use_fsdp) == (kind == "MULTI_GPU", kind == "FSDP")


@pytest.mark.parametrize("file", ACCELERATE, ids=lambda file: file.name)
def test_the_commands_in_an_accelerate_configuration_keep_the_papers_batch(file):
    """Sec. 5.2: 8 in stage 1, 16 in stage 2."""
    text = file.read_text()
    commands = [line.strip("# ").split() for line in text.splitlines() if line.startswith("#   accelerate launch")]
    assert commands
    for words in commands:
        assert words[words.index("--config_file") + 1] == str(file.relative_to(ROOT))
        script = next(word for word in words if word.startswith("run_stage"))
        recipe, *overrides = words[words.index(script) + 1 :]
        parsed = parse_recipe(stage_class(Path(recipe)), [str(ROOT / recipe), *overrides], "usage")
        batch = yaml.safe_load(text)["num_processes"] * parsed.training["per_device_train_batch_size"]
        assert batch == {"run_stage1.py": 8, "run_stage2.py": 16}[script], words


def test_fsdp_wraps_the_layers_that_the_language_model_has():
    from accelerate.utils.dataclasses import FullyShardedDataParallelPlugin
    from transformers import MBartConfig, MBartForConditionalGeneration

    lines = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    names = lines["fsdp_transformer_layer_cls_to_wrap"]
    assert lines["fsdp_version"] == 2 and lines["fsdp_state_dict_type"] == "SHARDED_STATE_DICT"
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 20}
    model = MBartForConditionalGeneration(
        MBartConfig(d_model=8, encoder_attention_heads=2, decoder_attention_heads=2, **sizes)
    )
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=names.split(",")
    )
    plugin.set_auto_wrap_policy(model)
    wrapped = [
        module for module in model.modules() if plugin.auto_wrap_policy(module, recurse=False, nonwrapped_numel=0)
    ]
    assert len(wrapped) == 3
