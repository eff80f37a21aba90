"""The `fast` recipes train as the paper's do: in fp32 the losses of both are the same."""

import pytest
import yaml

from tests.tiny_runs import COMMON, NETWORK, ROOT, STAGE1, STAGE2, losses, pack_demo, run
from training_fla.recipe import Stage1Arguments, Stage2Arguments, read_lines

CORPORA = ("phoenix14t", "csl_daily", "how2sign")
STAGES = {"stage1": Stage1Arguments, "stage2": Stage2Arguments}
ARITHMETIC = {"bf16", "tf32", "torch_compile", "activation_checkpointing"}
AROUND = {"output_dir", "stage1_checkpoint", "dataloader_num_workers", "per_device_eval_batch_size"}
AROUND |= {"eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit", "save_only_model"}
# What makes a recipe small enough for a test; the optimizer's lines stay the recipe's.
SMALL = (
    "language_code",
    "frame_size",
    "crop_size",
    "max_new_tokens",
    "generation_num_beams",
    "use_cpu",
    "disable_tqdm",
)
SMALL += ("vision_backbone", "visual_feature_size", "light_t", "light_t_overrides", "train_tokenizer_pieces")
SMALL += ("language_model_config",)


def both(corpus: str, stage: str) -> list[dict]:
    folder = ROOT / "recipes" / corpus
    return [read_lines(STAGES[stage], file) for file in (folder / f"{stage}.yaml", folder / f"fast/{stage}.yaml")]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_fast_changes_the_arithmetic_and_what_lies_around_the_training(corpus, stage):
    paper, fast = both(corpus, stage)
    changed = {name for name in paper.keys() | fast.keys() if paper.get(name) != fast.get(name)}
    assert changed <= ARITHMETIC | AROUND
    assert paper["total_batch_size"] == {"stage1": 8, "stage2": 16}[stage]
    assert fast["dataloader_num_workers"] in range(12, 17) and fast["per_device_eval_batch_size"] in range(64, 129)
    every = round(1 / fast["eval_steps"])  # evaluations of a run
    assert fast["eval_steps"] == fast["save_steps"] and fast["num_train_epochs"] == 5 * every


@pytest.mark.slow
def test_fast_and_the_papers_recipe_have_one_loss_curve(tmp_path):
    corpus = pack_demo(tmp_path / "corpus", num_train=19, num_dev=2, num_test=2)
    curves = {}
    for stage, text in (("stage1", COMMON + NETWORK + STAGE1), ("stage2", STAGE2)):
        small = {k: v for line in text.split("\n\n") for k, v in yaml.safe_load(line or "{}").items() if k in SMALL}
        small |= {"dataset": str(corpus), "num_train_epochs": 3, "logging_steps": 1, "tokenizer": None}
        if stage == "stage1":
            small["imagenet_weights"] = None
        else:
            first = str(tmp_path / "stage1-0")
            small |= {"language_model": None, "tokenizer": first, "stage1_checkpoint": first}
        for number, lines in enumerate(both("phoenix14t", stage)):
            given = {name: value for name, value in lines.items() if name not in ARITHMETIC} | small
            given |= {"total_batch_size": 8, "dataloader_num_workers": 2 * number}
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
            out = tmp_path / f"{stage}-{number}"
            assert run(f"run_{stage}", tmp_path / "recipe.yaml", "--output_dir", out) == 0
            curves[stage, number] = losses(out, 9)
        assert len(curves[stage, 0]) == 9
        assert curves[stage, 1] == pytest.approx(curves[stage, 0], abs=1e-5)
