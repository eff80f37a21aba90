"""README and every page of the docs run from top to bottom, and what a page promises is looked at."""

import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.pages import (
    FRAMES,
    MAKE,
    NOT_TYPED,
    ONE_STEP,
    PAGES,
    STAND_INS,
    Block,
    make_place,
    read_blocks,
    run_block,
    run_page,
)
from tests.tiny_runs import ROOT
from training_fla.cli import COMMANDS, main


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_place(folder)
    return folder


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def look_at_readme(folder: Path, printed: str) -> None:
    assert "bleu4" in metrics(folder / "runs/phoenix14t/stage2")["test"]
    predictions = (folder / "runs/own_clips/stage2/predictions_test.tsv").read_text(encoding="utf-8").splitlines()
    assert len(predictions) == 2 and predictions[1].endswith("\tThe sun is out."), "scored on the table's test split"
    translated = [line for line in printed.splitlines() if line.startswith("clips/")]
    assert [line.split("\t")[0] for line in translated] == ["clips/hello.mp4", "clips/rain.mp4", "clips/sun.mp4"]


def look_at_corpora(folder: Path, printed: str) -> None:
    from training_fla.data.packed_corpus import PackedCorpus

    clips = {"phoenix14t": (2, 1, 1), "csl_daily": (2, 1, 1), "how2sign": (4, 2, 2), "mine": (1, 1, 1)}
    clips["from_excel"] = (1, 1, 1)
    rain = PackedCorpus(folder / "data/from_excel", "dev")
    assert rain.sentences == ["It is raining; take a coat."] and rain.num_frames == [8]
    for name, counts in clips.items():
        splits = [PackedCorpus(folder / "data" / name, split) for split in ("train", "dev", "test")]
        assert tuple(len(split.sentences) for split in splits) == counts, name


def look_at_recordings(folder: Path, printed: str) -> None:
    from training_fla.data.packed_corpus import PackedCorpus

    shown = next(
        block.text for block in read_blocks(ROOT / "docs/recordings.md") if block.text.startswith("video,start")
    )
    table = (folder / "recordings/table.csv").read_text(encoding="utf-8-sig")
    without_split = re.compile(",(train|dev|test),")
    assert set(without_split.sub(",", shown).splitlines()) <= set(without_split.sub(",", table).splitlines())
    assert len(table.splitlines()) == 5 and "Die Sonne scheint." in table and "course.eaf" in table
    splits = [PackedCorpus(folder / "data/recordings", split) for split in ("train", "dev", "test")]
    assert sum(len(split.sentences) for split in splits) > 4, "the new recording is among them"
    assert "bleu4" in metrics(folder / "runs/recordings/stage2")["test"]


def look_at_dictionary(folder: Path, printed: str) -> None:
    from training_fla.data.packed_corpus import PackedCorpus

    spliced = [PackedCorpus(folder / "data/spliced", split) for split in ("train", "dev", "test")]
    assert [set(corpus.signers) for corpus in spliced] == [{"Ana"}, {"Ben"}, {"Cleo"}]
    start = metrics(folder / "runs/mine/stage1")["start"]
    assert start["model"] == "runs/own_clips/stage1" and start["taken"] == "visual encoder"
    assert "bleu4" in metrics(folder / "runs/mine/stage2")["test"]


def look_at_export(folder: Path, printed: str) -> None:
    assert list((folder / "runs/demo/stage2-onnx").glob("*.onnx"))
    clips = {path.name for path in (folder / "runs/demo/corpus/clips").iterdir()}
    translated = [line.split("\t")[0] for line in printed.splitlines() if line.startswith("runs/demo/corpus/clips/")]
    assert {Path(path).name for path in translated} == clips


