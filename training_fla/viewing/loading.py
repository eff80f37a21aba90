"""Loading a trained model to translate with."""

from pathlib import Path

from training_fla.console import note
from training_fla.errors import InputError
from training_fla.loading import loading


def load_pipeline(model: str, device: str | None = None, dtype: str = "auto"):
    """The translation pipeline of a folder or a Hub id."""
    check_model(model)

    import torch
    from transformers import pipeline

    import processing_fla  # noqa: F401  registers the task

    torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan for each length anew, 25 to 70 ms a plan
    with loading(model):
        check_reads_videos(model)
        device = None if device is None else torch.device(device)
        loaded = pipeline("sign-language-translation", model=model, device=device, dtype=dtype)
    note(f"loaded {model}")
    return loaded


def check_model(model: str) -> None:
    """Refuse, before anything large is imported, what is neither a model's folder nor a name on the Hub."""
    with loading(model):
        folder = Path(model)
        if folder.exists() and not (folder / "config.json").is_file():
            raise InputError(f"`{model}` is not the folder of a trained model: it holds no config.json")


def check_reads_videos(model: str) -> None:
    """Refuse a model without a visual encoder."""
    from modeling_fla import FlaConfig

    config = FlaConfig.from_pretrained(model)
    if config.sign_feature_size is not None:
        raise InputError(
            f"`{model}` reads sign features of {config.sign_feature_extractor or 'another program'}, not videos: "
            'translate them in Python, pipeline("sign-language-translation", model=...)({"sign_features": array})'
        )


def check_language(model, language: str | None) -> None:
    """Refuse a language that a loaded model was not trained on."""
    if language is not None and language not in model.languages:
        known = ", ".join(model.languages) or "one only, which need not be given"
        raise InputError(f"--language {language} is no language of the model; it has {known}")
