"""Start a vision backbone from ImageNet weights (paper Sec. 5.2). Not saved with a model."""

import os
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode
from transformers import AutoModel, PreTrainedModel


def load_imagenet_weights(model: PreTrainedModel, source: str | os.PathLike = "torchvision") -> None:
    r"""Start the vision backbone of a model from ImageNet weights, converted exactly.

    Args:
        model ([`FlaForConditionalGeneration`] or [`FlaVisualEncoder`]):
            Changed in place.
        source (`str` or `os.PathLike`, *optional*, defaults to `"torchvision"`):
            `"torchvision"`: the weights file in `torch.hub`'s cache, downloaded if it is not there. Or the path of
            such a file (`resnet18-f37072fd.pth`). Or a Hub id or folder, e.g. `"microsoft/resnet-18"`.

    Raises:
        OSError: if the weights cannot be found; the message names the file and its place.
        ValueError: if they do not fit the backbone.
    """
    backbone = getattr(model, "visual_encoder", model).vision_backbone
    state_dict = _read_weights(backbone, os.fspath(source))
    ours, theirs = ({(key, tensor.shape) for key, tensor in d.items()} for d in (backbone.state_dict(), state_dict))
    if ours != theirs:
        first = min(ours ^ theirs)[0]
        raise ValueError(f"The weights of {source} do not fit this vision backbone; the first to differ: {first}.")
    backbone.load_state_dict(state_dict)


def _read_weights(backbone: PreTrainedModel, source: str) -> dict[str, torch.Tensor]:
    """The weights under the names of transformers."""
    if source == "torchvision":
        return _converted(_torchvision_weights(backbone.config))
    if source.endswith((".pth", ".pt")) or os.path.isfile(source):
        return _converted(torch.load(source, map_location="cpu", weights_only=True))
    try:
        return AutoModel.from_pretrained(source).state_dict()
    except OSError as error:
        raise OSError(
            f"{source} is neither a folder nor to be had from the Hub. With a network, run `hf download {source}`; "
            f"without one, copy its folder (config.json and model.safetensors) here and give the folder's path."
        ) from error


def _torchvision_weights(config) -> dict[str, torch.Tensor]:
    """Torchvision's ImageNet weights for this ResNet, from `torch.hub`'s cache or the network."""
    from torchvision import models

    # Convolutions of a block, and the first and the last layer, give a ResNet its name.
    each = 2 if getattr(config, "layer_type", None) == "basic" else 3
    weights = getattr(models, f"ResNet{sum(getattr(config, 'depths', ())) * each + 2}_Weights", None)
    if config.model_type != "resnet" or weights is None:
        raise ValueError(
            f"torchvision has no ImageNet weights for this `{config.model_type}` backbone; "
            f"give a Hub id or a folder instead."
        )
    weights = weights.IMAGENET1K_V1
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    try:
        if is_offline_mode() and not file.is_file():
            raise OSError("HF_HUB_OFFLINE is set")
        return weights.get_state_dict(check_hash=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"ImageNet weights {file.name} are not in {file.parent} and could not be downloaded ({error}). "
            f"Fetch {weights.url} on a machine with a network and put the file there."
        ) from error


def _converted(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ResNet's tensors as they are, from torchvision's names to transformers'."""
    converted = {}
    for key, tensor in state_dict.items():
        parts = key.split(".")
        if parts[0] == "fc":  # the classifier over ImageNet's classes
            continue
        if parts[0] in ("conv1", "bn1"):
            prefix, kind = "embedder.embedder", parts[0][:-1]
        else:  # layer<1-4>.<block>.{conv<n>,bn<n>,downsample.<0 or 1>}.<tensor>
            prefix = f"encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
            if parts[2] == "downsample":
                prefix, kind = f"{prefix}.shortcut", ("conv", "bn")[int(parts[3])]
            else:
                prefix, kind = f"{prefix}.layer.{int(parts[2][-1]) - 1}", parts[2][:-1]
        converted[f"{prefix}.{'convolution' if kind == 'conv' else 'normalization'}.{parts[-1]}"] = tensor
    return converted


__all__ = ["load_imagenet_weights"]
