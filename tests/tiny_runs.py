"""Both stages on a corpus and a network so small that a run takes seconds, for the tests that train."""

import json
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).resolve().parents[1]
MADE_ONCE = tempfile.TemporaryDirectory(prefix="fla-tests-")  # removed when the process ends
NETWORK = """
vision_backbone: {model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 12], depths: [1, 1]}
visual_feature_size: 16
"""
COMMON = """
language_code: de_DE
frame_stride: 4
frame_size: 24
crop_size: 20
max_new_tokens: 6
total_batch_size: 4
per_device_eval_batch_size: 3
generation_num_beams: 2
eval_strategy: steps
save_strategy: steps
logging_steps: 2
use_cpu: true
disable_tqdm: true
"""
STAGE1 = f"""
{COMMON}{NETWORK}
train_tokenizer_pieces: 120
light_t: tiny
light_t_overrides: {{d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24}}
optimizer: sgd
nesterov: true
learning_rate: 1e-2
num_train_epochs: 2
eval_steps: 3
save_steps: 3
"""
STAGE2 = f"""
{COMMON}
language_model_config: {{model_type: mbart, d_model: 16, encoder_layers: 1, decoder_layers: 1,
  encoder_attention_heads: 2, decoder_attention_heads: 2, encoder_ffn_dim: 24, decoder_ffn_dim: 24}}
optimizer: adam
learning_rate: 1e-4
adapter_learning_rate: 1e-3
max_steps: 4
eval_steps: 2
save_steps: 2
"""


def pack_demo(folder: Path, num_train: int, num_dev: int, num_test: int) -> Path:
    """A copy of the drawn corpus of these counts, which a process packs once."""
    return Path(shutil.copytree(packed_once(num_train, num_dev, num_test), folder))


@cache
def packed_once(num_train: int, num_dev: int, num_test: int) -> Path:
    from experiments.drawn.demo import read_demo
    from training_fla.data.packing import pack

    folder = Path(MADE_ONCE.name) / f"corpus_{num_train}_{num_dev}_{num_test}"
    rows = read_demo(size=24, num_train=num_train, num_dev=num_dev, num_test=num_test)
    pack(rows, folder, size=24, num_workers=0, corpus="demo")
    return folder


def run(script: str, *argv) -> int:
    """Run a script in this process; pictures are blank and draws few, which else take longer than the training."""
    from matplotlib.figure import Figure

    from training_fla.scoring import resampling

    sys.path.insert(0, str(ROOT))
    try:
        module = __import__(script)
    finally:
        sys.path.remove(str(ROOT))
    with patch.object(Figure, "savefig", save_blank), patch.object(resampling, "SAMPLES", 50):
        return module.main([str(word) for word in argv])


def run_together(*runs: list, processes: int = 2) -> None:
    """Runs one after the other, each of several processes; forked, because one that is launched imports torch anew."""
    if sys.platform != "linux":
        pytest.skip("only on Linux may a process that has imported torch be forked")
    context = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as logs:
        files = [Path(logs, f"{rank}.log") for rank in range(processes)]
        shares = [context.Process(target=take_part, args=(runs, rank, port, files)) for rank in range(processes)]
        for share in shares:
            share.start()
        for share in shares:
            share.join(300)
        printed = "\n".join(file.read_text()[-2000:] for file in files)
    assert [share.exitcode for share in shares] == [0] * processes, printed


def take_part(runs: list, rank: int, port: int, logs: list[Path]) -> None:
    """What `torchrun` starts a process with, and then the runs."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)  # which says that this process is alone
    GradientState._reset_state()
    processes = str(len(logs))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": processes}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": processes}
    with logs[rank].open("w") as log, redirect_stdout(log), redirect_stderr(log):
        for script, *words in runs:
            if status := run(script, *words, "--ddp_backend", "gloo"):
                sys.exit(status)


def save_blank(figure, file: Path, format: str) -> None:
    from PIL import Image

    Image.new("L", (1, 1)).save(file, format)


def stage1_of_one_step(folder: Path, corpus: Path) -> Path:
    """A copy of a stage 1 that has learnt nothing: an encoder and a tokenizer to begin stage 2 with."""
    (folder / "stage1.yaml").write_text(f"dataset: {corpus}\n{STAGE1}")
    counts = [len((corpus / f"{split}.sentences.txt").read_text().splitlines()) for split in ("train", "dev", "test")]
    return Path(shutil.copytree(trained_once(*counts), folder / "stage1"))


@cache
def trained_once(*counts: int) -> Path:
    corpus = packed_once(*counts)
    recipe, out = corpus.with_suffix(".yaml"), corpus.with_name(f"stage1_of_{corpus.name}")
    recipe.write_text(f"dataset: {corpus}\n{STAGE1}")
    lines = ("--max_steps", 1, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end=false")
    assert run("run_stage1", recipe, "--output_dir", out, *lines) == 0
    return out


def losses(out: Path, step: int) -> list[float]:
    """What a run logged until its checkpoint of that step."""
    history = json.loads((out / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
