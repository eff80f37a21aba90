"""`fla ablate dominance` in miniature, and the probes it measures encoders with."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from experiments import probe, running
from experiments.ablation import AUGMENTING, Ablation
from experiments.dominance import MEASURES, measure_probe, read_encoders
from experiments.gloss_errors import gloss_error_rate, gloss_statistics
from experiments.probe import EncodedSplit, GlossProbe, Neighbours, probe_glosses
from modeling_fla import FlaVisionConfig
from tests.experiments.test_ablation import commands, tiny  # noqa: F401
from tests.tiny_runs import ROOT
from training_fla.cli import main
from training_fla.recipe import (
    STAGES,
    RecipeLoader,
    Stage1Arguments,
    Stage2Arguments,
    default_lines,
    override,
    read_lines,
    read_recipe,
    typed_lines,
)
from training_fla.scoring.resampling import ratio_of, score_difference

PLAN = """
untrained: {recipe: stage1, max_steps: 1}
comparisons:
  stages:
    visual_learning_rates: [1e-2, 1e-3]
    arms:
      Light-T: {recipe: stage1}
      another, not pre-trained: {recipe: joint, language_model_overrides: {dropout: 0.2}}
  sgd:
    visual_learning_rates: [1e-2]
    arms:
      Light-T, SGD encoder: {recipe: stage1, visual_optimizer: sgd}
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
    monkeypatch.setattr(probe, "MOST_EPOCHS", 10)
    argv = ["ablate", "dominance", "--recipes", str(recipes), "--out", str(tmp_path / "out"), "--seeds", "3"]
    argv += ["--probe-seeds", "2"]
    whole = running.run_command
    monkeypatch.setattr(running, "run_command", lambda *words: 1 if len(commands) == 3 else whole(*words))
    assert main(argv) == 1
    monkeypatch.setattr(running, "run_command", whole)
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
    probed = sorted(file.name for file in (tmp_path / "out/seed-3").glob("probe-*.json"))
    assert probed == sorted(f"probe-{kind}-{seed}-{arm}.json" for kind in ("linear", "hidden") for seed in (0, 1)
                            for arm in arms)  # fmt: skip
    printed = capsys.readouterr()
    assert_tables(tmp_path / "out", printed.out)
    assert f"wrote {tmp_path / 'out/dominance_stages.md'}" in printed.err
    assert_another_comparison_shares_runs(tmp_path / "out", argv, commands)
    assert_what_was_read_is_not_read_again(tmp_path / "out", argv, monkeypatch)
    assert_blank_is_chosen_on_dev(
        untrained, Path(read_lines(Stage2Arguments, recipes / "stage2.yaml")["dataset"]), monkeypatch
    )


def cells_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[4:]]


def assert_tables(out: Path, printed: str) -> None:
    """What each encoder reaches, and how far encoders lie apart."""
    table = (out / "dominance_stages.md").read_text(encoding="utf-8")
    assert table in printed and "20 probes had not converged" in table.splitlines()[0]
    rows = cells_of(table)
    encoders = [[arm, rate] for rate in ("0.01", "0.001") for arm in ("Light-T", "another, not pre-trained")]
    assert [row[:2] for row in rows] == [["untrained encoder", "0"], *encoders]
    for row in rows:
        assert "±" in row[2] and "±" in row[4] and "±" not in row[6], "two probe seeds count, of one encoder each"
        assert all(" to " in row[place] for place in (3, 5, 7))
    assert float(rows[2][9]) > 0, "the joint recipe logs norms"
    differences = (out / "dominance_stages_differences.md").read_text(encoding="utf-8")
    assert differences in printed
    rows = cells_of(differences)
    assert [row[0] for row in rows] == [MEASURES[name] for name in ("linear", "hidden", "bleu4") for _ in range(6)]
    assert [row[1:4] for row in rows[:6]] == [
        ["Light-T", "0.01", "untrained encoder"],
        ["another, not pre-trained", "0.01", "Light-T"],
        ["another, not pre-trained", "0.01", "untrained encoder"],
        ["Light-T", "0.001", "untrained encoder"],
        ["another, not pre-trained", "0.001", "Light-T"],
        ["another, not pre-trained", "0.001", "untrained encoder"],
    ]
    for row in rows:
        low, high = map(float, row[5].split(" to "))
        assert low <= high and 0 < float(row[6]) <= float(row[7]) <= 1
        assert row[8] == ("1.5" if row[0].startswith("BLEU") else "5") and 0 < float(row[9]) <= 1
    assert (out / "dominance_stages.png").read_bytes().startswith(b"\x89PNG")


