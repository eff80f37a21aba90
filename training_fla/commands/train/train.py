"""Train stage 1 or stage 2 from a recipe: what run_stage1.py and run_stage2.py of a clone do, from anywhere.

A recipe that is not in the working directory is looked for in the clone, or among the installed ones, `recipes/...`.
Several processes: `accelerate launch "$(which fla)" train stage1 RECIPE.yaml`. `fla train stage1 --help` lists the
lines of a recipe.
"""

import argparse
import importlib
from pathlib import Path

from training_fla.clone import shipped_file

EXAMPLE = "fla train stage1 recipes/own_clips/stage1.yaml --dataset data/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("stage", choices=["stage1", "stage2"], metavar="STAGE", help="stage1 or stage2")
    add("words", nargs=argparse.REMAINDER, metavar="RECIPE.yaml [--name value ...]", help="a recipe and lines of it")


def run(args: argparse.Namespace) -> int:
    """Run the stage."""
    words = list(args.words)
    if words and not Path(words[0]).is_file():
        words[0] = str(shipped_file(words[0]) or words[0])
    script = importlib.import_module(f"run_{args.stage}")
    return script.main(words, **{"stage2": ("fla", "train", "stage2")} if args.stage == "stage1" else {})
