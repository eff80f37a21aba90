"""Batch normalisation in training over the real frames of all processes, whatever frames a batch is padded with.

A model is converted for a run; names and numbers of its weights stay, and a saved one has plain norms again.
"""

import torch
import torch.distributed as dist
from torch import nn


class RealFrames:
    """Which frames of a batch its norms count: the first `number`, and on how many processes.

    Args:
        num_processes (`int`): how many train together, each with frames of its own.
    """

    def __init__(self, num_processes: int = 1):
        self.is_shared = num_processes > 1
        self.number = 0
        self.mask = torch.zeros(0)
        self.norms: list[nn.Module] = []

    def set(self, number: int, size: int, device: torch.device) -> None:
        """Say what the next forward pass counts.

        Args:
            number (`int`): of real frames, which come first; 0 where a process has no clip of its own.
            size (`int`): P, of all frames.
            device (`torch.device`): of the frames.
        """
        self.number = number
        self.mask = (torch.arange(size, device=device) < number).float()
        torch._dynamo.maybe_mark_dynamic(self.mask, 0)
        torch._foreach_copy_([norm.shift for norm in self.norms], [norm.running_mean for norm in self.norms])


class SumOverProcesses(torch.autograd.Function):
    """The sum of a vector over all processes; its gradient is summed likewise."""

    @staticmethod
    def forward(ctx, vector: torch.Tensor) -> torch.Tensor:
        """Add up a vector of any length, the same on all processes."""
        total = vector.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        """Add up the gradient of the sum, of the vector's shape."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def normalize(
    hidden: torch.Tensor, norm: nn.Module, mask: torch.Tensor, is_shared: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise in plain arithmetic, which a compiler fuses.

    Args:
        hidden (`torch.Tensor` of shape `(P, C)` or `(P, C, H, W)`): of any floating dtype, finite.
        norm (`nn.Module`): a converted BatchNorm of C channels.
        mask (`torch.FloatTensor` of shape `(P,)`): 1 for a real frame, 0 for padding.
        is_shared (`bool`): whether the statistics are of all processes; then each must call this.

    Returns:
        `tuple[torch.Tensor, ...]`: the normalised values, as `hidden`; mean and biased variance `(C,)` and count `()`
            of the real values of a channel, in fp32.
    """
    of_channel = (1, -1, *[1] * (hidden.ndim - 2))
    dims = (0, *range(2, hidden.ndim))
    values = hidden.float()
    # Counted from a number near the mean: a difference of large squares would lose digits.
    centred = (values - norm.shift.view(of_channel)) * mask.view(-1, *[1] * (hidden.ndim - 1))
    count = mask.sum() * hidden[0, 0].numel()
    sums = torch.cat([centred.sum(dims), centred.square().sum(dims), count[None]])
    if is_shared:
        sums = SumOverProcesses.apply(sums)
    offset, square, count = sums.split([hidden.shape[1], hidden.shape[1], 1])
    count = count.clamp(min=1)
    offset = offset / count
    variance = (square / count - offset.square()).clamp(min=0)
    mean = norm.shift + offset
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    normalized = (values - mean.view(of_channel)) * scale.view(of_channel) + norm.bias.view(of_channel)
    return normalized.to(hidden.dtype), mean.detach(), variance.detach(), count.detach()


