"""A small drawn corpus, packed once for the whole run, and a tokenizer of its sentences."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def packed_demo(tmp_path_factory) -> Path:
    """Ten train, three dev and three test clips of 32 x 32 pixels."""
    from training_fla.corpora.demo import read_demo
    from training_fla.packing import pack

    folder = tmp_path_factory.mktemp("demo") / "corpus"
    pack(
        read_demo(num_train=10, num_dev=3, num_test=3, size=32),
        folder,
        size=32,
        num_workers=0,
        progress=False,
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
