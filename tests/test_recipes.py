"""Every recipe parses, and every number it ascribes to the paper is the paper's."""

import math
import re
from pathlib import Path

import pytest
import yaml

from modeling_fla import FlaConfig
from tests import paper_figures
from training_fla.recipe import (
    PAPERS_CLIPS_A_STEP,
    Stage1Arguments,
    Stage2Arguments,
    clips_a_step,
    parse_recipe,
    read_lines,
)
from training_fla.viewing import paper_tables

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(
    [
        *(ROOT / "recipes").glob("*/*.yaml"),
        *(ROOT / "recipes").glob("*/fast/*.yaml"),
        *(ROOT / "recipes").glob("*/all/*.yaml"),
    ]
)
STAGES = [file for file in RECIPES if file.parent.name != "accelerate" and file.stem not in ("dominance", "sentences")]

PAPERS_OWN = [(corpus, stage) for corpus in paper_figures.SCORES for stage in paper_figures.RECIPES]
# Which tokenizer and which pre-trained model: places, not figures.
NAMES = {"tokenizer", "language_model"}


def stage_class(file: Path) -> type:
    return Stage1Arguments if file.name.startswith("stage1") else Stage2Arguments


def test_there_are_recipes_for_the_corpora_of_the_paper():
    for corpus in ("phoenix14t", "csl_daily", "how2sign", "demo"):
        for stage in ("stage1.yaml", "stage2.yaml"):
            assert ROOT / "recipes" / corpus / stage in RECIPES


