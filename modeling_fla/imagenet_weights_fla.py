"""ImageNet weights for the vision backbone: found, or a clear error; converted exactly from torchvision's names."""

import os

import torch
from transformers import AutoModel, PreTrainedModel

TORCHVISION_FILES = {
    (2, 2, 2, 2): {"basic": "resnet18-f37072fd.pth"},
    (3, 4, 6, 3): {"basic": "resnet34-b627a593.pth", "bottleneck": "resnet50-0676ba61.pth"},
    (3, 4, 23, 3): {"bottleneck": "resnet101-63fe2227.pth"},
    (3, 8, 36, 3): {"bottleneck": "resnet152-394f9c45.pth"},
}


def read_backbone_weights(backbone: PreTrainedModel, source: str | os.PathLike) -> dict[str, torch.Tensor]:
    """A state dict in transformers' names from torchvision's file, or from a folder or Hub id.

    Args:
        backbone ([`~transformers.PreTrainedModel`]): the network they are for.
        source (`str` or `os.PathLike`): `"torchvision"`, a file of its state dict, or a folder or Hub id in
            transformers' format.

    Returns:
        `dict[str, torch.Tensor]`: each of the shape that the backbone has under that name.

    Raises:
        FileNotFoundError: there is no such weights file.
        OSError: there is neither such a folder nor such a model on the Hub.
        ValueError: the weights are of another kind of network.
    """
    source = os.fspath(source)
    if source == "torchvision":
        return _convert_torchvision_resnet(_torchvision_state_dict(backbone))
    if os.path.isfile(source):
        return _convert_torchvision_resnet(torch.load(source, map_location="cpu", weights_only=True))
    if source.endswith((".pth", ".pt")):
        raise FileNotFoundError(f"No weights file at {source}.")
    try:
        loaded = AutoModel.from_pretrained(source)
    except OSError as error:
        raise OSError(
            f"{source} is neither on this disk nor to be had from the Hub. With a network, `hf download {source}`; "
            f"without one, copy its folder (config.json and model.safetensors) here and give the folder's path."
        ) from error
    if loaded.config.model_type != backbone.config.model_type:
        raise ValueError(
            f"{source} is a `{loaded.config.model_type}`, the vision backbone is a `{backbone.config.model_type}`."
        )
    return loaded.state_dict()


def _torchvision_state_dict(backbone: PreTrainedModel) -> dict[str, torch.Tensor]:
    """ImageNet weights of torchvision for this ResNet, from `torch.hub`'s cache or the network."""
    config = backbone.config
    names = TORCHVISION_FILES.get(tuple(getattr(config, "depths", ())), {}) if config.model_type == "resnet" else {}
    name = names.get(getattr(config, "layer_type", None))
    if name is None:
        raise ValueError(
            f"torchvision has no ImageNet weights for this `{config.model_type}` backbone; "
            f"give a Hub id or a folder instead."
        )
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    path, url = os.path.join(folder, name), f"https://download.pytorch.org/models/{name}"
    if not os.path.isfile(path):
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
            raise FileNotFoundError(_missing_weights_message(name, folder, url, "HF_HUB_OFFLINE is set"))
        try:
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(url, path, hash_prefix=name.split("-")[1].split(".")[0])
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(_missing_weights_message(name, folder, url, error)) from error
    return torch.load(path, map_location="cpu", weights_only=True)


def _missing_weights_message(name: str, folder: str, url: str, reason: object) -> str:
    return (
        f"ImageNet weights {name} are not in {folder} and could not be downloaded ({reason}). "
        f"Fetch {url} on a machine with a network and put the file there."
    )


def _convert_torchvision_resnet(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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


__all__ = ["read_backbone_weights"]
