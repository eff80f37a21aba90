"""The code blocks of README and docs, read out of them, and a place in which each page runs from top to bottom.

To add a block to a page, write it. If it asks for something a test machine has not (an archive, a GPU, minutes),
say in one of the tables below what stands in for it and why; a command that no table knows fails its test.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path

import pytest
import yaml

from tests.corpora import corpus_trees
from tests.tiny_runs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NETWORK = (
    " --vision_backbone '{model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 12],"
    " depths: [1, 1]}' --imagenet_weights null --visual_feature_size 16 --light_t tiny"
    " --light_t_overrides '{d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24, encoder_layers: 1,"
    " decoder_layers: 1}'"
)
ONE_STEP = (
    " --max_steps 1 --generation_num_beams 1 --max_new_tokens 4 --use_cpu true --dataloader_num_workers 0"
    " --disable_tqdm true"
)
FRAMES = " --frame_size 24 --crop_size 20"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line its first line has there, the word after the fence, and what it holds."""

    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """One a line, without comments; a backslash joins two lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if shlex.split(line, comments=True)]


def read_blocks(file: Path) -> list[Block]:
    """Every fenced block of a page, also one that is indented or whose fence is longer."""
    text, blocks = file.read_text(encoding="utf-8"), []
    for found in re.finditer(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^ *\2 *$", text, re.MULTILINE | re.DOTALL):
        blocks.append(Block(file.name, text[: found.start(4)].count("\n") + 1, found[3], found[4]))
    return blocks


@dataclass(frozen=True)
class StandIn:
    """What is done in place of a command: `more` is put after it, `status` is what it ends with."""

    command: str  # a pattern: `*` for any words
    why: str
    more: str = ""
    status: int = 0


# Every one that fits is applied, in this order.
STAND_INS = (
    StandIn(
        "fla prepare [!fs]*", "a pool of processes takes longer to start than a few drawn clips to pack", "--workers 0"
    ),
    StandIn("fla prepare splice*", "as above: a pool takes longer to start than the clips to pack", "--workers 0"),
    StandIn(
        "fla prepare demo *runs/several/*",
        "drawing 1200 clips takes longer than a step of training on them",
        "--num-train 8 --num-dev 2 --num-test 3 --clips 2 --size 24",
    ),
    StandIn(
        "fla prepare [pch]* --check*",
        "a drawn tree has fewer clips than the paper's corpus, which is what --check is there to say",
        status=1,
    ),
    StandIn("fla prepare subtitles *--check", "one of the drawn recordings has no subtitles yet", status=1),
    StandIn("*run_stage1.py *stage1.yaml*", "ResNet18 and Light-T base take minutes a step on a processor", NETWORK),
    StandIn(
        "*run_stage[12].py *", "epochs take days; that one step after another learns: test_run_stages.py", ONE_STEP
    ),
    StandIn(
        "*run_stage[12].py recipes/phoenix14t/stage[12].yaml",
        "a reader types one of a page's two ways to start a stage; here the other may have trained into the folder",
        "--overwrite",
    ),
    StandIn(
        "*run_stage2.py *lora_mt0_xl.yaml*",
        "bitsandbytes need not be installed; what is handed to it: test_todays_language_models.py",
        "--language_model_quantization null",
    ),
    StandIn("fla denoise *", "pre-training takes minutes; test_denoising.py sees it learn", "--max-steps 2"),
    StandIn(
        "fla ablate dominance *",
        "a probe takes minutes even so: one of each encoder",
        "--measures linear bleu4 --probe-seeds 1",
    ),
    StandIn("*run_stage2.py recipes/demo/stage2.yaml *", "the tiny demo's frames are smaller", FRAMES),
    StandIn("*run_stage[12].py recipes/[!df]*", "frames of 224 pixels take minutes on a processor", FRAMES),
    StandIn(
        "*run_stage2.py recipes/demo/features.yaml *",
        "the tiny demo begins with the base model as it is",
        "--language_model facebook/mbart-large-cc25",
    ),
    StandIn("fla ablate *", "each run is one step, and so is each seed: test_ablation.py runs two", "--seeds 0"),
    StandIn(
        "python -m experiments.real_signs *",
        "the data set is nobody's to copy, and runs take hours: test_real_signs.py",
        "--tables",
    ),
    StandIn(
        "fla push *",
        "nothing may leave a test machine; tests/hub pushes to a stand-in of the Hub",
        "--dry-run",
    ),
)
# Commands that are only looked up in the Makefile, and why.
MAKE = {
    "make demo": "takes minutes; test_demonstration.py runs its very commands in miniature",
    "make test": "would run this test again",
}
# How one gets to where the tests already are: taken as done.
SETTING_UP = {
    "pip install": "what the tests run with is installed",
    "pip wheel": "nothing is built offline",
    "docker": "is on no test machine; `serve_once` is the same user on the same kind of disk",
}
# Blocks without a language that nobody types, by how they begin.
NOT_TYPED = {
    "sign video ": "the data flow, drawn",
    "modeling_fla/ ": "the tree; test_layout.py compares it with the disk",
    "video,sentence,split": "a table of one's own clips; it is written to the place and prepared as it stands",
    "video,gloss,signer": "a table of signs; it is written to the place and spliced as it stands",
    "words:": "a grammar; it is written to the place, and sentences are drawn from it",
    "video;sentence;start": "the same as Excel writes it in many countries",
    "video,start,end": "what `fla prepare subtitles` writes; look_at_recordings compares it",
    "FROM python": "a Dockerfile",
    "location": "a part of nginx's settings",
    "features,sentence,split": "the same of features",
    "@inproceedings": "how to cite",
}


# What a page takes as done that another page does.
BEFORE = {
    "language_models.md": (
        "fla prepare phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --out data/phoenix14t",
        "python run_stage1.py recipes/phoenix14t/stage1.yaml --tokenizer facebook/mbart-large-cc25",
    ),
    "ablations.md": (
        "fla prepare phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --out data/phoenix14t",
        "fla trim --model facebook/mbart-large-cc25 --language de_DE --sentences data/phoenix14t/train.sentences.txt"
        " --out models/mbart-phoenix14t",
        "fla prepare demo --pairs phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --glosses 60 --size 40"
        " --out runs/phoenix_drawn/corpus",
        "fla denoise --text runs/phoenix_drawn/corpus/phoenix_text.txt --vocab-size 2500 --width 64 --layers 1"
        " --out runs/phoenix_drawn/mbart",
        "fla trim --model runs/phoenix_drawn/mbart --sentences runs/phoenix_drawn/corpus/train.sentences.txt"
        " --out runs/phoenix_drawn/mbart-trimmed",
    ),
}


def make_place(folder: Path) -> None:
    """What the pages take for granted: recipes, drawn archives, a table of clips, a base model and a trained demo."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        (folder / "recipes").symlink_to(ROOT / "recipes")
        rows = (ROOT / "examples" / "market.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        (
            folder / "examples"
        ).mkdir()  # eight clips, two and two: 140 take longer to draw than to train on for one step
        (folder / "examples" / "market.tsv").write_text("".join(rows[:9] + rows[61:63] + rows[-2:]), encoding="utf-8")
        corpus_trees.phoenix14t(folder / "PHOENIX-2014-T-release-v3" / "PHOENIX-2014-T")
        corpus_trees.csl_daily(folder / "CSL-Daily", absent=())
        corpus_trees.how2sign(folder / "How2Sign")
        (table,) = {block.text for page in PAGES for block in read_blocks(page) if "video,sentence" in block.text}
        (folder / "my_table.csv").write_text(table, encoding="utf-8")
        blocks = [block.text for page in PAGES for block in read_blocks(page)]
        (from_excel,) = {text for text in blocks if text.startswith("video;")}
        (folder / "from_excel.csv").write_text(from_excel, encoding="utf-8-sig", newline="\r\n")
        for number, row in enumerate(table.strip().splitlines()[1:]):
            corpus_trees.write_video(folder / row.split(",")[0], 9 + number, number)
        (table,) = {block.text for page in PAGES for block in read_blocks(page) if "features,sentence" in block.text}
        (folder / "my_features.csv").write_text(table, encoding="utf-8")
        for number, row in enumerate(table.strip().splitlines()[1:]):
            save_features(folder / row.split(",")[0], 3 + number)
        corpus_trees.recordings(folder / "recordings")
        (signs,) = {text for text in blocks if text.startswith("video,gloss")}
        (folder / "signs.csv").write_text(signs, encoding="utf-8")
        for number, row in enumerate(signs.strip().splitlines()[1:]):
            corpus_trees.write_video(folder / row.split(",")[0], 9 + number % 4, number)
        (grammar,) = {text for text in blocks if text.startswith("words:")}
        (folder / "grammar.yaml").write_text(grammar, encoding="utf-8")
        save_poses(folder)
        save_base_model(folder / "facebook" / "mbart-large-cc25")
        save_mt0(folder / "bigscience" / "mt0-xl")
        make_tiny_demo(folder / "runs" / "demo")
    finally:
        os.chdir(before)


