"""A whole model in 8 or 4 bits writes the sentences of its weights in full precision."""

import copy

import pytest
import torch
from transformers import BitsAndBytesConfig, MBartConfig, TorchAoConfig

from modeling_fla import FlaConfig, FlaForConditionalGeneration

from .conftest import BART_SIZES, tiny_vision_config


@pytest.fixture
def whole() -> FlaForConditionalGeneration:
    """Weights are drawn wide, so that clips differ; widths are multiples of 64, as kernels for 4 bits want them."""
    sizes = {"d_model": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "tie_word_embeddings": False}
    text = MBartConfig(**BART_SIZES | sizes)
    model = FlaForConditionalGeneration(FlaConfig(vision_config=tiny_vision_config(hidden_size=64), text_config=text))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Embedding)):
                layer.weight.normal_(std=layer.weight.shape[1] ** -0.5)
    return model.eval()


def check_same_sentences(quantized, whole, mask, tolerance: float) -> None:
    """Sentences of two clips are equal, and logits differ by a share of their own spread."""
    assert type(quantized.adapter.hidden.weight) is not torch.nn.Parameter
    features = torch.rand(2, 7, 64)
    options = {"sign_features": features, "attention_mask": mask}
    sentences = whole.generate(**options, num_beams=1, max_new_tokens=5)
    assert len({tuple(sentence) for sentence in sentences.tolist()}) == 2
    assert torch.equal(quantized.generate(**options, num_beams=1, max_new_tokens=5), sentences)
    with torch.no_grad():
        logits, expected = (model(**options, decoder_input_ids=sentences).logits for model in (quantized, whole))
    assert (logits - expected).abs().max() < tolerance * expected.std()


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_by_torch(whole, mask):
    linear = {torch.nn.Linear}
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(whole), linear, dtype=torch.qint8)
    check_same_sentences(quantized, whole, mask, tolerance=0.2)


def test_by_bitsandbytes_to_8_bits(whole, mask, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    whole.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_8bit=True)
    quantized = FlaForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
    check_same_sentences(quantized, whole, mask, tolerance=0.2)


def test_by_bitsandbytes_to_4_bits(whole, mask, tmp_path):
    """Against the same rounded weights: random ones survive 4 bits less well than trained ones."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    whole.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    quantized, rounded = (
        FlaForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config) for _ in range(2)
    )
    check_same_sentences(quantized, rounded.dequantize(), mask, tolerance=0.1)


def test_by_torchao(whole, mask, tmp_path):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    whole.save_pretrained(tmp_path)
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    quantized = FlaForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
    check_same_sentences(quantized, whole, mask, tolerance=0.2)
