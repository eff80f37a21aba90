"""`report_to`: what TensorBoard, trackio and Weights & Biases learn of a run beside transformers' own figures."""

import os
from typing import Any

import yaml
from transformers import Seq2SeqTrainingArguments, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from training_fla.files import InputError


def check_report_to(args: Seq2SeqTrainingArguments) -> None:
    """Refuse a place to report to that cannot be reached, before anything is trained.

    Args:
        args ([`~transformers.Seq2SeqTrainingArguments`]): its `report_to`.

    Raises:
        InputError: an unknown name, or a package that is not installed.
    """
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"report_to: {name} is unknown; choose of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError):
            raise InputError(f"report_to: {name} needs its package; pip install {name}, or report_to: none") from None
    # trackio reads `project` from the arguments, wandb from here.
    os.environ.setdefault("WANDB_PROJECT", args.project)


class RecipeReport(TrainerCallback):
    """Shows the resolved recipe where a run is reported to; transformers shows its own arguments only.

    Args:
        recipe (`dict`): every line that was given.
    """

    def __init__(self, recipe: dict[str, Any]):
        self.recipe, self.trainer = recipe, None

    def on_train_begin(self, args, state, control, **kwargs):
        """Hand the recipe over; the integrations have begun their runs just before."""
        if not state.is_world_process_zero or self.trainer is None:
            return
        for callback in self.trainer.callback_handler.callbacks:
            kind = type(callback).__name__
            if kind == "TensorBoardCallback" and callback.tb_writer is not None:
                text = yaml.safe_dump(self.recipe, allow_unicode=True, sort_keys=False)
                callback.tb_writer.add_text("recipe", "    " + text.replace("\n", "\n    "))  # Markdown for code
            elif kind == "WandbCallback":
                callback._wandb.config.update({"recipe": self.recipe}, allow_val_change=True)
            elif kind == "TrackioCallback":
                callback._trackio.config.update({"recipe": self.recipe}, allow_val_change=True)
