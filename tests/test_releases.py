"""What the released versions wrote is read by this one: corpora, both stages' models, recipes and interrupted runs."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor
from tests.fixtures.make_releases import COMMITS, FOLDER, SENTENCES, example_inputs, write_beams
from tests.tiny_runs import losses, run, weights
from training_fla.data.packed_corpus import PackedCorpus


@pytest.fixture(scope="module", params=sorted(COMMITS))
def release(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("kind", ["features", "frames"])
def test_a_model_writes_the_beams_it_wrote(release, kind):
    recorded = json.loads((release / "beams.json").read_text(encoding="utf-8"))[kind]
    model = FlaForConditionalGeneration.from_pretrained(release / "stage2").eval()
    beams = write_beams(model, FlaProcessor.from_pretrained(release / "stage2"), example_inputs()[kind])
    assert beams["sentences"] == recorded["sentences"] and len(set(beams["sentences"])) > 1
    assert beams["scores"] == pytest.approx(recorded["scores"], abs=1e-4)


def test_a_packed_corpus_holds_what_it_held(release):
    for split, sentences in SENTENCES.items():
        corpus = PackedCorpus(release / "corpus", split)
        assert corpus.sentences == sentences and list(corpus.num_frames) == [8] * len(sentences)


def test_a_stage_1_is_trained_on_by_the_recipe_of_its_stage_2(release, tmp_path, monkeypatch):
    """The recipe is the one that lies beside the model of stage 2."""
    monkeypatch.chdir(release)
    recipe = shutil.copy(release / "stage2" / "recipe.yaml", tmp_path)
    assert run("run_stage2", recipe, "--output_dir", tmp_path / "stage2") == 0
    old, new = weights(release / "stage1"), weights(tmp_path / "stage2")
    taken = [name for name in new if "visual_encoder" in name and "num_batches" not in name]
    assert taken and all(torch.equal(old[name], new[name]) for name in taken), "frozen in stage 2"
    assert json.loads((tmp_path / "stage2" / "metrics.json").read_text())["test"]


def test_a_run_that_was_interrupted_goes_on(release, tmp_path, monkeypatch):
    """After the first of its two steps; nothing is left of what was written after them."""
    monkeypatch.chdir(shutil.copytree(release, tmp_path / "copy"))
    finished = weights(Path("stage1"))
    recipe = shutil.copy("stage1/recipe.yaml", tmp_path)
    Path("stage1/model.safetensors").unlink()
    first = losses(Path("stage1"), step=1)
    assert run("run_stage1", recipe, "--resume") == 0
    resumed = weights(Path("stage1"))
    assert resumed.keys() == finished.keys()
    both = losses(Path("stage1"), step=2)
    assert len(both) == 2 and both[:1] == first
