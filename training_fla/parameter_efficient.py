"""Stage 2 with few trained parameters through `peft`: small matrices beside the language model's, merged at the end.

The paper names LoRA as future work (Sec. 7): with it only the LLM-Adapter and the added matrices are trained, so that
larger language models fit.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from .errors import InputError

TYPES = {"lora": "LoraConfig", "ia3": "IA3Config"}
# Unstated: what peft chooses for BART and for T5; it knows neither MBart nor M2M-100 by name.
MODULES = {
    ("lora", "q_proj"): {"target_modules": ["q_proj", "v_proj"]},
    ("lora", "q"): {"target_modules": ["q", "v"]},
    ("ia3", "q_proj"): {"target_modules": ["k_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]},
    ("ia3", "q"): {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]},
}
FOLDER = "peft"  # beside the merged model: what was trained of the language model, alone


def add_peft(model: nn.Module, spec: dict[str, Any]) -> None:
    """Freeze the language model and put trainable matrices beside its own, in place.

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
        # A prefix is no weight: the output could not be loaded by `from_pretrained` alone.
        raise InputError(f"peft: type must be one of {', '.join(TYPES)} (those that can be merged), got {kind!r}")
    if "target_modules" not in fields:
        names = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
        fields |= MODULES.get((kind, "q_proj" if "q_proj" in names else "q"), {})
    try:
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
    """Write the added matrices alone, as `peft.PeftModel.from_pretrained(language_model, folder)` reads them.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): not merged yet.
        folder (`Path`): made where it is not there.
    """
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model.language_model)
    folder.mkdir(parents=True, exist_ok=True)
    # `PeftModel` wraps twice; the names in its files say so.
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    model.language_model.peft_config["default"].save_pretrained(str(folder))


def merge_peft(model: nn.Module) -> None:
    """Add the trained matrices to the weights they stand beside; the model is then as plain as any.

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