def assert_another_comparison_shares_runs(out: Path, argv: list[str], ran: list[list[str]]) -> None:
    """Its own arms run; the untrained encoder is there. A probe of another kind is read of all of them."""
    done = len(ran)
    assert main([*argv, "--comparison", "sgd", "--measures", "five", "--probe-seeds", "1"]) == 0
    assert [Path(words[words.index("--output_dir") + 1]).name for words in ran[done:]] == [
        "Light-T-SGD-encoder-0.01"
    ], "no stage 2 is asked for"
    assert (
        read_lines(Stage1Arguments, out / "seed-3/Light-T-SGD-encoder-0.01/recipe.yaml")["visual_optimizer"] == "sgd"
    )
    rows = cells_of((out / "dominance_sgd_differences.md").read_text(encoding="utf-8"))
    assert [row[:4] for row in rows] == [[MEASURES["five"], "Light-T, SGD encoder", "0.01", "untrained encoder"]]


def assert_what_was_read_is_not_read_again(out: Path, argv: list[str], monkeypatch) -> None:
    """A killed study goes on with the probes that are missing."""
    first = out / "seed-3/probe-hidden-1-Light-T-0.01.json"
    first.unlink()
    read, whole = [], probe.probe_glosses
    monkeypatch.setattr(probe, "probe_glosses", lambda splits, *which: read.append(which) or whole(splits, *which))
    assert main(argv) == 0 and read == [("hidden", 1)] and first.exists()
    monkeypatch.setattr(probe, "probe_glosses", whole)


def assert_blank_is_chosen_on_dev(run: Path, dataset: Path, monkeypatch) -> None:
    """Whichever weight of CTC's blank has fewer errors on dev is what test is read with."""

    splits = probe.encode_splits(run, dataset, run.with_name("features"))

    def reading(*blanks) -> dict:
        monkeypatch.setattr(probe, "BLANKS", blanks)
        return probe_glosses(splits, "linear", seed=0)

    nothing, everything = reading(100.0), reading(-100.0)
    assert not any(nothing["test"]["predictions"]) and all(everything["test"]["predictions"])
    errors = [gloss_error_rate(**found["dev"]) for found in (nothing, everything)]
    assert errors[0] == 100 != errors[1]
    assert reading(-100.0, 100.0) == reading(100.0, -100.0) == (nothing if errors[0] < errors[1] else everything)


@pytest.mark.parametrize("folder", ["phoenix_drawn", "phoenix_drawn/all", "phoenix14t"])
def test_the_arms_of_a_comparison_see_the_same_clips_in_the_same_steps(folder):
    """And their encoders have one optimizer and one size, whatever their language model has."""
    recipes = ROOT / "recipes" / folder
    plan = yaml.load((recipes / "dominance.yaml").read_text(encoding="utf-8"), RecipeLoader)
    for comparison, chosen in plan["comparisons"].items():
        untrained, *encoders = read_encoders(Ablation(recipes, Path("out"), {}, [], [0, 1]), comparison)
        rates = [float(rate) for rate in chosen["visual_learning_rates"] for _ in chosen["arms"]]
        assert untrained.rate == 0 and [encoder.rate for encoder in encoders] == rates
        assert {len(encoder.runs) for encoder in encoders} == {2}
        seen = [what_is_seen(encoder.runs[0].training) for encoder in encoders]
        for lines in seen:
            assert lines == seen[0], comparison