def tagged(file: Path) -> dict[str, str]:
    """Lines that say they are the paper's: key to place."""
    lines = [re.match(r"(\w+):.*# Paper: (.*)", line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line[1]: line[2] for line in lines if line}


@pytest.mark.parametrize("file", STAGES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_recipe_parses_and_says_only_true_things_of_the_paper(file):
    recipe = parse_recipe(stage_class(file), [str(file)], "usage")
    values = {**vars(recipe.model), **vars(recipe.data), **vars(recipe.optimization), **recipe.training}
    paper = paper_figures.RECIPES["stage1" if stage_class(file) is Stage1Arguments else "stage2"]
    for key, place in tagged(file).items():
        assert re.search(r"(Sec\.|Table|Figure) ?\d", place), f"{file}: {key} names no place in the paper"
        if file.parent.name == "demo" and "Table" in place and key not in paper:
            assert values[key] in [value for (_, line), (value, _) in paper_figures.ABLATIONS.items() if line == key]
        elif key not in NAMES:
            assert values[key] == paper[key][0], f"{file}: {key}"


@pytest.mark.parametrize(("corpus", "stage"), PAPERS_OWN)
def test_the_corpora_of_the_paper_are_trained_as_the_paper_says(corpus, stage):
    """Every figure of the paper is a line of the recipe, tagged with its place; and none but those is."""
    file = ROOT / "recipes" / corpus / f"{stage}.yaml"
    lines, places = read_lines(stage_class(file), file), tagged(file)
    assert places.keys() - NAMES == paper_figures.RECIPES[stage].keys()
    for key, (value, place) in paper_figures.RECIPES[stage].items():
        assert lines[key] == value, key
        assert place in places[key], f"{file}: {key} is from {place}"


def test_the_papers_batch_has_one_value():
    for stage, lines in paper_figures.RECIPES.items():
        assert PAPERS_CLIPS_A_STEP[stage] == lines["total_batch_size"][0]


@pytest.mark.parametrize("corpus", paper_figures.SCORES)
def test_a_recipes_header_quotes_the_papers_scores(corpus):
    table, (rouge_l, *_, bleu4) = paper_figures.SCORES[corpus]
    header = (ROOT / "recipes" / corpus / "stage2.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert f"Paper, {table}: BLEU-4 {bleu4:.2f}, ROUGE-L {rouge_l:.2f} on test." in header
    first = (ROOT / "recipes" / corpus / "stage1.yaml").read_text(encoding="utf-8").splitlines()[0]
    alone = "Paper, Table 5 row 2: BLEU-4 17.69 on test." if corpus == "phoenix14t" else "The paper gives no score"
    assert alone in first


@pytest.mark.parametrize("corpus", paper_figures.SCORES)
@pytest.mark.parametrize("folder", [".", "fast"])
def test_the_last_epoch_is_handed_over_and_clips_are_shuffled(corpus, folder):
    """Sec. 5.4.2 takes the model of an epoch by its number; stage 2 is chosen on dev, which both score."""
    stage1, stage2 = (
        parse_recipe(stage_class(file), [str(file)], "usage").training
        for file in (ROOT / "recipes" / corpus / folder / f"{stage}.yaml" for stage in ("stage1", "stage2"))
    )
    assert [lines["load_best_model_at_end"] for lines in (stage1, stage2)] == [False, True]
    for lines in (stage1, stage2):
        assert lines["eval_strategy"] == ("steps" if folder == "fast" else "epoch")
        assert lines["train_sampling_strategy"] == "random", "what the paper's recipes say, fast/ says too"


def test_figure_4_hands_over_the_last_epochs():
    files = list((ROOT / "recipes" / "phoenix14t" / "ablations").glob("stage1_epochs_*.yaml"))
    assert len(files) == 3
    for file in files:
        lines = read_lines(Stage1Arguments, file)
        assert lines["load_best_model_at_end"] is False
        assert lines["num_train_epochs"] == int(file.stem.rpartition("_")[2])


def test_ablation_recipes_and_tables_are_the_papers():
    found = {}
    for file in sorted((ROOT / "recipes" / "phoenix14t" / "ablations").glob("*.yaml")):
        for key, place in tagged(file).items():
            found[file.stem, key] = (read_lines(stage_class(file), file)[key], place)
    assert found.keys() == paper_figures.ABLATIONS.keys()
    for line, (value, place) in paper_figures.ABLATIONS.items():
        assert found[line][0] == value and place in found[line][1], line
    with_scores = {name: [row.paper for row in table.rows if row.paper] for name, table in paper_tables.TABLES.items()}
    rows = {name: " | ".join(" ".join(f"{x:.2f}" for x in paper) for paper in papers) for name, papers in
            with_scores.items() if name.startswith("table")}  # fmt: skip
    assert rows == paper_figures.TABLES
    assert paper_tables.TABLES["table6"].stage1_hours == paper_figures.STAGE1_HOURS
    whole = {name: (entry["table"], tuple(entry["scores"])) for name, entry in paper_tables.CORPORA.items()}
    assert whole == paper_figures.SCORES and list(whole["phoenix14t"][1]) == paper_tables.WHOLE


def test_every_top_level_line_of_the_papers_recipes_says_where_it_comes_from():
    plain = {"tokenizer", "output_dir", "stage1_checkpoint", "language_model", "seed", "save_strategy"}
    plain |= {"per_device_eval_batch_size", "dataloader_num_workers"}
    plain |= {"feature_dtype", "language_model_overrides"}
    for corpus in ("phoenix14t", "csl_daily", "how2sign"):
        for stage in paper_figures.RECIPES:
            tagged_before = False
            for line in (ROOT / "recipes" / corpus / f"{stage}.yaml").read_text(encoding="utf-8").splitlines():
                key = re.match(r"(\w+):", line)
                is_tagged = re.search(r"# (Paper|Differs|Unstated):", line)
                # "this and the next three" covers lines below it.
                named = plain | ({"dataset"} if stage == "stage2" else set())  # packed once, as stage 1 says
                assert not key or key[1] in named or is_tagged or tagged_before, f"{corpus}/{stage}: {line}"
                tagged_before = bool(is_tagged) or (tagged_before and key is not None)


@pytest.mark.real_data
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_sentences_of_how2sign_fit_its_recipes(real_data, stage):
    """The released dev and test split, by mBART's own tokenizer; a trimmed one cuts sentences as it does."""
    from transformers import MBartTokenizer

    from processing_fla import normalize_text

    folder = real_data / "tokenizers" / "mbart-large-cc25"
    tokenizer = MBartTokenizer.from_pretrained(folder, src_lang="en_XX", tgt_lang="en_XX")
    file = ROOT / "recipes" / "how2sign" / f"{stage}.yaml"
    longest = 0
    for split in ("val", "test"):
        lines = (real_data / "how2sign" / f"how2sign_realigned_{split}.csv").read_text(encoding="utf-8").splitlines()
        column = lines[0].split("\t").index("SENTENCE")
        texts = [normalize_text(line.split("\t")[column]) for line in lines[1:]]
        longest = max(longest, *map(len, tokenizer(text_target=texts)["input_ids"]))
    assert longest == 140
    assert parse_recipe(stage_class(file), [str(file)], "usage").text.max_target_tokens > 2 * longest


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_how2sign_keeps_as_many_frames_as_there_are_positions(stage):
    """Light-T's and MBart's; the same limit in both stages."""
    file = ROOT / "recipes" / "how2sign" / f"{stage}.yaml"
    data = parse_recipe(stage_class(file), [str(file)], "usage").data
    positions = FlaConfig.light_t("base", vocab_size=9).text_config.max_position_embeddings
    assert data.max_source_frames / data.frame_stride == positions == 1024


@pytest.mark.real_data
@pytest.mark.parametrize(("fps", "thinned_before"), [(24, 0.125), (50, 0.453)])
def test_no_clip_of_how2sign_is_thinned(real_data, fps, thinned_before):
    """Of the released dev and test times; a limit of 300 source frames thinned this share of them."""
    frames = []
    for split in ("val", "test"):
        lines = (real_data / "how2sign" / f"how2sign_realigned_{split}.csv").read_text(encoding="utf-8").splitlines()
        header, *rows = [line.split("\t") for line in lines]
        start, end = header.index("START_REALIGNED"), header.index("END_REALIGNED")
        frames += [math.ceil((float(row[end]) - float(row[start])) * fps) for row in rows]
    file = ROOT / "recipes" / "how2sign" / "stage1.yaml"
    assert max(frames) <= parse_recipe(Stage1Arguments, [str(file)], "usage").data.max_source_frames
    assert sum(count > 300 for count in frames) / len(frames) == pytest.approx(thinned_before, abs=0.001)


@pytest.mark.parametrize("corpus", paper_figures.SCORES)
def test_adam_does_not_decay_weights(corpus):
    """torch adds decay to Adam's gradient, where a mean over tokens makes it 22 times MMTLB's."""
    file = ROOT / "recipes" / corpus / "stage2.yaml"
    recipe = parse_recipe(Stage2Arguments, [str(file)], "usage")
    assert (recipe.optimization.optimizer, recipe.training["weight_decay"]) == ("adam", 0.0)


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
        batch = clips_a_step(parsed.resolved, yaml.safe_load(text)["num_processes"])
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


def test_the_memory_of_the_ablations_follows_the_formula_of_planning():
    """GiB by frames of a step: 0.44 and 0.0209 a frame, and MBart's 5.4 where it is trained beside the encoder."""
    planning, page = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("planning", "ablations"))
    assert "| stage 1, GiB | 0.44 + F x 0.0209 |" in planning and "| stage 2, MBart-large, GiB | 5.4 + " in planning
    rows = re.findall(r"\| (Table.*|all others) \| ([\d,]+)(?: at most)? \| (\d+) \| ([\d,]+) \| (\d+) \|", page)
    assert len(rows) == 4
    for name, *figures in rows:
        base = 0.44 + 5.4 * ("joint" in name)
        for frames, memory in (figures[:2], figures[2:]):
            assert int(memory) == round(base + 0.0209 * int(frames.replace(",", ""))), name
