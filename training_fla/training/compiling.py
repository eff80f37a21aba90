"""`torch_compile`: the visual encoder compiled in place, once for batches of every size."""

import os

from transformers import Seq2SeqTrainingArguments

from modeling_fla import FlaForConditionalGeneration
from training_fla.errors import InputError


def take_compile_options(args: Seq2SeqTrainingArguments) -> dict | None:
    """What a recipe says of `torch_compile`, taken from transformers, which would compile the whole model."""
    options = {"backend": args.torch_compile_backend, "mode": args.torch_compile_mode}
    if not args.torch_compile:
        return None
    if args.activation_checkpointing:
        raise InputError("torch_compile and activation_checkpointing cannot be combined: set one of them to false")
    args.torch_compile, args.torch_compile_backend, args.torch_compile_mode = False, None, None
    for name in ("BACKEND", "MODE"):  # where Accelerate would look
        os.environ.pop(f"ACCELERATE_DYNAMO_{name}", None)
    return options


def compile_visual_encoder(model: FlaForConditionalGeneration, is_in_shards: bool, **options) -> None:
    """Compile backbone and temporal module in place; names of weights, saving and copying stay as they are."""
    if is_in_shards:
        raise InputError("torch_compile and FSDP cannot be combined: set torch_compile to false")
    if model.visual_encoder is not None:  # None: the model reads features
        model.visual_encoder.vision_backbone.compile(**options)
        model.visual_encoder.temporal_module.compile(**options)
