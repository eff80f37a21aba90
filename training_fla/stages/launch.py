"""Transformers' arguments of a recipe, and the processes and GPUs that a run is launched on."""

import os
import shlex
import sys
from collections.abc import Sequence

import torch
from transformers import Seq2SeqTrainingArguments

from training_fla.errors import InputError
from training_fla.recipe import BATCH_LINES, Recipe, clips_a_process, corpus_entries
from training_fla.scoring.scores import SCORE_NAMES
from training_fla.training.callbacks import check_report_to

LAUNCH = ("accelerate", "launch", "--multi_gpu", "--num_processes")


def training_arguments(recipe: Recipe) -> Seq2SeqTrainingArguments:
    """Transformers' arguments of a recipe, checked by transformers and by us."""
    check_launch(recipe)
    own = {
        # Pinned memory is for copies to an accelerator; without one torch only warns.
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Workers that live on open the corpus once, not once an epoch.
        "dataloader_persistent_workers": bool(recipe.training.get("dataloader_num_workers")),
        # A stream begins an interrupted epoch anew.
        "ignore_data_skip": recipe.data.streaming,
        # What `report_to` calls the run.
        "run_name": "/".join(recipe.output_dir.absolute().parts[-2:]),
        "project": "fla-llm",
    }
    if torch.cuda.is_available():
        own["accelerator_config"] = {"non_blocking": True}
    try:
        args = Seq2SeqTrainingArguments(**own | recipe.training)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"the recipe's training fields do not fit together: {error}") from None
    set_batch_size(recipe, args)
    check_report_to(args)
    check_choice_of_model(recipe, args)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan for each length anew, 25 to 70 ms a plan
    if args.train_sampling_strategy == "sequential":
        raise InputError("train_sampling_strategy: sequential would have no effect; choose random or group_by_length")
    return args


def check_choice_of_model(recipe: Recipe, args: Seq2SeqTrainingArguments) -> None:
    """Refuse a score that does not exist, and early stopping without scores."""
    corpora = [f"{entry.name}_{score}" for entry in corpus_entries(recipe.data) for score in SCORE_NAMES]
    names = (*SCORE_NAMES, "loss", *corpora)
    if args.metric_for_best_model and args.metric_for_best_model.removeprefix("eval_") not in names:
        raise InputError(f"metric_for_best_model: {args.metric_for_best_model} is none of {', '.join(names)}")
    if recipe.optimization.early_stopping_patience and args.eval_strategy == "no":
        raise InputError("early_stopping_patience needs evaluations: set `eval_strategy` to epoch or steps")


def set_batch_size(recipe: Recipe, args: Seq2SeqTrainingArguments) -> None:
    """Share the recipe's total batch out to the processes that were launched."""
    total = recipe.optimization.total_batch_size
    if total is None:
        return
    others = {"deepspeed": args.deepspeed, "accelerator_config.split_batches": args.accelerator_config.split_batches}
    for name, value in others.items():
        if value:
            raise InputError(f"{name} counts clips otherwise: instead of total_batch_size give {BATCH_LINES[1]}")
    args.per_device_train_batch_size = clips_a_process(total, args.world_size, args.gradient_accumulation_steps)


def check_launch(recipe: Recipe) -> None:
    """Refuse more processes than GPUs, and one process for several: torch would copy the model to all at each step."""
    gpus = 0 if recipe.training.get("use_cpu") else torch.cuda.device_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if 0 < gpus < processes:
        if os.environ.get("LOCAL_RANK") != "0":
            raise SystemExit(2)  # one process prints why
        words = ["python", *sys.argv] if gpus == 1 else [*LAUNCH, str(gpus), *sys.argv]
        raise InputError(f"{processes} processes were launched for {gpus} visible GPU(s): `{shlex.join(words)}` fits")
    if gpus > 1 and "LOCAL_RANK" not in os.environ:
        command = shlex.join([*LAUNCH, str(gpus), *sys.argv])
        raise InputError(f"{gpus} GPUs are visible: use them with `{command}`, or set CUDA_VISIBLE_DEVICES=0 for one")


def one_process(words: Sequence[str]) -> str:
    """A command of one process as it can be typed here; of several visible GPUs it gets the first."""
    command = shlex.join(words)
    if torch.cuda.device_count() < 2:
        return command
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return f"CUDA_VISIBLE_DEVICES={first} {command}"