def run_page(page: Path, folder: Path, monkeypatch) -> str:
    """Run a page's blocks one after another in a place of its own; gives what they print."""
    monkeypatch.chdir(folder)
    for command in BEFORE.get(page.name, ()):
        run_command(command)
    session = {"__name__": "__main__"}  # the Python blocks of a page are one session, as a reader types them
    with redirect_stdout(StringIO()) as printed:
        for block in read_blocks(page):
            run_block(block, session)
    return printed.getvalue()


def run_block(block: Block, session: dict | None = None) -> None:
    """Python as it stands, shell commands one by one, the rest if a table says why it is not typed."""
    if block.language == "python":
        exec(compile(block.text, f"{block.page}, line {block.line}", "exec"), {} if session is None else session)
    elif block.language in ("bash", "shell", "sh", "console"):
        for command in block.commands():
            run_command(command)
    else:
        assert any(block.text.lstrip().startswith(start) for start in NOT_TYPED), (
            f"{block.page}, line {block.line}: what is this block? Name its language, or say in NOT_TYPED what it is"
        )


def run_command(command: str) -> None:
    """Run a command as the page has it, with what stands in for what is not there."""
    words = shlex.split(command, comments=True)
    plain = shlex.join(words)
    status = 0
    for stand_in in STAND_INS:
        if fnmatchcase(plain, stand_in.command):
            words += shlex.split(stand_in.more)
            status = stand_in.status or status
    assert runner_of(words)(words) == status, f"`{shlex.join(words)}` did not end with status {status}"


