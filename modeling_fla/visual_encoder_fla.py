"""The visual encoder of FLa-LLM (paper Eq. 1): vision backbone, then temporal module, on real frames only.

pixel_values_videos   (B, T, 3, H, W)
        |  padding frames are dropped
real frames           (R, 3, H, W)                 R = sum of lengths; channels_last
        |  vision backbone
frame features        (B, T, C)                    zeros at padding
        |  temporal module
sign features         (B, N, C)                    N = T; zeros at padding
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import MODEL_MAPPING, AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_fla import FlaConfig, FlaVisionConfig

FRAMES_AT_ONCE = 512  # through a backbone in evaluation: its activations of a hundred clips fill no GPU


@dataclass
class FlaVisualEncoderOutput(ModelOutput):
    r"""What [`FlaVisualEncoder`] gives.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(B, N, C)`): Sign features, at least 0; zeros at padding.
        frame_features (`torch.FloatTensor` of shape `(B, T, C)`): The backbone's pooled features; zeros at padding.
    """

    last_hidden_state: torch.FloatTensor | None = None
    frame_features: torch.FloatTensor | None = None


def real_positions_mask(shape: tuple[int, int], attention_mask: torch.Tensor | None, device) -> torch.BoolTensor:
    """The attention mask as booleans, all true where there is none.

    Args:
        shape (`tuple[int, int]`): `(B, T)` of what it masks.
        attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame, 0 for padding.
        device (`torch.device`): of the result.

    Returns:
        `torch.BoolTensor` of shape `(B, T)`: true for a real frame.

    Raises:
        ValueError: the mask is of another shape, or a video has no real frame.
    """
    if attention_mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if tuple(attention_mask.shape) != tuple(shape):
        raise ValueError(f"`attention_mask` must be (B, T) = {tuple(shape)}, got {tuple(attention_mask.shape)}.")
    mask = attention_mask.to(device=device, dtype=torch.bool)
    if torch.compiler.is_exporting():
        return mask  # a graph cannot ask for values
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
            bias=False,  # batch normalisation would subtract it again
        )
        self.normalization = nn.BatchNorm1d(config.hidden_size)

    def forward(self, frame_features: torch.FloatTensor, positions: torch.LongTensor) -> torch.FloatTensor:
        """Mix neighbouring frames of each video.

        Args:
            frame_features (`torch.FloatTensor` of shape `(B, T, C)`): of the vision backbone; zeros at padding.
            positions (`torch.LongTensor` of shape `(R,)`): indices of the R real frames among the B * T; B * T for a
                frame that counts for nothing.

        Returns:
            `torch.FloatTensor` of shape `(B, N, C)`: sign features, N = T; zeros at padding.
        """
        B, T, _ = frame_features.shape
        # The convolution pads a video's own ends with zeros too: videos of a batch cannot mix.
        hidden = self.convolution(frame_features.transpose(1, 2)).transpose(1, 2)  # (B, N, C)
        # Statistics are over real positions only.
        real = hidden.reshape(B * T, -1).index_select(0, positions.clamp(max=B * T - 1))
        return _spread(F.relu(self.normalization(real)), positions, (B, T))


def _spread(features: torch.FloatTensor, positions: torch.LongTensor, shape: tuple[int, int]) -> torch.FloatTensor:
    """Features `(R, C)` of the real positions to `(B, T, C)`, zeros at padding; those at B * T go nowhere."""
    B, T = shape
    spread = features.new_zeros(B * T + 1, features.shape[-1]).index_copy(0, positions, features)
    return spread[:-1].view(B, T, -1)


@torch.compiler.disable
def _positions(mask: torch.BoolTensor) -> torch.LongTensor:
    """Indices `(R,)` of the real frames in `B * T`; `torch.compile` must not specialise on their number."""
    return _of_any_length(mask.flatten().nonzero().squeeze(1))


def _of_any_length(tensor: torch.Tensor, *dims: int) -> torch.Tensor:
    """The same tensor; a compiled part that reads it is built once for all sizes of these dimensions."""
    if not torch.compiler.is_compiling():
        torch._dynamo.maybe_mark_dynamic(tensor, dims or 0)
    return tensor


def _scale_and_shift(config: FlaVisionConfig) -> torch.FloatTensor:
    """Scale and shift `(2, 3, 1, 1)` of raw pixels, fp32."""
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in (config.image_mean, config.image_std))
    std = std.expand(config.num_channels)
    return torch.stack([1 / (255 * std), -mean / std])[..., None, None]


def _pixel_normalization(config: FlaVisionConfig) -> torch.IntTensor:
    """Scale and shift as the bits of fp32 numbers: `model.to(bfloat16)` keeps them."""
    return _scale_and_shift(config).view(torch.int32)


class FlaPreTrainedModel(PreTrainedModel):
    """Initialisation and abilities that the visual encoder and the whole model share."""

    config_class = FlaConfig
    base_model_prefix = "language_model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    # Attention is the language model's and the backbone's: each checks what it supports when it is built.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False) -> None:
        """As [`PreTrainedModel.set_attn_implementation`]; where a part refuses it, all parts stay as they were."""
        parts = [module.config for module in self.modules() if isinstance(module, PreTrainedModel)]
        configs = [*parts, *_configs(self.config)]  # a part after the whole, which sets that of its parts, too
        before = [config._attn_implementation for config in configs]
        try:
            super().set_attn_implementation(attn_implementation, allow_all_kernels)
        except Exception:
            for config, implementation in zip(configs, before, strict=True):
                config._attn_implementation = implementation
            raise

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # Unstated: as in ResNet
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)  # Unstated: as GFSLT-VLP's adapter, whose gain is the root of 2
            init.zeros_(module.bias)
        elif isinstance(module, FlaVisualEncoder):  # not in the state dict, so `from_pretrained` leaves it empty
            init.copy_(module.pixel_normalization, _pixel_normalization(module.config))


def _build_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    auto_class = AutoModel if type(config) in MODEL_MAPPING else AutoBackbone  # timm's come only as backbones
    try:
        backbone = auto_class.from_config(config)
    except ValueError:  # a ResNet has no attention, and refuses the implementation meant for the language model
        backbone = auto_class.from_config(config, attn_implementation="eager")
    if not (backbone._supports_sdpa or backbone._supports_flash_attn or backbone._supports_flex_attn):
        backbone.get_correct_attn_implementation = _always_eager  # `set_attn_implementation` asks it too
    return backbone


def _always_eager(requested_attention: str | None, is_init_check: bool = False) -> str:
    """What a backbone without attention answers, whatever is meant for the language model."""
    return "eager"


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and, at any depth, those of its parts."""
    yield config
    for name in config.sub_configs:
        if getattr(config, name, None) is not None:
            yield from _configs(getattr(config, name))


class FlaVisualEncoder(FlaPreTrainedModel):
    r"""Vision backbone and temporal module (paper Eq. 1): sampled frames in, sign features out.

    Padding frames reach neither the backbone nor any BatchNorm. The convolutions run in `channels_last`.

    Args:
        config ([`FlaVisionConfig`]): The configuration.
    """

    config_class = FlaVisionConfig
    base_model_prefix = "visual_encoder"
    input_modalities = ("video",)
    # It loads from the folder of a whole model too.
    _keys_to_ignore_on_load_unexpected = [r"^adapter\.", r"^language_model\.", r"^light_t_encoder\."]

    def __init__(self, config: FlaVisionConfig):
        super().__init__(config)
        self.vision_backbone = _build_backbone(config.backbone_config)
        self.temporal_module = FlaTemporalModule(config)
        self.has_narrow_shortcut = any(
            isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1 and m.in_channels < 16
            for m in self.vision_backbone.modules()
        )
        self.register_buffer("pixel_normalization", _pixel_normalization(config), persistent=False)
        self.frozen_parts: tuple[str, ...] = ()
        self.gradient_checkpointing = False
        self.frames_at_once = FRAMES_AT_ONCE
        self.post_init()
        self.train(self.training)

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.LongTensor | None = None,
    ) -> FlaVisualEncoderOutput:
        r"""Sign features of a batch of videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`):
                `uint8`: raw RGB, 0 to 255, normalised here. Floating point: already normalised, as [`FlaProcessor`]
                returns it. Padding frames may hold anything, NaN too. Beside `positions` and `attention_mask` it may
                be `(R, 3, H, W)`: the real frames alone, one after the other, all finite.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
                1 for a real frame, 0 for padding. All frames are real where it is absent.
            positions (`torch.LongTensor` of shape `(R,)`, *optional*):
                Where `attention_mask` is 1 in `B * T`, if it is known: then no device is asked, nor the mask checked.
                Beside frames alone `B * T` stands for a frame that counts for nothing.

        Returns:
            [`FlaVisualEncoderOutput`]

        Raises:
            ValueError: if a shape, the channel count or the pixel dtype is wrong, or a video has no real frame.
        """
        are_alone = pixel_values_videos.ndim == 4 and positions is not None and attention_mask is not None
        if pixel_values_videos.ndim != 5 - are_alone or pixel_values_videos.shape[-3] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values_videos` must be (B, T, {self.config.num_channels}, H, W), "
                f"got {tuple(pixel_values_videos.shape)}."
            )
        B, T = attention_mask.shape if are_alone else pixel_values_videos.shape[:2]
        # No size of an exported graph may follow from values: it computes padding frames too, and blanks them.
        computes_padding = positions is None and torch.compiler.is_exporting()
        if positions is None:
            mask = real_positions_mask((B, T), attention_mask, pixel_values_videos.device)
            positions = torch.arange(B * T, device=mask.device) if computes_padding else _positions(mask)
        # In training the batch statistics need all frames at once.
        at_once = computes_padding or self.vision_backbone.training
        if are_alone:
            parts = (pixel_values_videos,) if at_once else pixel_values_videos.split(self.frames_at_once)
        else:
            # Channels last while the frames are gathered: one copy of them, not two.
            frames = pixel_values_videos.flatten(0, 1).permute(0, 2, 3, 1)
            parts = (positions,) if at_once else positions.split(self.frames_at_once)
            parts = (frames.index_select(0, part).permute(0, 3, 1, 2) for part in parts)
        frame_features = _spread(torch.cat([self._pooled(part) for part in parts]), positions, (B, T))
        if computes_padding:
            frame_features = frame_features.masked_fill(~mask[..., None], 0)
        sign_features = self.temporal_module(_of_any_length(frame_features, 0, 1), _of_any_length(positions))
        if computes_padding:
            sign_features = sign_features.masked_fill(~mask[..., None], 0)
        return FlaVisualEncoderOutput(last_hidden_state=sign_features, frame_features=frame_features)

    def encode_frames(self, frames: torch.Tensor) -> torch.FloatTensor:
        """The backbone's features of frames that come before their video has ended.

        Args:
            frames (`torch.Tensor` of shape `(T, 3, H, W)`): of any number, as `pixel_values_videos` has them.

        Returns:
            `torch.FloatTensor` of shape `(T, C)`: to be kept for [`mix_frames`].
        """
        return self._pooled(frames)

    def mix_frames(self, frame_features: torch.FloatTensor) -> FlaVisualEncoderOutput:
        """As `forward`, from frames that were encoded before; in evaluation it gives the same.

        Args:
            frame_features (`torch.FloatTensor` of shape `(B, T, C)`): of [`encode_frames`], without padding.

        Returns:
            [`FlaVisualEncoderOutput`]
        """
        positions = torch.arange(frame_features.shape[0] * frame_features.shape[1], device=frame_features.device)
        sign_features = self.temporal_module(frame_features, positions)
        return FlaVisualEncoderOutput(last_hidden_state=sign_features, frame_features=frame_features)

    def _normalized(self, frames: torch.Tensor) -> torch.FloatTensor:
        """Frames in the dtype of the backbone and in `channels_last`, the fastest; `uint8` ones are normalised."""
        # oneDNN 3.13 (torch 2.15) writes out of bounds in the backward pass of a strided 1 x 1 convolution in
        # channels_last of fewer than 16 channels, on several threads.
        unsafe = frames.device.type == "cpu" and self.has_narrow_shortcut
        memory_format = torch.contiguous_format if unsafe else torch.channels_last
        if frames.dtype == torch.uint8:
            exporting = torch.compiler.is_exporting()  # ONNX does not read bits as another type
            scale, shift = _scale_and_shift(self.config) if exporting else self.pixel_normalization.view(torch.float32)
            frames = torch.addcmul(shift, frames.to(torch.float32, memory_format=memory_format), scale)
        elif not frames.is_floating_point():
            raise ValueError(
                "`pixel_values_videos` must be uint8 (raw, 0 to 255) or floating point (normalised), "
                f"got {frames.dtype}."
            )
        return frames.to(self.vision_backbone.dtype, memory_format=memory_format)

    def _pooled(self, frames: torch.Tensor) -> torch.FloatTensor:
        """One feature vector `(R, C)` a frame, whatever the backbone calls it."""
        frames = _of_any_length(self._normalized(frames))
        if self.gradient_checkpointing and self.training and self.vision_backbone.config.model_type == "resnet":
            return _checkpointed_resnet(self.vision_backbone, frames).flatten(1)
        outputs = self.vision_backbone(frames)
        if getattr(outputs, "pooler_output", None) is not None:
            return outputs.pooler_output.flatten(1)
        maps = outputs.feature_maps[-1] if "feature_maps" in outputs else outputs.last_hidden_state
        return maps.flatten(2).mean(2) if maps.ndim == 4 else maps.mean(1)

    def freeze(self, vision_backbone: bool = True, temporal_module: bool = True) -> None:
        """Freeze the parts named, in parameters and BatchNorm statistics, and make the others trainable."""
        wanted = {"vision_backbone": vision_backbone, "temporal_module": temporal_module}
        for part in self.frozen_parts:
            if not wanted[part]:
                getattr(self, part).requires_grad_(True)
        self.frozen_parts = tuple(part for part, frozen in wanted.items() if frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "FlaVisualEncoder":
        """Switch between training and evaluation; frozen parts stay in evaluation and without gradients."""
        self.training = mode
        for name, part in self.named_children():
            part.train(mode and name not in self.frozen_parts)
        # `from_pretrained` replaces the parameters, which undoes both; it ends with `eval()`, which calls this.
        for part in self.frozen_parts:
            getattr(self, part).requires_grad_(False)
        if "vision_backbone" not in self.frozen_parts:
            for name, parameter in self.vision_backbone.named_parameters():
                # DINOv2 has one for its own training only: DistributedDataParallel would wait for its gradient.
                if name.endswith("mask_token"):
                    parameter.requires_grad_(False)
        return self


@contextmanager
def _unchanged_running_statistics(module: nn.Module):
    """Let BatchNorm layers normalise by a batch without counting it."""
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


def _checkpointed_resnet(backbone: PreTrainedModel, frames: torch.FloatTensor) -> torch.FloatTensor:
    """The pooled output of a ResNet that keeps only its layers' inputs for the backward pass.

    transformers' ResNet has no activation checkpointing, and a plain one would count every batch twice in BatchNorm.
    """
    for layer in [backbone.embedder] + [layer for stage in backbone.encoder.stages for layer in stage.layers]:
        contexts = functools.partial(lambda layer: (nullcontext(), _unchanged_running_statistics(layer)), layer)
        frames = checkpoint(layer, frames, use_reentrant=False, context_fn=contexts)
    return backbone.pooler(frames)


__all__ = ["FlaPreTrainedModel", "FlaVisualEncoder", "FlaVisualEncoderOutput", "real_positions_mask"]