def what_is_seen(run) -> dict:
    """Of a run's effective lines those that its arm must share with the others."""
    kind = STAGES[run.stage]
    lines = default_lines(kind) | typed_lines(kind, override(read_recipe(run.recipe), run.values(), ""))
    lines["visual_optimizer"] = lines["visual_optimizer"] or lines["optimizer"]
    lines["language_model"] = lines.get("tokenizer") or lines["language_model"]
    lines["temporal_kernel_size"] = lines["temporal_kernel_size"] or FlaVisionConfig().temporal_kernel_size
    if lines["visual_optimizer"] == "sgd":
        lines |= {"adam_beta1": None, "adam_beta2": None}
    else:
        lines |= {"momentum": None, "nesterov": None}
    names = [
        "num_train_epochs", "total_batch_size", "visual_optimizer", "momentum", "nesterov", "adam_beta1", "adam_beta2",
        "weight_decay", "warmup_steps", "lr_scheduler_type", "label_smoothing_factor", "max_grad_norm", "frame_stride",
        "frame_size", "crop_size", "max_source_frames", "dataset", "train_sampling_strategy", "visual_feature_size",
        "temporal_kernel_size", "vision_backbone", "imagenet_weights", "language_model", "eval_strategy",
        "load_best_model_at_end", *AUGMENTING,
    ]  # fmt: skip
    return {name: lines[name] for name in names}


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
        ("arms: {}", "dominance.yaml is not as recipes/phoenix_drawn/dominance.yaml: 'comparisons'"),
        ("comparisons: {sgd: {}}", "--comparison stages: {file} has no such; it has sgd"),
        (
            "untrained: {recipe: stage1}\ncomparisons: {stages: {visual_learning_rates: [fast], arms: {A: {}}}}",
            "Unknown format code",
        ),
    ],
)
def test_a_plan_that_cannot_be_read_is_named(recipes, tmp_path, capsys, text, message):
    (recipes / "dominance.yaml").unlink() if text is None else (recipes / "dominance.yaml").write_text(text)
    assert main(["ablate", "dominance", "--recipes", str(recipes), "--out", str(tmp_path / "out")]) == 2
    message = message.format(file=recipes / "dominance.yaml")
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def signed(signs: torch.Tensor, seed: int, num_clips: int = 40) -> EncodedSplit:
    """Clips of three signs `(G, C)`, three positions each, with noise; a sign is never made twice running."""
    random = torch.Generator().manual_seed(seed)
    features, glosses = [], []
    for _ in range(num_clips):
        line = torch.randperm(len(signs), generator=random)[:3].tolist()
        noise = 0.1 * torch.randn(9, signs.shape[1], generator=random)
        features.append(signs[line].repeat_interleave(3, dim=0) + noise)
        glosses.append(" ".join(f"SIGN{number}" for number in line))
    return EncodedSplit(features, glosses)


def splits_of(signs: torch.Tensor) -> dict[str, EncodedSplit]:
    return {name: signed(signs, seed) for seed, name in enumerate(("train", "dev", "test"))}


def errors_of(splits: dict[str, EncodedSplit], kind: str) -> float:
    return gloss_error_rate(**probe_glosses(splits, kind, seed=0)["test"])


@pytest.fixture
def short(monkeypatch):
    """Probes that give up sooner, which these few clips allow."""
    monkeypatch.setattr(probe, "PATIENCE", 20)
    monkeypatch.setattr(probe, "BLANKS", range(-4, 5, 4))


def test_a_probe_reads_glosses_that_features_hold_and_cannot_read_others(short):
    splits = splits_of(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    random = torch.Generator().manual_seed(1)
    noise = {
        name: EncodedSplit([torch.randn(clip.shape, generator=random) for clip in split.features], split.glosses)
        for name, split in splits.items()
    }
    for kind in ("linear", "hidden", "five"):
        assert errors_of(splits, kind) < 20 < 50 < errors_of(noise, kind)


def test_a_hidden_layer_reads_what_no_linear_layer_can(short):
    """Opposite corners of a square are one sign, as in XOR."""
    splits = splits_of(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]))
    for split in splits.values():
        for place, line in enumerate(split.glosses):
            glosses = line.replace("SIGN1", "SIGN0").replace("SIGN3", "SIGN2").split()
            split.glosses[place] = " ".join(gloss for gloss, _ in itertools.groupby(glosses))
    linear, hidden = (errors_of(splits, kind) for kind in ("linear", "hidden"))
    assert hidden < 10 < 30 < linear


