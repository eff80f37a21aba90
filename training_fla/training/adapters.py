"""LoRA in stage 2 through `peft`: only the LLM-Adapter and the added matrices are trained (paper Sec. 7, future work).

Checkpoints hold what is trained. The matrices are merged at the end, so the run's folder loads like any other, without
`peft`; quantized weights are turned back first.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from training_fla.errors import InputError, first_line

FOLDER = "peft"  # beside the model: what stage 2 trained, alone
ADAPTER = "llm_adapter.safetensors"  # the LLM-Adapter in that folder; peft saves the language model's part only


def add_peft(model: nn.Module, spec: dict[str, Any]) -> None:
    """Freeze the language model and put LoRA's matrices into it; `spec` is `type: lora` and fields of `LoraConfig`."""
    check_installed("peft", "peft")
    import peft

    fields = dict(spec)
    kind = fields.pop("type", None)
    if kind != "lora":
        raise InputError(f"peft: type must be lora, got {kind!r}")
    if "target_modules" not in fields:
        names = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
        # Unstated: what peft chooses for BART and for T5; it knows neither MBart nor M2M-100 by name.
        fields["target_modules"] = ["q_proj", "v_proj"] if "q_proj" in names else ["q", "v"]
    try:
        config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **fields)
        wrapper = peft.get_peft_model(model.language_model, config)
    except (TypeError, ValueError) as error:
        raise InputError(f"peft: {first_line(error)}") from None
    # In a tuple it is no submodule: the weights keep the names that the language model gives them.
    model.peft_wrapper = (wrapper,)
    learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learnt |= {name for name, _ in model.named_buffers() if not name.startswith("language_model.")}
    # transformers leaves these out of a checkpoint; a resumed run has them from where this one had them.
    model._keys_to_ignore_on_save = set(model.state_dict()) - learnt


def check_installed(package: str, line: str) -> None:
    """Refuse a recipe line whose package is not there."""
    if find_spec(package) is None:
        raise InputError(f"`{line}` needs the package {package}: pip install {package}")


def unsaved_weights(model: nn.Module) -> set[str]:
    """The names of the weights that a checkpoint leaves out."""
    return set(model._keys_to_ignore_on_save or ())


def is_peft(model: nn.Module) -> bool:
    """Whether the language model holds matrices that are not merged yet."""
    return hasattr(model, "peft_wrapper")


def save_peft(model: nn.Module, folder: Path) -> None:
    """Write LoRA as `PeftModel.from_pretrained(language_model, folder)` reads it, and the LLM-Adapter beside it."""
    model.peft_wrapper[0].save_pretrained(str(folder))
    adapter = {name: tensor.detach().cpu().contiguous() for name, tensor in model.adapter.state_dict().items()}
    save_file(adapter, folder / ADAPTER, metadata={"format": "pt"})


def merge_peft(model: nn.Module, folder: Path) -> None:
    """Add the trained matrices to the weights they stand beside; `folder` is where [`save_peft`] wrote them."""
    (wrapper,) = model.peft_wrapper
    del model.peft_wrapper
    model._keys_to_ignore_on_save = set()
    if getattr(model.language_model, "is_quantized", False):
        # Merged into 4 bits, most of what was learnt would be rounded off.
        model.language_model = wrapper.unload().dequantize()
        load_peft(model, folder)
    else:
        model.language_model = wrapper.merge_and_unload(safe_merge=True)


def load_peft(model: nn.Module, source: str | Path) -> None:
    """Put what [`save_peft`] or peft left (a folder or a Hub id) onto the models stage 2 began with, and merge it."""
    check_installed("peft", "peft")
    import peft

    try:
        adapter = adapter_file(source)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            wrapper = peft.PeftModel.from_pretrained(model.language_model, str(source))
        model.language_model = wrapper.merge_and_unload(safe_merge=True)
        if adapter is not None:
            model.adapter.load_state_dict(load_file(adapter))
    except (OSError, KeyError, ValueError, RuntimeError, UserWarning) as error:
        raise InputError(f"{source} cannot be put on this language model: {first_line(error)}") from None


def adapter_file(source: str | Path) -> Path | None:
    """The LLM-Adapter beside peft's files, or `None` where peft alone wrote them."""
    if Path(source).is_dir():
        file = Path(source) / ADAPTER
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(source), ADAPTER))
    except LocalEntryNotFoundError:
        raise  # it may be there: the Hub could not be asked
    except EntryNotFoundError:
        return None
