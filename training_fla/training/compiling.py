"""`torch_compile`: the visual encoder compiled in place, once for batches of every size."""

import os

import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments

from modeling_fla import FlaForConditionalGeneration, FlaVisualEncoder
from training_fla.files import InputError

FRAMES_MULTIPLE = 32


class FramePadding:
    """Repeats a frame until their number is a multiple of 32: cuDNN then plans for a few sizes, not for hundreds."""

    def __call__(self, positions: torch.LongTensor) -> torch.LongTensor:
        """Positions `(R,)` of the real frames to those `(P,)` of the frames to run; notes R on the device."""
        self.num_real = torch.full((), float(len(positions)), device=positions.device)
        return torch.cat([positions, positions[:1].expand(-len(positions) % FRAMES_MULTIPLE)])


class RealFramesBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose fp32 statistics leave repeated frames out; compiled, it takes as long as any."""

    padding: FramePadding

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As of [`~torch.nn.BatchNorm2d`], for `(P, C, H, W)` of which the first frames are real."""
        if not self.training:
            return super().forward(input)
        count = self.padding.num_real * input.shape[2] * input.shape[3]
        share = (torch.arange(len(input), device=input.device) < self.padding.num_real) / count
        hidden, share = input.float(), share[:, None, None, None]
        mean = (hidden * share).sum((0, 2, 3))
        hidden = hidden - mean[:, None, None]
        variance = (hidden.square() * share).sum((0, 2, 3))
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (hidden * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def pad_frames(encoder: FlaVisualEncoder) -> None:
    """Run frames in multiples of 32, where every norm of the backbone can leave those added out."""
    norms = [m for m in encoder.vision_backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if all(type(norm) is nn.BatchNorm2d for norm in norms):
        encoder.pad_positions = FramePadding()
        for norm in norms:
            norm.__class__, norm.padding = RealFramesBatchNorm2d, encoder.pad_positions


def take_compile_options(args: Seq2SeqTrainingArguments) -> dict | None:
    """What a recipe says of `torch_compile`, taken from transformers, which would compile the whole model."""
    options = {"backend": args.torch_compile_backend, "mode": args.torch_compile_mode}
    if not args.torch_compile:
        return None
    if args.activation_checkpointing:
        raise InputError("torch_compile and activation_checkpointing cannot be combined: set one of them to false")
    args.torch_compile, args.torch_compile_backend, args.torch_compile_mode = False, None, None
    for name in ("BACKEND", "MODE"):  # where Accelerate would look
        os.environ.pop(f"ACCELERATE_DYNAMO_{name}", None)
    return options


def compile_visual_encoder(model: FlaForConditionalGeneration, is_in_shards: bool, **options) -> None:
    """Compile backbone and temporal module in place; names of weights, saving and copying stay as they are."""
    if is_in_shards:
        raise InputError("torch_compile and FSDP cannot be combined: set torch_compile to false")
    encoder = model.visual_encoder
    if encoder is not None:  # None: the model reads features
        if encoder.device.type == "cuda":
            pad_frames(encoder)
        for part in (encoder.vision_backbone, encoder.temporal_module):
            part.compile(**options)
