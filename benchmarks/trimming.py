"""How long does trimming MBart-large take, and how much memory?

    python -m benchmarks.trimming            half a minute, 4 GB of disk in a temporary folder

A checkpoint of MBart-large's shapes (2.4 GB, random numbers) is loaded, trimmed from 250,027 to some 2,200 tokens and
saved, as `fla trim` does, in a process of its own. Memory is the growth of anonymous resident memory: mapped file
pages, which the kernel takes back when it needs them, do not count.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.measuring import report

SECONDS_LIMIT, GIB_LIMIT = 60, 4
VOCABULARY, KEEP_EVERY = 250027, 115


def make_checkpoint(folder: Path) -> None:
    """Write MBart-large with random numbers."""
    import torch
    from safetensors.torch import save_file
    from transformers import MBartConfig, MBartForConditionalGeneration

    config = MBartConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, decoder_start_token_id=2 * KEEP_EVERY)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "forced_eos_token_id"):
        setattr(config, name, 0)
    with torch.device("meta"):
        model = MBartForConditionalGeneration(config)
    tied = set(model.all_tied_weights_keys)
    tensors = {name: torch.rand(t.shape) for name, t in model.state_dict().items() if name not in tied}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)


def anonymous_memory() -> int:
    """Resident bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


def measured_trim(folder: Path, results) -> None:
    """Trim; put the seconds and the growth of memory on the queue `results`. The imports are not counted."""
    from transformers import AutoModelForSeq2SeqLM

    from modeling_fla import trim_token_embeddings

    before = peak = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="auto")
    trim_token_embeddings(model, list(range(0, VOCABULARY, KEEP_EVERY))).save_pretrained(folder / "out")
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    results.put((seconds, peak - before))


def in_new_process(work, *args) -> None:
    """Run `work(*args)` in a fresh interpreter."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    process.join()


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(dir=os.environ.get("FLA_BENCH_DIR")) as name:
        in_new_process(make_checkpoint, Path(name))
        results = multiprocessing.get_context("spawn").SimpleQueue()
        in_new_process(measured_trim, Path(name), results)
        seconds, memory = results.get()
    rows = [
        ("load, trim and save MBart-large: seconds", seconds, SECONDS_LIMIT),
        ("load, trim and save MBart-large: GiB of memory", memory / 2**30, GIB_LIMIT),
    ]
    return report(rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
