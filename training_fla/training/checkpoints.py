"""The checkpoints of a run: which were written to their end, and the newest of these."""

import json
import zipfile
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training_fla.console import note
from training_fla.errors import InputError
from training_fla.loading import damaged_weights


def step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint, or `None` where it was not written to its end or a file is cut off."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # its last file
        names = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")
        states = [file for name in names for file in checkpoint.glob(name)]
        is_whole = all(map(zipfile.is_zipfile, states)) and not damaged_weights(checkpoint)
        return int(state["global_step"]) if is_whole else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def last_whole_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end; one that was not is renamed to `broken-checkpoint-STEP`."""
    whole: dict[int, Path] = {}
    for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-[0-9]*"):
        if not folder.is_dir():
            continue
        try:
            step = step_of(folder)
        except OSError as error:
            raise InputError(f"{folder / 'trainer_state.json'} cannot be read: {error.strerror}") from error
        if step is not None:
            whole[step] = folder
            continue
        aside, number = folder.with_name(f"broken-{folder.name}"), 1
        while aside.exists():
            number += 1
            aside = folder.with_name(f"broken-{folder.name}-{number}")
        folder.rename(aside)
        note(f"{folder} was not written to its end; it is now {aside.name}")
    return whole[max(whole)] if whole else None
