"""The model card that a run fills, and `fla push`: what goes to the Hub, what never does, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from tests.hub_stand_in import HubStandIn, StoredRepository
from tests.tiny_runs import ROOT, STAGE1, pack_demo
from training_fla.cli import main
from training_fla.corpora.registry import CORPORA
from training_fla.hub.card import _base_model, fill_card, find_template, training_facts
from training_fla.hub.push import refusal
from training_fla.scoring.conventions import CONVENTIONS
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.stages.run import score_split

SECRET = "sentence of the corpus"


def online(hub: HubStandIn, cache: Path) -> dict[str, str]:
    return os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*",
    }  # fmt: skip


def fla(hub: HubStandIn, cache: Path, *words, **more) -> subprocess.CompletedProcess:
    """The command in a process of its own, because `huggingface_hub` reads its address when it is imported."""
    command = [sys.executable, "-m", "training_fla.cli", *map(str, words)]
    return subprocess.run(
        command, env=online(hub, cache) | more, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def pushed_run(tmp_path_factory) -> tuple[Path, StoredRepository]:
    """A run as the script leaves it, and the repository it has pushed itself to."""
    folder = tmp_path_factory.mktemp("run")
    corpus = pack_demo(folder / "packed", num_train=5, num_dev=2, num_test=3)
    (folder / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}\n")
    command = [
        sys.executable, "run_stage1.py", str(folder / "stage1.yaml"), "--output_dir", str(folder / "trained"),
        "--num_train_epochs", "1", "--save_steps", "1", "--eval_steps", "1", "--push_to_hub", "true",
        "--hub_model_id", "someone/trained", "--hub_private_repo", "true",
    ]  # fmt: skip
    with HubStandIn() as hub:
        done = subprocess.run(
            command, cwd=ROOT, env=online(hub, folder / "cache"), capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    return folder / "trained", hub.repositories["someone/trained"]


@pytest.fixture(scope="module")
def trained(pushed_run) -> Path:
    """The run's folder, with what else people keep in such a place."""
    folder = pushed_run[0]
    for name in ("checkpoint-1", "packed"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "optimizer.pt").write_text(SECRET)
    for name in ("train.sentences.txt", "my_notes_fla.py", "old.safetensors"):
        (folder / name).write_text(SECRET)
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


def test_the_run_leaves_a_card_whose_model_index_reads_back_the_figures(trained):
    card, metrics = ModelCard.load(trained / "README.md"), json.loads((trained / "metrics.json").read_text())
    read_back = {(result.dataset_split, result.metric_name): result for result in card.data.eval_results}
    assert len(read_back) == 2 * 6
    for split in ("dev", "test"):
        for name, title in {"bleu1": "BLEU-1", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "chrf": "chrF"}.items():
            assert read_back[split, title].metric_value == metrics[split][name]
            assert read_back[split, title].metric_args["signature"] == metrics[split]["signature"]
    assert card.data.license == "apache-2.0" and card.data.language == ["de"] and card.data.datasets == ["demo"]
    assert card.data.library_name == "transformers" and "sign-language-translation" in card.data.tags
    assert f"| BLEU-1 | {metrics['dev']['bleu1']:.2f} [" in card.text, "figures come with intervals"
    assert f"{metrics['parameters']:,}" in card.text
    clips = {name: metrics["data"][name]["clips"] for name in ("train", "dev", "test")}
    assert clips == {"train": 5, "dev": 2, "test": 3}
    assert f"| train | 5 | {metrics['data']['train']['frames']} |" in card.text
    assert "20 x 20 pixels" in card.text and "searches 2 beams" in card.text
    assert str(trained.parent / "packed") not in card.text, "no path of this machine but the model's own"


def test_what_no_file_knows_is_left_out(copy):
    for name in ("metrics.json", "recipe.yaml", "generation_config.json"):
        (copy / name).unlink()
    card = fill_card(copy)
    assert (
        "{{" not in card.text
        and card.data.eval_results is None
        and card.data.license is None
        and card.data.language is None
    )
    for heading in ("## Results", "## Size and speed\n\n| | |\n|---|---|\n| parameters", "## Training\n", "searches"):
        assert heading not in card.text
    assert not re.search("None|{{", card.text) and "left no description of its corpus" in card.text


