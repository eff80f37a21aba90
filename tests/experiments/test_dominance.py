"""`fla ablate dominance` in miniature, and the probe it measures encoders with."""

from pathlib import Path

import pytest
import torch

from experiments import ablation, probe
from experiments.ablation import Ablation
from experiments.dominance import read_encoders
from experiments.gloss_errors import gloss_error_rate, gloss_statistics
from experiments.probe import train_probe
from tests.experiments.test_ablation import commands, tiny  # noqa: F401
from tests.tiny_runs import ROOT
from training_fla.cli import main
from training_fla.recipe import Stage1Arguments, Stage2Arguments, read_lines
from training_fla.scoring.resampling import ratio_of, score_difference

PLAN = """
visual_learning_rates: [1e-2, 1e-3]
arms:
  Light-T: {recipe: stage1}
  another, not pre-trained: {recipe: joint, language_model_overrides: {dropout: 0.2}}
untrained: {recipe: stage1, max_steps: 1}
"""
JOINT = """
base: stage2.yaml
freeze_vision_backbone: false
freeze_temporal_module: false
norm_logging_steps: 1
vision_backbone: {model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 12], depths: [1, 1]}
visual_feature_size: 16
"""


@pytest.fixture
def recipes(tiny: Path, tmp_path: Path) -> Path:  # noqa: F811
    """The tiny stages and the recipes of this experiment."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, text in {"joint": JOINT, "dominance": PLAN}.items():
        (folder / f"{name}.yaml").write_text(text)
    for stage in ("stage1", "stage2"):
        lines = "eval_strategy: 'no'\nload_best_model_at_end: false\nsave_strategy: 'no'\n"
        kept = [line for line in (tiny / f"{stage}.yaml").read_text().splitlines() if "_strategy" not in line]
        (folder / f"{stage}.yaml").write_text("\n".join(kept) + "\n" + lines)
    return folder


def test_encoders_are_trained_probed_and_compared(recipes, tmp_path, commands, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(probe, "EPOCHS", 2)
    argv = ["ablate", "dominance", "--recipes", str(recipes), "--out", str(tmp_path / "out"), "--seeds", "3"]
    whole = ablation.run_command
    monkeypatch.setattr(ablation, "run_command", lambda words, more: 1 if len(commands) == 3 else whole(words, more))
    assert main(argv) == 1
    monkeypatch.setattr(ablation, "run_command", whole)
    assert main(argv) == 0
    folders = [Path(words[words.index("--output_dir") + 1]).name for words in commands]
    arms = ["untrained-encoder", *(f"{arm}-{rate}" for rate in ("0.01", "0.001") for arm in
            ("Light-T", "another-not-pre-trained"))]  # fmt: skip
    assert folders == [name for arm in arms for name in (arm, f"stage2-after-{arm}")], "no run is made twice"
    rates = [words[words.index("--visual_learning_rate") + 1] for words in commands[::2]]
    assert [float(rate) for rate in rates] == [0, 0.01, 0.01, 0.001, 0.001]
    assert "--max_steps" in commands[0] and "--language_model_overrides" in commands[4]
    for first, second in zip(commands[::2], commands[1::2], strict=True):
        assert second[second.index("--stage1_checkpoint") + 1] == first[first.index("--output_dir") + 1]
    untrained, trained = ((tmp_path / "out/seed-3" / name) for name in (arms[0], arms[1]))
    assert_encoder_stays(untrained, trained)
    table = (tmp_path / "out/dominance.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[4:]]
    assert [row[:2] for row in rows] == [["untrained encoder", "0"], *(
        [arm, rate] for rate in ("0.01", "0.001") for arm in ("Light-T", "another, not pre-trained"))]  # fmt: skip
    assert all(float(row[2]) > 0 and " to " in row[3] for row in rows), "a gloss error rate and its interval"
    assert float(rows[2][8]) > 0, "the joint recipe logs norms"
    assert rows[0][9:] == ["", ""] and rows[1][9] == "" and rows[2][9].count(",") == 1
    assert all(0 < float(p) <= 1 for p in rows[2][10].split(","))
    assert_blank_is_chosen_on_dev(
        untrained, read_lines(Stage2Arguments, recipes / "stage2.yaml")["dataset"], monkeypatch
    )
    assert (tmp_path / "out/dominance.png").read_bytes().startswith(b"\x89PNG")


def assert_blank_is_chosen_on_dev(run: Path, dataset: str, monkeypatch) -> None:
    """Whichever weight of CTC's blank has fewer errors on dev is what test is read with."""

    def reading(*blanks) -> dict:
        monkeypatch.setattr(probe, "BLANKS", blanks)
        return probe.probe_glosses(run, Path(dataset), run.with_name("features"))

    nothing, everything = reading(100.0), reading(-100.0)
    assert not any(nothing["test"]["predictions"]) and all(everything["test"]["predictions"])
    errors = [gloss_error_rate(**found["dev"]) for found in (nothing, everything)]
    assert errors[0] == 100 != errors[1]
    assert reading(-100.0, 100.0) == reading(100.0, -100.0) == (nothing if errors[0] < errors[1] else everything)