def look_at_features(folder: Path, printed: str) -> None:
    for name in ("features/stage2", "demo/stage2-grey", "demo/stage2-features"):
        config = json.loads((folder / "runs" / name / "config.json").read_text(encoding="utf-8"))
        assert config["vision_config"] is None and "bleu4" in metrics(folder / "runs" / name)["test"]
    card = (folder / "runs/features/stage2/README.md").read_text(encoding="utf-8")
    assert "`(N, 8)`, made by: I3D trained on BOBSL, 16 frames at stride 2" in card
    card = (folder / "data/poses/README.md").read_text(encoding="utf-8")
    assert "made by MediaPipe Holistic; key points POSE_LANDMARKS (14)" in card and "[2, 68]" in printed


def look_at_several_corpora(folder: Path, printed: str) -> None:
    test = metrics(folder / "runs/several/stage2")["test"]
    assert list(test["corpora"]) == ["german", "chinese"] and test["num_sentences"] == 6
    assert "\nde_DE " in printed and "\nzh_CN " in printed and "convention characters" in printed


def look_at_training(folder: Path, printed: str) -> None:
    for stage in ("stage1", "stage2"):
        names = {file.name for file in (folder / "runs/phoenix14t" / stage).iterdir()}
        assert {"model.safetensors", "metrics.json", "predictions_dev.tsv", "predictions_test.tsv"} <= names
        assert {"recipe.yaml", "README.md", "training_curve.png"} <= names


def look_at_planning(folder: Path, printed: str) -> None:
    assert {"train", "steps", "memory", "time", "disk", "output"} <= {line.split()[0] for line in printed.splitlines()}
    assert not (folder / "runs/own_clips").exists()


def look_at_scoring(folder: Path, printed: str) -> None:
    assert "convention words" in printed and "bleu4" in printed and "95 % interval" in printed and "p " in printed


def look_at_report(folder: Path, printed: str) -> None:
    text, without = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "to_pass_on.html"))
    test = metrics(folder / "runs/demo/stage2")["test"]
    assert f'<data value="{test["bleu4"]}">{test["bleu4"]:.2f}</data>' in text
    assert "paper, Table 1" not in text, "the paper has no figures of the demo"
    assert "<img " in text and "<img " not in without and "https://" not in text


def look_at_ablations(folder: Path, printed: str) -> None:
    table = (folder / "runs/ablations/table6.md").read_text(encoding="utf-8")
    assert "| 25% |" in table and "20.02" in table, "our row beside the paper's"
    table = (folder / "runs/phoenix_drawn/ablations/table10.md").read_text(encoding="utf-8")
    assert table.count("| MT5-Base w/") == 2 and "19.71" in table
    config = json.loads(
        (folder / "runs/phoenix_drawn/ablations/seed-0/stage2_mt5/config.json").read_text(encoding="utf-8")
    )
    assert config["text_config"]["model_type"] == "mt5"


def look_at_factorization(folder: Path, printed: str) -> None:
    table = (folder / "runs/dominance/dominance_low_rate.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == [
        "untrained encoder", "Light-T", "pre-trained language model",
    ]  # fmt: skip
    assert table in printed
    assert (folder / "runs/phoenix_drawn/corpus/phoenix_text.txt").read_text(encoding="utf-8").count("regen") == 2


def look_at_real_signs(folder: Path, printed: str) -> None:
    table = (folder / "runs/real_signs/systems.md").read_text(encoding="utf-8")
    assert table in printed and "BLEU-4, D | BLEU-4, A" in table, "a column a signer who is held out"


def look_at_translating(folder: Path, printed: str) -> None:
    assert "-->" in printed and printed.count("clips/test-0000") >= 2
    assert "<html" in (folder / "test-00000.html").read_text(encoding="utf-8")[:400]


def look_at_live(folder: Path, printed: str) -> None:
    assert (folder / "captions.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n1\n00:00:0")


def look_at_serving(folder: Path, printed: str) -> None:
    assert (folder / "runs/space/app.py").is_file()


def look_at_sharing(folder: Path, printed: str) -> None:
    sent = [line for line in printed.splitlines() if re.match(r" +[\d.]+ (?:bytes|.B)  ", line)]
    assert any("model.safetensors" in line for line in sent) and not any("predictions" in line for line in sent)


