"""FLa-LLM: visual encoder -> adapter -> language model, for gloss-free sign language translation.

pixel_values_videos   (B, T, 3, H, W)   sampled frames
        |  vision backbone               Paper: ResNet18 (Sec. 5.2), on real frames only
frame features        (B, T, C)
        |  temporal module               Paper: Conv1D-BN-ReLU (Sec. 4.2)
sign features         (B, N, C)          N = T: the convolution keeps the length
        |  adapter                       Paper: MLP with one hidden layer (Eq. 2)
sign embeddings       (B, N, D)
        |  language model                stage 1: Light-T; stage 2: MBart
logits                (B, L, V)
"""

import contextlib
import copy
import functools
import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoBackbone, AutoModel, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_fla import FlaConfig, FlaVisionConfig


@dataclass
class FlaVisualEncoderOutput(ModelOutput):
    r"""What [`FlaVisualEncoder`] gives.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(B, N, C)`):
            Sign features, at least 0; zeros at padding.
        frame_features (`torch.FloatTensor` of shape `(B, T, C)`):
            The backbone's pooled features; zeros at padding.
    """

    last_hidden_state: torch.FloatTensor | None = None
    frame_features: torch.FloatTensor | None = None


@dataclass
class FlaSeq2SeqLMOutput(Seq2SeqLMOutput):
    r"""A `Seq2SeqLMOutput` with what the language model's encoder was given.

    Args:
        sign_features (`torch.FloatTensor` of shape `(B, N, C)`):
            What the adapter read; zeros at padding. `None` when `encoder_outputs` were passed in.
        sign_embeds (`torch.FloatTensor` of shape `(B, N, D)`):
            What the adapter gave; meaningless at padding. `None` when `encoder_outputs` were passed in.
    """

    sign_features: torch.FloatTensor | None = None
    sign_embeds: torch.FloatTensor | None = None


def _real_positions_mask(shape: tuple[int, int], attention_mask: torch.Tensor | None, device) -> torch.BoolTensor:
    """The mask as booleans of the given `(B, T)`, all true where there is none; `ValueError` if it cannot be that."""
    if attention_mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if tuple(attention_mask.shape) != tuple(shape):
        raise ValueError(f"`attention_mask` must be (B, T) = {tuple(shape)}, got {tuple(attention_mask.shape)}.")
    mask = attention_mask.to(device=device, dtype=torch.bool)
    empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"`attention_mask` has no real frame in row(s) {empty}: every video needs at least one.")
    return mask


class FlaTemporalModule(nn.Module):
    """One temporal convolution, batch normalisation and ReLU (paper Sec. 4.2); keeps the length."""

    def __init__(self, config: FlaVisionConfig):
        super().__init__()
        self.convolution = nn.Conv1d(
            config.frame_feature_size,
            config.hidden_size,
            kernel_size=config.temporal_kernel_size,
            padding=config.temporal_kernel_size // 2,
            bias=False,  # batch normalisation would take it away again
        )
        self.normalization = nn.BatchNorm1d(config.hidden_size)

    def forward(self, frame_features: torch.FloatTensor, positions: torch.LongTensor) -> torch.FloatTensor:
        """(B, T, C) with zeros at padding -> (B, N, C) with zeros at padding; `positions` are the real ones in B * T."""
        B, T, _ = frame_features.shape
        # Zeros at padding are what the convolution pads with at a video's own ends: neighbours in a batch cannot mix.
        hidden = self.convolution(frame_features.transpose(1, 2)).transpose(1, 2)  # (B, N, C)
        real = hidden.reshape(B * T, -1).index_select(0, positions)  # statistics are over real positions only
        return _spread(F.relu(self.normalization(real)), positions, B, T)


def _spread(features: torch.FloatTensor, positions: torch.LongTensor, B: int, T: int) -> torch.FloatTensor:
    """Features of real positions `(sum of lengths, C)` into a batch `(B, T, C)` with zeros at padding."""
    return features.new_zeros(B * T, features.shape[-1]).index_copy(0, positions, features).view(B, T, -1)


@torch.compiler.disable
def _positions(mask: torch.BoolTensor) -> torch.LongTensor:
    """Indices of the real frames in `B * T`, of a length `torch.compile` must not specialise on."""
    positions = mask.flatten().nonzero().squeeze(1)
    torch._dynamo.maybe_mark_dynamic(positions, 0)
    return positions