@pytest.mark.parametrize("folder", ["phoenix_drawn", "phoenix_drawn/all"])
def test_the_arms_of_the_recipes_see_the_same_clips_in_the_same_steps(folder):
    recipes = ROOT / "recipes" / folder
    encoders = read_encoders(Ablation(recipes, Path("out"), {}, [], [0, 1]))
    assert [(encoder.rate, len(encoder.runs)) for encoder in encoders] == [
        (0.0, 2), *((rate, 2) for rate in (1e-3, 1e-4, 1e-5) for _ in range(3))
    ]  # fmt: skip
    first = read_lines(Stage1Arguments, recipes / "stage1.yaml")
    joint = read_lines(Stage2Arguments, recipes / "joint.yaml")
    for line in (
        "num_train_epochs", "total_batch_size", "optimizer", "weight_decay", "warmup_steps",
        "lr_scheduler_type", "label_smoothing_factor", "frame_stride", "frame_size", "crop_size",
        "rotate_degrees", "resize_factor", "translate_pixels", "dataset", "train_sampling_strategy", "max_grad_norm",
        "visual_feature_size",
    ):  # fmt: skip
        assert first[line] == joint[line], line
    assert first["vision_backbone"] == joint.get("vision_backbone") and first["tokenizer"] == joint["language_model"]


def assert_encoder_stays(untrained: Path, trained: Path) -> None:
    """At rate 0 no weight of the encoder moves; both runs begin with the same ones."""
    from modeling_fla import FlaForConditionalGeneration

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return dict(FlaForConditionalGeneration.from_pretrained(folder).visual_encoder.named_parameters())

    torch.manual_seed(3)
    before, after = weights(untrained), weights(trained)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(value.eq(1).all() for name, value in before.items() if "normalization.weight" in name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no dominance.yaml; recipes/phoenix_drawn has one"),
        ("arms: {}", "dominance.yaml is not as recipes/phoenix_drawn/dominance.yaml: 'visual_learning_rates'"),
        ("visual_learning_rates: [fast]\narms: {A: {}}\nuntrained: {recipe: stage1}", "Unknown format code"),
    ],
)
def test_a_plan_that_cannot_be_read_is_named(recipes, tmp_path, capsys, text, message):
    (recipes / "dominance.yaml").unlink() if text is None else (recipes / "dominance.yaml").write_text(text)
    assert main(["ablate", "dominance", "--recipes", str(recipes), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_probe_reads_glosses_that_frames_hold_and_cannot_read_others():
    torch.manual_seed(0)
    targets = [torch.randint(1, 5, (3,)).tolist() for _ in range(60)]
    signs = torch.randn(5, 16)
    clips = [torch.cat([signs[[g, g, g]] + 0.1 * torch.randn(3, 16) for g in line]) for line in targets]
    noise = [torch.randn_like(clip) for clip in clips]

    def errors(features) -> float:
        read = train_probe(features[:40], targets[:40], seed=0)
        lines = [read(clip).argmax(-1).unique_consecutive().tolist() for clip in features[40:]]
        # CTC reads a sign that is made twice running as one unless a blank is between.
        truth = [[g for g, before in zip(line, [0, *line], strict=False) if g != before] for line in targets[40:]]
        read_and_signed = [[" ".join(map(str, filter(None, line))) for line in side] for side in (lines, truth)]
        return gloss_error_rate(*read_and_signed) / 100

    assert errors(clips) < 0.2 < 0.6 < errors(noise)


def test_gloss_errors_are_edits_over_glosses_of_the_whole_split():
    assert [gloss_error_rate([a], [b]) for a, b in (("", "A B"), ("A B C", "A C"), ("B A", "A B"))] == [100, 50, 100]
    predictions, references = ["A B", "C C C"], ["A B", "C"]
    assert gloss_error_rate(predictions, references) == pytest.approx(100 * 2 / 3)
    assert gloss_statistics(predictions, references).tolist() == [[0, 2], [200, 1]]
    better, worse, signed = ["A B"] * 30, ["A C"] * 30, ["A B"] * 30
    ours, theirs = (gloss_statistics(side, signed)[None] for side in (better, worse))
    test = score_difference(ours, theirs, ratio_of)
    assert test.difference == pytest.approx(-50) and test.p_value < 0.01
