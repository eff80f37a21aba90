"""The network of FLa-LLM, registered with transformers' Auto classes; it imports none of our other packages."""

from importlib.metadata import PackageNotFoundError, version

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .configuration_fla import FlaConfig, FlaVisionConfig
from .exported_fla import FlaExportedConfig, FlaExportedForConditionalGeneration
from .imagenet_weights_fla import load_imagenet_weights
from .modeling_fla import FlaForConditionalGeneration, FlaVisualEncoder
from .trimming_fla import trim_token_embeddings

try:
    __version__ = version("fla-llm")
except PackageNotFoundError:  # copied beside an app, as in a Space, or a clone that is not installed
    __version__ = "unknown"

AutoConfig.register("fla_vision", FlaVisionConfig, exist_ok=True)
AutoConfig.register("fla_llm", FlaConfig, exist_ok=True)
AutoModel.register(FlaVisionConfig, FlaVisualEncoder, exist_ok=True)
AutoModel.register(FlaConfig, FlaForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(FlaConfig, FlaForConditionalGeneration, exist_ok=True)
AutoConfig.register("fla_llm_exported", FlaExportedConfig, exist_ok=True)
AutoModel.register(FlaExportedConfig, FlaExportedForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(FlaExportedConfig, FlaExportedForConditionalGeneration, exist_ok=True)

# `save_pretrained` then puts the code beside the weights, for those who have not installed this package.
FlaConfig.register_for_auto_class()
FlaForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")

__all__ = [
    "FlaConfig",
    "FlaExportedConfig",
    "FlaExportedForConditionalGeneration",
    "FlaForConditionalGeneration",
    "FlaVisionConfig",
    "FlaVisualEncoder",
    "load_imagenet_weights",
    "trim_token_embeddings",
]