def runner_of(words: list[str]):
    """What runs a command, by its first words."""
    for first, runner in RUNNERS.items():
        if words[: len(first.split())] == first.split():
            return runner
    raise AssertionError(f"no runner for `{shlex.join(words)}`: add one to tests/pages.py")


def run_fla(words: list[str]) -> int:
    """The `fla` command in this process, which saves importing torch each time; `fla ablate` starts scripts."""
    from experiments import running
    from training_fla.cli import main

    if ">" in words[:-1]:
        with redirect_stdout(StringIO()) as printed:
            status = run_fla(words[: words.index(">")])
        Path(words[-1]).write_text(printed.getvalue(), encoding="utf-8")
        return status
    if words[1] != "ablate":
        return main(words[1:])
    command = running.run_command
    running.run_command = lambda script, *others: run_command(shlex.join(["python", *script])) or 0
    try:
        return main(words[1:])
    finally:
        running.run_command = command


def as_in_a_container() -> list[str]:
    """Without HOME; where the tests run as root also as a user who does not exist and may write only in /tmp."""
    drop = [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *drop, "env", "-u", "HOME"]
    works = os.geteuid() == 0 and shutil.which("setpriv") and not subprocess.run([*words, "true"]).returncode
    return words if works else ["env", "-u", "HOME"]


