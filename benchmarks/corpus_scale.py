"""How long does a packed corpus of many clips take to open, and how much memory does each process need for it?

    python -m benchmarks.corpus_scale [--clips 1000000] [--json]        a few seconds

A hundred drawn clips are packed, and their index is repeated: opening reads no more than that. Every process of a run
opens the corpus and makes its data set. Limits: 2 s for each 100,000 clips, 300 bytes of private memory a clip.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from experiments.drawn.demo import read_demo
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import MANIFEST, PackedCorpus, file_sha256, manifest_digest, read_packed_manifest
from training_fla.data.packing import pack

CLIPS = 100


def repeat_index(folder: Path, times: int) -> None:
    """Have the index of the training split name its clips so many times."""
    manifest = read_packed_manifest(folder)
    split, file = manifest["splits"]["train"], folder / "train.index.arrow"
    index = pa.ipc.open_file(pa.OSFile(str(file))).read_all()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, index.schema) as writer:
        writer.write_table(pa.concat_tables([index] * times).combine_chunks())
    split["clips"] = len(index) * times
    split["shards"][0]["clips"] += len(index) * (times - 1)  # a manifest says the same of a split and its shards
    split["index"] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": manifest_digest(manifest)}))


def private_bytes() -> int:
    """Memory of this process that it shares with no other."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * 4096


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    from benchmarks.measuring import report
    from processing_fla import FlaProcessor, FlaVideoProcessor, train_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "corpus")
        rows = read_demo(num_train=CLIPS, num_dev=1, num_test=1, size=32)
        pack(rows, folder, size=32)
        tokenizer = train_tokenizer([row.sentence for row in rows], 120, ("de_DE",))
        processor = FlaProcessor(video_processor=FlaVideoProcessor(), tokenizer=tokenizer)
        SignVideoDataset(PackedCorpus(folder, "train"), processor)  # what is imported and set up once
        repeat_index(folder, options.clips // CLIPS)
        before, start = private_bytes(), time.perf_counter()
        videos = SignVideoDataset(PackedCorpus(folder, "train"), processor)
        seconds, used = time.perf_counter() - start, private_bytes() - before
    clips = len(videos)
    limits = [
        ("seconds to open 100,000 clips", seconds / clips * 1e5, 2.0),
        ("private bytes a clip", used / clips, 300.0),
    ]
    return report(limits, as_json=options.json, clips=clips)


if __name__ == "__main__":
    sys.exit(main())
