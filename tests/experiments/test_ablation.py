"""The ablation recipes differ by what the paper says, and `fla ablate` runs, resumes and prints a table."""

import itertools
import json
import re
from pathlib import Path

import pytest

from experiments import ablation as module
from experiments import running
from experiments.ablation import DIFFERENCES, Ablation, differences, runs_of
from experiments.norms import gradient_ratio
from tests.tiny_runs import ROOT, STAGE1, STAGE2, pack_demo, run
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.recipe import Stage1Arguments, Stage2Arguments, parse_recipe, read_lines
from training_fla.training.callbacks import NORMS
from training_fla.viewing.paper_tables import TABLES, WHOLE, Row

FILES = sorted(DIFFERENCES.glob("*.yaml"))
PLANNED = Ablation(ROOT / "recipes" / "phoenix14t", Path("out"), {}, [], [0])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_parses_and_differs_by_tagged_lines_only(file):
    stage_class = Stage1Arguments if file.stem.startswith("stage1") else Stage2Arguments
    parse_recipe(stage_class, [str(file)], "usage")
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("#", "base:"))]
    assert all(re.search(r"# (Paper: .*(Sec\.|Table|Figure) ?\d|Differs:|Unstated:)", line) for line in lines)
    # One line each; MT5 names the same things otherwise, and without stage 1 the backbone must come from somewhere.
    more = {"stage2_mt5": 3, "stage2_untrained_encoder": 2, "stage2_joint": 2, "stage2_augmented": 2}
    assert len(lines) == more.get(file.stem, 1)


def test_every_recipe_is_a_row_and_every_row_a_recipe():
    rows = [row for table in TABLES.values() for row in table.rows]
    named = {name for row in rows for name in (row.stage1, row.stage2)} - {None, "stage1", "stage2"}
    assert named == {file.stem for file in FILES}
    for table in ("table4", "table5", "table6", "table8", "table9", "table10"):
        assert WHOLE in [row.paper for row in TABLES[table].rows]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("stage1_rate_12", {"frame_stride": 8}),
        ("stage1_light_t_large", {"light_t": "large"}),
        ("stage2_hidden_states", {"input_features": "hidden"}),
        ("stage2_nothing_frozen", {"freeze_vision_backbone": False, "freeze_temporal_module": False}),
        ("stage2_mbart_without", {"random_language_model": True}),
        ("stage2", {}),
    ],
)
def test_the_differences_are_the_papers(name, lines):
    assert differences(name[:6], name) == lines


def test_a_row_after_another_stage_1_reads_that_one():
    first, second = runs_of(Row("", (), "stage1_rate_50", "stage2_rate_50"), PLANNED, 0)
    assert first.lines["frame_stride"] == second.lines["frame_stride"] == 2
    assert second.lines["stage1_checkpoint"] == str(first.folder)
    tiny = runs_of(Row("", (), "stage1_light_t_tiny"), PLANNED, 0)
    assert tiny[1].folder.name == "stage2-after-stage1_light_t_tiny"
    (joint,) = runs_of(Row("", (), None, "stage2_joint"), PLANNED, 3)
    assert joint.lines["imagenet_weights"] == "torchvision" and joint.lines["visual_feature_size"] == 512
    assert joint.lines["seed"] == 3 and joint.lines["stage1_checkpoint"] is None
    assert joint.lines["rotate_degrees"] == 30, "augmented as in stage 1"
    assert joint.folder == Path("out/seed-3/stage2_joint")


def test_lines_reach_the_stage_that_knows_them():
    given = {"language_model": "elsewhere", "light_t": "small", "bf16": True}
    planned = Ablation(PLANNED.recipes, PLANNED.out, given, [], [0])
    first, second = runs_of(Row("", ()), planned, 0)
    assert "language_model" not in first.lines and first.lines["light_t"] == "small"
    assert "light_t" not in second.lines and second.lines["language_model"] == "elsewhere"
    assert first.lines["bf16"] is second.lines["bf16"] is True
    (_, mt5) = runs_of(Row("", (), stage2="stage2_mt5"), planned, 0)
    assert mt5.lines["language_model"] == "models/mt5-phoenix14t", "what makes the row is not overridden"


@pytest.fixture
def failing(monkeypatch) -> None:
    """No run is made: the first ends with status 3."""
    monkeypatch.setattr(running, "run_command", lambda command, launcher, environment: 3)


