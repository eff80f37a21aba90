"""transformers' own common test classes, run against our model with three language models.

They are in its source distribution, not in its wheel: `make test-upstream` downloads that and runs this. It lacks the
modules that its tests import from sub-folders; a full git checkout has them, and then the generation tests run too:

    TRANSFORMERS_SOURCE=<folder> pytest -m slow tests/modeling/test_upstream_common.py
"""

import copy
import importlib.util
import os
import sys
import types
import unittest
import unittest.mock
from pathlib import Path

import pytest
import torch
import transformers
from transformers import Dinov2Config, MarianConfig, MBartConfig, MT5Config, ResNetConfig

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig

SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::FutureWarning")]  # one test wants the warning
if not SOURCE:
    pytest.skip("TRANSFORMERS_SOURCE names no source of transformers", allow_module_level=True)
assert (Path(SOURCE) / "tests" / "test_modeling_common.py").is_file(), f"{SOURCE} holds no tests of transformers"
pytest.importorskip("parameterized", reason="transformers' tests need the `parameterized` package")

PACKAGE = "transformers_source_tests"


def _find(name):
    try:
        return importlib.util.find_spec(f"{PACKAGE}.{name}")
    except ModuleNotFoundError:
        return None


# Under a name of its own: `tests` is this repository's package.
package = types.ModuleType(PACKAGE)
package.__path__ = [str(Path(SOURCE) / "tests")]
sys.modules[PACKAGE] = package
for missing, contents in {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}.items():
    if _find(missing) is None:
        parts = missing.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join([PACKAGE, *parts[:depth]])
            module = sys.modules.setdefault(name, types.ModuleType(name))
            module.__path__ = getattr(module, "__path__", [])
        vars(module).update(contents)

# It would execute the `__init__.py` beside the tests, which the source distribution leaves out too.
with unittest.mock.patch("transformers.utils.direct_transformers_import", lambda *args, **kwargs: transformers):
    from transformers_source_tests.generation.test_utils import GenerationTesterMixin
    from transformers_source_tests.test_configuration_common import ConfigTester
    from transformers_source_tests.test_modeling_common import ModelTesterMixin

SPECIAL_TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 3}
WIDTH, HEADS, LAYERS, VOCABULARY = 16, 2, 2, 99
BART_LIKE = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    **SPECIAL_TOKENS,
}


def mbart():
    return MBartConfig(**BART_LIKE, forced_eos_token_id=None)


def marian():
    return MarianConfig(**BART_LIKE, decoder_vocab_size=VOCABULARY, forced_eos_token_id=None)


def mt5():
    return MT5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=LAYERS, num_heads=HEADS, **SPECIAL_TOKENS
    )


class FlaModelTester:
    """What transformers' test classes ask about a model: a tiny configuration and inputs for it."""

    def __init__(self, parent, text_config, backbone_config):
        self.parent = parent
        self.make_text_config, self.backbone_config = text_config, backbone_config
        self.with_input_ids = False  # two of upstream's tests write into them, though this model has none
        self.batch_size, self.num_frames, self.decoder_seq_length = 3, 7, 5
        self.seq_length = self.decoder_seq_length
        self.encoder_seq_length = self.key_length = self.num_frames
        self.hidden_size, self.num_attention_heads, self.num_hidden_layers = WIDTH, HEADS, LAYERS
        self.vocab_size = VOCABULARY
        self.is_training = True

    def get_config(self):
        vision_config = FlaVisionConfig(backbone_config=copy.deepcopy(self.backbone_config), hidden_size=24)
        return FlaConfig(vision_config=vision_config, text_config=self.make_text_config())

    def prepare_config_and_inputs_for_common(self):
        attention_mask = torch.ones(self.batch_size, self.num_frames, dtype=torch.long)
        attention_mask[-1, -2:] = 0
        decoder_input_ids = torch.randint(4, VOCABULARY, (self.batch_size, self.decoder_seq_length))
        inputs = {
            "pixel_values_videos": torch.rand(self.batch_size, self.num_frames, 3, 32, 40),
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
        }
        if self.with_input_ids:
            inputs["input_ids"] = decoder_input_ids.clone()
        return self.get_config(), inputs

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class CommonTests(ModelTesterMixin, GenerationTesterMixin):
    all_model_classes = (FlaForConditionalGeneration,)
    is_encoder_decoder = True
    _is_composite = True
    additional_model_inputs = ["decoder_input_ids"]
    backbone_config = ResNetConfig(layer_type="basic", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])

    def setUp(self):
        self.model_tester = FlaModelTester(self, type(self).text_config, type(self).backbone_config)
        self.config_tester = ConfigTester(self, config_class=FlaConfig, has_text_modality=True)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs_dict = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        inputs_dict.pop("input_ids", None)
        if return_labels:  # upstream looks up by class name which models take labels
            inputs_dict["labels"] = torch.zeros(inputs_dict["decoder_input_ids"].shape, dtype=torch.long)
        return inputs_dict

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_resize_tokens_embeddings(self):
        self.model_tester.with_input_ids = True
        super().test_resize_tokens_embeddings()

    def test_resize_embeddings_untied(self):
        self.model_tester.with_input_ids = True
        super().test_resize_embeddings_untied()


class MBartCommonTest(CommonTests, unittest.TestCase):
    text_config = staticmethod(mbart)
    test_can_init_all_missing_weights_before_2023 = True


class MarianCommonTest(CommonTests, unittest.TestCase):
    text_config = staticmethod(marian)


class MT5CommonTest(CommonTests, unittest.TestCase):
    text_config = staticmethod(mt5)


class TransformerBackboneCommonTest(CommonTests, unittest.TestCase):
    """With attention in the vision backbone too, which ResNet does not have."""

    text_config = staticmethod(mbart)
    backbone_config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
