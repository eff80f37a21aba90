"""Put finished runs on one page beside the paper's figures: scores, curves, translations, recipes, cost.

The page is made from the folders alone and needs no other file and no network. Runs that differ in the seed only are
also shown as mean and deviation. It holds sentences and frames of the corpus: mind the corpus's terms.
"""

from pathlib import Path

from training_fla.console import Done
from training_fla.errors import InputError
from training_fla.folders import check_file

EXAMPLE = "fla report runs/stage1 runs/stage2 --out report.html"


def add_arguments(parser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="output folder of run_stage1.py or run_stage2.py")
    add("--out", type=Path, default=Path("report.html"), metavar="FILE", help="[%(default)s]")
    add("--no-frames", action="store_true", help="leave out the frames of the sample clips")
    add("--overwrite", action="store_true", help="replace an existing file")


def run(args) -> Done:
    """Write the page."""
    if args.out.suffix.lower() != ".html":
        raise InputError(f"--out {args.out}: its name must end in .html")
    check_file(args.out, args.overwrite)
    for folder in args.runs:
        if not (folder / "recipe.yaml").is_file():
            raise InputError(f"{folder} is not the folder of a run: it holds no recipe.yaml")
    from training_fla.viewing.report import write_report

    write_report(args.runs, args.out, with_frames=not args.no_frames, overwrite=args.overwrite)
    held = "sentences" if args.no_frames else "sentences and frames (not with --no-frames)"
    return Done(f"wrote {args.out}: it holds {held} of the corpus; pass it on only as the corpus's terms allow")
