"""Loading a trained model to translate with, in the precision that is asked for."""

import warnings
from pathlib import Path

from training_fla.console import note
from training_fla.errors import InputError
from training_fla.loading import loading

PRECISIONS = ("auto", "fp32", "bf16", "int8")


def load_pipeline(model: str, device: str | None = None, precision: str = "auto"):
    """The translation pipeline of a folder or a Hub id; an exported model keeps the precision it was exported in."""
    check_model(model)

    import torch
    from transformers import AutoConfig, AutoProcessor, pipeline

    import processing_fla  # noqa: F401  registers the task
    from modeling_fla import FlaExportedConfig, FlaExportedForConditionalGeneration

    torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan for each length anew, 25 to 70 ms a plan
    with loading(model):
        check_reads_videos(model)
        config = AutoConfig.from_pretrained(model)
        if isinstance(config, FlaExportedConfig):
            if precision not in ("auto", config.precision):
                raise InputError(f"--precision {precision}: {model} was exported in {config.precision}")
            if device not in (None, "cpu"):
                raise InputError(f"--device {device}: an exported model runs on the processor; leave it out")
            # By itself: the pipeline would say only that no class can load it.
            parts = {"model": FlaExportedForConditionalGeneration.from_pretrained(model)}
            parts["processor"] = AutoProcessor.from_pretrained(model)
            loaded = pipeline("sign-language-translation", **parts, device="cpu")
            note(f"loaded {model}")
            return loaded
        if precision == "int8" and device not in (None, "cpu"):
            raise InputError(f"--precision int8 is for processors, not for --device {device}: take bf16")
        device = "cpu" if precision == "int8" else device
        device = None if device is None else torch.device(device)
        dtype = {"auto": "auto", "bf16": torch.bfloat16}.get(precision, torch.float32)
        loaded = pipeline("sign-language-translation", model=model, device=device, dtype=dtype)
    if precision == "int8":
        quantize(loaded.model)
    note(f"loaded {model}")
    return loaded


def quantize(model) -> None:
    """Make the language model's linear layers int8, and the visual encoder bf16 where the processor computes in it.

    Weights are rounded once, one scale a matrix, and each input as it comes. By PyTorch's own kernels: for five beams
    on AVX-512 they take a tenth of fp32's time, torchao 0.18's without compiling three times as much as fp32.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao is to take their place one day
        torch.ao.quantization.quantize_dynamic(
            model.language_model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
        )
    if model.visual_encoder is not None and computes_in_bf16():
        model.visual_encoder.to(torch.bfloat16)


def computes_in_bf16() -> bool:
    """Whether the processor computes in bf16 itself."""
    import torch

    abilities = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
    return any(present is True and name.endswith("bf16") for name, present in abilities.items())


def check_model(model: str) -> None:
    """Refuse, before anything large is imported, what is neither a model's folder nor a name on the Hub."""
    with loading(model):
        folder = Path(model)
        if folder.exists() and not (folder / "config.json").is_file():
            raise InputError(f"`{model}` is not the folder of a trained model: it holds no config.json")


def check_reads_videos(model: str) -> None:
    """Refuse a model without a visual encoder."""
    from transformers import AutoConfig

    import modeling_fla  # noqa: F401  registers the configurations

    config = AutoConfig.from_pretrained(model)
    if getattr(config, "sign_feature_size", None) is not None:
        raise InputError(
            f"`{model}` reads sign features of {config.sign_feature_extractor or 'another program'}, not videos: "
            'translate them in Python, pipeline("sign-language-translation", model=...)({"sign_features": array})'
        )


def check_language(model, language: str | None) -> None:
    """Refuse a language that a loaded model was not trained on."""
    if language is not None and language not in model.languages:
        known = ", ".join(model.languages) or "one only, which need not be given"
        raise InputError(f"--language {language} is no language of the model; it has {known}")
