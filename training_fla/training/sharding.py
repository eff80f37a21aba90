"""Training a model in shards (FSDP), and putting it together again at the end."""

import copy

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

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
