"""A trained model as graphs for a processor, by transformers' exporters: what `fla export` writes.

[`~modeling_fla.exported_fla`] names the graphs, their inputs and outputs, and runs them.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

import processing_fla  # noqa: F401  registers the processor
from modeling_fla import FlaExportedConfig, FlaExportedForConditionalGeneration, FlaForConditionalGeneration
from training_fla.console import note
from training_fla.errors import InputError, one_line
from training_fla.folders import atomic_folder, check_not_inside
from training_fla.loading import loading

MODULES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
# Of the largest logit, what the graphs may differ from PyTorch by. Unstated: int8 rounds each weight by up to 0.4 %.
TOLERANCE = {"fp32": 1e-3, "int8": 0.25}
AUTO = torch.export.Dim.AUTO
SIZES = ((256, 256), (300, 200))  # of source frames, to see whether the processor brings all to one size


class VisionBackbone(nn.Module):
    """Frames to frame features."""

    def __init__(self, model: FlaForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, frames: torch.ByteTensor) -> dict[str, torch.FloatTensor]:
        """Frame features `(T, C)` of raw frames `(T, 3, H, W)`."""
        return {"frame_features": self.model.visual_encoder.encode_frames(frames)}


class TemporalModule(VisionBackbone):
    """Frame features to what the adapter reads."""

    def forward(self, frame_features: torch.FloatTensor) -> dict[str, torch.FloatTensor]:
        """Sign features `(1, N, C)` of the frame features `(1, T, C)` of one clip."""
        return {"sign_features": self.model.get_sign_features(frame_features=frame_features)}


class TextEncoder(VisionBackbone):
    """Sign features to encoder states, and to the keys and values that the decoder makes of them once a clip."""

    def forward(self, sign_features: torch.FloatTensor, attention_mask: torch.LongTensor) -> dict[str, torch.Tensor]:
        """States `(B, N, D)`, keys and values `(B, layers, heads, N, head size)`; mask `(B, N)`."""
        states = self.model.get_encoder()(sign_features=sign_features, attention_mask=attention_mask)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = attention_mask.new_zeros(attention_mask.shape[0], 1)  # any token: keys and values do not depend on it
        self.model(encoder_outputs=states, attention_mask=attention_mask, decoder_input_ids=start, cache=cache)
        layers = cache.cross_attention_cache.layers
        return {
            "last_hidden_state": states.last_hidden_state,
            "cross_keys": torch.stack([layer.keys for layer in layers], dim=1),
            "cross_values": torch.stack([layer.values for layer in layers], dim=1),
        }


class Decoder(VisionBackbone):
    """The next tokens, from those before as keys and values."""

    def forward(
        self,
        decoder_input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        cross_keys: list[torch.Tensor],
        cross_values: list[torch.Tensor],
    ) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Logits `(B, L, V)` and attention `(B, L, N)`; keys and values `(B, heads, P, head size)`, one a layer."""
        past, clip = (
            DynamicCache(list(zip(*both, strict=True))) for both in ((keys, values), (cross_keys, cross_values))
        )
        cache = EncoderDecoderCache(past, clip)
        width = self.model.language_model.get_decoder().get_input_embeddings().weight.shape[1]
        # Only its size is read: the clip is in the cache.
        states = cross_keys[0].new_zeros(*attention_mask.shape, width)
        outputs = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            cache=cache,
            use_cache=True,
            output_attentions=True,
        )
        layers = outputs.cache.self_attention_cache.layers
        return {
            "logits": outputs.logits,
            "keys": [layer.keys for layer in layers],
            "values": [layer.values for layer in layers],
            "attention": torch.stack(outputs.cross_attentions).mean((0, 2)),
        }


def export_model(
    source: str, folder: Path, export_format: str, precision: str = "fp32", overwrite: bool = False
) -> float:
    """Write a model as graphs, check that they give what it gives, and return by how much a logit differs.

    The difference is relative to the largest logit, of a drawn clip and drawn tokens.
    """
    check_packages(export_format, precision)
    check_not_inside([source], folder)
    with atomic_folder(folder, "export", overwrite) as work:
        with loading(source):
            model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32)
            processor = AutoProcessor.from_pretrained(source)
        if isinstance(model, FlaExportedForConditionalGeneration):
            raise InputError(f"{source} is exported already: give the model it was made of")
        if not isinstance(model, FlaForConditionalGeneration):
            raise InputError(f"{source} holds a {type(model).__name__}, not a trained model of this package")
        model.language_model.set_attn_implementation("eager")  # the only one that says what was attended to
        write_graphs(model.eval(), processor, work, export_format, precision)
        processor.save_pretrained(work)
        for file in work.glob("*_fla.py"):  # an exported model needs the package, so no code travels with it
            file.unlink()
        return largest_difference(model, work, precision)


def check_packages(export_format: str, precision: str) -> None:
    """Refuse, before any work, what is not installed or not offered."""
    if missing := [name for name in MODULES[export_format] if find_spec(name) is None]:
        raise InputError(f'`fla export` needs {missing[0]}: python -m pip install "fla-llm[export]"')
    if precision == "int8" and export_format != "onnx":
        raise InputError("--precision int8 goes with --format onnx only")


