"""The README's code blocks, read out of it, and a working directory in which each of them runs.

To add a block to the README, write it. If it asks for something a test machine has not (an archive, a GPU, minutes),
say in one of the tables below what stands in for it and why; a command no table knows fails its test.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path

import pytest
import yaml

from tests.corpora import corpus_trees
from tests.tiny_runs import ROOT

README = ROOT / "README.md"
NETWORK = (
    " --vision_backbone '{model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 12],"
    " depths: [1, 1]}' --imagenet_weights null --visual_feature_size 16 --light_t tiny"
    " --light_t_overrides '{d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24, encoder_layers: 1,"
    " decoder_layers: 1}'"
)
ONE_STEP = (
    " --max_steps 1 --frame_size 24 --crop_size 20 --generation_num_beams 1 --max_new_tokens 4 --use_cpu true"
    " --dataloader_num_workers 0 --disable_tqdm true"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the line its first line has in the README, the word after the fence, and what it holds."""

    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """One a line, without comments; a backslash joins two lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if shlex.split(line, comments=True)]

    def __str__(self) -> str:
        first = next(iter(self.text.strip().splitlines()), "")
        return f"{self.line}: {self.language or 'text'}: {first[:60]}"


def read_blocks(text: str) -> list[Block]:
    """Every fenced block, also one that is indented or whose fence is longer."""
    blocks = []
    for found in re.finditer(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^ *\2 *$", text, re.MULTILINE | re.DOTALL):
        blocks.append(Block(text[: found.start(4)].count("\n") + 1, found[3], found[4]))
    return blocks


@dataclass(frozen=True)
class StandIn:
    """What is done in place of a README command.

    `command` is a pattern for the command (`*` for any words), `more` is put after it (a later word overrides an
    earlier one), `status` is what it ends with.
    """

    command: str
    why: str
    more: str = ""
    status: int = 0


# Every one that fits is applied, in this order.
STAND_INS = (
    StandIn(
        "fla prepare *", "a pool of processes takes longer to start than a few drawn clips to pack", "--workers 0"
    ),
    StandIn(
        "fla prepare [pch]* --check*",
        "a drawn tree has fewer clips than the paper's corpus, which is what --check is there to say",
        status=1,
    ),
    StandIn("*run_stage1.py *", "ResNet18 and Light-T base take minutes a step on a processor", NETWORK),
    StandIn(
        "*run_stage[12].py *", "epochs take days; that one step after another learns: test_run_stages.py", ONE_STEP
    ),
    StandIn(
        "python run_stage1.py recipes/phoenix14t/stage1.yaml --per_device*",
        "the same recipe has run above with Accelerate, and a folder that holds a run is left alone",
        "--output_dir runs/phoenix14t/one_process",
    ),
    StandIn("fla ablate *", "each run is one step, and so is each seed: test_ablation.py runs two", "--seeds 0"),
    StandIn(
        "fla push *",
        "nothing may leave a test machine; test_push_command.py pushes to a stand-in of the Hub",
        "--dry-run",
    ),
)
# Commands that are only looked up in the Makefile, and why.
MAKE = {
    "make demo": "takes minutes; test_demonstration.py runs its very commands in miniature",
    "make demo-ablations": "takes an hour; its commands are those of make demo with other recipes",
    "make test": "would run this test again",
    "make style": "CI runs it",
    "make docs": "CI builds the pages",
    "make bench": "takes minutes, and a test asserts no timing",
}
# How one gets to where the tests already are: taken as done.
SETTING_UP = {
    "git clone": "this is the repository",
    "cd": "the workplace stands for it",
    "pip install": "what the tests run with is installed",
    "source": "that environment runs the tests",
}
# Blocks without a language that nobody types, by how they begin.
NOT_TYPED = {
    "sign video ": "the data flow, drawn",
    "modeling_fla/ ": "the tree; test_layout.py compares it with the disk",
    "video,sentence,split": "a table of one's own clips; it is written into the workplace and prepared as it stands",
    "@inproceedings": "how to cite",
}


class Workplace:
    """A directory with what the README takes for granted; its blocks run there, each after those above it.

    Args:
        folder: an empty directory.
        whole_demo: `make demo` in full instead of its recipes with a tiny network.
    """

    def __init__(self, folder: Path, whole_demo: bool = False):
        self.folder, self.blocks = folder, read_blocks(README.read_text(encoding="utf-8"))
        self.failures: dict[int, BaseException | None] = {}
        with self.entered():
            link_repository(folder)
            draw_corpora(folder)
            save_base_model(folder / "facebook" / "mbart-large-cc25")
            make_whole_demo() if whole_demo else make_tiny_demo(folder / "runs" / "demo")

    @contextmanager
    def entered(self):
        """Be in the directory, as the reader of the README is in the repository."""
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            yield
        finally:
            os.chdir(before)

    def run(self, number: int) -> None:
        """Run a block, and first those above it that have not run; an earlier block's failure is its own test's."""
        for earlier in range(number + 1):
            if earlier not in self.failures:
                try:
                    with self.entered():
                        run_block(self.blocks[earlier])
                    self.failures[earlier] = None
                except (Exception, SystemExit, pytest.skip.Exception) as error:
                    self.failures[earlier] = error
        if self.failures[number]:
            raise self.failures[number]


def run_block(block: Block) -> None:
    """Python as it stands, shell commands one by one, the rest if a table says why it is not typed."""
    if block.language == "python":
        exec(compile(block.text, f"README.md, line {block.line}", "exec"), {"__name__": "__main__"})
    elif block.language in ("bash", "shell", "sh", "console"):
        for command in block.commands():
            run_command(command)
    else:
        assert any(block.text.lstrip().startswith(start) for start in NOT_TYPED), (
            f"README.md, line {block.line}: what is this block? Name its language, or say in NOT_TYPED what it is"
        )


def run_command(command: str) -> None:
    """Run a command as the README has it, with what stands in for what is not there."""
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
    raise AssertionError(f"no runner for `{shlex.join(words)}`: add one to tests/readme_blocks.py")


def run_fla(words: list[str]) -> int:
    """The `fla` command in this process, which saves importing torch each time; `fla ablate` starts scripts."""
    from training_fla.cli import main
    from training_fla.experiments import ablation

    if words[1] != "ablate":
        return main(words[1:])
    command = ablation.run_command
    ablation.run_command = lambda script, launcher: run_command(shlex.join(["python", *script])) or 0
    try:
        return main(words[1:])
    finally:
        ablation.run_command = command


def run_page(words: list[str]) -> int:
    """`fla serve` on a free port, until its page has been fetched once; then what Ctrl-C does."""
    if "--write-space" in words:
        return run_fla(words)
    pytest.importorskip("gradio", reason="gradio is not installed (extra `serve`)")
    command = [sys.executable, "-m", "training_fla.cli", *words[1:], "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            shown = "".join(iter(lambda: process.stdout.read(1), "\n"))
            address = re.search(r"https?://[^ ]+", shown)
            assert address, f"`fla serve` names no address: {shown}"
            with urllib.request.urlopen(address[0], timeout=30) as page:
                assert page.status == 200
        finally:
            process.send_signal(signal.SIGINT)
    return process.returncode


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
    "fla serve": run_page,  # before `fla`
    "fla": run_fla,
    "python run_stage1.py": run_script,
    "python run_stage2.py": run_script,
    "accelerate launch": run_accelerate,
    "make": look_up_target,
    **dict.fromkeys(SETTING_UP, lambda words: 0),
}


def link_repository(folder: Path) -> None:
    """Recipes lie where the reader has them; the scripts are imported from the repository."""
    (folder / "recipes").symlink_to(ROOT / "recipes")


def draw_corpora(folder: Path) -> None:
    """Trees in the official layouts for the archives, which are large and under terms, and the README's own table."""
    corpus_trees.phoenix14t(folder / "PHOENIX-2014-T-release-v3" / "PHOENIX-2014-T")
    corpus_trees.csl_daily(folder / "CSL-Daily", absent=())
    corpus_trees.how2sign(folder / "How2Sign")
    tables = [
        block.text for block in read_blocks(README.read_text(encoding="utf-8")) if "video,sentence" in block.text
    ]
    for table in tables:
        (folder / "my_table.csv").write_text(table, encoding="utf-8")
        for number, row in enumerate(table.strip().splitlines()[1:]):
            corpus_trees.write_video(folder / row.split(",")[0], 9 + number, number)


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


def make_tiny_demo(folder: Path) -> None:
    """What `make demo` leaves, from its corpus and its recipes, in one step and with a tiny network."""
    counts = "--num-train 8 --num-dev 2 --num-test 3 --clips 2 --size 24"
    run_command(f"fla prepare demo --out {folder / 'corpus'} {counts}")
    data, mbart = f"--dataset {folder / 'corpus'}", "facebook/mbart-large-cc25"
    stage1, stage2 = folder / "stage1", folder / "stage2"
    first = f"{data} --tokenizer {mbart} --output_dir {stage1}"
    run_command(f"python run_stage1.py recipes/demo/stage1.yaml {first}")
    second = f"{data} --language_model {mbart} --stage1_checkpoint {stage1} --output_dir {stage2}"
    run_command(f"python run_stage2.py recipes/demo/stage2.yaml {second}")


def make_whole_demo() -> None:
    """`make demo`, whose command this is."""
    command = [sys.executable, "-m", "training_fla.cli", "demo", "--out", "runs/demo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment)


def output_of(block: Block) -> str:
    """What a Python block prints."""
    with redirect_stdout(StringIO()) as printed:
        run_block(block)
    return printed.getvalue()
