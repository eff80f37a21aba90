"""`fla serve --write-space`: a folder that starts by itself."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from huggingface_hub import SpaceCard

from tests.processing.drawing import tiny_model, tiny_processor
from training_fla.cli import main

pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "stage2"
    processor = tiny_processor()
    tiny_model(processor.tokenizer, seed=3).save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "predictions_test.tsv").write_text("a sentence of the corpus\n")
    (folder / "checkpoint-1").mkdir()
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    return folder


@pytest.fixture(scope="module")
def space(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("space") / "space"
    options = ["--max-seconds", "7.5", "--num-beams", "2", "--title", "My model", "--write-space", str(folder)]
    assert main(["serve", str(model), *options]) == 0
    return folder


def test_the_folder_holds_what_a_space_needs_and_no_more(space):
    import gradio

    card = SpaceCard.load(space / "README.md").data
    assert (card.sdk, card.sdk_version, card.app_file) == ("gradio", gradio.__version__, "app.py")
    assert card.license == "cc-by-nc-4.0" and card.title and len(card.short_description) <= 60
    assert "`My model`" in (space / "README.md").read_text() and "7.5 seconds" in (space / "README.md").read_text()
    requirements = (space / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("torch>") for line in requirements)
    assert not any(re.match(r"gradio|pytest|fla", line) for line in requirements)
    names = {path.name for path in (space / "model").iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json"} <= names
    assert not names & {"predictions_test.tsv", "checkpoint-1", "README.md"}
    assert (space / "training_fla" / "serving" / "page.js").is_file()
    assert "lfs" in (space / ".gitattributes").read_text()
    assert not list(space.rglob("__pycache__"))


def test_a_model_of_the_hub_is_named_not_copied(tmp_path):
    assert main(["serve", "me/my-model", "--write-space", str(tmp_path / "space")]) == 0
    card = SpaceCard.load(tmp_path / "space" / "README.md").data
    assert card.models == ["me/my-model"] and card.license == "apache-2.0"
    assert "MODEL = 'me/my-model'" in (tmp_path / "space" / "app.py").read_text()
    assert not (tmp_path / "space" / "model").exists()


def test_what_cannot_be_a_space_is_refused(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for name, folder, message in (
        (tmp_path / "empty", "space", "config.json"),
        ("a/b/c", "space", "a/b/c"),
        (model, "full", "full"),
    ):
        assert main(["serve", str(name), "--write-space", str(tmp_path / folder)]) == 2
        assert message in capsys.readouterr().err
    assert {entry.name for entry in tmp_path.iterdir()} == {"empty", "full"}


def test_a_space_is_replaced_when_asked(tmp_path, capsys):
    space = tmp_path / "space"
    command = ["serve", "me/my-model", "--write-space", str(space)]
    assert main(command) == 0
    assert main(command) == 2 and "pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--title", "Another"]) == 0
    assert "'Another'" in (space / "app.py").read_text()
    (space / "notes.txt").write_text("mine")
    assert main([*command, "--overwrite"]) == 2
    assert "notes.txt" in capsys.readouterr().err and (space / "notes.txt").read_text() == "mine"


def test_the_app_starts_answers_and_leaves_nothing(space, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, cwd=space, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("serving "):
                    break
            address = re.search(r"http://127\.0\.0\.1:\d+/", lines[-1])
            assert address, "".join(lines)
            page = urllib.request.urlopen(address[0], timeout=240).read().decode()
            assert "Up to 7.5 seconds and 64 MB" in page and "My model" in page
            assert any(entry.name.startswith("fla-serve-") for entry in tmp_path.iterdir())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert process.returncode == 0
    assert not any(entry.name.startswith("fla-serve-") for entry in tmp_path.iterdir())
