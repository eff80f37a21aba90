"""A model that `fla export` wrote: the same interface, its parts are graphs that ONNX Runtime or OpenVINO runs.

frames            (T, 3, H, W)   uint8, of one clip
      |  vision_backbone
frame features    (T, C)
      |  temporal_module         what `get_sign_features` makes of them; none with `input_features="frame"`
sign features     (B, N, C)
      |  text_encoder            adapter, text encoder, and the decoder's keys and values of the clip
states            (B, N, D)      and keys, values (B, layers, heads, N, head size)
      |  decoder                 the next tokens, with its cache; the search is `GenerationMixin`'s
logits            (B, L, V)      and attention (B, L, N), the mean over layers and heads
"""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, EncoderDecoderCache, GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils.hub import cached_file

from .configuration_fla import FlaConfig
from .modeling_fla import FlaGenerationMixin, _check_length
from .visual_encoder_fla import FRAMES_AT_ONCE, real_positions_mask

MANIFEST = "export.json"  # of transformers' exporters: format and graphs
GRAPHS = ("vision_backbone", "temporal_module", "text_encoder", "decoder")  # the first two are not always there
RUNTIMES = {"onnx": ("onnxruntime", "onnx_ir"), "openvino": ("openvino",)}  # modules that running a format needs
DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class FlaExportedConfig(FlaConfig):
    r"""Configuration of an exported model: that of the model it was made of, and what a graph does not say.

    Args:
        max_sign_positions (`int`, *optional*): As [`FlaForConditionalGeneration.max_sign_positions`].
        max_target_positions (`int`, *optional*): As [`FlaForConditionalGeneration.max_target_positions`].
        frame_height (`int`): H of the frames that the vision backbone reads.
        frame_width (`int`): W of the frames that the vision backbone reads.
        precision (`str`): `"fp32"` or `"int8"`, of the text encoder and the decoder.
    """

    model_type = "fla_llm_exported"
    _auto_class = None  # its code does not travel: the package runs an exported model

    max_sign_positions: int | None = None
    max_target_positions: int | None = None
    frame_height: int = 224
    frame_width: int = 224
    precision: str = "fp32"

    def to_dict(self) -> dict:
        """As [`PreTrainedConfig.to_dict`], without the places of code files."""
        return {
            name: value for name, value in super().to_dict().items() if name not in ("custom_pipelines", "auto_map")
        }


@dataclass
class FlaExportedEncoderOutput(BaseModelOutput):
    r"""What an exported text encoder gives.

    Args:
        cross_keys (`torch.FloatTensor` of shape `(B, layers, heads, N, head size)`): The decoder's, of the clip.
        cross_values (`torch.FloatTensor` of shape `(B, layers, heads, N, head size)`): The decoder's, of the clip.
    """

    cross_keys: torch.FloatTensor | None = None
    cross_values: torch.FloatTensor | None = None


class FlaGraph(nn.Module):
    """One graph and its runner, called by the names of its inputs; its first input may be given by place."""

    def __init__(self, runner, first: str):
        super().__init__()
        self.runner, self.first = runner, first

    def forward(self, first: torch.Tensor, **inputs: torch.Tensor | list[torch.Tensor]) -> dict:
        """Run the graph."""
        return self.runner(**{self.first: first}, **inputs)


