"""No command changes a folder that fla-llm did not make, nor what it reads itself, whatever it is asked."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_runs import STAGE1, STAGE2, pack_demo, run, stage1_of_one_step
from training_fla.cli import main as fla

TRIM = "trim --model mbart --sentences corpus/train.sentences.txt --language de_DE --out"
DENOISE = "denoise --text corpus/train.sentences.txt --vocab-size 120 --width 64 --layers 1 --max-steps 1 --out"
STAGE1_RUN, STAGE2_RUN = "run_stage1 stage1.yaml --output_dir", "run_stage2 stage2.yaml --output_dir"
PACKED_RUN = f"{STAGE1_RUN} new --dataset null --manifest clips/table.csv"
SCORE = "score stage1/predictions_test.tsv --corpus demo"
# Command with {out} for the folder it is thrown at; {out} alone, and with --overwrite where it has that.
FOLDERS = {
    "stage1": f"{STAGE1_RUN} {{out}} --overwrite",
    "stage1, plain": f"{STAGE1_RUN} {{out}}",
    "stage1, resumed": f"{STAGE1_RUN} {{out}} --resume",
    "stage2": f"{STAGE2_RUN} {{out}} --overwrite",
    "prepare demo": "prepare demo --num-train 2 --num-dev 1 --num-test 1 --size 24 --clips 0 --out {out} --overwrite",
    "prepare manifest": "prepare manifest --root clips/table.csv --size 24 --out {out} --overwrite",
    "trim": f"{TRIM} {{out}} --overwrite",
    "denoise": f"{DENOISE} {{out}} --overwrite",
    "demo": "demo --out {out} --overwrite",
    "demo, seeds": "demo --seeds 0 1 --out {out} --overwrite",
    "ablate": "ablate table5 --recipes . --out {out}",
    "serve": "serve stage1 --write-space {out}",
}
# What a command reads, as its output; by the folder that must stay as it is.
SOURCES = {
    "stage1 at its corpus": ("corpus", f"{STAGE1_RUN} corpus --overwrite"),
    "stage1 at its table": ("clips", f"{STAGE1_RUN} clips --dataset null --manifest clips/table.csv --overwrite"),
    "stage1 at its recipe": (".", f"{STAGE1_RUN} . --overwrite"),
    "stage1 at its tokenizer": ("stage1", f"{STAGE1_RUN} stage1 --tokenizer stage1 --overwrite"),
    "stage2 at stage1": ("stage1", f"{STAGE2_RUN} stage1 --overwrite"),
    "stage2 resumes in stage1": ("stage1", f"{STAGE2_RUN} stage1 --resume"),
    "stage2 at its language model": ("mbart", f"{STAGE2_RUN} mbart --language_model mbart --overwrite"),
    "prepare at its table": ("clips", "prepare manifest --root clips --out clips --overwrite"),
    "prepare above its table": (".", "prepare manifest --root clips --out . --overwrite"),
    "trim at its model": ("mbart", f"{TRIM} mbart --overwrite"),
    "trim at its sentences": ("corpus", f"{TRIM} corpus --overwrite"),
    "denoise at its model": ("mbart", f"{DENOISE} mbart --model mbart --overwrite"),
    "denoise at its text": ("corpus", f"{DENOISE} corpus --overwrite"),
    "serve at its model": ("stage1", "serve stage1 --write-space stage1"),
    "inspect at its clip": ("clips", "inspect clips/0.mp4 --model stage1 --out clips/0.mp4 --overwrite"),
    "inspect at a file": ("clips", "inspect clips/0.mp4 --model stage1 --out clips/note.png"),
    "score's page at its predictions": ("stage1", f"{SCORE} --html stage1/predictions_test.tsv --overwrite"),
    "score's table at its predictions": ("stage1", f"{SCORE} --sentences stage1/predictions_test.tsv --overwrite"),
    "score at a file": ("clips", f"{SCORE} --html clips/note.png"),
}  # fmt: skip


@pytest.fixture
def folder(sources, tmp_path, monkeypatch) -> Path:
    """A copy of the sources, as the working directory."""
    shutil.copytree(sources, tmp_path / "sources")
    monkeypatch.chdir(tmp_path / "sources")
    return tmp_path / "sources"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    from experiments.drawn.demo import read_demo
    from training_fla.corpora.clips import write_clip

    folder = tmp_path_factory.mktemp("sources")
    pack_demo(folder / "corpus", num_train=11, num_dev=3, num_test=3)
    stage1_of_one_step(folder, folder / "corpus")
    (folder / "stage1.yaml").write_text(f"dataset: corpus\n{STAGE1}")
    (folder / "stage2.yaml").write_text(f"dataset: corpus\nstage1_checkpoint: stage1\ntokenizer: stage1\n{STAGE2}")
    text = str(folder / "corpus/train.sentences.txt")
    sizes = ["--vocab-size", "120", "--width", "64", "--layers", "1", "--max-steps", "1"]
    assert fla(["denoise", "--text", text, *sizes, "--out", str(folder / "mbart")]) == 0
    (folder / "clips").mkdir()
    rows = read_demo(num_train=3, num_dev=0, num_test=0, size=24)
    lines = ["video,sentence,split"]
    for number, (row, split) in enumerate(zip(rows, ("train", "dev", "test"), strict=True)):
        write_clip(folder / f"clips/{number}.mp4", row.video.frames(), row.video.fps)
        lines.append(f"{number}.mp4,{row.sentence},{split}")
    (folder / "clips/table.csv").write_text("\n".join(lines))
    (folder / "clips/note.png").write_text("a note")
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def call(command: str) -> int:
    """The exit status of a command line; argparse ends with one of its own."""
    name, *words = command.split()
    try:
        return run(name, *words) if name.startswith("run_") else fla([name, *words])
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
def test_foreign_folders_stay_as_they_are(folder, tmp_path, monkeypatch, capsys, command):
    thesis = tmp_path / "thesis"
    for name in ("chapter.txt", "figures/one.png", "checkpoint-2/model.safetensors", "config.json", "summary.json"):
        (thesis / name).parent.mkdir(parents=True, exist_ok=True)
        (thesis / name).write_text(f"my {name}")
    before = content(tmp_path)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("it has begun"))
    assert call(command.format(out=thesis)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(thesis) in error and "chapter.txt" in error and "overwrite" not in error
    assert content(tmp_path) == before


@pytest.mark.parametrize(("source", "command"), SOURCES.values(), ids=SOURCES)
def test_what_a_command_reads_stays_as_it_is(folder, capsys, source, command):
    before = content(folder)
    assert call(command) == 2
    assert content(folder) == before
    assert source in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("command", [f"{PACKED_RUN} --packed_dir", f"{STAGE2_RUN} new --feature_cache"])
def test_what_is_stored_in_a_foreign_folder_lies_beside_its_files(folder, tmp_path, command):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    assert call(f"{command} {tmp_path / 'thesis'}") == 0
    assert call(f"{command} {tmp_path / 'thesis'} --overwrite --seed 1") == 0
    assert (tmp_path / "thesis/chapter.txt").read_text() == "mine"


@pytest.mark.parametrize(("command", "name"), [("denoise", "out.checkpoints"), ("prepare manifest", ".out.packing")])
def test_a_folder_beside_the_output_stays_as_it_is(folder, tmp_path, command, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    assert call(FOLDERS[command].format(out=tmp_path / "out")) == 2
    assert (tmp_path / name / "mine.txt").read_text() == "mine" and not (tmp_path / "out").exists()