@pytest.mark.parametrize(
    ("corpus", "launcher"),
    [
        ("phoenix14t", ""),
        ("phoenix14t", "accelerate launch --num_processes 2"),
        ("phoenix14t", f"accelerate launch --config_file {ROOT}/recipes/accelerate/two_gpus.yaml"),
        ("phoenix14t/fast", ""),
        ("csl_daily", ""),
        ("how2sign", ""),
    ],
)
@pytest.mark.parametrize("table", TABLES)
def test_every_run_of_every_table_has_the_papers_clips_a_step(table, corpus, launcher, failing, tmp_path, capsys):
    """Sec. 5.2: 8 in stage 1, 16 in stage 2; said before anything runs, whatever the launcher."""
    if table == "table10" and not corpus.startswith("phoenix14t"):
        pytest.skip("its MT5 is cut to PHOENIX14T")
    launcher = launcher.format(ROOT / "recipes/accelerate/two_gpus.yaml")
    argv = [
        "ablate",
        table,
        "--recipes",
        str(ROOT / "recipes" / corpus),
        "--out",
        str(tmp_path),
        "--launcher",
        launcher,
    ]
    assert main(argv) == 3, "the first run fails"
    said = [line for line in capsys.readouterr().err.splitlines() if " clips a step" in line]
    assert len(said) >= 2 and len(set(said)) == len(said), "a run that rows share is named once"
    for line in said:
        name, _, rest = line.partition(": ")
        stage = Path(name).name[:6]
        clips, rate = {"stage1": (8, 0.01), "stage2": (16, 1e-05)}[stage]
        assert rest.startswith(f"{clips} clips a step, learning_rate {rate:g}"), line
        assert ("adapter_learning_rate 0.001" in rest) == (stage == "stage2")
        assert ("visual_learning_rate 0.001" in rest) == ("fair_rate" in name)


def test_another_number_of_clips_a_step_is_said_beside_the_papers(tmp_path, capsys, failing):
    words = ["--set", "per_device_train_batch_size=4", "--out", str(tmp_path)]
    assert main(["ablate", "table5", "--recipes", str(PLANNED.recipes), *words]) == 3
    said = capsys.readouterr().err
    assert "stage1: 4 clips a step (the paper: 8)" in said and "stage2: 4 clips a step (the paper: 16)" in said


DRAWN = ROOT / "recipes" / "phoenix_drawn"