def look_at_warm_start(folder: Path, printed: str) -> None:
    start = metrics(folder / "runs/market/warm")["start"]
    assert start["model"] == "runs/demo/stage1" and start["taken"] == "visual encoder"
    assert start["new"] == "VL-Adapter and Light-T (of another tokenizer)"
    assert "start" not in metrics(folder / "runs/market/scratch")


def look_at_language_models(folder: Path, printed: str) -> None:
    run = folder / "runs/phoenix14t/lora_mt0_xl"
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["text_config"]["model_type"] == "mt5" and (run / "peft/adapter_model.safetensors").is_file()
    assert "bleu4" in metrics(run)["test"]


def look_at_seq2seq_trainer(folder: Path, printed: str) -> None:
    assert float(printed.splitlines()[-2]) > 0
    names = {file.name for file in (folder / "runs/plain").iterdir()}
    assert {"model.safetensors", "processor_config.json", "modeling_fla.py", "pipeline_fla.py"} <= names


def look_at_extending(folder: Path, printed: str) -> None:
    printed = printed.splitlines()
    assert printed[:2] == ["MBartForConditionalGeneration", "ConvNextModel"]
    assert printed[2].startswith("the sun is out case:lc|")
    from training_fla.data.packed_corpus import PackedCorpus

    assert PackedCorpus(folder / "data/named", "dev").sentences == ["rain"]


LOOKS = {
    "README.md": look_at_readme,
    "corpora.md": look_at_corpora,
    "dictionary.md": look_at_dictionary,
    "export.md": look_at_export,
    "features.md": look_at_features,
    "recordings.md": look_at_recordings,
    "several_corpora.md": look_at_several_corpora,
    "training.md": look_at_training,
    "planning.md": look_at_planning,
    "warm_start.md": look_at_warm_start,
    "language_models.md": look_at_language_models,
    "scoring.md": look_at_scoring,
    "report.md": look_at_report,
    "ablations.md": look_at_ablations,
    "factorization.md": look_at_factorization,
    "real_signs.md": look_at_real_signs,
    "translating.md": look_at_translating,
    "live.md": look_at_live,
    "serving.md": look_at_serving,
    "sharing.md": look_at_sharing,
    "seq2seq_trainer.md": look_at_seq2seq_trainer,
    "extending.md": look_at_extending,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_from_top_to_bottom(page, place, tmp_path, monkeypatch):
    folder = shutil.copytree(place, tmp_path / "place", symlinks=True)
    printed = run_page(page, folder, monkeypatch)
    typed = [block for block in read_blocks(page) if block.language]
    assert bool(typed) == (page.name in LOOKS), f"{page.name}: say in LOOKS what its blocks lead to"
    if typed:
        LOOKS[page.name](folder, printed)


def cells(name: str) -> list[str]:
    notebook = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_notebook(name: str, folder: Path, last_cell: str, **parameters) -> list[str]:
    """Run a notebook's cells in a fresh interpreter, as a fresh kernel does; gives the lines that they print.

    `parameters` replace those of the first cell, and `last_cell` is run after all others.
    """
    first, *others = cells(name)
    assert all(f"{parameter} = " in first for parameter in parameters)
    given = [f"{parameter} = {value!r}" for parameter, value in parameters.items()]
    script = "\n".join([first, *given, *others, last_cell])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_notebook_that_translates_runs(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "place", symlinks=True)
    same = "translation['translation_text'] == inspection.sentence"
    look = f"print({same}, len(alternatives), picture.getvalue()[1:4] == b'PNG')"
    printed = run_notebook("translate_a_clip.ipynb", folder, look)
    assert printed[-1] == "True 5 True"


def test_the_notebook_that_trains_runs(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "place", symlinks=True)
    more = shlex.split(ONE_STEP + FRAMES)
    printed = run_notebook("train_on_your_clips.ipynb", folder, "print(status, predictions.references)", MORE=more)
    assert printed[-1] == "0 ['The sun is out.']"
    assert any("95 % interval" in line for line in printed)


def test_no_table_holds_what_the_pages_no_longer_have():
    blocks = [block for page in PAGES for block in read_blocks(page)]
    commands = [command for block in blocks if block.language == "bash" for command in block.commands()]
    for target in MAKE:
        assert any(command.startswith(target) for command in commands), target
    for start in NOT_TYPED:
        assert any(block.text.lstrip().startswith(start) for block in blocks), start
    plain = [shlex.join(shlex.split(command, comments=True)) for command in commands]
    for stand_in in STAND_INS:
        assert any(fnmatchcase(command, stand_in.command) for command in plain), stand_in.command
        assert len(stand_in.why) > 20, "a reason"


def test_every_file_a_page_names_is_there():
    root, count = PAGES[0].parent, 0
    for page in [*PAGES, root / "CONTRIBUTING.md", root / ".github/workflows/ci.yml"]:
        text = page.read_text(encoding="utf-8")
        folders = "recipes|docs|modeling_fla|processing_fla|training_fla|experiments|tests"
        for name in re.findall(rf"(?:{folders})/[\w/]+\.(?:yaml|md|py)", text):
            count += 1
            assert (root / name).is_file(), f"{page.name} names {name}"
        for link in re.findall(r"\]\((\w+\.md)\)", text):
            assert (page.parent / link).is_file(), f"{page.name} links to {link}"
    assert count > 50


def test_messages_that_troubleshooting_quotes_are_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "training_fla").rglob("*.py"))
    rows = [line.split("|")[1] for line in page.split("\n## ")[0].splitlines() if line.startswith("| `")]
    assert len(rows) > 5
    for message in re.findall("`(.+?)`", " ".join(rows)):
        for part in message.split(" ... "):
            assert part in code, f"no message says {part!r}"


