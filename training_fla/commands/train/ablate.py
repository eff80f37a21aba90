"""Run the rows of one of the paper's ablation tables and print our figures beside the paper's.

Clips a step and rates of each run are printed first. Runs are shared between tables and between calls with the same
--out; an interrupted one is resumed. The table, also written to OUT/TABLE.md, ends with how far each row lies from the
whole method: difference, interval, p. Needs a clone of the repository.
"""

import argparse
from pathlib import Path

from training_fla.clone import open_experiments
from training_fla.console import Done
from training_fla.errors import InputError

EXAMPLE = "fla ablate table6 --recipes recipes/phoenix14t --out runs/ablations --set bf16=true"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from training_fla.viewing.paper_tables import TABLES

    add = parser.add_argument
    text = f"one of {', '.join(TABLES)}; or dominance: which language model teaches the visual encoder best"
    add("table", choices=[*TABLES, "dominance"], metavar="TABLE", help=text)
    text = "stage1.yaml and stage2.yaml of a corpus; rows differ as on PHOENIX14T, or by its ablations/ [%(default)s]"
    add("--recipes", type=Path, default=Path("recipes/phoenix14t"), metavar="DIR", help=text)
    add("--out", type=Path, default=Path("runs/ablations"), metavar="DIR", help="where the runs go [%(default)s]")
    add("--seeds", type=int, nargs="+", default=[0], metavar="N", help="run each row with each [0]")
    text = "before the scripts of both stages, e.g. 'accelerate launch --num_processes 2'"
    add("--launcher", default="", metavar="WORDS", help=text)
    add("--comparison", metavar="NAME", help="of dominance: what dominance.yaml compares by that name [stages]")
    text = "of dominance: by what the frozen encoder is measured; linear, hidden (one hidden layer) and five (five "
    text += "positions) are probes that read glosses, bleu4 is of a stage 2 [linear hidden bleu4]"
    add("--measures", nargs="+", choices=["linear", "hidden", "five", "bleu4"], metavar="NAME", help=text)
    add("--probe-seeds", type=int, metavar="N", help="of dominance: train each probe so many times [3]")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="recipe lines for all runs that know them")


def run(args: argparse.Namespace) -> int | Done:
    """Run the table."""
    open_experiments("fla ablate")
    from experiments import ablation, dominance

    is_dominance = args.table == "dominance"
    name = args.table
    if not is_dominance and (args.comparison or args.measures or args.probe_seeds is not None):
        raise InputError(f"--comparison, --measures and --probe-seeds are options of dominance, not of {args.table}")
    if args.probe_seeds is not None and args.probe_seeds < 1:
        raise InputError(f"--probe-seeds {args.probe_seeds}: must be 1 or more")
    plan = ablation.make_ablation(args.recipes, args.out, args.set, args.launcher, args.seeds)
    if is_dominance:
        measures = list(dict.fromkeys(args.measures or ["linear", "hidden", "bleu4"]))
        comparison = args.comparison or "stages"
        name = f"dominance_{comparison}"
        status = dominance.run_dominance(plan, comparison, measures, args.probe_seeds or 3)
    else:
        status = ablation.run_table(args.table, plan)
    return status or Done(f"wrote {args.out / name}.md")
