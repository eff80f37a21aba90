"""Tiny configurations and videos of unequal sizes, and the markers of transformers' own test classes."""

import copy

import pytest
import torch
from transformers import (
    BartConfig,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    ResNetConfig,
    T5Config,
    T5Gemma2Config,
    T5GemmaConfig,
    UMT5Config,
)

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig

UPSTREAM_MARKERS = (
    *("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test"),
    *("generate", "is_training_test", "order"),
)
B, T, C, D, L, V = 2, 7, 24, 16, 4, 40
LENGTHS = (7, 4)

TOKENS = {"vocab_size": V, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 3}
BART_SIZES = {
    **{"d_model": D, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 20},
    **{"forced_eos_token_id": None, **TOKENS},
}
T5_SIZES = {"d_model": D, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, **TOKENS}
# Like their tokenizers, Gemma's begin a sentence with <bos>; the window is shorter than the longest video.
GEMMA_TOKENS = {"vocab_size": V, "pad_token_id": 1, "bos_token_id": 3, "eos_token_id": 2}
GEMMA_SIZES = {
    **{"hidden_size": D, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 6, **GEMMA_TOKENS},
}
KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
PICTURES = {
    "vision_config": {
        **{"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        **{"image_size": 8, "patch_size": 4},
    },
    **{"mm_tokens_per_image": 4, "boi_token_index": 35, "eoi_token_index": 36, "image_token_index": 37},
}


def t5gemma(**fields):
    halves = {"encoder": GEMMA_SIZES | KINDS, "decoder": GEMMA_SIZES | KINDS | fields}
    return T5GemmaConfig(**halves, **GEMMA_TOKENS)


def t5gemma2():
    encoder = {"text_config": GEMMA_SIZES | KINDS, **PICTURES}
    return T5Gemma2Config(encoder=encoder, decoder=GEMMA_SIZES | KINDS, image_token_index=37, **GEMMA_TOKENS)


LANGUAGE_MODELS = {
    "mbart": lambda: MBartConfig(**BART_SIZES),
    "mt5": lambda: MT5Config(**T5_SIZES),
    "marian": lambda: MarianConfig(**BART_SIZES, decoder_vocab_size=V),
    "bart": lambda: BartConfig(**BART_SIZES),
    "t5": lambda: T5Config(**T5_SIZES),
    "pegasus": lambda: PegasusConfig(**BART_SIZES),
    "m2m_100": lambda: M2M100Config(**BART_SIZES),
    "umt5": lambda: UMT5Config(**T5_SIZES),
    "t5gemma": t5gemma,
    "t5gemma2": t5gemma2,
}


def pytest_configure(config):
    for marker in UPSTREAM_MARKERS:
        config.addinivalue_line("markers", f"{marker}: transformers' own")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny_vision_config(**fields):
    backbone = ResNetConfig(layer_type="basic", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    return FlaVisionConfig(**{"backbone_config": backbone, "hidden_size": C, **fields})


def tiny_config(language_model="mbart", **fields):
    return FlaConfig(vision_config=tiny_vision_config(), text_config=LANGUAGE_MODELS[language_model](), **fields)


def tiny_model(language_model="mbart", **fields):
    """A model whose greedy choices are clear: the head is drawn wide, and BatchNorm has seen something."""
    model = FlaForConditionalGeneration(tiny_config(language_model, **fields))
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_()
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def mask():
    return torch.tensor([[1] * n + [0] * (T - n) for n in LENGTHS])


@pytest.fixture
def video():
    """Raw RGB, B=2, T=7, H != W."""
    return torch.randint(0, 256, (B, T, 3, 40, 32), dtype=torch.uint8)


@pytest.fixture
def labels():
    return torch.tensor([[7, 8, 2, 4], [9, 2, 4, -100]])


@pytest.fixture
def normalized(video):
    """The same video as the processor would return it."""
    config = FlaVisionConfig()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.image_mean, config.image_std))
    return (video / 255 - mean) / std


@pytest.fixture
def copied(model):
    return copy.deepcopy(model)
