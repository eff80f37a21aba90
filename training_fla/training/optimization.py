"""The optimizers of the paper: parameters grouped by part of the model, each with its learning rate."""

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
    """SGD (paper Sec. 5.2, stage 1), Adam (stage 2) or AdamW, fused."""
    groups = parameter_groups(model, arguments, training_args.learning_rate, training_args.weight_decay)
    if arguments.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=arguments.momentum, nesterov=arguments.nesterov, fused=True)
    adam = torch.optim.Adam if arguments.optimizer == "adam" else torch.optim.AdamW
    betas = (training_args.adam_beta1, training_args.adam_beta2)
    # The unfused step takes seven times as long on MBart and computes the same.
    return adam(groups, betas=betas, eps=training_args.adam_epsilon, fused=True)
