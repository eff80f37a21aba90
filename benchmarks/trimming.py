"""What memory and time does `fla trim` take for MBart-large, against copying the kept bytes with safetensors alone?

    python -m benchmarks.trimming            about a minute, 10 GB of disk in a temporary folder

A checkpoint of MBart-large's shapes (2.4 GB, random numbers) is made and trimmed from 250,027 to some 2,200 tokens.
Each measurement runs in a process of its own. Memory is the growth of anonymous resident memory: mapped file pages,
which the kernel takes back when it needs them, do not count. Limits: 1.3 times the trimmed model; twice the time.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.measuring import report

MEMORY_LIMIT, TIME_LIMIT = 1.3, 2.0
KEEP_EVERY = 115
REPEATS = 3


def make_checkpoint(folder: Path) -> None:
    """Write MBart-large with random numbers: model.safetensors, bin/pytorch_model.bin, old/pytorch_model.bin."""
    import torch
    from safetensors.torch import save_file
    from transformers import MBartConfig, MBartForConditionalGeneration

    config = MBartConfig(vocab_size=250027, tie_word_embeddings=True, decoder_start_token_id=115 * 2)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "forced_eos_token_id"):
        setattr(config, name, 0)
    with torch.device("meta"):
        model = MBartForConditionalGeneration(config)
    tied = set(model.all_tied_weights_keys)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tied}
    tensors = {name: torch.rand(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    for name, zipped in (("bin", True), ("old", False)):
        config.save_pretrained(folder / name)
        torch.save(tensors, folder / name / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def trim(folder: Path, out: Path, kept_token_ids: list[int]) -> None:
    """What is measured."""
    from training_fla.training.checkpoint_trimming import trim_checkpoint

    out.mkdir()
    trim_checkpoint(folder, kept_token_ids, out)


def copy(folder: Path, out: Path, kept_token_ids: list[int]) -> None:
    """The yardstick: as many bytes read and written by safetensors and nothing else."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir()
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            whole = file.get_slice(name)
            vocabulary = 250027 in whole.get_shape()
            rows = (
                (lambda whole: whole[: len(kept_token_ids)]) if "bias" not in name else (lambda whole: whole[:, :2200])
            )
            tensors[name] = rows(whole).contiguous() if vocabulary else file.get_tensor(name)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def anonymous_memory() -> int:
    """Resident bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


def measure(work, results, *args) -> None:
    """Put seconds and growth of memory of `work(*args)` on the queue `results`; the imports are not counted."""
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401

    import training_fla.training.checkpoint_trimming  # noqa: F401

    before = peak = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work(*args)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    results.put((seconds, peak - before))


def in_new_process(work, *args) -> tuple[float, int]:
    """[`measure`] in a fresh interpreter."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(work, results, *args))
    process.start()
    outcome = results.get(timeout=600)
    process.join()
    return outcome


def warm(folder: Path) -> None:
    """Have the weights in the file cache, where a busy machine does not keep them."""
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        with open(path, "rb", buffering=0) as file:
            while file.read(16 << 20):
                pass


def best_of(work, folder: Path, out: Path, kept_token_ids: list[int]) -> tuple[float, int]:
    """The fastest run's seconds and the largest growth of memory."""
    runs = []
    for _ in range(REPEATS):
        warm(folder)
        runs.append(in_new_process(work, folder, out, kept_token_ids))
        shutil.rmtree(out)
    return min(seconds for seconds, _ in runs), max(memory for _, memory in runs)


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    kept_token_ids = list(range(0, 250027, KEEP_EVERY))
    with tempfile.TemporaryDirectory(dir=os.environ.get("FLA_BENCH_DIR")) as name:
        folder = Path(name)
        maker = multiprocessing.get_context("spawn").Process(target=make_checkpoint, args=(folder,))
        maker.start()
        maker.join()
        copied, _ = best_of(copy, folder, folder / "out", kept_token_ids)
        in_new_process(trim, folder, folder / "out", kept_token_ids)
        size = (folder / "out" / "model.safetensors").stat().st_size
        shutil.rmtree(folder / "out")
        rows = []
        sources = {"safetensors": folder, "pytorch_model.bin": folder / "bin", "torch<1.6 file": folder / "old"}
        for label, source in sources.items():
            seconds, memory = best_of(trim, source, folder / "out", kept_token_ids)
            rows.append((f"trim {label}: memory / trimmed size", memory / size, MEMORY_LIMIT))
            rows.append((f"trim {label}: time / copying the kept bytes", seconds / copied, TIME_LIMIT))
    return report(rows, as_json=options.json, copy_seconds=copied, trimmed_bytes=size)


if __name__ == "__main__":
    sys.exit(main())