def test_a_score_on_the_training_clips_is_called_one(copy):
    with open(copy / "recipe.yaml", "a") as recipe:
        recipe.write("test_split: train\n")
    card = fill_card(copy)
    assert "| test (train) |" in card.text and "**test (train): the clips that were trained on.**" in card.text
    assert {result.dataset_split for result in card.data.eval_results} == {"dev"}


def test_metrics_have_intervals_and_say_which_split_was_trained_on():
    dataset = SimpleNamespace(sentences=["der wind weht im norden", "morgen regnet es"])
    trainer = SimpleNamespace(
        eval_dataset=dataset,
        test_dataset=dataset,
        metric=SignTranslationMetric("words"),
        translate=lambda dataset, description: (["der wind weht im süden", "es regnet"], 0.5),
        is_world_process_zero=lambda: False,
    )
    recipe = SimpleNamespace(data=SimpleNamespace(train_split="train", dev_split="train", test_split="test"))
    dev, test = (score_split(trainer, split, recipe) for split in ("dev", "test"))
    assert dev["on_training_clips"] and not test["on_training_clips"]
    assert dev["confidence_intervals"]["bleu4"][0] <= dev["bleu4"] and len(dev["confidence_intervals"]) == 6


def test_a_base_model_whose_weights_were_not_taken_is_none():
    corpus = SimpleNamespace(corpus="demo", language="de_DE", signers=["a", "", "a"], num_frames=[3, 4, 5])
    corpus = type("Corpus", (SimpleNamespace,), {"__len__": lambda self: 3})(**vars(corpus))
    splits = SimpleNamespace(train=corpus, dev=corpus, test=corpus)
    for is_random in (False, True):
        stage = SimpleNamespace(language_model="facebook/mbart-large-cc25", random_language_model=is_random)
        facts = training_facts(SimpleNamespace(model=stage, start=None), splits)
        assert ("base_model" in facts) != is_random
        assert facts["data"]["train"] == {"clips": 3, "frames": 12, "signers": 1}


def test_base_model_is_a_hub_id_or_nothing(tmp_path):
    assert _base_model("facebook/mbart-large-cc25") == "facebook/mbart-large-cc25"
    assert _base_model(None) is None and _base_model("/models/mbart") is None
    assert _base_model(str(tmp_path)) is None
    (tmp_path / "trim_report.json").write_text(json.dumps({"model": "facebook/mbart-large-cc25"}))
    assert _base_model(str(tmp_path)) == "facebook/mbart-large-cc25"


def test_a_corpus_is_known_by_title_terms_address_and_languages():
    assert {"phoenix14t", "csl_daily", "how2sign", "demo", "demo_chinese"} == set(CORPORA)
    for name, known in CORPORA.items():
        assert not known.title.endswith(".") and known.terms.endswith("."), "the template ends the sentences"
        assert known.convention in CONVENTIONS
        if not name.startswith("demo"):
            assert known.url.startswith("https://") and len(known.languages) == 2 and known.license == "other"


def test_the_template_holds_no_figure():
    body = find_template().read_text().split("## Cite")[0]
    assert not [word for word in body.split() if word.replace(".", "").isdigit() and word not in ("95", "1")]


def test_a_dry_run_lists_what_goes_and_sends_nothing(trained, capsys):
    assert main(["push", str(trained), "someone/sign-model", "--dry-run", "--show-card"]) == 0
    out, told = capsys.readouterr()
    assert "# sign-model" in out and 'model="someone/sign-model"' in out and "dry run: nothing was sent" in told
    assert re.search(r"^ +\d+\.\d kB  in \d+ files, tag weights-", out, re.MULTILINE)
    going, stays = out.split("stays here: ")
    for name in ("model.safetensors", "modeling_fla.py", "pipeline_fla.py", "processor_config.json", "README.md"):
        assert f"  {name}\n" in going
    stray = ("checkpoint-1", "packed", "train.sentences.txt", "my_notes_fla.py", "old.safetensors")
    for name in (*stray, "predictions_test.tsv", "recipe.yaml"):
        assert name in stays and f"  {name}\n" not in going