def serve_once(words: list[str]) -> int:
    """`fla serve` on a free port, until its page has been fetched once; then what Ctrl-C does."""
    if "--write-space" in words:
        return run_fla(words)
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    command = [*as_in_a_container(), sys.executable, "-m", "training_fla.cli", *words[1:], "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            shown = "".join(iter(lambda: process.stdout.read(1), "\n"))
            address = re.search(r"https?://[^ ]+", shown)
            assert address, f"`fla serve` names no address: {shown}"
            with urllib.request.urlopen(address[0], timeout=240) as page:
                assert page.status == 200
        finally:
            process.send_signal(signal.SIGINT)
    return process.returncode


def run_real_signs(words: list[str]) -> int:
    """The study in this process."""
    from experiments.real_signs.__main__ import main

    return main(words[3:])


def run_script(words: list[str]) -> int:
    """A script of the repository in this process."""
    from tests.tiny_runs import run

    return run(words[1].removesuffix(".py"), *words[2:])


def run_accelerate(words: list[str]) -> int:
    """The launcher's options are read, its script runs in this one process: test_two_processes.py starts more."""
    script = next(place for place, word in enumerate(words) if word.endswith(".py"))
    options = words[2:script]
    if "--config_file" in options:
        config = yaml.safe_load(Path(options[options.index("--config_file") + 1]).read_text(encoding="utf-8"))
        assert config["num_processes"] >= 1
    return run_script(["python", *words[script:]])


def look_up_target(words: list[str]) -> int:
    """A target that `MAKE` names is in the Makefile."""
    assert shlex.join(words) in MAKE, f"`{shlex.join(words)}`: say in MAKE why it is not run"
    command = ["make", "--dry-run", "--directory", str(ROOT), *words[1:]]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode


RUNNERS = {
    "fla serve": serve_once,  # before `fla`
    "fla": run_fla,
    "python -m experiments.real_signs": run_real_signs,
    "python run_stage1.py": run_script,
    "python run_stage2.py": run_script,
    "accelerate launch": run_accelerate,
    "make": look_up_target,
    **dict.fromkeys(SETTING_UP, lambda words: 0),
}


def save_features(file: Path, length: int) -> None:
    """Features as another program leaves them, in the format that the file's name says."""
    import numpy as np
    import torch

    file.parent.mkdir(exist_ok=True)
    features = np.arange(8 * length, dtype=np.float32).reshape(1, length, 8)
    if file.suffix == ".pt":
        torch.save({"features": torch.tensor(features)}, file)
    else:
        {".npy": np.save, ".npz": np.savez}[file.suffix](file, features)


def save_poses(folder: Path) -> None:
    """Poses of two frames, and the table that names them."""
    import numpy as np

    rows = ["features,sentence,split"]
    for name, split in {"hello": "train", "rain": "dev", "sun": "test"}.items():
        points = np.arange(2 * sum(corpus_trees.POSE_POINTS) * 3).reshape(2, 1, -1, 3) ** 1.5
        corpus_trees.write_pose(folder / f"poses/{name}.pose", points, np.ones(points.shape[:-1]))
        rows.append(f"poses/{name}.pose,{name},{split}")
    (folder / "my_poses.csv").write_text("\n".join(rows), encoding="utf-8")


def save_base_model(folder: Path) -> None:
    """A tiny MBart under the Hub's name: a folder of that name is what `fla trim` takes first."""
    import torch
    from transformers import MBartConfig, MBartForConditionalGeneration

    from processing_fla import train_tokenizer

    sentences = [row.sentence for row in corpus_trees.drawn_rows()] + list(corpus_trees.CSL_TEXTS.values())
    sentences += ["Wetter im Norden Regen", 'Say "hi". Then "go"', "abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,!?"]
    tokenizer = train_tokenizer(sentences, 200, ("de_DE", "zh_CN", "en_XX"))
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = MBartConfig(vocab_size=len(tokenizer), **sizes, **heads)
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids("de_DE")
    MBartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_mt0(folder: Path) -> None:
    """A tiny MT5 with random weights under the Hub's name; its pieces are characters."""
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Tokenizer

    letters = sorted('\u2581abcdefghijklmnopqrstuvwxyz0123456789.,-"')
    pieces = ["<pad>", "</s>", "<unk>", *letters, *(f"<extra_id_{number}>" for number in range(99, -1, -1))]
    tokenizer = T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces])
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    MT5ForConditionalGeneration(MT5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tiny_demo(folder: Path) -> None:
    """What `make demo` leaves, from its corpus and its recipes, in one step and with a tiny network."""
    counts = "--num-train 8 --num-dev 2 --num-test 3 --clips 2 --size 24"
    run_command(f"fla prepare demo --out {folder / 'corpus'} {counts}")
    data, mbart = f"--dataset {folder / 'corpus'}", "facebook/mbart-large-cc25"
    stage1, stage2 = folder / "stage1", folder / "stage2"
    data += FRAMES
    first = f"{data} --tokenizer {mbart} --output_dir {stage1}"
    run_command(f"python run_stage1.py recipes/demo/stage1.yaml {first}")
    second = f"{data} --language_model {mbart} --stage1_checkpoint {stage1} --output_dir {stage2}"
    run_command(f"python run_stage2.py recipes/demo/stage2.yaml {second}")
