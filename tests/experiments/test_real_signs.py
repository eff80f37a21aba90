"""The study on real signers: what is run in which order, what is read from an encoder, and what the tables say."""

import json
import re

import numpy as np
import pytest
import torch

from experiments.real_signs import showing
from experiments.real_signs.__main__ import main
from experiments.real_signs.isolated import pool, read_signs
from experiments.real_signs.study import ENCODERS, SYSTEMS, WAVES, Study, fla, run_study
from tests.dictionary.drawn_signs import write_dictionary
from tests.tiny_runs import ROOT
from training_fla.dictionary.sentences import Grammar
from training_fla.recipe import Stage1Arguments, Stage2Arguments, parse_recipe
from training_fla.tables import write_table


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "lexicon.csv", tmp_path / "out", ["D", "A"], [0, 1], {"max_steps": 2})


def test_every_run_of_the_study_parses_and_is_planned_once(study, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = []
    for signer in study.signers:
        for wave in WAVES:
            names += [step.name for step in study.fold(signer, 1).steps(wave)]
            for name in wave:
                run = study.fold(signer, 1).run(name)
                command = run.step(study.out).command[1:]
                recipe = parse_recipe(
                    {"stage1": Stage1Arguments, "stage2": Stage2Arguments}[run.stage], command, "usage"
                )
                assert recipe.training["seed"] == 1 and recipe.training["max_steps"] in (2, 60)
                assert recipe.data.dataset.endswith(
                    f"without-video-{signer}" if name == "text_alone" else f"corpus-{signer}"
                )
    runs = [name for name in names if name.startswith("seed-1/")]
    assert len(set(runs)) == len(runs) == 2 * (len(SYSTEMS) + 1), "an untrained encoder besides"
    assert {"sentences", "corpus-D", "corpus-A", "without-video-D", "without-video-A"} == set(names) - set(runs)


def test_joint_training_differs_from_stage_1_in_the_language_model_alone():
    """The same steps of the same clips, the same encoder, augmentation and rate."""
    folder = ROOT / "recipes/fsl105"
    stage1 = parse_recipe(Stage1Arguments, [str(folder / "stage1.yaml")], "usage")
    joint = parse_recipe(Stage2Arguments, [str(folder / "joint.yaml")], "usage")
    same = (
        "num_train_epochs",
        "warmup_steps",
        "weight_decay",
        "lr_scheduler_type",
        "train_sampling_strategy",
        "max_grad_norm",
    )
    for name in same:
        assert stage1.training[name] == joint.training[name], name
    assert vars(stage1.data) | {"random_frame_phase": 0} == vars(joint.data) | {"random_frame_phase": 0}
    assert stage1.optimization.total_batch_size == joint.optimization.total_batch_size
    assert stage1.optimization.optimizer == joint.optimization.optimizer
    assert joint.optimization.visual_learning_rate == stage1.training["learning_rate"]
    for name in ("vision_backbone", "visual_feature_size", "temporal_kernel_size"):
        assert getattr(stage1.model, name) == getattr(joint.model, name), name


def test_the_grammar_of_the_recipe_covers_the_data_set_and_its_splits_share_no_signs():
    pairs = Grammar(ROOT / "recipes/fsl105/sentences.yaml").draw({"train": 1600, "dev": 200, "test": 200}, seed=0)
    train = [pair for pair in pairs if pair.split == "train"]
    assert len({gloss for pair in train for gloss in pair.glosses}) == 105
    assert {len(pair.glosses) for pair in train} == {1, 2, 3, 4, 5, 6}
    seen = {frozenset(pair.glosses) for pair in pairs if pair.split != "test"}
    assert not any(frozenset(pair.glosses) in seen for pair in pairs if pair.split == "test")


def test_features_are_averaged_over_thirds_of_the_time_in_which_hands_move():
    features = torch.arange(8.0)[:, None].repeat(1, 2)
    pooled = pool(features, np.arange(8) / 4, start=0.25, end=1.6)  # positions 1 to 6
    assert pooled.tolist() == [1.5, 1.5, 3.5, 3.5, 5.5, 5.5]
    assert pool(features, np.arange(8) / 4, start=0.0, end=0.1).shape == (6,), "too few: all positions count"


def test_a_linear_layer_reads_signs_that_differ_and_not_noise():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 12, generator=generator)

    def split(count, scale):
        glosses = [number % 4 for number in range(count)]
        features = scale * means[glosses] + torch.randn(count, 12, generator=generator)
        return features, [f"G{number}" for number in glosses]

    for scale, low, high in ((3.0, 0.9, 1.0), (0.0, 0.0, 0.5)):
        splits = {name: split(count, scale) for name, count in (("train", 80), ("dev", 40), ("test", 60))}
        read, _ = read_signs(splits)
        right = np.mean([one == other for one, other in zip(read, splits["test"][1], strict=True)])
        assert low <= right <= high


def predictions(study, name, seed, signer, lines, split="test"):
    folder = study.fold(signer, seed).run(name).folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(str(number), line, f"this is sentence number {number} of {signer}") for number, line in enumerate(lines)]
    write_table(folder / f"predictions_{split}.tsv", ("id", "prediction", "reference"), rows, overwrite=True)