class FlaExportedVisualEncoder(nn.Module):
    """Frames of a clip to sign features, as [`FlaVisualEncoder`]."""

    def __init__(self, config: FlaExportedConfig, vision_backbone: FlaGraph, temporal_module: FlaGraph | None):
        super().__init__()
        self.config, self.vision_backbone, self.temporal_module = config, vision_backbone, temporal_module
        self.frames_at_once = FRAMES_AT_ONCE

    def encode_frames(self, frames: torch.Tensor) -> torch.FloatTensor:
        """As [`FlaVisualEncoder.encode_frames`].

        Args:
            frames (`torch.ByteTensor` of shape `(T, 3, H, W)`): raw RGB.

        Returns:
            `torch.FloatTensor` of shape `(T, C)`: frame features.

        Raises:
            ValueError: if they are not raw frames of the size the graph was made for.
        """
        size = (self.config.frame_height, self.config.frame_width)
        if frames.dtype != torch.uint8 or tuple(frames.shape[2:]) != size:
            raise ValueError(
                f"This exported model reads raw frames (uint8) of {size[0]} x {size[1]} pixels, got {frames.dtype} of "
                f"{' x '.join(map(str, frames.shape[2:]))}: call the processor with `do_rescale=False, "
                "do_normalize=False`."
            )
        parts = frames.contiguous().split(self.frames_at_once)
        return torch.cat([self.vision_backbone(part)["frame_features"] for part in parts])


class FlaExportedEncoder(nn.Module):
    """What `generate` takes for the encoder: videos or sign features to states, keys and values."""

    main_input_name = "pixel_values_videos"

    def __init__(self, model: "FlaExportedForConditionalGeneration"):
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
    ) -> FlaExportedEncoderOutput:
        """As [`FlaEncoder`].

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
                Raw frames; of shape `(B, N, C)` they are taken for sign features.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame, 0 for padding.
            sign_features (`torch.Tensor` of shape `(B, N, C)`, *optional*): Instead of frames.
            output_attentions (`bool`, *optional*): Given by `generate`; not read.
            output_hidden_states (`bool`, *optional*): Given by `generate`; not read.
            return_dict (`bool`): Given by `generate`; the result is always a dict.

        Returns:
            [`FlaExportedEncoderOutput`]

        Raises:
            ValueError: as [`FlaForConditionalGeneration.forward`].
        """
        if pixel_values_videos is not None and pixel_values_videos.ndim == 3 and sign_features is None:
            pixel_values_videos, sign_features = None, pixel_values_videos
        elif pixel_values_videos is not None and pixel_values_videos.ndim == 2:
            pixel_values_videos = None  # `generate` was given no input and made up a start token
        if (pixel_values_videos is None) == (sign_features is None):
            given = "neither" if sign_features is None else "both"
            raise ValueError(f"Give either `pixel_values_videos` or `sign_features`; got {given}.")
        length = (pixel_values_videos if sign_features is None else sign_features).shape[1]
        _check_length("video", length, "sampled frames", self.model.max_sign_positions)
        if sign_features is None:
            sign_features = self.model.get_sign_features(pixel_values_videos, attention_mask)
        sign_features = sign_features.cpu().float()
        mask = real_positions_mask(sign_features.shape[:2], attention_mask, torch.device("cpu"))
        return FlaExportedEncoderOutput(**self.model.text_encoder(sign_features, attention_mask=mask.long()))


