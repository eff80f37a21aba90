"""Features in, sentence out: stage 2 on features, the model it leaves, and our own encoder as the extractor."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, pipeline

from processing_fla import FlaVideoProcessor
from tests.tiny_runs import STAGE2, losses, pack_demo, run, stage1_of_one_step, weights
from training_fla.cli import main
from training_fla.data.feature_store import open_features
from training_fla.data.packed_corpus import PackedCorpus

FRAMES = ("frame_stride", "frame_size", "crop_size")
# Of a recipe for frames, the lines that features have no use for.
OF_FEATURES = "\n".join(line for line in STAGE2.splitlines() if not line.startswith(FRAMES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A corpus, an encoder, the features that it makes of it, and stage 2 on both."""
    folder = tmp_path_factory.mktemp("features")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=4)
    stage1 = stage1_of_one_step(folder, corpus)
    assert main(["features", str(corpus), "--model", str(stage1), "--out", str(folder / "stored")]) == 0
    (folder / "cached.yaml").write_text(
        f"dataset: {corpus}\nstage1_checkpoint: {stage1}\ntokenizer: {stage1}\nlogging_steps: 1\n"
        + STAGE2.replace("logging_steps: 2\n", "")
    )
    (folder / "stored.yaml").write_text(
        f"dataset: {folder}/stored\ntokenizer: {stage1}\nlogging_steps: 1\n"
        + OF_FEATURES.replace("logging_steps: 2\n", "")
    )
    for name in ("cached", "stored"):
        assert stage2(folder, name) == 0
    return folder


def stage2(folder: Path, name: str, *lines) -> int:
    return run("run_stage2", folder / f"{name}.yaml", "--output_dir", folder / f"run-{name}", *lines)


@pytest.fixture
def model(folder) -> Path:
    return folder / "run-stored"


def test_training_from_our_own_features_equals_training_from_the_cache(folder, model):
    assert losses(model, 4) == losses(folder / "run-cached", 4) and len(losses(model, 4)) == 4
    cached, stored = weights(folder / "run-cached"), weights(model)
    assert all(stored[name].equal(cached[name]) for name in stored)
    assert {name.split(".")[0] for name in cached.keys() - stored.keys()} == {"visual_encoder"}
    for split in ("dev", "test"):
        tables = [(run / f"predictions_{split}.tsv").read_text() for run in (model, folder / "run-cached")]
        assert tables[0] == tables[1]


def test_a_run_on_features_goes_on_where_it_was(folder, model, tmp_path):
    again = shutil.copytree(model, tmp_path / "run-stored")
    shutil.rmtree(again / "checkpoint-4")
    assert run("run_stage2", folder / "stored.yaml", "--output_dir", again, "--resume") == 0
    assert losses(again, 4) == losses(model, 4)
    assert all(tensor.equal(weights(again)[name]) for name, tensor in weights(model).items())


