"""Train stage 1 or stage 2 from a recipe: what run_stage1.py and run_stage2.py of a clone do, from anywhere.

A recipe that is not in the working directory is looked for among the installed ones, `recipes/...`. Several processes:
`accelerate launch "$(which fla)" train stage1 RECIPE.yaml`. `fla train stage1 --help` lists the lines of a recipe.
"""

import argparse
import importlib
import sysconfig
from pathlib import Path

EXAMPLE = "fla train stage1 recipes/own_clips/stage1.yaml --dataset data/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("stage", choices=["stage1", "stage2"], metavar="STAGE", help="stage1 or stage2")
    add("words", nargs=argparse.REMAINDER, metavar="RECIPE.yaml [--name value ...]", help="a recipe and lines of it")


def run(args: argparse.Namespace) -> int:
    """Run the stage."""
    words = [str(find_recipe(args.words[0])), *args.words[1:]] if args.words else []
    script = importlib.import_module(f"run_{args.stage}")
    return script.main(words, **{"stage2": ("fla", "train", "stage2")} if args.stage == "stage1" else {})


def find_recipe(name: str) -> Path | str:
    """The recipe of that name here, else the installed one; other words are left as they are."""
    installed = Path(sysconfig.get_path("data")) / "share" / "fla-llm" / name
    return installed if not Path(name).is_file() and installed.is_file() else name
