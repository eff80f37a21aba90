"""The two scripts from the command line: training, interruption, resuming, and refused input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.processing import drawing
from tests.tiny_runs import ROOT, STAGE1, STAGE2, pack_demo, run, weights
from training_fla.errors import InputError
from training_fla.folders import MARKER, locked_folder, read_marker


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return pack_demo(tmp_path_factory.mktemp("corpus") / "packed", num_train=11, num_dev=4, num_test=5)


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes, and `None` for every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, corpus) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}")
    (folder / "stage2.yaml").write_text(f"dataset: {corpus}\n{STAGE2}")
    return folder


@pytest.fixture(scope="module")
def stage1(recipes, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stage1"
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", out) == 0
    return out


@pytest.fixture(scope="module")
def stage2(recipes, stage1) -> Path:
    out = stage1.parent / "stage2"
    assert (
        run(
            "run_stage2",
            recipes / "stage2.yaml",
            "--output_dir",
            out,
            "--stage1_checkpoint",
            stage1,
            "--tokenizer",
            stage1,
        )
        == 0
    )
    return out


def test_stage1_leaves_all_that_was_promised(stage1):
    names = {path.name for path in stage1.iterdir()}
    promised = {"metrics.json", "predictions_dev.tsv", "predictions_test.tsv", "recipe.yaml", "training_curve.png"}
    promised |= {"model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "modeling_fla.py"}
    assert promised <= names
    assert not [name for name in names if name.endswith((".bin", ".partial", ".pt"))]
    metrics = json.loads((stage1 / "metrics.json").read_text())
    assert {"bleu1", "bleu4", "rouge_l", "signature", "seconds"} <= metrics["test"].keys()
    assert metrics["test"]["num_sentences"] == 5 and metrics["dev"]["num_sentences"] == 4
    assert {"seconds", "peak_memory_mib", "parameters", "trained_parameters", "platform"} <= metrics.keys()
    assert {"torch", "transformers", "fla-llm", "python"} <= metrics["versions"].keys()
    table = (stage1 / "predictions_test.tsv").read_text().splitlines()
    assert table[0] == "id\tprediction\treference" and len(table) == 6
    history = json.loads((stage1 / "trainer_state.json").read_text())["log_history"]
    assert any("loss" in row for row in history) and any("eval_bleu4" in row for row in history)


def test_small_frames_of_test_clips_are_kept_beside_the_model(corpus, stage1, stage2):
    from training_fla.data.packed_corpus import PackedCorpus

    split = PackedCorpus(corpus, "test")
    for folder in (stage1, stage2):
        files = sorted((folder / "sample_frames").iterdir())
        assert [file.name[:8] for file in files] == [f"{c:05}_{rank}_" for c in range(5) for rank in range(6)]
        assert sum(file.stat().st_size for file in files) < 100_000 and Image.open(files[0]).size == (24, 24)
    last = (split.num_frames[4] - 1) / split.fps(4)
    assert files[-1].name == f"00004_5_{last:.2f}s.jpg"


def test_a_saved_model_translates_by_default_as_it_was_scored(stage1):
    generation = json.loads((stage1 / "generation_config.json").read_text())
    assert (generation["num_beams"], generation["max_new_tokens"]) == (2, 6)
    assert "max_length" not in generation, "evaluation must not leave its defaults behind"


def test_stage2_keeps_the_visual_encoder_to_the_last_bit(stage1, stage2):
    before, after = weights(stage1), weights(stage2)
    visual = [name for name in before if name.startswith("visual_encoder.")]
    assert any("running_mean" in name for name in visual)
    for name in visual:
        assert before[name].equal(after[name]), name
    assert any(name.startswith("adapter.") and not before[name].equal(after[name]) for name in after if name in before)


def test_what_was_seen_in_training_is_counted_and_timed(corpus, stage1, stage2):
    """Two epochs of eleven clips in stage 1, of frames; four steps of four, four, three and four in stage 2."""
    from transformers import AutoTokenizer

    from training_fla.data.packed_corpus import PackedCorpus

    split, tokenizer = PackedCorpus(corpus, "train"), AutoTokenizer.from_pretrained(stage1)
    targets = [len(tokenizer(text_target=sentence)["input_ids"]) for sentence in split.sentences]
    first, second = (json.loads((folder / "metrics.json").read_text())["train"] for folder in (stage1, stage2))
    assert first["frames"] == 2 * sum(-(-length // 4) for length in split.num_frames)
    assert first["target_tokens"] == 2 * sum(targets)
    shortest, longest = min(split.num_frames), max(split.num_frames)
    assert "frames" not in second and 15 * shortest / 4 <= second["positions"] <= 15 * (longest / 4 + 1)
    for report, unit in ((first, "frames"), (second, "positions"), (first, "target_tokens")):
        rate = report[unit] / report["training_seconds"]
        assert report[f"{unit}_per_second"] == pytest.approx(rate, rel=0.3)  # seconds are rounded to tenths
        assert 0 < report["training_seconds"] < report["seconds"]


def test_stage2_reads_stored_features(stage2):
    assert list((stage2.parent / "features").glob("*/features-*.safetensors"))


def test_a_folder_that_holds_a_run_is_left_alone(recipes, stage1, capsys):
    before = (stage1 / "metrics.json").read_bytes()
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", stage1) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (stage1 / "metrics.json").read_bytes() == before


def test_overwrite_checks_everything_first_and_removes_only_what_a_run_writes(recipes, stage1, tmp_path, capsys):
    from training_fla.stages.output_folder import RUN_FILES

    out = tmp_path / "out"
    shutil.copytree(stage1, out)
    assert {path for pattern in RUN_FILES for path in out.glob(pattern)} == set(out.iterdir()) - {out / MARKER}
    (out / "thesis.docx").write_text("mine")
    (out / "chapters").mkdir()
    before = content(out)
    argv = [recipes / "stage1.yaml", "--output_dir", out, "--overwrite"]
    typos = (
        ["--dataset", "typo"],
        ["--light_t_overrides", "{d_model: 17}"],
        ["--max_target_tokens", 1],
        ["--lr_scheduler_kwargs", "{typo: 1}"],
        ["--frames_per_batch", 2],
        ["--optimizer", "adam", "--adam_beta1", 2],
        ["--push_to_hub", "true", "--hub_model_id", "no name"],
    )
    for lines in typos:
        assert run("run_stage1", *argv, *lines) == 2
        assert content(out) == before, lines
    argv += ["--max_steps", 1, "--load_best_model_at_end", "false", "--eval_strategy", "no"]
    assert run("run_stage1", *argv, "--save_strategy", "no") == 0
    assert not list(out.glob("checkpoint-*")) and (out / "thesis.docx").read_text() == "mine"
    assert (out / "chapters").is_dir()
    assert json.loads((out / "metrics.json").read_text())["train"]["best_step"] is None


def test_a_run_of_version_0_1_0_goes_on_and_is_not_overwritten(recipes, stage1, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(stage1, out)
    (out / MARKER).unlink()
    argv = [recipes / "stage1.yaml", "--output_dir", out]
    assert run("run_stage1", *argv, "--overwrite") == 2
    assert "and no whole .fla-llm.json of ours, so it is not replaced" in capsys.readouterr().err
    assert run("run_stage1", *argv, "--resume") == 0
    assert read_marker(out)["kind"] == "run"


def test_two_runs_do_not_share_a_folder(recipes, tmp_path, capsys):
    out = tmp_path / "out"
    for lines in ([], ["--resume"]):
        with locked_folder(out, out):
            assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", out, *lines) == 2
        assert "is being written by another run" in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_folder(recipes, tmp_path):
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", tmp_path / "out", "--dataset", "nowhere") == 2
    assert not (tmp_path / "out").exists()


def test_what_is_stored_before_the_run_begins_lies_outside_its_folder(recipes, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [recipes / "stage1.yaml", "--output_dir", out, "--dataset", "null", "--manifest", "t.csv"]
    assert run("run_stage1", *argv, "--packed_dir", out / "packed") == 2
    assert f"packed_dir {out / 'packed'} lies in output_dir {out}: name a folder outside it" in capsys.readouterr().err
    argv = [recipes / "stage2.yaml", "--output_dir", out, "--feature_cache", out]
    assert run("run_stage2", *argv) == 2
    assert f"feature_cache {out} lies in output_dir" in capsys.readouterr().err and not out.exists()


def test_a_table_of_cut_clips_behind_links_is_trained_on(recipes, tmp_path, capsys):
    """The remedies that the messages name are lines of a recipe, too."""
    drawing.write_video(tmp_path / "a.mp4", [drawing.marked_frame(number) for number in range(8)])
    (tmp_path / "own").mkdir()
    (tmp_path / "own/a.mp4").symlink_to("../a.mp4")
    rows = (f"a.mp4,ja und nein {split},{split},33.1,33.7\n" for split in ("train", "dev", "test"))
    (tmp_path / "own/t.csv").write_text("video,sentence,split,start,end\n" + "".join(rows))
    argv = [recipes / "stage1.yaml", "--output_dir", tmp_path / "out", "--dataset", "null", "--max_steps", 1]
    argv += ["--manifest", tmp_path / "own/t.csv", "--packed_size", 24, "--eval_strategy", "no"]
    argv += ["--save_strategy", "no", "--load_best_model_at_end", "false", "--train_tokenizer_pieces", 60]
    assert run("run_stage1", *argv) == 2
    assert "--follow-links" in capsys.readouterr().err
    assert run("run_stage1", *argv, "--follow-links") == 2
    assert "33.1 s" in capsys.readouterr().err
    assert run("run_stage1", *argv, "--follow-links", "--no-times") == 0


def test_a_batch_of_one_frame_is_trained_on(recipes, tmp_path):
    """Batch normalisation of one value has no variance, and torch refuses it."""
    lines = ["video,sentence,split"]
    for number, (split, length) in enumerate((("train", 3), ("train", 9), ("dev", 9), ("test", 9))):
        drawing.write_video(tmp_path / f"{number}.mp4", [drawing.marked_frame(index) for index in range(length)])
        lines.append(f"{number}.mp4,ja und nein {number},{split}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    argv = [recipes / "stage1.yaml", "--output_dir", tmp_path / "out", "--dataset", "null"]
    argv += ["--manifest", tmp_path / "t.csv", "--packed_size", 24, "--train_tokenizer_pieces", 60]
    argv += ["--total_batch_size", 1, "--max_steps", 4]
    assert run("run_stage1", *argv) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["train"]["frames"] == 2 * (1 + 3)


def test_a_changed_recipe_is_not_resumed(recipes, stage1, capsys):
    status = run("run_stage1", recipes / "stage1.yaml", "--output_dir", stage1, "--resume", "--learning_rate", "0.5")
    assert status == 2
    assert "learning_rate (it was 0.01, now 0.5)" in capsys.readouterr().err


def test_a_run_keeps_what_its_parts_decided(stage1, stage2):
    first, second = (yaml.safe_load((folder / "recipe.yaml").read_text()) for folder in (stage1, stage2))
    assert first["frame_stride"] == 4 and first["generation_num_beams"] == 2, "as given"
    assert (first["temporal_kernel_size"], first["random_frame_phase"]) == (5, True)
    assert (first["augmentation_probability"], first["translate_pixels"]) == (0.5, 10.0)
    undecided = ("temporal_kernel_size", "random_frame_phase", "augmentation_probability")
    assert [second[name] for name in undecided] == [None] * 3, "stage 1 has the encoder, which is not trained"


def changed_defaults(patch, where: str) -> None:
    """Another version of this package or of transformers."""
    from processing_fla import FlaVideoProcessor
    from training_fla import recipe

    if where == "ours":
        patch.setitem(recipe.TRAINING_DEFAULTS, "label_smoothing_factor", 0.1)
    elif where == "transformers":
        from transformers import Seq2SeqTrainingArguments

        patch.setattr(Seq2SeqTrainingArguments.__dataclass_fields__["adam_epsilon"], "default", 1e-6)
    else:
        patch.setattr(FlaVideoProcessor, "frame_stride", 2)


@pytest.mark.parametrize(
    ("where", "changed"),
    [
        ("ours", "label_smoothing_factor (it was 0.2, now 0.1)"),
        ("transformers", "adam_epsilon (it was 1e-08, now 1e-06)"),
        ("another part", "frame_stride (it was 4, now 2)"),
    ],
)
def test_a_run_whose_defaults_have_changed_is_not_resumed(corpus, tmp_path, monkeypatch, capsys, where, changed):
    (tmp_path / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}".replace("frame_stride: 4\n", ""))
    argv = [tmp_path / "stage1.yaml", "--output_dir", tmp_path / "out", "--max_steps", 3]
    assert run("run_stage1", *argv) == 0
    before = (tmp_path / "out/recipe.yaml").read_bytes()
    with monkeypatch.context() as patch:
        changed_defaults(patch, where)
        assert run("run_stage1", *argv, "--resume") == 2
    assert f"the recipe has changed in {changed}" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out/recipe.yaml").read_bytes() == before
    assert run("run_stage1", *argv, "--resume") == 0


def test_a_run_that_kept_only_what_was_given_goes_on(recipes, stage1, tmp_path):
    """As up to 0.3.0; from then on it keeps all lines."""
    out = tmp_path / "out"
    shutil.copytree(stage1, out)
    lines = yaml.safe_load((out / "recipe.yaml").read_text().partition("\n# Not given")[0])
    lines["per_device_train_batch_size"] = lines.pop("total_batch_size")
    (out / "recipe.yaml").write_text(yaml.safe_dump(lines))
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", out, "--resume") == 0
    kept, first = (yaml.safe_load((folder / "recipe.yaml").read_text()) for folder in (out, stage1))
    assert kept | {"output_dir": ""} == first | {"output_dir": ""}


def test_another_batch_is_not_resumed(recipes, stage1, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(stage1, out)
    before = (out / "recipe.yaml").read_bytes()
    argv = [recipes / "stage1.yaml", "--output_dir", out, "--resume"]
    assert run("run_stage1", *argv, "--total_batch_size", 2) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "had 4 clips on 1 process(es), now 1 and 2 clips: give --total_batch_size 4" in error
    assert (out / "recipe.yaml").read_bytes() == before
    assert run("run_stage1", *argv, "--per_device_train_batch_size", 4) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["--dataset", "nowhere"], "packed corpus nowhere"),
        (["--dataset", "file:///x", "--streaming=true"], "`fla prepare`"),
        (["--dataset", "s3://bucket/x"], "`streaming: true`"),
        (["--resume", "--save_only_model", "true"], "`save_only_model: true`"),
        (["--resume", "--overwrite"], "--resume and --overwrite"),
        (
            ["--dev_split", "validation"],
            "--dev_split",
        ),
        (["--light_t_overrides", "{d_model: 17}"], "model cannot be built"),
        (["--light_t_overrides", "{d_modl: 16}"], "d_modl"),
        (["--vision_backbone", "{model_type: resnet, depht: 2}"], "depht"),
        (["--lr_scheduler_kwargs", "{typo: 1}"], "get_cosine_schedule_with_warmup()"),
        (["--push_to_hub", "true", "--hub_model_id", "no name"], "no name"),
        (["--generation_num_beams", 0], "`generation_num_beams`"),
        (["--max_new_tokens", 1025], "max_new_tokens 1025"),
        (["--light_t_overrides", "{dropout: 2}"], "light_t_overrides: dropout"),
        (["--label_smoothing_factor", 1.5], "`label_smoothing_factor`"),
        (["--learning_rate", -1], "`learning_rate`"),
        (["--frame_size", "16", "--crop_size", "20"], "crop_size"),
        (["--optimizer", "lion"], "'lion'"),
        (["--light_t", "huge"], "'huge'"),
        (["--metric_for_best_model", "blue4"], "metric_for_best_model: blue4"),
        (
            ["--early_stopping_patience", 2, "--eval_strategy", "no", "--load_best_model_at_end", "false"],
            "early_stopping_patience needs evaluations",
        ),
        (["--train_sampling_strategy", "sequential"], "sequential"),
        (["--imagenet_weights", "gone.pth"], "gone.pth"),
        (["--eval_steps", 2], "--load_best_model_at_end"),
    ],
)
def test_bad_lines_are_refused_before_training(recipes, tmp_path, capsys, lines, message):
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", tmp_path / "out", *lines) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("run_stage1.py: error: ") and message in error


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["--tokenizer", "models/nowhere"], "models/nowhere"),
        (["--stage1_checkpoint", "nowhere"], "stage1_checkpoint from nowhere"),
        (["--frame_stride", "2"], "frame_stride 4"),
        (["--language_code", "xx_XX"], "language_code xx_XX"),
        (["--language_model", "nowhere"], "one of `language_model`"),
        (["--language_model_overrides", "{vocab_size: 900}"], "do not belong together"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(recipes, stage1, tmp_path, capsys, lines, message):
    common = ("--output_dir", tmp_path / "out", "--stage1_checkpoint", stage1, "--tokenizer", stage1)
    assert run("run_stage2", recipes / "stage2.yaml", *common, *lines) == 2
    assert message in capsys.readouterr().err


def test_damaged_weights_of_stage_1_are_one_line(recipes, stage1, tmp_path, capsys):
    shutil.copytree(stage1, tmp_path / "stage1", ignore=shutil.ignore_patterns("checkpoint-*"))
    argv = [recipes / "stage2.yaml", "--output_dir", tmp_path / "out", "--stage1_checkpoint", tmp_path / "stage1"]
    for damage, message in (
        (b"version https://git-lfs.github.com/spec/v1\n", "model.safetensors is a Git LFS pointer"),
        ((stage1 / "model.safetensors").read_bytes()[:-9], "model.safetensors"),
    ):
        (tmp_path / "stage1/model.safetensors").write_bytes(damage)
        assert run("run_stage2", *argv, "--tokenizer", stage1) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_output_folder_that_cannot_be_written_to_is_refused_first(recipes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", tmp_path) == 2
    assert f"output_dir {tmp_path} cannot be written to" in capsys.readouterr().err


def test_killed_and_resumed_it_ends_at_the_same_weights(recipes, stage1, tmp_path):
    """SIGKILL after the first checkpoint; the undisturbed run is the fixture's."""
    out = tmp_path / "stage1"
    command = [sys.executable, str(ROOT / "run_stage1.py"), str(recipes / "stage1.yaml"), "--output_dir", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint-3" / "trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists(), "killed too late to show anything"
    assert run("run_stage1", recipes / "stage1.yaml", "--output_dir", out, "--resume") == 0
    undisturbed, resumed = weights(stage1), weights(out)
    assert undisturbed.keys() == resumed.keys()
    for name in undisturbed:
        assert undisturbed[name].equal(resumed[name]), name
    scores = [json.loads((folder / "metrics.json").read_text())["test"] for folder in (stage1, out)]
    assert scores[0]["bleu1"] == scores[1]["bleu1"] and scores[0]["loss"] == scores[1]["loss"]


def test_half_a_checkpoint_is_not_resumed_from(tmp_path):
    from training_fla.training.checkpoints import last_whole_checkpoint

    assert last_whole_checkpoint(tmp_path) is None
    for step, state in ((3, '{"global_step": 3}'), (6, '{"global_'), (9, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-12/trainer_state.json").write_text('{"global_step": 12}')
    (tmp_path / "checkpoint-12/model.safetensors").write_bytes(b"cut off by a power failure")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15/trainer_state.json").write_text('{"global_step": 15}')
    (tmp_path / "checkpoint-15/optimizer.pt").write_bytes(b"PK\x03\x04 cut off")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    names = [
        "broken-checkpoint-12",
        "broken-checkpoint-15",
        "broken-checkpoint-6",
        "broken-checkpoint-9",
        "broken-checkpoint-9-2",
        "checkpoint-3",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "broken-checkpoint-6/trainer_state.json").read_text() == '{"global_'


def test_a_checkpoint_that_cannot_be_read_is_left_alone(tmp_path):
    """A disk that fails for a moment, or a right that is missing, breaks no checkpoint."""
    from training_fla.training.checkpoints import last_whole_checkpoint

    (tmp_path / "checkpoint-3/trainer_state.json").mkdir(parents=True)
    with pytest.raises(InputError, match="checkpoint-3/trainer_state.json cannot be read: Is a directory"):
        last_whole_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint-3").is_dir()


def test_a_loss_that_is_no_number_names_the_clips(recipes, tmp_path, capsys):
    status = run("run_stage1", recipes / "stage1.yaml", "--output_dir", tmp_path / "out", "--learning_rate", "1e30")
    assert status == 2
    assert "the batch's clips are in" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "bad_batch_0.json").read_text())
    assert report["clips"] and all(clip.startswith("train-") for clip in report["clips"])