def test_a_probe_ends_when_dev_stops_improving_and_keeps_its_best_weights(short, monkeypatch):
    """Dev improves for 50 epochs and then gets worse: the weights and the blank of the 50th are kept."""
    splits = splits_of(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    weights = {}

    def errors_on(self, dev):
        weights[self.epochs] = self.network.weight.detach().clone()
        return abs(50 - self.epochs) + 1.0, self.epochs

    monkeypatch.setattr(GlossProbe, "errors_on", errors_on)
    trained = GlossProbe("linear", splits["train"], seed=0)
    assert trained.train_until_dev_stops(splits["train"], splits["dev"]) == 50
    assert trained.has_converged and trained.epochs == 50 + 4 * 30, "the rate falls four times, after 3 looks each"
    assert torch.equal(trained.network.weight, weights[50]) and not torch.equal(weights[50], weights[60])
    monkeypatch.setattr(probe, "MOST_EPOCHS", 30)
    cut_off = GlossProbe("linear", splits["train"], seed=0)
    cut_off.train_until_dev_stops(splits["train"], splits["dev"])
    assert cut_off.epochs == 30 and not cut_off.has_converged


def test_five_positions_are_read_together_in_a_batch_as_alone():
    """Each with two before and two after it; zeros are beyond the ends, and beyond a shorter clip of a batch."""
    clips = [torch.arange(1.0, 7)[:, None], torch.arange(1.0, 4)[:, None]]
    alone = [Neighbours()(clip) for clip in clips]
    assert alone[0][0].tolist() == [0, 0, 1, 2, 3] and alone[0][3].tolist() == [2, 3, 4, 5, 6]
    assert alone[1][2].tolist() == [1, 2, 3, 0, 0]
    together = Neighbours()(torch.nn.utils.rnn.pad_sequence(clips))
    assert torch.equal(together[:, 0], alone[0]) and torch.equal(together[:3, 1], alone[1])


def test_an_unknown_probe_is_refused():
    splits = splits_of(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="linear, hidden, five, got 'lineer'"):
        GlossProbe("lineer", splits["train"], seed=0)


def test_a_probes_own_seed_is_counted(short):
    splits = splits_of(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    first, again, other = (GlossProbe("linear", splits["train"], seed) for seed in (0, 0, 1))
    assert torch.equal(first.network.weight, again.network.weight)
    assert not torch.equal(first.network.weight, other.network.weight)

    def reading(prediction: str) -> dict:
        return {"test": {"predictions": [prediction, "C"], "references": ["A B", "C D"]}}

    # by hand: 1 or 2 edits of 4 glosses for the first encoder, 1 or 3 for the second
    measured = measure_probe([[reading("A B"), reading("A")], [reading("A B"), reading("X Y")]])
    assert measured.values == [25, 50, 25, 75]
    assert measured.probe_deviation == pytest.approx(((25**2 / 2 + 50**2 / 2) / 2) ** 0.5)
    assert measured.clips.tolist() == [[[50, 2], [100, 2]], [[100, 2], [100, 2]]]
    assert measured.score(measured.clips[0].sum(0)) == 37.5, "the mean over the seeds of the probe"
    assert "43.75 ± 23.94 (27.95)" in measured.cells()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["table4", "--probe-seeds", "2"], "--probe-seeds are options of dominance, not of table4"),
        (["table4", "--comparison", "sgd"], "--comparison, --measures and --probe-seeds are options of dominance"),
        (["table4", "--measures", "linear"], "--probe-seeds are options of dominance, not of table4"),
        (["dominance", "--probe-seeds", "0"], "--probe-seeds 0: must be 1 or more"),
    ],
)
def test_options_of_probes_are_checked(argv, message, capsys):
    assert main(["ablate", *argv]) == 2
    assert message in capsys.readouterr().err


def test_gloss_errors_are_edits_over_glosses_of_the_whole_split():
    assert [gloss_error_rate([a], [b]) for a, b in (("", "A B"), ("A B C", "A C"), ("B A", "A B"))] == [100, 50, 100]
    predictions, references = ["A B", "C C C"], ["A B", "C"]
    assert gloss_error_rate(predictions, references) == pytest.approx(100 * 2 / 3)
    assert gloss_statistics(predictions, references).tolist() == [[0, 2], [200, 1]]
    better, worse, signed = ["A B"] * 30, ["A C"] * 30, ["A B"] * 30
    ours, theirs = (gloss_statistics(side, signed)[None] for side in (better, worse))
    test = score_difference(ours, theirs, ratio_of)
    assert test.difference == pytest.approx(-50) and test.p_value < 0.01
