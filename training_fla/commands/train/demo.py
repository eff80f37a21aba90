"""Run the whole method on the drawn demo corpus: prepare, denoise, trim, stage 1, stage 2, score, translate.

Every command is printed before it runs; a real corpus takes the same ones. Some minutes on two processor cores. An
interrupted demo goes on; a finished one shows its table again. Needs a clone of the repository.
"""

import argparse
from pathlib import Path

from training_fla.clone import open_experiments
from training_fla.console import Done

EXAMPLE = "fla demo --out runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="folder of all results [%(default)s]")
    add("--seed", type=int, default=0, help="of corpus, weights and order [%(default)s]")
    text = "one demo a seed in DIR/seed-SEED; rows as mean and deviation"
    add("--seeds", type=int, nargs="+", metavar="SEED", help=text)
    add("--ablations", action="store_true", help="add joint and one-run training and two more rows of tables")
    add("--overwrite", action="store_true", help="run all steps again; each replaces what it wrote")


def run(args: argparse.Namespace) -> int | Done:
    """Run the demo."""
    open_experiments("fla demo")
    from experiments.demonstration import run_demo, run_seeds

    if args.seeds and len(args.seeds) > 1:
        status = run_seeds(args.out, args.seeds, args.ablations, args.overwrite)
        return status or Done(f"wrote {args.out / 'seeds.md'}")
    seed = args.seeds[0] if args.seeds else args.seed
    status = run_demo(args.out, seed, args.ablations, args.overwrite)
    return status or Done(f"all figures are in {args.out / 'summary.json'}", f"fla serve {args.out / 'stage2'}")