def test_the_tables_hold_what_has_run_and_nothing_else(study, capsys):
    study.out.mkdir()
    for seed in study.seeds:
        for signer in study.signers:
            right = [f"this is sentence number {number} of {signer}" for number in range(20)]
            predictions(study, "stage1", seed, signer, right)
            predictions(study, "stage2", seed, signer, right[:18] + ["no idea", "none"])
            predictions(study, "text_alone", seed, signer, ["this is what can be guessed"] * 20)
            read = {"predictions": ["A", "B", "A", "B"], "references": ["A", "B", "B", "B"]}
            file = study.fold(signer, seed).isolated_file("stage1")
            file.write_text(json.dumps(read), encoding="utf-8")
    showing.show(study)
    printed = capsys.readouterr().out
    assert re.search(r"\| stage 1 alone \| 100.00 ± 0.00 \| 100.00 ± 0.00 \| 100.00 ± 0.00 \|", printed)
    assert "joint" not in printed and "shuffled videos" in printed
    assert re.search(r"\| stage 1 \| 75.00 ± 0.00 \| 75.00 ± 0.00 \| 75.00 ± 0.00 \|", printed)
    differences = (study.out / "differences.md").read_text(encoding="utf-8")
    assert re.search(r"\| stage 1 alone \| text alone, no video \| \+\d", differences)
    assert differences.count("\n| two stages |") == 3, "shuffled videos, text alone and stage 1"


def test_shuffled_videos_are_those_of_others_of_the_same_fold():
    reading = showing.Reading([[f"{number}" for number in range(10)]], [f"{number}" for number in range(10)])
    (lines,) = showing.shuffled(reading, num_folds=2).predictions
    assert all(line != reference for line, reference in zip(lines, reading.references, strict=True))
    assert sorted(map(int, lines[:5])) == list(range(5)) and sorted(map(int, lines[5:])) == list(range(5, 10))


def test_a_study_runs_its_waves_in_turn_and_stops_at_a_failure(study, monkeypatch):
    ran = []

    def run(log, steps):
        for step in steps:
            ran.append(step.name)
            if step.name == "seed-1/D/stage1":
                return 3
        return 0

    study.out.mkdir()
    monkeypatch.setattr("experiments.running.CommandLog.run", run)
    monkeypatch.setattr("experiments.real_signs.study.Fold.measure_isolated", lambda fold, name: ran.append(name))
    assert run_study(study, WAVES[:1], probes=False) == 3
    assert ran == [
        "sentences", "corpus-D", "seed-0/D/stage1", "stage1", "sentences", "corpus-D", "seed-0/D/stage2",
        "sentences", "corpus-A", "seed-0/A/stage1", "stage1", "sentences", "corpus-A", "seed-0/A/stage2",
        "sentences", "corpus-D", "seed-1/D/stage1",
    ]  # fmt: skip


GRAMMAR = """\
words:
  thing: {RED: red, BREAD: bread, EAT: eat, GOOD MORNING: good morning}
templates:
- {glosses: "{thing}", sentence: "{thing}."}
- {glosses: "{thing} {thing2}", sentence: "{thing2} and {thing}."}
- {glosses: "{thing} {thing2} {thing3}", sentence: "{thing3}, {thing2} and {thing}."}
"""


@pytest.mark.slow
def test_the_whole_study_runs_in_miniature_and_goes_on(tmp_path, monkeypatch, capfd):
    """Every command, measure and table, on drawn signs, a few steps each."""
    lexicon = write_dictionary(tmp_path, clips=3)
    (tmp_path / "grammar.yaml").write_text(GRAMMAR, encoding="utf-8")

    def sentences(study):
        words = ["prepare", "sentences", "--grammar", tmp_path / "grammar.yaml", "--out", study.pairs]
        return fla("sentences", [*words, "--num-train", "4", "--num-dev", "4", "--num-test", "4"], study.pairs)

    monkeypatch.setattr("experiments.real_signs.study.Study.sentences_step", sentences)
    words = ["--lexicon", str(lexicon), "--out", str(tmp_path / "out"), "--signers", "C", "--seeds", "0", "--probes"]
    words += ["--set", "max_steps=2", "save_steps=1", "use_cpu=true"]
    monkeypatch.setattr("experiments.probe.MOST_EPOCHS", 20)
    assert main(words) == 0
    printed = capfd.readouterr().out
    for label in (*SYSTEMS.values(), "stage 1 alone, shuffled videos", "two stages, seen signers' other clips (dev)"):
        assert f"| {label} |" in printed
    encoders = (tmp_path / "out/encoders.md").read_text(encoding="utf-8")
    assert all(re.search(rf"\| {label} \| \d", encoders) for label in ENCODERS.values())
    models = list((tmp_path / "out/seed-0/C").glob("*/model.safetensors"))
    written = [file.stat().st_mtime_ns for file in models]
    assert main(words) == 0 and len(models) == 7
    assert [file.stat().st_mtime_ns for file in models] == written, "nothing is run twice"


def test_bad_use_is_refused(tmp_path):
    from training_fla.errors import InputError

    with pytest.raises(InputError, match="--waves 9"):
        main(["--lexicon", "x.csv", "--out", str(tmp_path / "out"), "--waves", "9"])
