"""Optimizer groups, schedule and loss against plain PyTorch written here."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments
from transformers.optimization import get_scheduler

from training_fla.errors import InputError
from training_fla.recipe import OptimizationArguments
from training_fla.training.optimization import build_optimizer, parameter_groups
from training_fla.training.trainer import token_loss


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual_encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.adapter = nn.Linear(4, 5)
        self.language_model = nn.Linear(5, 7)


def test_every_trainable_parameter_is_in_exactly_one_group_with_its_rate():
    model = Parts()
    model.visual_encoder.requires_grad_(False)
    groups = parameter_groups(model, OptimizationArguments(adapter_learning_rate=1e-3), 1e-5, 0.1)
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "adapter": (1e-3, 0.1),
        "adapter (no decay)": (1e-3, 0.0),
        "language_model": (1e-5, 0.1),
        "language_model (no decay)": (1e-5, 0.0),
    }
    members = [id(p) for g in groups for p in g["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("part", ["visual", "adapter"])
def test_a_part_has_a_rate_of_its_own_which_may_be_0(part):
    for given, rate in ((None, 1e-5), (0.0, 0.0), (1e-3, 1e-3)):
        groups = parameter_groups(Parts(), OptimizationArguments(**{f"{part}_learning_rate": given}), 1e-5, 0.1)
        assert {g["lr"] for g in groups if g["name"].startswith(part)} == {rate}
        assert {g["lr"] for g in groups if g["name"].startswith("language")} == {1e-5}


def test_nothing_trainable_is_refused():
    model = Parts().requires_grad_(False)
    with pytest.raises(InputError, match="nothing is trainable"):
        parameter_groups(model, OptimizationArguments(), 1e-2, 0.0)


@pytest.mark.parametrize("names", [("sgd",), ("adam",), ("adam", "sgd")])
def test_steps_equal_the_update_rules_written_out(names, tmp_path):
    """Momentum SGD and Adam with coupled weight decay, both under a cosine, for 6 steps; the encoder's may be another.

    Before the fourth step a checkpoint is loaded into an optimizer made anew.
    """
    torch.manual_seed(0)
    model = Parts().double()
    args = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-2, weight_decay=1e-3, adam_beta2=0.998, lr_scheduler_type="cosine"
    )
    kinds = dict(zip(("optimizer", "visual_optimizer"), names, strict=False))
    arguments = OptimizationArguments(**kinds, adapter_learning_rate=5e-2)
    optimizer = build_optimizer(model, arguments, args)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=6)
    mine = {n: p.detach().clone() for n, p in model.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in mine.items()}
    second = {n: torch.zeros_like(p) for n, p in mine.items()}
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()
            optimizer = build_optimizer(model, arguments, args)
            scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=6)
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        inputs = torch.randn(8, 3, dtype=torch.float64)
        loss = model.language_model(model.adapter(model.visual_encoder(inputs))).square().mean()
        loss.backward()
        for n, p in model.named_parameters():
            rate = (5e-2 if n.startswith("adapter") else 1e-2) * 0.5 * (1 + math.cos(math.pi * step / 6))
            gradient = p.grad + (1e-3 * mine[n] if p.ndim > 1 else 0)
            if (names[-1] if n.startswith("visual") else names[0]) == "sgd":
                first[n] = 0.9 * first[n] + gradient
                mine[n] -= rate * first[n]
            else:
                first[n] = 0.9 * first[n] + 0.1 * gradient
                second[n] = 0.998 * second[n] + 0.002 * gradient**2
                unbiased = first[n] / (1 - 0.9 ** (step + 1))
                mine[n] -= rate * unbiased / ((second[n] / (1 - 0.998 ** (step + 1))).sqrt() + args.adam_epsilon)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        for n, p in model.named_parameters():
            assert torch.allclose(p, mine[n], atol=1e-12), f"{n} at step {step}"


def test_the_loss_is_label_smoothing_written_out():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 4, -100], [0, 2, 3]])
    log_p = logits.log_softmax(-1)
    total = 0.0
    for b in range(2):
        for position in range(3):
            if labels[b, position] >= 0:
                total -= 0.8 * log_p[b, position, labels[b, position]] + 0.2 * log_p[b, position].mean()
    assert torch.allclose(token_loss(logits, labels, smoothing=0.2), total / 5)
    assert torch.allclose(token_loss(logits, labels, num_items_in_batch=10, smoothing=0.2), total / 10)
    half = token_loss(logits.bfloat16(), labels, smoothing=0.2)
    assert half.dtype == torch.float32 and torch.allclose(half, total / 5, atol=0.01)