class NormalizeByKernels(torch.autograd.Function):
    """[`normalize`] by the CUDA kernels of SyncBatchNorm, as fast as a plain norm where nothing is compiled."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, running_mean, eps: float, number: int, is_shared: bool):
        """Normalise by the real values' statistics.

        Args:
            ctx: autograd's context.
            hidden (`torch.Tensor` of shape `(P, C)` or `(P, C, H, W)`): of any floating dtype.
            weight (`torch.FloatTensor` of shape `(C,)`): the scale.
            bias (`torch.FloatTensor` of shape `(C,)`): the shift.
            running_mean (`torch.FloatTensor` of shape `(C,)`): a number near the mean.
            eps (`float`): added to the variance.
            number (`int`): of real frames, which come first.
            is_shared (`bool`): whether the statistics are of all processes.

        Returns:
            `tuple[torch.Tensor, ...]`: as [`normalize`].
        """
        hidden = hidden.contiguous(memory_format=_memory_format(hidden))
        mean, inverse = torch.batch_norm_stats(hidden[: max(number, 1)], eps)
        variance = inverse.pow(-2) - eps
        count = mean.new_full((1,), float(number * hidden[0, 0].numel()))
        if is_shared:
            offset = mean - running_mean
            sums = torch.cat([offset * count, (variance + offset.square()) * count, count])
            dist.all_reduce(sums)
            offset, square, count = sums.split([len(mean), len(mean), 1])
            offset = offset / count.clamp(min=1)
            mean = running_mean + offset
            variance = (square / count.clamp(min=1) - offset.square()).clamp(min=0)
            inverse = torch.rsqrt(variance + eps)
        ctx.number, ctx.is_shared = number, is_shared
        ctx.save_for_backward(hidden, weight, mean, inverse, count.int())
        ctx.mark_non_differentiable(mean, variance, count)
        return torch.batch_norm_elemt(hidden, weight, bias, mean, inverse, eps), mean, variance, count

    @staticmethod
    def backward(ctx, gradient, *_):
        """The gradient `(P, C, ...)` of the values, 0 at padding, and of scale and shift `(C,)`."""
        hidden, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=_memory_format(hidden))
        real = slice(max(ctx.number, 1))
        sum_dy, sum_dy_xmu, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient[real], hidden[real], mean, inverse, weight, True, True, True
        )
        if ctx.is_shared:
            both = torch.cat([sum_dy, sum_dy_xmu])
            dist.all_reduce(both)
            sum_dy, sum_dy_xmu = both.split(len(mean))
        of_hidden = torch.batch_norm_backward_elemt(gradient, hidden, mean, inverse, weight, sum_dy, sum_dy_xmu, count)
        of_hidden[ctx.number :].zero_()
        return of_hidden, of_weight, of_bias, None, None, None, None


def _memory_format(hidden: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if hidden.ndim == 4 else torch.contiguous_format


class _CountsRealFrames:
    """What a converted norm does instead of a plain one, in training."""

    frames: RealFrames
    # What the running mean was before this forward pass, in which a compiled graph that reads it must not change it:
    # its backward pass would read the changed one, without a word.
    shift: torch.Tensor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """As of a BatchNorm, for `(P, C)` or `(P, C, H, W)` of which the first frames are real."""
        if not self.training:
            return super().forward(hidden)
        if hidden.is_cuda and not torch.compiler.is_compiling():
            outcome = NormalizeByKernels.apply(
                hidden,
                self.weight,
                self.bias,
                self.running_mean,
                self.eps,
                self.frames.number,
                self.frames.is_shared,
            )
        else:
            outcome = normalize(hidden, self, self.frames.mask, self.frames.is_shared)
        normalized, mean, variance, count = outcome
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        return normalized


class RealFramesBatchNorm1d(_CountsRealFrames, nn.BatchNorm1d):
    """A `BatchNorm1d` that counts real frames."""


class RealFramesBatchNorm2d(_CountsRealFrames, nn.BatchNorm2d):
    """A `BatchNorm2d` that counts real frames."""


COUNTING = {nn.BatchNorm1d: RealFramesBatchNorm1d, nn.BatchNorm2d: RealFramesBatchNorm2d}


def count_real_frames(module: nn.Module, frames: RealFrames) -> None:
    """Let all norms of a module count what `frames` says; their weights stay the same objects.

    Args:
        module (`nn.Module`): a visual encoder.
        frames ([`RealFrames`]): which is told of each batch.

    Raises:
        ValueError: a norm is of another class, which might leave nothing out.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))]
    for norm in norms:
        if type(norm) not in COUNTING or not norm.affine or norm.momentum is None or norm.running_mean is None:
            raise ValueError(f"{type(norm).__name__} cannot count the frames of several processes")
    for norm in norms:
        norm.__class__ = COUNTING[type(norm)]
        norm.frames = frames
        norm.register_buffer("shift", norm.running_mean.clone(), persistent=False)
    frames.norms = norms


__all__ = ["RealFrames", "count_real_frames"]
