"""Large models and fast ones: training in shards (FSDP), compiling (`torch_compile`), and less work in a step."""

import copy
import os

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, Seq2SeqTrainingArguments

from modeling_fla import FlaForConditionalGeneration, FlaVisualEncoder
from training_fla.errors import InputError
from training_fla.recipe import OptimizationArguments


def check_sharding(accelerator: Accelerator, optimization: OptimizationArguments) -> None:
    """Refuse what reads whole weights in the middle of a step, and checkpoints that would not load again."""
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise InputError(f"fsdp_version is {plugin.fsdp_version}: only 2 is supported (recipes/accelerate/fsdp.yaml)")
    if optimization.norm_logging_steps:
        raise InputError("norm_logging_steps needs whole weights; a run with FSDP has shards of them")
    if "SHARDED" not in str(plugin.state_dict_type):
        # Whole ones cannot be read again where a head is tied: torch looks for one name of each tensor only.
        raise InputError("fsdp_state_dict_type must be SHARDED_STATE_DICT: tied weights load from shards")


def share_tied_tables(language_model: PreTrainedModel) -> None:
    """Make token embeddings that are one tensor one module too: FSDP would refuse a second one that shares it."""
    shared = getattr(language_model.base_model, "shared", None)
    if shared is None:
        return
    for stack in (language_model.get_encoder(), language_model.get_decoder()):
        if stack.embed_tokens is not shared and stack.embed_tokens.weight is shared.weight:
            stack.embed_tokens = shared


def without_weights(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters take no memory, to be filled by [`gather`]."""
    empty = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def gather(accelerator: Accelerator, sharded: nn.Module, empty: nn.Module) -> nn.Module:
    """Fill `empty` with a sharded model's weights on the first process; every process must call this."""
    state = accelerator.get_state_dict(sharded)
    if not accelerator.is_main_process:
        return empty
    empty.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=False, assign=True)
    empty.tie_weights()
    missing = [name for name, tensor in empty.named_parameters() if tensor.device == torch.device("meta")]
    if missing:
        raise RuntimeError(f"the shards hold no {missing[0]}")
    return empty.eval()


def take_compile_options(args: Seq2SeqTrainingArguments) -> dict | None:
    """What a recipe says of `torch_compile`, taken from transformers, which would compile the whole model."""
    options = {"backend": args.torch_compile_backend, "mode": args.torch_compile_mode}
    if not args.torch_compile:
        return None
    if args.torch_compile_mode not in (None, "default"):
        # Those with CUDA graphs overwrite features that evaluation still needs; the others fail where tf32 is set.
        raise InputError(
            f"torch_compile_mode: {args.torch_compile_mode} fails on a GPU: the visual encoder runs several times "
            "before its features are used, and PyTorch cannot tune beside tf32; drop the line"
        )
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


def keep_channels_last(encoder: FlaVisualEncoder) -> None:
    """Let the backbone's weights lie as its frames do: else a GPU copies each of them, forward and backward."""
    encoder.vision_backbone.to(memory_format=torch.channels_last)


class ShortWalks:
    """`train()` and `zero_grad()` of a model that is trained, over lists: walks over all modules take 1 ms a step."""

    def __init__(self, model: nn.Module):
        self.model = model
        model.train()
        self.modes = [(module, module.training) for module in model.modules()]
        self.parameters = list(model.parameters())
        model.train, model.zero_grad = self.train, self.zero_grad

    def train(self, mode: bool = True) -> nn.Module:
        """As of the model; where every module is in its mode already, that is all."""
        if not mode or any(module.training is not was for module, was in self.modes):
            type(self.model).train(self.model, mode)
        return self.model

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of the model."""
        for parameter in self.parameters:
            parameter.grad = None

    def end(self) -> None:
        """Give the model its own methods back."""
        del self.model.train, self.model.zero_grad
