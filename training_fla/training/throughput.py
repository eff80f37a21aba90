"""How fast a run was, and on what: frames or stored positions, and target tokens, a second of training."""

import importlib.metadata
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator

PACKAGES = ("fla-llm", "torch", "transformers", "accelerate", "datasets", "sacrebleu")
DOORS = {"pixel_values_videos": "frames", "sign_features": "positions", "input_ids": "source_tokens"}


class Throughput:
    """Counts what training steps see, and their seconds without evaluations and saving.

    Counts stay on the device until they are asked for, so that no step waits for them.
    """

    def __init__(self):
        self.counts: dict[str, torch.Tensor] = {}
        self.seconds = 0.0
        self.started: float | None = None

    def count(self, inputs: dict[str, torch.Tensor]) -> None:
        """Take in a batch.

        Args:
            inputs (`dict[str, torch.Tensor]`): of shape `(B, ...)`, as the collator makes it; padding and
                repeated clips do not count.
        """
        door = next(name for name in DOORS if name in inputs)
        seen = {DOORS[door]: inputs["attention_mask"].sum(), "target_tokens": inputs["labels"].ne(-100).sum()}
        for name, number in seen.items():
            self.counts[name] = self.counts[name] + number if name in self.counts else number

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a block."""
        self.started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - self.started
            self.started = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a block out of the measured one around it, if there is one."""
        if self.started is None:
            yield
            return
        self.seconds += time.perf_counter() - self.started
        try:
            yield
        finally:
            self.started = time.perf_counter()

    def figures(self, accelerator: Accelerator) -> dict[str, Any]:
        """Rates of the whole run.

        Args:
            accelerator ([`~accelerate.Accelerator`]): every process must call this.

        Returns:
            `dict`: `training_seconds`; `frames` or `positions`, and `target_tokens`, of all processes, and each
            again with `_per_second`.
        """
        totals = {name: int(accelerator.reduce(count.to(accelerator.device))) for name, count in self.counts.items()}
        seconds = max(self.seconds, 1e-9)
        rates = {f"{name}_per_second": round(total / seconds, 1) for name, total in totals.items()}
        return {"training_seconds": round(self.seconds, 2), **totals, **rates}


def run_facts(trainer, seconds: float) -> dict[str, Any]:
    """What a reader of `metrics.json` asks next.

    Args:
        trainer ([`~training_fla.training.trainer.SignTranslationTrainer`]): after training.
        seconds (`float`): the whole run.

    Returns:
        `dict`: seconds, peak memory in MiB, parameters, processes, versions, platform.
    """
    parameters = list(trainer.model.parameters())
    facts = {
        "seconds": round(seconds, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "processes": trainer.args.world_size,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if torch.cuda.is_available():
        facts["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return facts
