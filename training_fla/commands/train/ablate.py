"""Run the rows of one of the paper's ablation tables and print our figures beside the paper's.

Runs are shared between tables and between calls with the same --out; an interrupted one is resumed. The table is also
written to OUT/TABLE.md. Needs a clone of the repository.
"""

import argparse
from pathlib import Path

from training_fla.files import Done

EXAMPLE = "fla ablate table6 --recipes recipes/phoenix14t --out runs/ablations --set bf16=true"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from training_fla.experiments.paper_tables import TABLES

    text = f"one of {', '.join(TABLES)}; or dominance: which language model teaches the visual encoder best"
    parser.add_argument("table", choices=[*TABLES, "dominance"], metavar="TABLE", help=text)
    parser.add_argument(
        "--recipes",
        type=Path,
        default=Path("recipes/phoenix14t"),
        metavar="DIR",
        help="stage1.yaml and stage2.yaml of a corpus; the rows differ from them as on PHOENIX14T [%(default)s]",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablations"), metavar="DIR", help="where the runs go [%(default)s]"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="run each row with each [0]")
    parser.add_argument(
        "--launcher", default="", metavar="WORDS", help="before the script, e.g. 'accelerate launch --num_processes 2'"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="recipe lines for all runs that know them"
    )


def run(args: argparse.Namespace) -> int | Done:
    """Run the table."""
    from training_fla.experiments.ablation import make_ablation, run_table

    ablation = make_ablation(args.recipes, args.out, args.set, args.launcher, args.seeds)
    if args.table == "dominance":
        from training_fla.experiments.dominance import run_dominance
    status = run_dominance(ablation) if args.table == "dominance" else run_table(args.table, ablation)
    return status or Done(f"wrote {args.out / args.table}.md")