def built(page: str) -> str:
    """A page as `make docs` fills it."""
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    return hooks["on_page_markdown"]((ROOT / "docs" / page).read_text(encoding="utf-8"))


def test_the_page_of_commands_has_every_option_that_help_prints(capsys):
    text = built("commands.md")
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        section = text.split(f"\n## fla {name}\n")[1].split("\n## ")[0]
        options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--quiet"}
        assert options == set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) or name == "prepare"
    for corpus in ("manifest", "phoenix14t", "features"):
        with pytest.raises(SystemExit):
            main(["prepare", corpus, "--help"])
        options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
        sections = [
            text.split(f"\n### fla prepare{title}\n")[1].split("\n#")[0] for title in (f" {corpus}", ", every corpus")
        ]
        assert options == set(re.findall(r"^\| `(--[a-z-]+)", "\n".join(sections), re.MULTILINE))
    section = text.split("\n### fla prepare subtitles\n")[1].split("\n#")[0]
    assert {"--tier", "--out", "--overwrite"} <= set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_page_of_recipe_lines_has_every_line_that_help_prints(stage, capsys):
    text = built("recipe_lines.md")
    with pytest.raises(SystemExit):
        importlib.import_module(f"run_{stage}").main(["--help"])
    lines = set(re.findall(r"^  --(?!no_freeze)([a-z0-9_]+)", capsys.readouterr().out, re.MULTILINE))
    assert len(lines) > 40 and lines <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    assert "| `light_t` | `tiny`, `small`, `base`, `large` | `base` | size of Light-T (Table 7) |" in text
    assert "| `label_smoothing_factor` | number | `0.2` |" in text, "the default that holds here, not transformers'"


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("bash", "curl example.org\n", "no runner for `curl example.org`"),
        ("", "unheard of\n", "line 7: what is this block"),
        ("bash", "make coffee\n", "say in MAKE why it is not run"),
        ("bash", "fla score nowhere.tsv --corpus demo\n", "did not end with status 0"),
        ("python", "1 / 0\n", "division"),
    ],
)
def test_a_block_nobody_knows_or_that_fails_fails(language, text, message):
    with pytest.raises((AssertionError, ZeroDivisionError), match=re.escape(message)):
        run_block(Block("page.md", 7, language, text))
