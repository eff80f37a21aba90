"""Stage 2 with few trained parameters through `peft`: LoRA or IA3 beside the language model's matrices.

The paper names LoRA as future work (Sec. 7): only the LLM-Adapter and the added matrices are trained, so that larger
language models fit. At the end the matrices are merged: the run's folder loads like any other, without `peft`.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from training_fla.files import InputError

TYPES = {"lora": "LoraConfig", "ia3": "IA3Config"}
# Unstated: what peft chooses for BART and for T5; it knows neither MBart nor M2M-100 by name.
MODULES = {
    ("lora", "q_proj"): {"target_modules": ["q_proj", "v_proj"]},
    ("lora", "q"): {"target_modules": ["q", "v"]},
    ("ia3", "q_proj"): {"target_modules": ["k_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]},
    ("ia3", "q"): {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]},
}
FOLDER = "peft"  # beside the model: what stage 2 trained, alone
ADAPTER = "llm_adapter.safetensors"  # the LLM-Adapter in that folder, which peft knows nothing of


def add_peft(model: nn.Module, spec: dict[str, Any]) -> None:
    """Freeze the language model and put trainable parts beside its own, in place.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): its adapter stays trainable.
        spec (`dict`): `type` (lora or ia3), and fields of peft's configuration, e.g. `r`, `lora_alpha`,
            `target_modules` (without them: queries and values in LoRA).

    Raises:
        InputError: peft is not installed, another type, or fields that peft refuses.
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
        if "target_modules" not in fields:
            names = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
            fields |= MODULES.get((kind, "q_proj" if "q_proj" in names else "q"), {})
        config = getattr(peft, TYPES[kind])(task_type="SEQ_2_SEQ_LM", **fields)
        # Into the modules, not around the model: whoever holds `language_model` finds what was there.
        peft.inject_adapter_in_model(config, model.language_model)
    except (TypeError, ValueError) as error:
        raise InputError(f"peft: {error}") from None
    model.language_model.peft_config = {"default": config}


def is_peft(model: nn.Module) -> bool:
    """Whether [`add_peft`] has been here.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): any.

    Returns:
        `bool`: true until [`merge_peft`].
    """
    return hasattr(model.language_model, "peft_config")


def save_peft(model: nn.Module, folder: Path) -> None:
    """Write what was added alone, as `peft.PeftModel.from_pretrained(language_model, folder)` reads it.

    The LLM-Adapter lies beside it, so that the folder is all that [`load_peft`] needs on top of the two models that
    stage 2 began with.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): not merged yet.
        folder (`Path`): made where it is not there.
    """
    from peft import get_peft_model_state_dict

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


def merge_peft(model: nn.Module) -> None:
    """Add the trained matrices to the weights they stand beside.

    The model is then as plain as any.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): changed in place.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    language_model = model.language_model
    layers = [(name, part) for name, part in language_model.named_modules() if isinstance(part, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, attribute = name.rpartition(".")
        setattr(language_model.get_submodule(parent), attribute, layer.get_base_layer())
    del language_model.peft_config


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