def test_a_corpus_has_its_own_rows_where_those_of_phoenix14t_do_not_fit_it(tmp_path, commands, capsys):
    own = {"language_model": "runs/phoenix_drawn/mt5-trimmed", "language_model_overrides": {"dropout_rate": 0.1}}
    assert differences("stage2", "stage2_mt5", DRAWN) == own
    assert differences("stage2", "stage2_mt5_without", DRAWN) == own | {"random_language_model": True}
    assert differences("stage2", "stage2_hidden_states", DRAWN) == {"input_features": "hidden"}
    assert differences("stage2", "stage2_mt5", ROOT / "recipes/phoenix14t/fast") == differences("stage2", "stage2_mt5")
    other = ROOT / "recipes" / "csl_daily"
    assert main(["ablate", "table10", "--recipes", str(other), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "models/mt5-phoenix14t is cut to PHOENIX14T" in said and f"{other}/ablations/stage2_mt5" in said
    assert not commands and not list(tmp_path.iterdir()), "nothing is run or made before"


@pytest.mark.parametrize(
    ("table", "row", "line"),
    [
        ("table7", "stage1_light_t_tiny", "light_t"),
        ("figure4", "stage1_epochs_25", "num_train_epochs"),
        ("stage2_grid", "stage2_epochs_80", "num_train_epochs"),
    ],
)
def test_a_row_that_a_corpus_cannot_mean_is_refused(table, row, line, tmp_path, commands, capsys):
    """The drawn corpus has a Light-T and epochs of its own; `75` of Figure 4 would be its 20."""
    assert main(["ablate", table, "--recipes", str(DRAWN), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{row} is no row of {DRAWN}" in said and f"`{line}`" in said and f"ablations/{row}.yaml" in said
    assert not commands and not list(tmp_path.iterdir()), "nothing is run or made before"


def test_the_control_is_augmented_as_the_rows_that_train_a_part_of_the_encoder():
    """Tables 4, 5 and 9: it differs from the whole method by augmentation alone, from the others by what is frozen."""
    augmenting = {"random_frame_phase", "augmentation_probability", "rotate_degrees", "translate_pixels"}
    for recipes in (PLANNED.recipes, ROOT / "recipes" / "csl_daily", DRAWN):
        planned = Ablation(recipes, Path("out"), {}, [], [0])
        whole, control, trained = (
            runs_of(Row("", (), stage2=name), planned, 0)[-1].lines
            for name in ("stage2", "stage2_augmented", "stage2_nothing_frozen")
        )
        assert {k: v for k, v in control.items() if k not in whole}.keys() >= augmenting
        unfrozen = {name: False for name in ("freeze_vision_backbone", "freeze_temporal_module")}
        assert control | unfrozen == {"random_frame_phase": True, "augmentation_probability": 0.5} | trained
    for table in ("table4", "table5", "table9", "stage2_grid"):
        assert "stage2_augmented" in [row.stage2 for row in TABLES[table].rows]


def test_a_part_of_the_encoder_has_the_language_models_rate_and_one_of_its_own():
    """The paper names neither: each row has a second one, and says so."""
    for name in ("stage2_joint", "stage2_untrained_encoder", "stage2_nothing_frozen", "stage2_backbone_frozen"):
        first, second = differences("stage2", name), differences("stage2", f"{name}_fair_rate")
        assert second == first | {"visual_learning_rate": 1e-3}
        assert "# Unstated: the rate of" in (DIFFERENCES / f"{name}.yaml").read_text()


def test_the_grid_of_stage_2_has_all_of_what_the_paper_leaves_open():
    rows = [runs_of(row, PLANNED, 0)[-1] for row in TABLES["stage2_grid"].rows[:-1]]
    base = read_lines(Stage2Arguments, PLANNED.recipes / "stage2.yaml")
    found = {
        (lines["input_embed_scale"], lines["language_model_overrides"]["dropout"], lines["num_train_epochs"])
        for lines in (base | run.lines for run in rows)
    }
    assert found == set(itertools.product((1.0, 32.0), (0.1, 0.3), (40, 80))) and len(rows) == 8
    assert len({run.lines["stage1_checkpoint"] for run in rows}) == 1, "one stage 1"
    assert not any("augmentation_probability" in run.lines for run in rows), "from stored features"


def test_figure_2_prints_norms_beside_the_papers_words(tmp_path, monkeypatch, capsys):
    def finish(runs, ablation):
        for planned_run in runs:
            assert planned_run.lines["norm_logging_steps"] == 100
            planned_run.folder.mkdir(parents=True)
            language = 8 if planned_run.folder.name == "stage2_joint" else 2
            rows = [f"1\t4\t{language}\t9\t9", f"2\t4\t{language}\t10\t12.5"]
            (planned_run.folder / "norms.tsv").write_text("\n".join(["\t".join(NORMS), *rows]) + "\n")
        return 0

    monkeypatch.setattr(module, "run_all", finish)
    planned = Ablation(PLANNED.recipes, tmp_path, {}, [], [0])
    assert module.run_table("figure2", planned) == 0
    rows = [line.split(" | ")[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[1][0] == "always" and rows[1][2] == "changed more drastically"
    assert [cell.strip(" |") for cell in rows[2]] == ["100.00", "2.00", "3.50", "1.00"]
    assert [cell.strip(" |") for cell in rows[3]] == ["0.00", "0.50", "3.50", "1.00"]


def test_the_ratio_of_norms_is_a_geometric_mean_over_steps_with_both(tmp_path):
    (tmp_path / "norms.tsv").write_text("\t".join(NORMS) + "\n1\t4\t1\t9\t9\n2\t1\t4\t9\t9\n3\t0\t1\t9\t9\n")
    assert gradient_ratio(tmp_path / "norms.tsv") == pytest.approx(1)


def test_a_row_of_ones_own_keeps_its_lines_and_stays_a_row(tmp_path, capsys):
    (tmp_path / "ablations").mkdir()
    for stage in ("stage1", "stage2"):
        (tmp_path / f"{stage}.yaml").write_text(f"base: {ROOT}/recipes/demo/{stage}.yaml\n")
    own, planned = tmp_path / "ablations/stage2_untrained_encoder.yaml", Ablation(tmp_path, tmp_path, {}, [], [0])
    own.write_text("base: ../stage2.yaml\nstage1_checkpoint: null\nimagenet_weights: torchvision\n")
    (run,) = runs_of(Row("", (), None, "stage2_untrained_encoder"), planned, 0)
    assert run.lines["imagenet_weights"] == "torchvision"
    own.write_text(f"base: {DIFFERENCES}/stage2_untrained_encoder.yaml\n")
    with pytest.raises(InputError, match=f"{own.name} is no row of ../stage2.yaml: that must be its base"):
        runs_of(Row("", (), None, "stage2_untrained_encoder"), planned, 0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from processing_fla import train_tokenizer

    folder = tmp_path_factory.mktemp("ablation")
    corpus = pack_demo(folder / "corpus", num_train=6, num_dev=2, num_test=3)
    sentences = (corpus / "train.sentences.txt").read_text(encoding="utf-8").splitlines()
    train_tokenizer(sentences, 120, ("de_DE",)).save_pretrained(folder / "tokenizer")
    common = f"dataset: {corpus}\ntokenizer: {folder / 'tokenizer'}\noutput_dir: unused\n"
    steps = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "num_train_epochs": 1}
    for stage, text in {"stage1": STAGE1, "stage2": STAGE2}.items():
        kept = [line for line in text.splitlines() if line.split(":")[0] not in (*steps, "train_tokenizer_pieces")]
        lines = [*kept, *(f"{name}: {value}" for name, value in steps.items())]
        (folder / f"{stage}.yaml").write_text(common + "\n".join(lines))
    return folder


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Runs are made in this process, which saves importing torch for each; what was run is listed."""
    done = []

    def run_here(command, launcher, environment):
        done.append(command)
        return run(command[0].removesuffix(".py"), *command[1:])

    monkeypatch.setattr(running, "run_command", run_here)
    return done


def test_a_table_is_run_once_resumed_and_printed(tiny, tmp_path, commands, monkeypatch, capsys):
    argv = ["--recipes", str(tiny), "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    monkeypatch.setattr(TABLES["table5"], "rows", [row for row in TABLES["table5"].rows if row.paper])
    whole = running.run_command
    monkeypatch.setattr(running, "run_command", lambda *words: 1 if len(commands) == 3 else whole(*words))
    assert main(["ablate", "table5", *argv]) == 1
    (tmp_path / "out" / "seed-1" / "stage2_untrained_encoder").mkdir(parents=True)  # as a killed run leaves it
    monkeypatch.setattr(running, "run_command", whole)
    assert main(["ablate", "table5", *argv]) == 0
    folders = [Path(command[command.index("--output_dir") + 1]).name for command in commands]
    assert folders == ["stage2_untrained_encoder", "stage1", "stage2"] * 2
    assert [command[-1] == "--resume" for command in commands] == [False, False, False, True, False, False]
    assert main(["ablate", "table5", *argv]) == 0 and len(commands) == 6, "nothing is run twice"
    lines = (tmp_path / "out" / "table5.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[4:]}
    assert list(rows) == ["stage 2 only", "stage 1 only", "both"]
    assert "| 23.09 |" in rows["both"] and rows["both"].count("±") == 5
    assert rows["both"] in capsys.readouterr().out
    assert lines[2].endswith("| B4 less | 95 % | p | p, Holm |") and rows["both"].endswith("|  |  |  |  |")
    assert all(" to " in row.split(" | ")[-3] for label, row in rows.items() if label != "both")


def test_a_foreign_folder_is_refused(tiny, tmp_path, commands, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["ablate", "table4", "--recipes", str(tiny), "--out", str(tmp_path)]) == 2
    assert "holds thesis.tex and no whole .fla-llm.json of ours" in capsys.readouterr().err and not commands


def test_a_run_of_other_lines_is_not_taken_for_this_one(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "run_command", lambda *words: 130)
    argv = ["--recipes", str(tiny), "--out", str(tmp_path)]
    assert main(["ablate", "table4", *argv]) == 130
    assert "ended with status 130; the same command goes on" in capsys.readouterr().err
    assert main(["ablate", "table4", *argv, "--set", "learning_rate=0.5"]) == 2
    assert "was run with other arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipes", "nowhere"], "nowhere has no stage1.yaml"),
        (["--set", "seed=3"], "seed is chosen by `fla ablate`"),
        (["--set", "bf16"], "--set takes name=value, got bf16"),
    ],
)
def test_bad_words_are_refused(argv, message, capsys):
    assert main(["ablate", "table4", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_figure_4_is_drawn(tmp_path, monkeypatch, capsys, seeds):
    planned = Ablation(PLANNED.recipes, tmp_path, {}, [], seeds)

    def finish(runs, ablation):
        for planned_run in runs:
            planned_run.folder.mkdir(parents=True, exist_ok=True)
            scores = {
                "rouge_l": 1.0,
                "bleu1": 2.0,
                "bleu2": 3.0,
                "bleu3": 4.0,
                "bleu4": 5.0 + len(planned_run.folder.name),
            }
            (planned_run.folder / "metrics.json").write_text(json.dumps({"test": scores}))
            (planned_run.folder / "recipe.yaml").write_text("score_convention: phoenix14t\n")
            (planned_run.folder / "predictions_test.tsv").write_text(
                "id\tprediction\treference\n1\tregen\tregen im norden\n"
            )
        return 0

    monkeypatch.setattr(module, "run_all", finish)
    assert module.run_table("figure4", planned) == 0
    assert (tmp_path / "figure4.png").read_bytes().startswith(b"\x89PNG")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 75", "| 100"))]
    assert [row.split(" | ")[0] for row in rows] == [
        "| 75, stage 1", "| 75, stage 2", "| 100, stage 1", "| 100, stage 2",
    ]  # fmt: skip