def test_a_table_of_clips_gives_the_features_of_its_packed_corpus(folder, tmp_path):
    from tests.corpora.corpus_trees import write_video

    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", 9 + number, number)
    rows = ["video,sentence,split", "0.mp4,Regen.,train", "1.mp4,Sonne.,test"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    size = FlaVideoProcessor.from_pretrained(folder / "stage1").size["height"]  # at which its corpus was packed
    words = ["--root", str(tmp_path / "table.csv"), "--out", str(tmp_path / "packed"), "--size", str(size)]
    assert main(["prepare", "manifest", *words]) == 0
    for source in ("table.csv", "packed"):
        words = [str(tmp_path / source), "--model", str(folder / "stage1"), "--out", str(tmp_path / f"of-{source}")]
        assert main(["features", *words, "--batch-size", "1"]) == 0
    for split in ("train", "test"):
        first, second = (
            open_features(PackedCorpus(tmp_path / f"of-{name}", split)) for name in ("table.csv", "packed")
        )
        assert len(first) == len(second) == 1 and first[0].equal(second[0]) and first[0].abs().sum() > 0


def test_the_pipeline_writes_the_sentence_of_the_predictions(folder, model):
    config = json.loads((model / "config.json").read_text())
    assert config["vision_config"] is None and config["sign_feature_size"] == 16
    assert config["sign_feature_extractor"] == f"the visual encoder of {folder.name}-stage1"
    translate, corpus = pipeline("sign-language-translation", model=model), PackedCorpus(folder / "stored", "test")
    clips = [{"sign_features": np.asarray(features)} for features in map(open_features(corpus).__getitem__, range(4))]
    lines = (model / "predictions_test.tsv").read_text().splitlines()[1:]
    results = translate(clips, batch_size=4, num_beams=2, max_new_tokens=6)
    assert [result["translation_text"] for result in results] == [line.split("\t")[1] for line in lines]
    assert [result["num_frames"] for result in results] == list(corpus.num_frames)
    assert type(AutoProcessor.from_pretrained(model)).__name__ == "FlaProcessor"


def test_the_card_says_which_features_the_model_reads(folder, model):
    card = (model / "README.md").read_text()
    assert f"features of shape `(N, 16)`, made by: the visual encoder of {folder.name}-stage1" in card
    assert 'translate({"sign_features": np.load("clip.npy")})' in card
    assert 'translate("clip.mp4")' not in card and "one frame in" not in card
    assert not (model / "sample_frames").exists()
    assert "clips/s from stored sign features" in card and "| split | clips | positions | signers |" in card


@pytest.mark.parametrize(
    "words",
    [
        ("translate", "{model}", "clip.mp4"),
        ("inspect", "clip.mp4", "--model", "{model}", "--out", "clip.png"),
        ("serve", "{model}", "--port", "0"),
        ("serve", "{model}", "--write-space", "space"),
        ("features", "corpus", "--model", "{model}", "--out", "again"),
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_what_needs_a_video_says_in_one_line_why_it_cannot(folder, model, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"0")
    (tmp_path / "corpus").symlink_to(folder / "corpus")
    assert main([word.format(model=model) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"`{model}` reads sign features of the visual encoder of" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "corpus"]


def test_push_and_score_take_it_as_any_other(model, capsys):
    assert main(["push", str(model), "someone/reads-features", "--dry-run"]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert main(["score", str(model / "predictions_test.tsv"), "--corpus", "demo"]) == 0
    assert "bleu4" in capsys.readouterr().out


REFUSED = {
    "stage1_checkpoint": "stage1",
    "visual_feature_size": "8",
    "freeze_vision_backbone": "false",
    "input_features": "frame",
    "feature_cache": "null",
    "one_run_light_t": "tiny",
    "frame_stride": "2",
    "crop_size": "20",
    "random_frame_phase": "true",
    "norm_logging_steps": "2",
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_a_line_about_frames_is_refused(folder, tmp_path, capsys, name, value):
    assert run("run_stage2", folder / "stored.yaml", "--output_dir", tmp_path / "out", f"--{name}", value) == 2
    assert f"`{name}` would have no effect: {folder}/stored holds features, no frames" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_stage_1_cannot_train_on_features_nor_stage_2_begin_with_such_a_model(folder, model, tmp_path, capsys):
    out = ("--output_dir", tmp_path / "out")
    assert run("run_stage1", folder / "stage1.yaml", "--dataset", folder / "stored", *out) == 2
    assert "stored holds features, no frames: stage 2 trains on it, stage 1 cannot" in capsys.readouterr().err
    assert run("run_stage2", folder / "cached.yaml", "--stage1_checkpoint", model, *out) == 2
    assert "run-stored has no visual encoder: it was trained on features" in capsys.readouterr().err
    assert main(["features", str(folder / "stored"), "--model", str(folder / "stage1"), "--out", str(tmp_path / "x")])
    assert "stored holds features already, no frames" in capsys.readouterr().err


def test_a_clip_longer_than_the_position_table_is_named_before_training(folder, tmp_path, capsys):
    overrides = "{model_type: mbart, d_model: 16, encoder_layers: 1, decoder_layers: 1, max_position_embeddings: 12}"
    for name in ("stored", "cached"):
        out = ("--output_dir", tmp_path / "out")
        assert run("run_stage2", folder / f"{name}.yaml", *out, "--language_model_config", overrides) == 2
        error = capsys.readouterr().err
        assert "sampled frames, the language model 12 positions: set frame_stride or max_source_frames" in error
        assert error.startswith("run_stage2.py: error: train clip ") and not (tmp_path / "out").exists()
