"""Damaged videos, annotation files and packed shards give a clear error or a right answer.

The short form runs by default; `pytest -m slow tests/corpora/test_corpus_fuzz.py` tries 2,000 damaged files. They are
read by a child process with 1 GiB of memory beyond what its imports took, and 10 seconds a file.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.corpora.corpus_trees import csl_daily, drawn_rows, how2sign, phoenix14t, write_video
from training_fla.data.packing import pack

# Reads every file named on its standard input, one a line, and prints what came of it; an expected error is a line.
CHILD = """
import json, resource, signal, sys, time
from pathlib import Path
from tests.corpora.test_corpus_fuzz import READERS
from training_fla.errors import InputError

lines = [line.rstrip("\\n").split("\\t") for line in sys.stdin]
wholes = {kind: Path(path) for kind, path, _ in lines}
for kind, path in wholes.items():
    READERS[kind](path)  # what is whole is read, and what reading imports is imported
page = resource.getpagesize()
taken = int(open("/proc/self/statm").read().split()[0]) * page
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), taken + (1 << 30)))
signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang ends the process
for kind, _, path in lines:
    signal.alarm(10)
    try:
        outcome = READERS[kind](Path(path))
    except InputError as error:
        outcome = "error: " + str(error)
    except ValueError as error:
        if type(error).__name__ != "VideoDecodeError":
            raise
        outcome = "error: " + str(error)
    signal.alarm(0)
    print(json.dumps(outcome), flush=True)
