"""The ablation recipes differ by what the paper says, and `fla ablate` runs, resumes and prints a table."""

import json
import re
from pathlib import Path

import pytest

from experiments import ablation as module
from experiments.ablation import DIFFERENCES, Ablation, differences, runs_of
from tests.tiny_runs import ROOT, STAGE1, STAGE2, pack_demo, run
from training_fla.cli import main
from training_fla.files import InputError
from training_fla.recipe import Stage1Arguments, Stage2Arguments, parse_recipe
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
    assert len(lines) == {"stage2_mt5": 3, "stage2_untrained_encoder": 2}.get(file.stem, 1)


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
    assert differences(name) == lines


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


DRAWN = ROOT / "recipes" / "phoenix_drawn"


def test_a_corpus_has_its_own_rows_where_those_of_phoenix14t_do_not_fit_it(tmp_path, commands, capsys):
    own = {"language_model": "runs/phoenix_drawn/mt5-trimmed", "language_model_overrides": {"dropout_rate": 0.1}}
    assert differences("stage2_mt5", DRAWN) == own
    assert differences("stage2_mt5_without", DRAWN) == own | {"random_language_model": True}
    assert differences("stage2_hidden_states", DRAWN) == {"input_features": "hidden"}
    assert differences("stage2_mt5", ROOT / "recipes/phoenix14t/fast") == differences("stage2_mt5")
    other = ROOT / "recipes" / "csl_daily"
    assert main(["ablate", "table10", "--recipes", str(other), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "models/mt5-phoenix14t is cut to PHOENIX14T" in said and f"{other}/ablations/stage2_mt5" in said
    assert not commands and not list(tmp_path.iterdir()), "nothing is run or made before"


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

    def run_here(command, launcher):
        done.append(command)
        return run(command[0].removesuffix(".py"), *command[1:])

    monkeypatch.setattr(module, "run_command", run_here)
    return done


def test_a_table_is_run_once_resumed_and_printed(tiny, tmp_path, commands, monkeypatch, capsys):
    argv = ["--recipes", str(tiny), "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    whole = module.run_command
    monkeypatch.setattr(
        module, "run_command", lambda command, launcher: 1 if len(commands) == 3 else whole(command, launcher)
    )
    assert main(["ablate", "table5", *argv]) == 1
    (tmp_path / "out" / "seed-1" / "stage2_untrained_encoder").mkdir(parents=True)  # as a killed run leaves it
    monkeypatch.setattr(module, "run_command", whole)
    assert main(["ablate", "table5", *argv]) == 0
    folders = [Path(command[command.index("--output_dir") + 1]).name for command in commands]
    assert folders == ["stage2_untrained_encoder", "stage1", "stage2"] * 2
    assert [command[-1] == "--resume" for command in commands] == [False, False, False, True, False, False]
    assert main(["ablate", "table5", *argv]) == 0 and len(commands) == 6, "nothing is run twice"
    lines = (tmp_path / "out" / "table5.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["stage 2 only", "stage 1 only", "both"]
    assert "| 23.09 |" in lines[6] and lines[6].count("±") == 5
    assert lines[6] in capsys.readouterr().out


def test_a_foreign_folder_is_refused(tiny, tmp_path, commands, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["ablate", "table4", "--recipes", str(tiny), "--out", str(tmp_path)]) == 2
    assert "holds thesis.tex and no whole .fla-llm.json of ours" in capsys.readouterr().err and not commands


def test_a_run_of_other_lines_is_not_taken_for_this_one(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "run_command", lambda command, launcher: 130)
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

    def finish(run, ablation):
        run.folder.mkdir(parents=True, exist_ok=True)
        scores = {"rouge_l": 1.0, "bleu1": 2.0, "bleu2": 3.0, "bleu3": 4.0, "bleu4": 5.0 + len(run.folder.name)}
        (run.folder / "metrics.json").write_text(json.dumps({"test": scores}))
        return 0

    monkeypatch.setattr(module, "run_once", finish)
    assert module.run_table("figure4", planned) == 0
    assert (tmp_path / "figure4.png").read_bytes().startswith(b"\x89PNG")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 75", "| 100"))]
    assert [row.split(" | ")[0] for row in rows] == [
        "| 75, stage 1", "| 75, stage 2", "| 100, stage 1", "| 100, stage 2",
    ]  # fmt: skip
