"""The clips of an optimizer step, and of one process of several."""

from collections.abc import Mapping
from typing import Any

from training_fla.errors import InputError

PAPERS_CLIPS_A_STEP = {"stage1": 8, "stage2": 16}  # Paper: Sec. 5.2
# Two ways to say one thing: of lines given at different places the later counts, and no place gives both.
BATCH_LINES = ("total_batch_size", "per_device_train_batch_size")
DEVICE_BATCH_SIZE = 8  # transformers' own


def clips_a_process(total_batch_size: int, num_processes: int, accumulation: int = 1) -> int:
    """The clips of one batch of one process; a batch that cannot be shared out equally is refused."""
    clips, rest = divmod(total_batch_size, num_processes * accumulation)
    if not rest:
        return clips
    times = "" if accumulation == 1 else f" with gradient_accumulation_steps {accumulation}"
    fitting = [str(n) for n in range(1, total_batch_size + 1) if total_batch_size % (n * accumulation) == 0]
    remedy = f"launch {', '.join(fitting)}" if fitting else "choose another gradient_accumulation_steps"
    raise InputError(
        f"total_batch_size {total_batch_size} cannot be shared out to {num_processes} process(es){times}: "
        f"{remedy}, or give another total_batch_size"
    )


def clips_a_step(lines: Mapping[str, Any], num_processes: int = 1) -> int:
    """The clips of one optimizer step of a recipe's typed lines, on all processes together.

    With `frames_per_batch` it is the most that a step may have.
    """
    accumulation = lines.get("gradient_accumulation_steps") or 1
    total = lines.get("total_batch_size")
    if total is not None:
        return clips_a_process(total, num_processes, accumulation) * num_processes * accumulation
    return lines.get("per_device_train_batch_size", DEVICE_BATCH_SIZE) * num_processes * accumulation
