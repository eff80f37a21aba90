"""Stage 2 with few trained parameters through `peft`: LoRA or IA3 beside the language model's matrices, or a prefix.

The paper names LoRA and prefix tuning as future work (Sec. 7): with them only the LLM-Adapter and what is added are
trained, so that larger language models fit. At the end matrices are merged, and a prefix becomes plain keys and values
of the model ([`~modeling_fla.prefix_fla.FlaDecoderPrefix`]): the run's folder loads like any other, without `peft`.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_fla.prefix_fla import FlaDecoderPrefix, decoder_cache_shape
from training_fla.files import InputError

TYPES = {"lora": "LoraConfig", "ia3": "IA3Config", "prefix": "PrefixTuningConfig"}
# Unstated: what peft chooses for BART and for T5; it knows neither MBart nor M2M-100 by name.
MODULES = {
    ("lora", "q_proj"): {"target_modules": ["q_proj", "v_proj"]},
    ("lora", "q"): {"target_modules": ["q", "v"]},
    ("ia3", "q_proj"): {"target_modules": ["k_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]},
    ("ia3", "q"): {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]},
}
FOLDER = "peft"  # beside the model: what stage 2 trained, alone
ADAPTER = "llm_adapter.safetensors"  # the LLM-Adapter in that folder, which peft knows nothing of


class TrainedPrefix(FlaDecoderPrefix):
    """A prefix while it learns, through the encoder `peft` has for it: a table, or a table and an MLP.

    Args:
        text_config ([`~transformers.PreTrainedConfig`]): of the language model.
        config ([`~peft.PrefixTuningConfig`]): whole.
    """

    def __init__(self, text_config, config):
        from peft import PrefixEncoder

        super().__init__(text_config, config.num_virtual_tokens)
        self.config, self.shape = config, self.keys_and_values.shape
        del self.keys_and_values
        self.encoder = PrefixEncoder(config)

    def forward(self) -> torch.FloatTensor:
        """As [`~modeling_fla.prefix_fla.FlaDecoderPrefix.forward`]."""
        layers, two, heads, tokens, width = self.shape
        flat = self.encoder(torch.arange(tokens, device=self.encoder.embedding.weight.device))
        return flat.view(tokens, layers, two, heads, width).permute(1, 2, 3, 0, 4)


def add_peft(model: nn.Module, spec: dict[str, Any], gradient_checkpointing: bool = False) -> None:
    """Freeze the language model and put trainable parts beside its own, in place.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): its adapter stays trainable.
        spec (`dict`): `type` (lora, ia3 or prefix), and fields of peft's configuration, e.g. `r`, `lora_alpha`,
            `target_modules` (without them: queries and values in LoRA), `num_virtual_tokens`, `prefix_projection`.
        gradient_checkpointing (`bool`): whether the run will recompute activations.

    Raises:
        InputError: peft is not installed, another type, fields that peft refuses, or a prefix in a run that
            recomputes activations.
    """
    try:
        import peft
    except ImportError:
        raise InputError("`peft:` in a recipe needs the package peft: pip install fla-llm[peft]") from None
    fields = dict(spec)
    kind = fields.pop("type", None)
    if kind not in TYPES:
        raise InputError(f"peft: type must be one of {', '.join(TYPES)}, got {kind!r}")
    try:
        if kind == "prefix":
            add_prefix(model, fields, gradient_checkpointing)
            return
        if "target_modules" not in fields:
            names = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
            fields |= MODULES.get((kind, "q_proj" if "q_proj" in names else "q"), {})
        config = getattr(peft, TYPES[kind])(task_type="SEQ_2_SEQ_LM", **fields)
        # Into the modules, not around the model: whoever holds `language_model` finds what was there.
        peft.inject_adapter_in_model(config, model.language_model)
    except (TypeError, ValueError) as error:
        raise InputError(f"peft: {error}") from None
    model.language_model.peft_config = {"default": config}


def add_prefix(model: nn.Module, fields: dict[str, Any], gradient_checkpointing: bool) -> None:
    """Freeze the language model and let its decoder attend to a prefix that learns.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): changed in place.
        fields (`dict`): of [`~peft.PrefixTuningConfig`].
        gradient_checkpointing (`bool`): whether the run will recompute activations.

    Raises:
        InputError: the run recomputes activations, or there is no virtual token.
    """
    if gradient_checkpointing:
        raise InputError("peft: a prefix cannot be trained with gradient_checkpointing, which drops it")
    config = prefix_config(model.language_model.config, fields)
    if not isinstance(config.num_virtual_tokens, int) or config.num_virtual_tokens < 1:
        raise InputError(f"peft: num_virtual_tokens must be 1 or more, got {config.num_virtual_tokens!r}")
    model.language_model.requires_grad_(False)
    model.decoder_prefix = TrainedPrefix(model.language_model.config, config)


def prefix_config(text_config, fields: dict[str, Any]):
    """Complete peft's configuration by the sizes of a decoder.

    Args:
        text_config ([`~transformers.PreTrainedConfig`]): of the language model.
        fields (`dict`): what the recipe says.

    Returns:
        [`~peft.PrefixTuningConfig`]: for an encoder-decoder.
    """
    from peft import PrefixTuningConfig

    layers, heads, width = decoder_cache_shape(text_config)
    sizes = {"num_layers": layers, "num_attention_heads": heads, "token_dim": heads * width}
    common = {"task_type": "SEQ_2_SEQ_LM", "num_transformer_submodules": 2}
    return PrefixTuningConfig(
        **{**common, **sizes, "num_virtual_tokens": None, "encoder_hidden_size": heads * width} | fields
    )


def is_peft(model: nn.Module) -> bool:
    """Whether [`add_peft`] has been here.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): any.

    Returns:
        `bool`: true until [`merge_peft`].
    """
    return hasattr(model.language_model, "peft_config") or isinstance(model.decoder_prefix, TrainedPrefix)


def save_peft(model: nn.Module, folder: Path) -> None:
    """Write what was added alone, as `peft.PeftModel.from_pretrained(language_model, folder)` reads it.

    The LLM-Adapter lies beside it, so that the folder is all that [`load_peft`] needs on top of the two models that
    stage 2 began with.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): not merged yet.
        folder (`Path`): made where it is not there.
    """
    from peft import get_peft_model_state_dict

    if isinstance(model.decoder_prefix, TrainedPrefix):
        config, tensors = stored_prefix(model)
    else:
        config = model.language_model.peft_config["default"]
        state = get_peft_model_state_dict(model.language_model)
        # `PeftModel` wraps twice; the names in its files say so.
        tensors = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter = {name: tensor.detach().cpu().contiguous() for name, tensor in model.adapter.state_dict().items()}
    save_file(adapter, folder / ADAPTER, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def stored_prefix(model: nn.Module) -> tuple[Any, dict[str, torch.Tensor]]:
    """A learned prefix as peft keeps one.

    Of an encoder-decoder's prefix, peft gives layer i the entries 4i and 4i+1 of the table laid twice end to end, and
    so the same ones to layers half the depth apart. In a table of twice as many layers each finds its own.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): with a [`TrainedPrefix`].

    Returns:
        `tuple`: the configuration, and the tensors of the file.
    """
    prefix = model.decoder_prefix
    layers, two, heads, tokens, width = prefix.shape
    fields = {"num_virtual_tokens": tokens, "num_layers": two * layers, "inference_mode": True}
    table = prefix().new_zeros(tokens, layers, 2 * two, heads, width)
    table[:, :, :two] = prefix().detach().permute(3, 0, 1, 2, 4)
    config = prefix_config(model.language_model.config, fields)
    return config, {"prompt_embeddings": table.flatten(1)}


def merge_peft(model: nn.Module) -> None:
    """Add the trained matrices to the weights they stand beside, or keep a prefix's keys and values alone.

    The model is then as plain as any.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): changed in place.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    language_model = model.language_model
    if isinstance(model.decoder_prefix, TrainedPrefix):
        set_prefix(model, model.decoder_prefix().detach())
        return
    layers = [(name, part) for name, part in language_model.named_modules() if isinstance(part, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, attribute = name.rpartition(".")
        setattr(language_model.get_submodule(parent), attribute, layer.get_base_layer())
    del language_model.peft_config


def set_prefix(model: nn.Module, keys_and_values: torch.Tensor) -> None:
    """Give a model a plain prefix.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): changed in place, its configuration too.
        keys_and_values (`torch.FloatTensor` of shape `(layers, 2, heads, P, width)`): copied.
    """
    model.config.num_prefix_tokens = keys_and_values.shape[3]
    prefix = FlaDecoderPrefix(model.language_model.config, keys_and_values.shape[3])
    prefix.keys_and_values = nn.Parameter(keys_and_values.clone(memory_format=torch.contiguous_format))
    model.decoder_prefix = prefix


def load_peft(model: nn.Module, source: str | Path) -> None:
    """Put what [`save_peft`] or `PeftModel.save_pretrained` left onto a model and merge it.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): as `from_visual_encoder_and_language_model` makes it of
            the stage 1 and the language model that were trained with.
        source (`str` or `Path`): folder or Hub id.

    Raises:
        InputError: nothing there, or it does not fit the language model.
    """
    import peft
    from peft.utils.save_and_load import load_peft_weights

    try:
        config, weights = peft.PeftConfig.from_pretrained(str(source)), load_peft_weights(str(source), device="cpu")
        adapter = adapter_file(source)
        if adapter is not None:
            model.adapter.load_state_dict(load_file(adapter))
        if config.peft_type == peft.PeftType.PREFIX_TUNING:
            layers, heads, width = decoder_cache_shape(model.language_model.config)
            table = weights["prompt_embeddings"]
            entries = table.view(len(table), config.num_layers * 2, heads, width)
            entries = torch.cat([entries, entries], dim=1).unflatten(1, (-1, 4))[:, :layers, :2]
            set_prefix(model, entries.permute(1, 2, 3, 0, 4).to(model.device, model.dtype))
            return
        names = {name.removeprefix("base_model.model."): tensor for name, tensor in weights.items()}
        peft.inject_adapter_in_model(config, model.language_model)
        model.language_model.peft_config = {"default": config}
        strange = sorted(names.keys() ^ peft.get_peft_model_state_dict(model.language_model).keys())
        if strange:
            raise ValueError(f"the language model and the file do not agree on {strange[0]}")
        peft.set_peft_model_state_dict(model.language_model, names)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        raise InputError(f"{source} cannot be put on this language model: {lines[0] if lines else error!r}") from None
    merge_peft(model)


def adapter_file(source: str | Path) -> Path | None:
    """Find the LLM-Adapter beside peft's files.

    Args:
        source (`str` or `Path`): folder or Hub id.

    Returns:
        `Path` or `None`: `None` where peft alone wrote the folder.

    Raises:
        OSError: the Hub cannot be reached and the file is not known yet.
    """
    if Path(source).is_dir():
        file = Path(source) / ADAPTER
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(source), ADAPTER))
    except LocalEntryNotFoundError:
        raise  # it may be there: the Hub could not be asked
    except EntryNotFoundError:
        return None
