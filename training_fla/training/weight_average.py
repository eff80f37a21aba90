"""An exponential moving average of the weights, for evaluation and for what is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

FILE = "weight_average.safetensors"


class WeightAverage:
    """Follows a model's trained weights, and the running statistics of the BatchNorms among them.

    After step t an averaged weight is `d * average + (1 - d) * weight` with `d = min(decay, (1 + t) / (10 + t))`: the
    first steps would otherwise weigh in for ever.

    Args:
        model (`nn.Module`): not wrapped; its present weights start the average.
        decay (`float`): in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.average = {name: tensor.detach().clone() for name, tensor in self._followed().items()}

    def _followed(self) -> dict[str, torch.Tensor]:
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if buffer.is_floating_point()}
        kept = {name for name in buffers if name.endswith(("running_mean", "running_var"))}
        return trained | {name: buffers[name] for name in kept}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after an optimizer step.

        Args:
            step (`int`): how many steps have been made.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [t.detach() for t in self._followed().values()], weight)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Overwrite the model's weights."""
        for name, tensor in self._followed().items():
            tensor.copy_(self.average[name])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Evaluate with the average; the model's own weights are back afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._followed().items()}
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self._followed().items():
                    tensor.copy_(own[name])

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint.

        Args:
            folder (`Path`): the checkpoint.
        """
        save_file({name: tensor.contiguous() for name, tensor in self.average.items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read the average from a checkpoint.

        Args:
            folder (`Path`): the checkpoint.
        """
        stored = load_file(folder / FILE)
        for name, tensor in self.average.items():
            tensor.copy_(stored[name])