"""


def read_video(file: Path):
    from training_fla.corpora.clips import VideoFile

    return ["video", sum(1 for _ in VideoFile(file).frames(size=(16, 16)))]


def read_labels(file: Path):
    from training_fla.corpora.csl_daily import _pickled_labels
    from training_fla.corpora.row import Reading

    reading = Reading()
    rows = ["rows", len(_pickled_labels(file, reading))]
    reading.finished([])
    return rows


def read_table(root: Path):
    from training_fla.corpora.manifest import read_manifest

    return ["rows", len(read_manifest(root))]


def read_phoenix(root: Path):
    from training_fla.corpora.phoenix14t import read_phoenix14t

    return ["rows", len(read_phoenix14t(root))]


def read_how2sign_folder(root: Path):
    from training_fla.corpora.how2sign import read_how2sign

    return ["rows", len(read_how2sign(root))]


def read_packed(folder: Path):
    """Everything that training reads, and the hashes of it."""
    import hashlib

    from training_fla.data.packed_corpus import PackedCorpus

    corpus = PackedCorpus(folder, "train")
    frames = [corpus.read_frames(index, range(corpus.num_frames[index])) for index in range(len(corpus))]
    pixels = hashlib.sha256(b"".join(clip.numpy().tobytes() for clip in frames)).hexdigest()
    return ["packed", list(corpus.ids), list(corpus.sentences), list(corpus.num_frames), pixels]


READERS = {
    "video": read_video,
    "labels": read_labels,
    "table": read_table,
    "phoenix14t": read_phoenix,
    "how2sign": read_how2sign_folder,
    "packed": read_packed,
}


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Flip bits, cut, overwrite, swap or repeat some bytes."""
    data = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        kind, place = generator.integers(6), int(generator.integers(len(data) or 1))
        length = int(generator.integers(1, 1 + min(64, max(1, len(data) - place))))
        if not data or kind == 0:
            data = data[:place]
        elif kind == 1:
            data[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            data[place : place + length] = generator.bytes(length)
        elif kind == 3:
            data[place : place + length] = b"\xff" * length
        elif kind == 4:
            other = int(generator.integers(len(data)))
            data[place], data[other] = data[other], data[place]
        else:
            data[place:place] = data[place : place + length]
    return bytes(data)


def outcomes(cases: list[tuple[str, Path, Path]]) -> list:
    """What reading each damaged file gives; a case is its kind, the whole file and the damaged one."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="".join(f"{kind}\t{whole}\t{path}\n" for kind, whole, path in cases),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = child.stdout.splitlines()
    assert child.returncode == 0 and len(lines) == len(cases), (
        f"status {child.returncode} at {cases[min(len(lines), len(cases) - 1)]}\n{child.stderr[-2000:]}"
    )
    return [json.loads(line) for line in lines]


def damage(kind: str, whole: Path, target: str, folder: Path, count: int) -> list[tuple[str, Path, Path]]:
    """Copies of `whole`, each with damage to its file `target`, or to itself if that is empty."""
    generator = np.random.default_rng([count, *folder.name.encode()])
    source = whole / target if target else whole
    folder.mkdir()
    cases = []
    for number in range(count):
        copy = folder / f"damaged-{number}{whole.suffix}"
        if target:
            # Hard links: only the damaged file is another one.
            shutil.copytree(whole, copy, copy_function=os.link)
            (copy / target).unlink()
        (copy / target if target else copy).write_bytes(mutate(source.read_bytes(), generator))
        cases.append((kind, whole, copy))
    return cases


def tables(folder: Path) -> list[Path]:
    folder.mkdir()
    records = [(f"{number}.mp4", f"satz {number}", "train") for number in range(9)]
    columns = ("video", "sentence", "split")
    lines = [json.dumps(dict(zip(columns, record, strict=True))) for record in records]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        lines = [delimiter.join(cells) for cells in [columns, *records]]
        (folder / f"t.{suffix}").write_text("\n".join(lines) + "\n")
    return [folder / "t.jsonl", folder / "t.csv", folder / "t.tsv"]


def run_all(tmp_path: Path, count: int) -> None:
    video = write_video(tmp_path / "whole.mp4", 12)
    labels = csl_daily(tmp_path / "csl") / "sentence_label/csl2020ct_v2.pkl"
    packed = tmp_path / "packed"
    pack(drawn_rows(4, 0, 0), packed, size=16, shard_clips=4, num_workers=0)
    phoenix, train = phoenix14t(tmp_path / "phoenix"), "annotations/manual/PHOENIX-2014-T.train.corpus.csv"
    groups = [
        damage("video", video, "", tmp_path / "videos", count),
        damage("labels", labels, "", tmp_path / "labels", count),
        damage("phoenix14t", phoenix, train, tmp_path / "phoenixes", count // 2),
        damage("how2sign", how2sign(tmp_path / "h2s"), "how2sign_realigned_val.csv", tmp_path / "h2ss", count // 2),
        damage("packed", packed, "train-00000-of-00001.arrow", tmp_path / "shards", count),
        damage("packed", packed, "manifest.json", tmp_path / "manifests", count // 2),
        damage("packed", packed, "train.index.arrow", tmp_path / "indexes", count // 2),
    ]
    for table in tables(tmp_path / "tables"):
        groups.append(damage("table", table, "", tmp_path / table.suffix[1:], count // 3))
    truth = read_packed(packed)
    cases = [case for group in groups for case in group]
    results = outcomes(cases)
    for (kind, _, path), result in zip(cases, results, strict=True):
        if isinstance(result, str):
            assert path.name in result and "\n" not in result
        elif kind == "packed":
            assert result == truth
        elif kind == "video":
            # The whole clip, or less by an edit that the index itself speaks of; never more frames than there were.
            assert 0 < result[1] <= 12
    assert {kind for (kind, _, _), result in zip(cases, results, strict=True) if isinstance(result, str)} == set(
        READERS
    )


def test_damaged_files_give_errors_or_right_answers(tmp_path):
    run_all(tmp_path, count=12)


@pytest.mark.slow
def test_two_thousand_damaged_files_give_errors_or_right_answers(tmp_path):
    run_all(tmp_path, count=400)


def test_damage_is_found_at_every_place_of_a_small_pickle(tmp_path):
    """Not a random few but every truncation and every bit of a label file."""
    from training_fla.errors import InputError

    data = pickle.dumps({"info": [{"name": "a", "length": 3, "label_char": ["x", "y"]}]})
    file = tmp_path / "labels.pkl"
    for place in range(len(data)):
        flipped = [data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :] for bit in range(8)]
        for damaged in [data[:place], *flipped]:
            file.write_bytes(damaged)
            try:
                read_labels(file)
            except InputError as error:
                assert "labels.pkl" in str(error)