def write_graphs(model, processor, folder: Path, export_format: str, precision: str) -> None:
    """Trace the parts of a model one after the other and save them with the configuration."""
    from transformers.exporters import ExportedModel
    from transformers.exporters.auto import get_exporter_class

    inputs = drawn_inputs(model, processor)
    exporter_class = get_exporter_class(export_format)
    components = {}
    with quiet_exporters():
        for name, (part, given, shapes) in parts(model, inputs).items():
            note(f"exporting {name.replace('_', ' ')}")
            config = exporter_class.config_class(dynamic_shapes=shapes)
            if export_format == "openvino":
                config.stateful = False  # the search keeps the cache
            if precision == "int8" and name in ("text_encoder", "decoder"):
                from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

                config.quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig())
            try:
                components[name] = exporter_class().export(part, given, config).components["model"]
            except Exception as error:
                text = f"the {name.replace('_', ' ')} of this model cannot be exported to {export_format}"
                raise InputError(f"{text}: {one_line(error)[:300]}") from error
    frames = inputs["frames"]
    fields = {name: value for name, value in model.config.to_dict().items() if name not in ("model_type", "auto_map")}
    config = FlaExportedConfig(
        **fields,
        max_sign_positions=model.max_sign_positions,
        max_target_positions=model.max_target_positions,
        frame_height=frames.shape[2],
        frame_width=frames.shape[3],
        precision=precision,
    )
    config.architectures = [FlaExportedForConditionalGeneration.__name__]
    ExportedModel(components, export_format, config, model.generation_config).save_pretrained(folder)


def drawn_inputs(model, processor, batch_size: int = 2, num_frames: int = 7, num_tokens: int = 3) -> dict:
    """Random raw frames of one clip, of the size the processor gives, and random features, masks and tokens."""
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.zeros(1, 3, *size, dtype=torch.uint8) for size in SIZES)
    sizes = {tuple(processor.video_processor.scale_and_crop(frames).shape[2:]) for frames in drawn}
    if len(sizes) > 1:
        raise InputError("frames of an exported model are of one size: set `do_center_crop` of the video processor")
    frames = torch.randint(0, 256, (num_frames, 3, *sizes.pop()), dtype=torch.uint8, generator=generator)
    mask = torch.ones(batch_size, num_frames, dtype=torch.long)
    mask[1:, num_frames - 2 :] = 0
    features = torch.rand(batch_size, num_frames, model.config.adapter_input_size, generator=generator)
    ids = torch.randint(0, model.config.vocab_size, (batch_size, num_tokens), generator=generator)
    return {"frames": frames, "sign_features": features, "attention_mask": mask, "decoder_input_ids": ids}


@torch.no_grad()
def parts(model, inputs: dict) -> dict[str, tuple[nn.Module, dict, dict]]:
    """Each part of a model with inputs to trace it by and what of their sizes may be of any number."""
    found = {}
    if model.visual_encoder is not None:
        frames = inputs["frames"]
        found["vision_backbone"] = (VisionBackbone(model), {"frames": frames}, {"frames": {0: AUTO}})
        if model.config.input_features != "frame":
            frame_features = model.visual_encoder.encode_frames(frames)[None]
            given, shapes = {"frame_features": frame_features}, {"frame_features": {1: AUTO}}
            found["temporal_module"] = (TemporalModule(model), given, shapes)
    given = {name: inputs[name] for name in ("sign_features", "attention_mask")}
    encoder = TextEncoder(model)
    found["text_encoder"] = (encoder, given, {name: {0: AUTO, 1: AUTO} for name in given})
    states = encoder(**given)
    clip = {name: [part.contiguous() for part in states[name].unbind(1)] for name in ("cross_keys", "cross_values")}
    past = {
        "keys": [torch.zeros_like(part[:, :, :5]) for part in clip["cross_keys"]],
        "values": [torch.zeros_like(part[:, :, :5]) for part in clip["cross_values"]],
    }
    given = {name: inputs[name] for name in ("decoder_input_ids", "attention_mask")} | past | clip
    shapes = {name: {0: AUTO, 1: AUTO} for name in ("decoder_input_ids", "attention_mask")}
    shapes |= {name: [{0: AUTO, 2: AUTO} for _ in part] for name, part in (past | clip).items()}
    found["decoder"] = (Decoder(model), given, shapes)
    return found


@torch.no_grad()
def largest_difference(model, folder: Path, precision: str) -> float:
    """By how much the graphs of a folder differ from the model, of its largest logit; too much is refused."""
    exported = FlaExportedForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = drawn_inputs(model, processor, num_frames=9, num_tokens=4)
    given = {"decoder_input_ids": inputs["decoder_input_ids"][:1], "use_cache": False}
    if model.visual_encoder is None:
        given["sign_features"] = inputs["sign_features"][:1]
    else:
        given["pixel_values_videos"] = inputs["frames"][None]
    expected, got = model(**given).logits, exported(**given).logits
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE[precision]:
        raise InputError(
            f"the graphs differ from the model by {difference:.2g} of its largest logit, more than "
            f"{TOLERANCE[precision]:g}: this model cannot be exported in {precision}"
        )
    return difference


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep what the exporters print of their own work off the screen."""
    levels = {name: logging.getLogger(name).level for name in ("transformers", "torch", "onnxscript", "")}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in levels:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
