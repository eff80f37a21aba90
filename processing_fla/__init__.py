"""From video file and sentence to tensors and back; of our packages, only this file imports modeling_fla.

Importing this package registers it with transformers' Auto classes and pipelines: [`AutoProcessor`] and
`pipeline(...)` then load a saved folder without `trust_remote_code`.
"""

from importlib.metadata import PackageNotFoundError, version

from transformers import AutoModelForSeq2SeqLM, AutoProcessor, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_fla import FlaConfig, FlaExportedConfig

from .frame_conversion_fla import VideoDecodeError
from .pipeline_fla import TASK, SignTranslationPipeline
from .processing_fla import FlaProcessor, normalize_text
from .tokenization_fla import train_tokenizer, trim_tokenizer
from .video_processing_fla import FlaVideoProcessor

try:
    __version__ = version("fla-llm")
except PackageNotFoundError:  # copied beside an app, as in a Space, or a clone that is not installed
    __version__ = "unknown"

for config_class in (FlaConfig, FlaExportedConfig):
    AutoVideoProcessor.register(config_class, FlaVideoProcessor, exist_ok=True)
    AutoProcessor.register(config_class, FlaProcessor, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=SignTranslationPipeline, pt_model=AutoModelForSeq2SeqLM, type="multimodal"
    )
# The task is known now: `pipeline(...)` needs no code of a folder and must not ask whether to trust it.
FlaConfig.custom_pipelines = {}

# `save_pretrained` then puts the code beside the configs, for those who have not installed this package.
FlaVideoProcessor.register_for_auto_class()
FlaProcessor.register_for_auto_class()

__all__ = [
    "FlaProcessor",
    "FlaVideoProcessor",
    "SignTranslationPipeline",
    "VideoDecodeError",
    "normalize_text",
    "train_tokenizer",
    "trim_tokenizer",
]
