"""The optimizers of the paper: parameters grouped by part of the model, each with its learning rate."""

from collections.abc import Callable

import torch
from torch import nn

from training_fla.errors import InputError
from training_fla.recipe import OptimizationArguments


def parameter_groups(
    model: nn.Module, arguments: OptimizationArguments, learning_rate: float, weight_decay: float
) -> list[dict]:
    """Split the trainable parameters by part and by whether they decay."""
    given = arguments.adapter_learning_rate, arguments.visual_learning_rate  # a rate of 0 freezes the weights
    adapter, visual = (learning_rate if rate is None else rate for rate in given)
    rates = {"language_model": learning_rate, "adapter": adapter}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Unstated: GFSLT-VLP, whose optimizer the paper names, spares every one-dimensional parameter.
            groups.setdefault((name.split(".")[0], parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise InputError("nothing is trainable: every part of the model is frozen")
    return [
        {
            "name": f"{part}{'' if decays else ' (no decay)'}",
            "params": parameters,
            # Every other part is the visual encoder or, where both stages are one run, Light-T.
            "lr": rates.get(part, visual),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, arguments: OptimizationArguments, training_args) -> torch.optim.Optimizer:
    """SGD (paper Sec. 5.2, stage 1), Adam (stage 2) or AdamW, fused; the visual encoder may have one of its own."""
    groups = parameter_groups(model, arguments, training_args.learning_rate, training_args.weight_decay)
    by_kind: dict[str, list[dict]] = {}
    for group in groups:
        own = arguments.visual_optimizer if group["name"].startswith("visual_encoder") else None
        by_kind.setdefault(own or arguments.optimizer, []).append(group)
    optimizers = [_optimizer(kind, own, arguments, training_args) for kind, own in by_kind.items()]
    return optimizers[0] if len(optimizers) == 1 else TwoOptimizers(*optimizers)


def _optimizer(
    kind: str, groups: list[dict], arguments: OptimizationArguments, training_args
) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=arguments.momentum, nesterov=arguments.nesterov, fused=True)
    adam = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    betas = (training_args.adam_beta1, training_args.adam_beta2)
    # The unfused step takes seven times as long on MBart and computes the same.
    return adam(groups, betas=betas, eps=training_args.adam_epsilon, fused=True)


class TwoOptimizers(torch.optim.Optimizer):
    """Two optimizers as one, for a schedule and a checkpoint: it has the groups of both, and the state."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], defaults={})
        self.optimizers = optimizers

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step of each."""
        loss = closure() if closure else None
        first = 0
        for optimizer in self.optimizers:
            last = first + len(optimizer.param_groups)
            # A checkpoint that is loaded replaces groups and state.
            optimizer.param_groups, optimizer.state = self.param_groups[first:last], self.state
            optimizer.step()
            first = last
        return loss