class FlaExportedForConditionalGeneration(PreTrainedModel, FlaGenerationMixin):
    r"""An exported model, for translating on a processor: it has no weights of PyTorch and cannot be trained.

    `pipeline`, `generate` with all its searches, `fla translate`, `fla inspect` and `fla serve` take it as they take
    [`FlaForConditionalGeneration`].

    Args:
        config ([`FlaExportedConfig`]): The configuration.
        runners (`dict`): Of each graph by its name, see the top of this file.
        generation_config ([`GenerationConfig`], *optional*): Of the model it was made of.
    """

    config_class = FlaExportedConfig
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "text")

    def __init__(self, config: FlaExportedConfig, runners: dict, generation_config: GenerationConfig | None = None):
        super().__init__(config)
        self.visual_encoder = None
        if "vision_backbone" in runners:
            has_temporal = "temporal_module" in runners
            temporal = FlaGraph(runners["temporal_module"], "frame_features") if has_temporal else None
            backbone = FlaGraph(runners["vision_backbone"], "frames")
            self.visual_encoder = FlaExportedVisualEncoder(config, backbone, temporal)
        self.text_encoder = FlaGraph(runners["text_encoder"], "sign_features")
        self.decoder = FlaGraph(runners["decoder"], "decoder_input_ids")
        self.generation_config = generation_config or self.generation_config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args, config: FlaConfig | None = None, **kwargs
    ) -> "FlaExportedForConditionalGeneration":
        r"""Open an exported folder; as many threads work as PyTorch has.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder that `fla export` wrote, or its Hub id.
            *args: Not read; transformers' loading passes them.
            config ([`FlaExportedConfig`], *optional*): Not read; transformers' loading passes it.
            **kwargs: How a file of the Hub is found: `revision`, `token`, `cache_dir`, ...; others are not read.

        Returns:
            [`FlaExportedForConditionalGeneration`]: in evaluation mode.

        Raises:
            OSError: if it is no whole folder of `fla export`.
            ImportError: if the runtime of its format is not installed.
        """
        download = {name: kwargs[name] for name in DOWNLOAD_OPTIONS if name in kwargs}
        source = pretrained_model_name_or_path
        try:
            manifest = json.loads(Path(cached_file(source, MANIFEST, **download)).read_text(encoding="utf-8"))
            export_format, graphs = manifest["export_format"], set(manifest["components"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OSError(f"{source} is no exported model: its {MANIFEST} is missing or damaged") from error
        if not set(GRAPHS[-2:]) <= graphs <= set(GRAPHS) or export_format not in RUNTIMES:
            raise OSError(f"{source} was not written by `fla export`: its graphs are {', '.join(sorted(graphs))}")
        if missing := [module for module in RUNTIMES[export_format] if find_spec(module) is None]:
            raise ImportError(f'{source} needs {missing[0]}: python -m pip install "fla-llm[export]"')
        from transformers.exporters import ExportedModel

        try:
            exported = ExportedModel.from_pretrained(
                source, device="cpu", **download, **runtime_options(export_format)
            )
        except Exception as error:  # each runtime has errors of its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise OSError(f"{source} is no whole exported model: {reason}") from error
        return cls(exported.config, exported.runners, exported.generation_config).eval()

    @property
    def device(self) -> torch.device:
        """Where inputs are read and outputs are: the processor."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of outputs."""
        return torch.float32

    @property
    def max_sign_positions(self) -> int | None:
        """The most sampled frames N that the text encoder reads; `None` where there is no limit."""
        return self.config.max_sign_positions

    @property
    def max_target_positions(self) -> int | None:
        """The most target tokens L that the decoder reads; `None` where there is no limit."""
        return self.config.max_target_positions

    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False) -> None:
        """Nothing: the graph of the decoder always says what it attended to."""

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """From videos or sign features to states, keys and values."""
        return FlaExportedEncoder(self)

    def get_sign_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        frame_features: torch.FloatTensor | None = None,
    ) -> torch.FloatTensor:
        r"""As [`FlaForConditionalGeneration.get_sign_features`]; clips go through the graphs one by one, unpadded.

        Args:
            pixel_values_videos (`torch.ByteTensor` of shape `(B, T, 3, H, W)`, *optional*): Raw frames.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame, 0 for padding.
            frame_features (`torch.FloatTensor` of shape `(B, T, C)`, *optional*): Instead of pixels, without padding.

        Returns:
            `torch.FloatTensor` of shape `(B, N, C)`: zeros at padding.

        Raises:
            ValueError: if the model has no visual encoder, or a shape, a dtype or the mask is wrong.
        """
        if self.visual_encoder is None:
            raise ValueError("This model reads sign features, not videos: it has no visual encoder.")
        if frame_features is None:
            mask = real_positions_mask(pixel_values_videos.shape[:2], attention_mask, torch.device("cpu"))
            clips = [frames[real] for frames, real in zip(pixel_values_videos.cpu(), mask, strict=True)]
            frame_features = [self.visual_encoder.encode_frames(clip) for clip in clips]
        temporal_module = self.visual_encoder.temporal_module
        if temporal_module is not None:
            frame_features = [temporal_module(clip[None])["sign_features"][0] for clip in frame_features]
        features = pad_sequence(list(frame_features), batch_first=True)
        missing = 0 if pixel_values_videos is None else pixel_values_videos.shape[1] - features.shape[1]
        return nn.functional.pad(features, (0, 0, 0, missing))

    @torch.no_grad()
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        sign_features: torch.FloatTensor | None = None,
        encoder_outputs: FlaExportedEncoderOutput | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool = True,
    ) -> Seq2SeqLMOutput:
        r"""The next tokens of a sentence given a sign video.

        Args:
            pixel_values_videos (`torch.ByteTensor` of shape `(B, T, 3, H, W)`, *optional*): Raw frames.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame; all are real without.
            decoder_input_ids (`torch.LongTensor` of shape `(B, L)`): What is written so far, or since `cache`.
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`, *optional*): Instead of pixels.
            encoder_outputs ([`FlaExportedEncoderOutput`], *optional*): Instead of pixels or features.
            cache (`EncoderDecoderCache`, *optional*): Of the earlier steps; an empty one is filled.
            use_cache (`bool`, *optional*): Whether to return `cache`.
            output_attentions (`bool`, *optional*): Whether to return `cross_attentions`.
            return_dict (`bool`): Given by `generate`; the result is always a dict.

        Returns:
            `Seq2SeqLMOutput`: `logits` is `(B, L, V)`; `cross_attentions` has one layer of one head, their mean.

        Raises:
            ValueError: as [`FlaForConditionalGeneration.forward`].
        """
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(pixel_values_videos, attention_mask, sign_features)
        states = encoder_outputs.last_hidden_state
        mask = real_positions_mask(states.shape[:2], attention_mask, states.device).long()
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if cache is None else cache
        length = decoder_input_ids.shape[1] + cache.get_seq_length()
        _check_length("translation", length, "tokens", self.max_target_positions)
        if not len(cache):
            _fill(cache, encoder_outputs)
        past, clip = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        outputs = self.decoder(
            decoder_input_ids,
            attention_mask=mask,
            keys=[layer.keys for layer in past],
            values=[layer.values for layer in past],
            cross_keys=[layer.keys for layer in clip],
            cross_values=[layer.values for layer in clip],
        )
        for layer, keys, values in zip(past, outputs["keys"], outputs["values"], strict=True):
            layer.keys, layer.values = keys, values
        attentions = (outputs["attention"].unsqueeze(1),) if output_attentions else None
        return Seq2SeqLMOutput(
            logits=outputs["logits"], cache=cache if use_cache else None, cross_attentions=attentions
        )

    def _prepare_cache_for_generation(self, generation_config, model_kwargs: dict, *args, **kwargs) -> None:
        if generation_config.use_cache is not False and model_kwargs.get("cache") is None:
            model_kwargs["cache"] = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def _reorder_cache(self, cache: EncoderDecoderCache, beam_idx: torch.LongTensor) -> EncoderDecoderCache:
        """The beams of a clip share its keys and values: only their own past follows them."""
        cache.self_attention_cache.reorder_cache(beam_idx)
        return cache


def runtime_options(export_format: str) -> dict:
    """As many threads as PyTorch has, and no rounding to bf16 that PyTorch would not do."""
    if export_format == "openvino":
        return {"config": {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return {"session_options": options}


def _fill(cache: EncoderDecoderCache, encoder_outputs: FlaExportedEncoderOutput) -> None:
    """Put the clip's keys and values into an empty cache, and a past of no token beside them."""
    both = zip(encoder_outputs.cross_keys.unbind(1), encoder_outputs.cross_values.unbind(1), strict=True)
    for place, (keys, values) in enumerate(both):
        cache.cross_attention_cache.update(keys.contiguous(), values.contiguous(), place)
        cache.self_attention_cache.update(keys[:, :, :0], values[:, :, :0], place)


__all__ = ["FlaExportedConfig", "FlaExportedEncoderOutput", "FlaExportedForConditionalGeneration"]