def test_one_commit_holds_a_working_model_and_is_tagged(trained, tmp_path):
    with HubStandIn(refused_owner="another") as hub:
        done = fla(hub, tmp_path, "push", trained, "someone/sign-model", "--private")
        assert done.returncode == 0, done.stderr
        repository = hub.repositories["someone/sign-model"]
        assert repository.private and len(repository.commits) == 1 and len(repository.tags) == 1
        assert "POST /api/validate-yaml" in hub.requests
        assert next(iter(repository.tags)).startswith("weights-")
        assert not any(SECRET.encode() in content for content in repository.files.values())
        assert not {"recipe.yaml", "metrics.json", "predictions_test.tsv"} & repository.files.keys()

        repository.files["model-00002-of-00002.safetensors"] = b"of an older upload"
        done = fla(hub, tmp_path, "push", trained, "someone/sign-model", "--revision", "trial", "--tag", "v2")
        assert done.returncode == 0, done.stderr
        assert repository.branches == ["trial"] and set(repository.tags) > {"v2"} and len(repository.commits) == 2
        assert "model-00002-of-00002.safetensors" not in repository.files

        refused = fla(hub, tmp_path, "push", trained, "another/sign-model")
        assert refused.returncode == 2 and "another/sign-model" in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
        offline = fla(hub, tmp_path, "push", trained, "someone/sign-model", HF_HUB_OFFLINE="1")
        assert offline.returncode == 2 and "HF_HUB_OFFLINE" in offline.stderr
    gone = fla(hub, tmp_path, "push", trained, "someone/sign-model")
    assert gone.returncode == 2 and gone.stderr.count("\n") == 1, gone.stderr
    assert hub.url in gone.stderr

    from transformers import AutoModelForSeq2SeqLM, AutoProcessor

    import modeling_fla  # noqa: F401  so that the classes are the installed ones
    import processing_fla  # noqa: F401

    repository.write_to(tmp_path / "arrived")
    AutoProcessor.from_pretrained(tmp_path / "arrived")
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "arrived")


def test_a_training_run_pushes_once_with_the_same_card(pushed_run):
    folder, repository = pushed_run
    assert repository.private and len(repository.commits) == 1 and len(repository.tags) == 1
    card = repository.files["README.md"].decode()
    assert card == (folder / "README.md").read_text() and 'model="someone/trained"' in card
    assert not {"training_args.bin", "recipe.yaml", "predictions_test.tsv"} & repository.files.keys()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "`hf auth login`"),
        (403, "a/b"),
        (500, "a/b: broken here"),
    ],
)
def test_what_the_hub_answers_becomes_one_line_with_a_remedy(status, message):
    error = OSError("broken\n here")
    error.response = SimpleNamespace(status_code=status)
    line = refusal("a/b", error, "http://hub")
    assert message in line and "\n" not in line
    assert "did not take a/b: no file" in refusal("a/b", OSError("no file"), "http://hub")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}", "not an id"], "not an id"),
        (["{folder}-gone", "a/b"], "-gone"),
        (["{folder}/packed", "a/b"], "config.json"),
    ],
)
def test_bad_arguments_are_refused(trained, words, message, capsys):
    assert main(["push", *(word.format(folder=trained) for word in words), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "modeling_fla.py", "processor_config.json"])
def test_a_folder_that_would_not_load_is_refused(copy, name, capsys):
    (copy / name).unlink()
    assert main(["push", str(copy), "a/b", "--dry-run"]) == 2
    assert f"{name} is missing" in capsys.readouterr().err


def test_weights_that_are_not_whole_are_not_pushed(copy, capsys):
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert main(["push", str(copy), "a/b", "--dry-run"]) == 2
    assert "model.safetensors is a Git LFS pointer" in capsys.readouterr().err


def test_a_missing_shard_and_broken_figures_are_named(copy, capsys):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert main(["push", str(copy), "a/b", "--dry-run"]) == 2
    assert "model-00001-of-00002.safetensors is missing" in capsys.readouterr().err
    (copy / "metrics.json").write_text('{"test": ')
    assert main(["push", str(copy), "a/b", "--dry-run"]) == 2
    assert "metrics.json" in capsys.readouterr().err
