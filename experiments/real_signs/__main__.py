"""`python -m experiments.real_signs`: two stages on FSL-105, each signer held out in turn. A killed study goes on."""

import argparse
import sys
from pathlib import Path

from experiments.real_signs.study import WAVES, Study, run_study
from experiments.running import own_folder
from training_fla.errors import InputError
from training_fla.recipe import read_overrides


def main(argv: list[str]) -> int:
    """Run what is not done of the study, then print its tables; or print them alone."""
    parser = argparse.ArgumentParser(prog="experiments.real_signs", description=__doc__)
    add = parser.add_argument
    add(
        "--lexicon", type=Path, required=True, metavar="TABLE", help="of FSL-105: video, gloss and signer of each clip"
    )
    add("--out", type=Path, default=Path("runs/real_signs"), metavar="DIR", help="folder of the study [%(default)s]")
    add("--signers", nargs="+", default=["D", "A", "B", "C"], help="each is held out once [D A B C]")
    add("--seeds", nargs="+", type=int, default=[0], help="of the runs [0]")
    text = f"how many of the {len(WAVES)} waves of runs: two stages; what costs little; joint; one run [all]"
    add("--waves", type=int, default=len(WAVES), help=text)
    add("--probes", action="store_true", help="read glosses by a probe, too, which takes as long as a training run")
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="recipe lines for every run")
    add("--tables", action="store_true", help="run nothing, print the tables of what is done")
    args = parser.parse_args(argv)
    if not 1 <= args.waves <= len(WAVES):
        raise InputError(f"--waves {args.waves}: must be 1 to {len(WAVES)}")
    lines = read_overrides([f"--{word}" for word in args.set])
    study = Study(args.lexicon.resolve(), args.out.resolve(), args.signers, args.seeds, lines)
    own_folder(study.out, "study", study.out / "commands.json")
    status = 0 if args.tables else run_study(study, WAVES[: args.waves], args.probes)
    if not status:
        from experiments.real_signs.showing import show

        show(study)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"experiments.real_signs: error: {error}")
