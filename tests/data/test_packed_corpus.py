"""Decoding the frames of a packed corpus; reading it is tested in test_packing.py."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.corpora.corpus_trees import picture
from training_fla.data import packed_corpus
from training_fla.errors import InputError


def jpeg_of(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(params=["simplejpeg", "torchvision"])
def decode(request, monkeypatch):
    pytest.importorskip(request.param)
    if request.param == "torchvision":
        monkeypatch.setattr(packed_corpus, "simplejpeg", None)
    return packed_corpus.decode_jpeg_into


def test_every_decoder_gives_the_same_rgb(decode):
    source = picture(3, 18, 22)
    pixels = np.zeros_like(source)
    decode(memoryview(jpeg_of(source)), pixels)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(jpeg_of(source)))))


def test_a_grey_jpeg_becomes_rgb(decode):
    source = picture(3)[..., 0]
    pixels = np.zeros((*source.shape, 3), np.uint8)
    decode(jpeg_of(source), pixels)
    assert (pixels == pixels[..., :1]).all() and abs(pixels[..., 0].astype(int) - source).mean() < 3


def test_what_is_no_jpeg_or_of_another_size_is_refused(decode):
    pixels = np.zeros((18, 20, 3), np.uint8)
    with pytest.raises(InputError, match="not a JPEG"):
        decode(b"no JPEG at all", pixels)
    with pytest.raises(InputError, match="18 x 22 pixels instead of 18 x 20"):
        decode(jpeg_of(picture(3)), pixels)
