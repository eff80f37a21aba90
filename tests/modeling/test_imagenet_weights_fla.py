import os

import huggingface_hub
import pytest
import torch
import torchvision
from transformers import ConvNextConfig, ResNetConfig, ResNetForImageClassification, ResNetModel

from modeling_fla import (
    FlaConfig,
    FlaForConditionalGeneration,
    FlaVisionConfig,
    FlaVisualEncoder,
    load_imagenet_weights,
)

from .conftest import tiny_vision_config

# transformers' configurations of torchvision's networks.
RESNETS = {
    "resnet18": ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]),
    "resnet34": ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[3, 4, 6, 3]),
    "resnet50": ResNetConfig(),
}


def with_random_statistics(network):
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_()
                module.running_var.uniform_(0.5, 2)
                module.num_batches_tracked.fill_(3)
    return network.eval()


@pytest.fixture
def resnet18():
    return with_random_statistics(torchvision.models.resnet18(weights=None))


def torchvision_features(network, frames):
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        return network(frames.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("name", RESNETS)
def test_torchvision_weights_convert_exactly(name, tmp_path):
    network = with_random_statistics(getattr(torchvision.models, name)(weights=None))
    torch.save(network.state_dict(), tmp_path / f"{name}.pth")
    encoder = FlaVisualEncoder(FlaVisionConfig(backbone_config=RESNETS[name])).eval()
    load_imagenet_weights(encoder, tmp_path / f"{name}.pth")
    video = torch.randn(1, 3, 3, 64, 96)
    with torch.no_grad():
        ours = encoder(video).frame_features
    assert torch.equal(ours[0], torchvision_features(network, video[0]))


def test_a_folder_of_transformers_converts_exactly(tmp_path):
    network = with_random_statistics(ResNetForImageClassification(RESNETS["resnet18"]))  # as microsoft/resnet-18 is
    network.save_pretrained(tmp_path)
    model = FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=32))
    load_imagenet_weights(model, tmp_path)
    loaded = model.visual_encoder.vision_backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.resnet.state_dict().items())


def test_the_cache_of_torch_hub_is_used(resnet18, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(resnet18.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    encoder = FlaVisualEncoder(FlaVisionConfig())
    load_imagenet_weights(encoder)
    assert torch.equal(encoder.vision_backbone.embedder.embedder.convolution.weight, resnet18.conv1.weight)


def test_without_network_or_cache_the_error_names_the_file_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=rf"resnet18-f37072fd\.pth .*{tmp_path}"):
        load_imagenet_weights(FlaVisualEncoder(FlaVisionConfig()))


def test_a_failed_download_gives_the_same_error(tmp_path, monkeypatch):
    def fail(url, path, *args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match="resnet18-f37072fd.*no route to host"):
        load_imagenet_weights(FlaVisualEncoder(FlaVisionConfig()))
    assert not os.listdir(tmp_path / "checkpoints")


def test_a_hub_id_that_cannot_be_had_says_what_to_do():
    with pytest.raises(OSError, match="microsoft/resnet-18.*folder"):
        load_imagenet_weights(FlaVisualEncoder(FlaVisionConfig()), "microsoft/resnet-18")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        load_imagenet_weights(FlaVisualEncoder(FlaVisionConfig()), tmp_path / "gone.pth")


def test_weights_that_do_not_fit_are_refused(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="vision backbone.*: embedder"):
        load_imagenet_weights(FlaVisualEncoder(tiny_vision_config()), tmp_path / "resnet18.pth")


def test_a_network_of_another_kind_is_refused(tmp_path):
    ResNetModel(RESNETS["resnet18"]).save_pretrained(tmp_path)
    encoder = FlaVisualEncoder(
        FlaVisionConfig(backbone_config=ConvNextConfig(hidden_sizes=[8], depths=[1], num_stages=1))
    )
    with pytest.raises(ValueError, match="vision backbone.*: "):
        load_imagenet_weights(encoder, tmp_path)


def test_torchvision_has_no_weights_for_other_backbones():
    with pytest.raises(ValueError, match="torchvision.*`resnet`"):
        load_imagenet_weights(FlaVisualEncoder(tiny_vision_config()))
