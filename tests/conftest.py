"""Shared fixtures: everything is seeded, offline and small, and sizes differ so that a swapped axis fails."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora; the test is skipped where the machine has none."""
    folder = os.environ.get("FLA_REAL_DATA")
    if not folder:
        pytest.skip("FLA_REAL_DATA is not set: the real corpora are not on this machine")
    if not Path(folder).is_dir():
        pytest.fail(f"FLA_REAL_DATA is {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def packed_demo(tmp_path_factory) -> Path:
    """Ten train, three dev and three test clips of 32 x 32 pixels."""
    from experiments.drawn.demo import read_demo
    from training_fla.data.packing import pack

    folder = tmp_path_factory.mktemp("demo") / "corpus"
    pack(
        read_demo(num_train=10, num_dev=3, num_test=3, size=32),
        folder,
        size=32,
        num_workers=0,
        corpus="demo",
    )
    return folder


@pytest.fixture(scope="session")
def demo_processor(packed_demo):
    """Keeps one frame in four, 32 -> 28 pixels; about a hundred pieces."""
    return make_processor(packed_demo)


def make_processor(packed: Path):
    from processing_fla import FlaProcessor, FlaVideoProcessor, train_tokenizer

    sentences = (packed / "train.sentences.txt").read_text(encoding="utf-8").splitlines()
    video_processor = FlaVideoProcessor(
        frame_stride=4, size={"height": 32, "width": 32}, crop_size={"height": 28, "width": 28}
    )
    return FlaProcessor(video_processor=video_processor, tokenizer=train_tokenizer(sentences, 120, ("de_DE",)))