class FlaAdapter(nn.Module):
    """An MLP with one hidden layer, from visual features to the language model's embedding space (paper Eq. 2)."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int):
        super().__init__()
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, output_size)

    def forward(self, features: torch.FloatTensor) -> torch.FloatTensor:
        """(B, N, C) -> (B, N, D)."""
        # Cached features may be of another dtype than the weights; autocast casts both.
        return self.output(F.relu(self.hidden(features.to(self.hidden.weight.dtype))))


class FlaPreTrainedModel(PreTrainedModel):
    """Initialisation and abilities shared by the two models of this file."""

    config_class = FlaConfig
    base_model_prefix = ""
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    # Attention is the language model's and the backbone's: each checks what it supports when it is built.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _skip_keys_device_placement = ["past_key_values"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # Unstated: as in ResNet
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)  # Unstated: as GFSLT-VLP's adapter
            init.zeros_(module.bias)


class FlaVisualEncoder(FlaPreTrainedModel):
    r"""Vision backbone and temporal module (paper Eq. 1): sampled frames in, sign features out.

    Padding frames never reach the backbone nor any BatchNorm. The convolutions are kept in `channels_last`.

    Args:
        config ([`FlaVisionConfig`]):
            The configuration.

    Example:
        ```python
        >>> import torch
        >>> from modeling_fla import FlaVisionConfig, FlaVisualEncoder
        >>> encoder = FlaVisualEncoder(FlaVisionConfig(hidden_size=8)).eval()
        >>> video = torch.zeros(2, 3, 3, 32, 40, dtype=torch.uint8)
        >>> tuple(encoder(video, torch.tensor([[1, 1, 1], [1, 1, 0]])).last_hidden_state.shape)
        (2, 3, 8)

        ```
    """

    config_class = FlaVisionConfig
    base_model_prefix = "visual_encoder"
    input_modalities = ("video",)
    # It loads from the folder of a whole model too.
    _keys_to_ignore_on_load_unexpected = [r"^adapter\.", r"^language_model\.", r"^light_t_encoder\."]

    def __init__(self, config: FlaVisionConfig):
        super().__init__(config)
        try:
            self.vision_backbone = AutoModel.from_config(config.backbone_config)
        except ValueError:  # timm's models come only as backbones
            self.vision_backbone = AutoBackbone.from_config(config.backbone_config)
        self.temporal_module = FlaTemporalModule(config)
        self.frozen_parts: tuple[str, ...] = ()
        self.gradient_checkpointing = False
        self.post_init()
        self._use_channels_last()

    def forward(
        self, pixel_values_videos: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> FlaVisualEncoderOutput:
        r"""Sign features of a batch of videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`):
                `uint8`: raw RGB, 0 to 255, normalised here. Floating point: already normalised, as [`FlaProcessor`] returns
                it. Padding frames may hold anything, NaN too.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                1 for a real frame, 0 for padding. All frames are real where it is absent.

        Returns:
            [`FlaVisualEncoderOutput`]

        Raises:
            ValueError: if a shape, the channel count or the pixel dtype is wrong, or a video has no real frame.
        """
        frame_features, positions = self._frame_features(pixel_values_videos, attention_mask)
        return FlaVisualEncoderOutput(
            last_hidden_state=self.temporal_module(frame_features, positions), frame_features=frame_features
        )

    def get_frame_features(
        self, pixel_values_videos: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        """The backbone's features alone, `(B, T, C)` with zeros at padding. Arguments and errors as in `forward`."""
        return self._frame_features(pixel_values_videos, attention_mask)[0]

    def _frame_features(self, pixel_values_videos, attention_mask):
        if pixel_values_videos.ndim != 5 or pixel_values_videos.shape[2] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values_videos` must be (B, T, {self.config.num_channels}, H, W), "
                f"got {tuple(pixel_values_videos.shape)}."
            )
        B, T = pixel_values_videos.shape[:2]
        mask = _real_positions_mask((B, T), attention_mask, pixel_values_videos.device)
        positions = _positions(mask)
        frames = self._normalized(
            pixel_values_videos.flatten(0, 1).index_select(0, positions)
        )  # (real frames, 3, H, W)
        return _spread(self._pooled(frames), positions, B, T), positions

    def _normalized(self, frames: torch.Tensor) -> torch.FloatTensor:
        """Frames in the backbone's dtype and memory format; raw ones become normalised."""
        if frames.dtype == torch.uint8:
            frames = frames.to(torch.float32, memory_format=torch.channels_last)
            mean = frames.new_tensor(self.config.image_mean).view(1, -1, 1, 1)
            std = frames.new_tensor(self.config.image_std).view(1, -1, 1, 1)
            frames = frames.mul_(1 / (255 * std)).sub_(mean / std)
        elif not frames.is_floating_point():
            raise ValueError(
                f"`pixel_values_videos` must be uint8 (raw, 0 to 255) or floating point (normalised), got {frames.dtype}."
            )
        return frames.to(self.vision_backbone.dtype, memory_format=torch.channels_last)

    def _pooled(self, frames: torch.FloatTensor) -> torch.FloatTensor:
        """One feature vector a frame, whatever the backbone calls it."""
        if self.gradient_checkpointing and self.training and self.vision_backbone.config.model_type == "resnet":
            return _checkpointed_resnet(self.vision_backbone, frames).flatten(1)
        outputs = self.vision_backbone(frames)
        if getattr(outputs, "pooler_output", None) is not None:
            return outputs.pooler_output.flatten(1)
        maps = outputs.feature_maps[-1] if "feature_maps" in outputs else outputs.last_hidden_state
        return maps.flatten(2).mean(2) if maps.ndim == 4 else maps.mean(1)

    def freeze(self, vision_backbone: bool = True, temporal_module: bool = True) -> None:
        """Keep the parts named still, in parameters and BatchNorm statistics, and make the others trainable.

        Args:
            vision_backbone (`bool`, *optional*, defaults to `True`):
                Whether the backbone is frozen.
            temporal_module (`bool`, *optional*, defaults to `True`):
                Whether the temporal module is frozen.
        """
        wanted = {"vision_backbone": vision_backbone, "temporal_module": temporal_module}
        for part in self.frozen_parts:
            if not wanted[part]:
                getattr(self, part).requires_grad_(True)
        self.frozen_parts = tuple(part for part, frozen in wanted.items() if frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "FlaVisualEncoder":
        """Switch between training and evaluation; frozen parts stay in evaluation and without gradients."""
        super().train(mode)
        # `from_pretrained` replaces the parameters and so undoes both, then calls `eval()`, which comes by here.
        for part in self.frozen_parts:
            getattr(self, part).eval().requires_grad_(False)
        self._use_channels_last()
        return self

    def _use_channels_last(self) -> None:
        for parameter in self.vision_backbone.parameters():
            if parameter.ndim == 4 and not parameter.is_contiguous(memory_format=torch.channels_last):
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def load_imagenet_weights(self, source: str | os.PathLike = "torchvision") -> None:
        r"""Start the vision backbone from ImageNet weights (paper Sec. 5.2), converted exactly.

        Args:
            source (`str` or `os.PathLike`, *optional*, defaults to `"torchvision"`):
                `"torchvision"`: the weights file in `torch.hub`'s cache, downloaded if it is not there. Or the path of such a
                file (`resnet18-f37072fd.pth`). Or a Hub id or folder, e.g. `"microsoft/resnet-18"`.

        Raises:
            OSError: if the weights are neither on disk nor to be had; the message names the file and its place.
            ValueError: if they do not fit the backbone.
        """
        state_dict = _read_backbone_weights(self.vision_backbone, source)
        expected = self.vision_backbone.state_dict()
        wrong = sorted(set(state_dict) ^ set(expected)) or sorted(
            key for key in expected if state_dict[key].shape != expected[key].shape
        )
        if wrong:
            raise ValueError(
                f"The weights of {source!s} do not fit this vision backbone; the first to differ: {wrong[0]}."
            )
        self.vision_backbone.load_state_dict(state_dict)


@contextlib.contextmanager
def _no_running_statistics(module: nn.Module):
    """Let BatchNorm layers normalise by the batch without counting it."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _checkpointed_resnet(backbone: PreTrainedModel, frames: torch.FloatTensor) -> torch.FloatTensor:
    """The pooled output of a ResNet that keeps only its layers' inputs for the backward pass.

    transformers' ResNet has no gradient checkpointing, and a plain one would count every batch twice in BatchNorm.
    """
    hidden = frames
    for layer in [backbone.embedder] + [layer for stage in backbone.encoder.stages for layer in stage.layers]:
        contexts = functools.partial(_checkpoint_contexts, layer)
        hidden = checkpoint(layer, hidden, use_reentrant=False, context_fn=contexts)
    return backbone.pooler(hidden)


def _checkpoint_contexts(layer: nn.Module):
    return contextlib.nullcontext(), _no_running_statistics(layer)


TORCHVISION_FILES = {
    (2, 2, 2, 2): {"basic": "resnet18-f37072fd.pth"},
    (3, 4, 6, 3): {"basic": "resnet34-b627a593.pth", "bottleneck": "resnet50-0676ba61.pth"},
    (3, 4, 23, 3): {"bottleneck": "resnet101-63fe2227.pth"},
    (3, 8, 36, 3): {"bottleneck": "resnet152-394f9c45.pth"},
}


def _read_backbone_weights(backbone: PreTrainedModel, source: str | os.PathLike) -> dict[str, torch.Tensor]:
    """A state dict in transformers' names from torchvision's file, or from a folder or Hub id."""
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
            f"{source} is neither on this disk nor to be had from the Hub. With a network, `hf download {source}`; without "
            f"one, copy its folder (config.json and model.safetensors) here and give the folder's path instead."
        ) from error
    if loaded.config.model_type != backbone.config.model_type:
        raise ValueError(
            f"{source} is a `{loaded.config.model_type}`, the vision backbone is a `{backbone.config.model_type}`."
        )
    return loaded.state_dict()


def _torchvision_state_dict(backbone: PreTrainedModel) -> dict[str, torch.Tensor]:
    """torchvision's ImageNet weights for this ResNet, from `torch.hub`'s cache or the network."""
    config = backbone.config
    names = TORCHVISION_FILES.get(tuple(getattr(config, "depths", ())), {}) if config.model_type == "resnet" else {}
    name = names.get(getattr(config, "layer_type", None))
    if name is None:
        raise ValueError(
            f"torchvision has no ImageNet weights for this `{config.model_type}` backbone; give a Hub id or a folder instead."
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
    """torchvision's names for the tensors of a ResNet, in transformers' names. The tensors themselves stay as they are."""
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


class FlaLightTEncoder(nn.Module):
    """Stage 1's adapter and Light-T's encoder, carried along frozen: sign features in, sign hidden states out (Eq. 3)."""

    def __init__(self, adapter: FlaAdapter, encoder: PreTrainedModel, input_embed_scale: float):
        super().__init__()
        self.adapter = adapter
        self.encoder = encoder
        self.input_embed_scale = input_embed_scale
        self.encoder.embed_tokens = None  # it reads sign embeddings, never tokens
        self.train(False)

    def forward(self, sign_features: torch.FloatTensor, mask: torch.BoolTensor) -> torch.FloatTensor:
        """(B, N, C) -> (B, N, D of Light-T), zeros at padding."""
        _check_positions(self.encoder, sign_features.shape[1])
        sign_embeds = self.adapter(sign_features) * self.input_embed_scale
        hidden_states = self.encoder(inputs_embeds=sign_embeds, attention_mask=mask.long()).last_hidden_state
        return _without_padding(hidden_states, mask)

    def train(self, mode: bool = True) -> "FlaLightTEncoder":
        """Stay in evaluation, without gradients, whatever is asked for."""
        super().train(False)
        return self.requires_grad_(False)


def _without_padding(features: torch.FloatTensor, mask: torch.BoolTensor) -> torch.FloatTensor:
    return features.masked_fill(~mask.unsqueeze(-1), 0)


def _check_positions(encoder: nn.Module, length: int) -> None:
    """Refuse a video longer than the encoder's position table. Tables that grow (M2M-100) and relative positions have no end."""
    table = getattr(encoder, "embed_positions", None)
    if isinstance(table, nn.Embedding):
        limit = table.num_embeddings - getattr(table, "offset", 0)
        if length > limit:
            raise ValueError(
                f"The longest video has {length} sampled frames, the language model's encoder {limit} positions "
                f"(`max_position_embeddings`): sample fewer frames or cut the video."
            )


def _share_token_embeddings(language_model: PreTrainedModel) -> None:
    """Leave the language model one table of token embeddings: the decoder's.

    The adapter takes the place of the encoder's table (paper Sec. 4.3). transformers gives a model with an untied head three
    tables (`shared`, encoder, decoder); two would be dead weight that DistributedDataParallel waits for in vain.
    """
    encoder, decoder = language_model.get_encoder(), language_model.get_decoder()
    table = decoder.embed_tokens
    if encoder.embed_tokens.weight is table.weight:
        return
    core = language_model.base_model
    ties = {"encoder.embed_tokens.weight": "decoder.embed_tokens.weight"}
    if isinstance(getattr(core, "shared", None), nn.Embedding):
        core.shared = table
        ties = {key: "shared.weight" for key in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")}
    encoder.embed_tokens = table
    prefix = "" if core is language_model else f"{language_model.base_model_prefix}."
    # Saving and loading follow this map: without it the shared tensor would be refused, or missed.
    language_model.all_tied_weights_keys |= {
        f"{prefix}{target}": f"{prefix}{source}" for target, source in ties.items()
    }


class FlaEncoder(nn.Module):
    """What `generate` takes for the encoder: a view of the model from either door to the language model's encoder states.

    `main_input_name` is one door; the other, sign features, has three axes where pixels have five.
    """

    main_input_name = "pixel_values_videos"

    def __init__(self, model: "FlaForConditionalGeneration"):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sign_features: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> BaseModelOutput:
        """Encoder states of a batch. No `**kwargs`: `generate` passes on only what this signature names."""
        if pixel_values_videos is not None and pixel_values_videos.ndim == 3 and sign_features is None:
            pixel_values_videos, sign_features = None, pixel_values_videos
        _, sign_embeds, mask = self.model._sign_embeds(pixel_values_videos, sign_features, attention_mask)
        return self.model.language_model.get_encoder()(
            inputs_embeds=sign_embeds,
            attention_mask=mask.long(),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )


class FlaForConditionalGeneration(FlaPreTrainedModel, GenerationMixin):
    r"""Sign language translation: a video, or its cached sign features, in; a spoken sentence out.

    Stage 1 and stage 2 of the paper differ by `config.text_config`, by what is frozen and by how they are trained.

    Args:
        config ([`FlaConfig`]):
            The configuration.
        visual_encoder ([`FlaVisualEncoder`], *optional*):
            A ready one to build around.
        language_model (`PreTrainedModel`, *optional*):
            A ready one to build around.
        light_t_encoder ([`FlaLightTEncoder`], *optional*):
            A ready one to build around, with `input_features="hidden"`.
    """

    def __init__(
        self,
        config: FlaConfig,
        visual_encoder: FlaVisualEncoder | None = None,
        language_model: PreTrainedModel | None = None,
        light_t_encoder: FlaLightTEncoder | None = None,
    ):
        super().__init__(config)
        self.visual_encoder = FlaVisualEncoder(config.vision_config) if visual_encoder is None else visual_encoder
        self.light_t_encoder = self._build_light_t_encoder() if light_t_encoder is None else light_t_encoder
        text_width = config.text_config.hidden_size
        self.adapter = FlaAdapter(config.adapter_input_size, config.adapter_hidden_size or text_width, text_width)
        if language_model is None:
            self.language_model = AutoModelForSeq2SeqLM.from_config(config.text_config)
        else:
            self.language_model = language_model
            self.generation_config = language_model.generation_config
        _share_token_embeddings(self.language_model)
        # One object, so that a change of vocabulary is seen in both.
        config.text_config = self.language_model.config
        self.post_init()
        # Collected from the visual encoder, where it is right; here such a key would be a fault to report.
        self._keys_to_ignore_on_load_unexpected -= set(FlaVisualEncoder._keys_to_ignore_on_load_unexpected)
        self._freeze_as_configured()

    def _build_light_t_encoder(self) -> FlaLightTEncoder | None:
        config = self.config
        if config.input_features != "hidden":
            return None
        width = config.light_t_config.hidden_size
        adapter = FlaAdapter(config.vision_config.hidden_size, config.light_t_adapter_hidden_size or width, width)
        encoder = AutoModelForSeq2SeqLM.from_config(config.light_t_config).get_encoder()
        return FlaLightTEncoder(adapter, encoder, config.light_t_input_embed_scale)

    @classmethod
    def from_visual_encoder_and_language_model(
        cls,
        stage1: "FlaForConditionalGeneration | FlaVisualEncoder | str | os.PathLike",
        language_model: "PreTrainedModel | str | os.PathLike",
        **config_overrides,
    ) -> "FlaForConditionalGeneration":
        r"""Assemble stage 2 (paper Sec. 4.3): a trained visual encoder, a new adapter and a pre-trained language model.

        Args:
            stage1 ([`FlaForConditionalGeneration`], [`FlaVisualEncoder`], `str` or `os.PathLike`):
                The model of stage 1, or its visual encoder, or where it was saved. It is copied, and itself left as it is.
            language_model (`PreTrainedModel`, `str` or `os.PathLike`):
                An encoder-decoder with a language-modelling head, or where to load one from. It becomes part of the new model.
            **config_overrides:
                Fields of [`FlaConfig`]: `freeze_vision_backbone` and `freeze_temporal_module` (both `True` here unless told
                otherwise), `input_features`, `adapter_hidden_size`, `input_embed_scale`.

        Returns:
            [`FlaForConditionalGeneration`]: in evaluation mode.

        Raises:
            ValueError: if `input_features="hidden"` and `stage1` has no language model.
        """
        if isinstance(stage1, (str, os.PathLike)):
            stage1 = cls.from_pretrained(stage1)
        if isinstance(language_model, (str, os.PathLike)):
            language_model = AutoModelForSeq2SeqLM.from_pretrained(language_model)
        visual_encoder = copy.deepcopy(getattr(stage1, "visual_encoder", stage1))
        fields = {"freeze_vision_backbone": True, "freeze_temporal_module": True, **config_overrides}
        light_t_encoder = None
        if fields.get("input_features") == "hidden":
            if not isinstance(stage1, FlaForConditionalGeneration):
                raise ValueError(
                    '`input_features="hidden"` needs the whole model of stage 1 for its Light-T encoder, '
                    f"got a {type(stage1).__name__}."
                )
            fields["light_t_config"] = copy.deepcopy(stage1.config.text_config)
            fields["light_t_adapter_hidden_size"] = stage1.config.adapter_hidden_size
            fields["light_t_input_embed_scale"] = stage1.config.input_embed_scale
            light_t_encoder = FlaLightTEncoder(
                copy.deepcopy(stage1.adapter),
                copy.deepcopy(stage1.language_model.get_encoder()),
                stage1.config.input_embed_scale,
            )
        config = FlaConfig(vision_config=visual_encoder.config, text_config=language_model.config, **fields)
        return cls(config, visual_encoder, language_model, light_t_encoder).eval()

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        sign_features: torch.FloatTensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values=None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FlaSeq2SeqLMOutput:
        r"""Score a spoken sentence given a sign video (paper Eq. 1 to 7).

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
                `uint8`: raw RGB, 0 to 255. Floating point: already normalised. Padding frames may hold anything.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                1 for a real frame, 0 for padding; all are real where it is absent.
            decoder_input_ids (`torch.LongTensor` of shape `(B, L)`, *optional*):
                Target tokens shifted right. Made from `labels` where absent.
            decoder_attention_mask (`torch.Tensor` of shape `(B, L)`, *optional*):
                1 for a target token, 0 for padding. Causal anyway, so rarely needed.
            labels (`torch.LongTensor` of shape `(B, L)`, *optional*):
                Target token ids, in MBart's order `tokens </s> <language>`; -100 at padding.
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`, *optional*):
                The second door, instead of pixels: what `get_sign_features` gave. Padding may hold anything.
            encoder_outputs (`BaseModelOutput`, *optional*):
                The language model's encoder states, when they are known; both doors are then left alone.
            past_key_values (`Cache`, *optional*):
                Keys and values of the decoder's earlier steps.
            decoder_inputs_embeds (`torch.FloatTensor` of shape `(B, L, D)`, *optional*):
                Instead of `decoder_input_ids`.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.
            output_attentions (`bool`, *optional*):
                Whether to return the language model's attentions.
            output_hidden_states (`bool`, *optional*):
                Whether to return the language model's hidden states.
            return_dict (`bool`, *optional*):
                `False` for a tuple.
            **kwargs:
                Passed to the language model, but for `num_items_in_batch`: the number of target tokens the loss is divided
                by, which [`Trainer`] gives when it accumulates gradients.

        Returns:
            [`FlaSeq2SeqLMOutput`]: `logits` is `(B, L, V)`; `loss`, with `labels` only, is the mean negative log-likelihood in
            nats per target token, without label smoothing: that is [`Trainer`]'s.

        Raises:
            ValueError: if not exactly one door is given, a shape is wrong, a video has no real frame, or one is longer than the
                language model's position table.

        Example:
            ```python
            >>> import torch
            >>> from modeling_fla import FlaConfig, FlaForConditionalGeneration
            >>> config = FlaConfig.light_t("tiny", vocab_size=32)
            >>> model = FlaForConditionalGeneration(config).eval()
            >>> video = torch.zeros(2, 6, 3, 32, 40, dtype=torch.uint8)
            >>> mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
            >>> output = model(video, mask, labels=torch.tensor([[7, 2, 4], [9, 2, 4]]))
            >>> tuple(output.logits.shape), tuple(output.sign_embeds.shape)
            ((2, 3, 32), (2, 6, 256))

            ```
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if labels is not None:
            use_cache = False
        sign_embeds = None
        if encoder_outputs is None:
            sign_features, sign_embeds, mask = self._sign_embeds(pixel_values_videos, sign_features, attention_mask)
            attention_mask = mask.long()
        else:
            sign_features = None

        outputs = self.language_model(
            inputs_embeds=sign_embeds,
            encoder_outputs=encoder_outputs,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        loss = None
        if labels is not None:
            # The model owns the loss: the language models' own would ignore `num_items_in_batch`.
            loss = self.loss_function(
                logits=outputs.logits,
                labels=None,
                shift_labels=labels,  # they are aligned with the logits: the decoder's input was shifted instead
                vocab_size=outputs.logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
            )
        output = FlaSeq2SeqLMOutput(**{**outputs, "loss": loss}, sign_features=sign_features, sign_embeds=sign_embeds)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def generate(self, inputs=None, generation_config=None, *args, sign_features=None, **kwargs):
        r"""Translate: `GenerationMixin.generate` with both doors.

        Args:
            inputs (`torch.Tensor`, *optional*):
                As `pixel_values_videos`.
            generation_config ([`GenerationConfig`], *optional*):
                Instead of the model's own.
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`, *optional*):
                Instead of `pixel_values_videos`, with the same `attention_mask`.
            *args:
                As for `GenerationMixin.generate`.
            **kwargs:
                As for `GenerationMixin.generate`: `pixel_values_videos`, `attention_mask`, `num_beams`, `max_new_tokens`, ...

        Returns:
            As `GenerationMixin.generate`: token ids `(B, L)`, or more with `return_dict_in_generate=True`.

        Raises:
            ValueError: as `forward`.
        """
        if sign_features is not None:
            if inputs is not None or kwargs.get("pixel_values_videos") is not None:
                raise ValueError("Give either `pixel_values_videos` or `sign_features`, not both.")
            inputs = sign_features  # `FlaEncoder` tells the doors apart, so that all of `generate` works for both
        return super().generate(inputs, generation_config, *args, **kwargs)

    def get_sign_features(
        self, pixel_values_videos: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        r"""What the adapter reads: the features `config.input_features` names. The `sign_features` door takes exactly this.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`):
                As in `forward`.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                As in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(B, N, C)`: zeros at padding.

        Raises:
            ValueError: as `forward`.
        """
        if self.config.input_features == "frame":
            return self.visual_encoder.get_frame_features(pixel_values_videos, attention_mask)
        sign_features = self.visual_encoder(pixel_values_videos, attention_mask).last_hidden_state
        if self.light_t_encoder is None:
            return sign_features
        mask = _real_positions_mask(sign_features.shape[:2], attention_mask, sign_features.device)
        return self.light_t_encoder(sign_features, mask)

    def _sign_embeds(self, pixel_values_videos, sign_features, attention_mask):
        """Sign features and sign embeddings from whichever door is given, and the mask as booleans."""
        if (pixel_values_videos is None) == (sign_features is None):
            given = "neither" if sign_features is None else "both"
            raise ValueError(f"Give either `pixel_values_videos` or `sign_features`; got {given}.")
        if sign_features is None:
            sign_features = self.get_sign_features(pixel_values_videos, attention_mask)
        elif sign_features.ndim != 3 or sign_features.shape[2] != self.config.adapter_input_size:
            raise ValueError(
                f"`sign_features` must be (B, N, {self.config.adapter_input_size}) with "
                f"`input_features={self.config.input_features!r}`, got {tuple(sign_features.shape)}."
            )
        mask = _real_positions_mask(sign_features.shape[:2], attention_mask, sign_features.device)
        _check_positions(self.language_model.get_encoder(), sign_features.shape[1])
        sign_features = _without_padding(sign_features, mask)
        return sign_features, self.adapter(sign_features) * self.config.input_embed_scale, mask

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """Labels `(B, L)` shifted right as this language model wants them; -100 becomes padding."""
        own = getattr(self.language_model, "prepare_decoder_input_ids_from_labels", None)
        if own is not None:
            return own(labels)
        # M2M-100 and NLLB have none.
        text_config = self.config.text_config
        start = labels.new_full((labels.shape[0], 1), text_config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, text_config.pad_token_id)

    def freeze_visual_encoder(self, vision_backbone: bool = True, temporal_module: bool = True) -> None:
        r"""Keep parts of the visual encoder still, in parameters and BatchNorm statistics (paper Table 9).

        The choice is the configuration's from then on: it holds through `train()`, saving and loading.

        Args:
            vision_backbone (`bool`, *optional*, defaults to `True`):
                Whether the backbone is frozen.
            temporal_module (`bool`, *optional*, defaults to `True`):
                Whether the temporal module is frozen.
        """
        self.config.freeze_vision_backbone = vision_backbone
        self.config.freeze_temporal_module = temporal_module
        self._freeze_as_configured()

    def _freeze_as_configured(self) -> None:
        # With frame features nothing passes through the temporal module: it could not learn.
        temporal_module = self.config.freeze_temporal_module or self.config.input_features == "frame"
        self.visual_encoder.freeze(self.config.freeze_vision_backbone, temporal_module)

    @property
    def visual_encoder_is_frozen(self) -> bool:
        """Whether the same video always gives the same features, so that they may be cached."""
        return len(self.visual_encoder.frozen_parts) == 2

    def load_imagenet_weights(self, source: str | os.PathLike = "torchvision") -> None:
        """Start the vision backbone from ImageNet weights. See [`FlaVisualEncoder.load_imagenet_weights`]."""
        self.visual_encoder.load_imagenet_weights(source)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The way from either door to the language model's encoder states; with a `modality`, the visual encoder."""
        return FlaEncoder(self) if modality is None else self.visual_encoder

    def get_decoder(self) -> nn.Module:
        """The language model's decoder."""
        return self.language_model.get_decoder()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As [`PreTrainedModel.resize_token_embeddings`]. To remove tokens, use [`trim_token_embeddings`]."""
        return self.language_model.resize_token_embeddings(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """As [`PreTrainedModel.save_pretrained`]; the folder also loads as [`AutoModel`], code files included."""
        if self.is_remote_code():  # transformers notes only the one auto class a class was registered for
            name = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), "AutoModel": name}
        super().save_pretrained(save_directory, *args, **kwargs)


def trim_token_embeddings(model: PreTrainedModel, kept_token_ids: list[int]) -> PreTrainedModel:
    r"""Cut a language model's vocabulary down to the tokens named, in place (paper Sec. 5.2).

    Token `kept_token_ids[i]` becomes token `i`: in the embeddings, the head and its bias, and wherever the configuration
    and the generation configuration name a token.

    Args:
        model (`PreTrainedModel`):
            An encoder-decoder language model, or a [`FlaForConditionalGeneration`] whose language model is meant.
        kept_token_ids (`list[int]`):
            Old ids in the order of the new ones, as [`trim_tokenizer`] returns them.

    Returns:
        `PreTrainedModel`: `model`.

    Raises:
        ValueError: if an id is repeated, outside the vocabulary, or named by the configuration but not kept.
    """
    language_model = getattr(model, "language_model", model)
    head, decoder = language_model.get_output_embeddings(), language_model.get_decoder()
    new_ids = _new_token_ids(kept_token_ids, head.weight.shape[0])
    configs = {id(c): c for c in (language_model.config, language_model.generation_config, model.generation_config)}
    # All of them are checked before anything is changed.
    changes = [(config, _remapped_token_ids(config, new_ids)) for config in configs.values()]

    tables = [
        language_model.get_input_embeddings(),
        language_model.get_encoder().embed_tokens,
        decoder.embed_tokens,
        head,
    ]
    _keep_rows([table for table in tables if table.weight.shape[0] == head.weight.shape[0]], kept_token_ids)
    for table in tables:
        if getattr(table, "padding_idx", None) is not None:
            table.padding_idx = new_ids.get(table.padding_idx)
    bias = getattr(language_model, "final_logits_bias", None)
    if bias is not None:
        language_model.final_logits_bias = nn.Buffer(bias[:, torch.tensor(kept_token_ids, device=bias.device)])

    for config, values in changes:
        for name, value in values.items():
            setattr(config, name, value)
    for name in ("vocab_size", "decoder_vocab_size"):
        if getattr(language_model.config, name, None) is not None:
            setattr(language_model.config, name, len(kept_token_ids))
    return model


def _new_token_ids(kept_token_ids: list[int], old_size: int) -> dict[int, int]:
    """From old token id to new; `ValueError` for a repeated or unknown one."""
    new_ids = {int(old): new for new, old in enumerate(kept_token_ids)}
    if len(new_ids) != len(kept_token_ids):
        repeated = next(old for old in kept_token_ids if list(kept_token_ids).count(old) > 1)
        raise ValueError(f"`kept_token_ids` names token {repeated} more than once.")
    unknown = [old for old in new_ids if not 0 <= old < old_size]
    if unknown or not new_ids:
        raise ValueError(
            f"`kept_token_ids` must be ids of a vocabulary of {old_size} tokens, got {unknown[:5] or 'none'}."
        )
    return new_ids


def _remapped_token_ids(config, new_ids: dict[int, int]) -> dict[str, object]:
    """The fields of a configuration that name tokens, with the new ids."""

    def remap_list(value):  # a token that is gone needs no suppressing
        if isinstance(value, (list, tuple)):
            items = [remap_list(item) for item in value]
            return [item for item in items if item is not None and item != []]
        return new_ids.get(value)

    values = {}
    for name, value in config.to_dict().items():
        if value is None:
            continue
        if name in ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids"):
            values[name] = remap_list(value) or None
        elif name.endswith("_token_id"):
            gone = [old for old in (value if isinstance(value, (list, tuple)) else [value]) if old not in new_ids]
            if gone and name != "bos_token_id":  # encoder-decoders start from `decoder_start_token_id`
                raise ValueError(f"`kept_token_ids` lacks token {gone[0]}, the `{name}` of {type(config).__name__}.")
            values[name] = remap_list(value) if not gone else None
    return values


def _keep_rows(tables: list[nn.Module], kept_token_ids: list[int]) -> None:
    """Cut embeddings and heads to the rows named; those that shared a tensor share the new one."""
    cut: dict[int, nn.Parameter] = {}
    for table in {id(table): table for table in tables}.values():
        old = table.weight
        rows = torch.tensor(kept_token_ids, device=old.device)
        if id(old) not in cut:
            cut[id(old)] = nn.Parameter(old.detach().index_select(0, rows), requires_grad=old.requires_grad)
        table.weight = cut[id(old)]
        if getattr(table, "bias", None) is not None:
            table.bias = nn.Parameter(
                table.bias.detach().index_select(0, rows), requires_grad=table.bias.requires_grad
            )
        setattr(table, "num_embeddings" if isinstance(table, nn.Embedding) else "out_features", len(kept_token_ids))


__all__ = ["FlaForConditionalGeneration", "FlaPreTrainedModel", "FlaVisualEncoder", "trim_token_embeddings"]
