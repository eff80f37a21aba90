"""Draw what the model saw of a clip: sampled frames, what each word attended to, how alike the features are.

Without --model: the sampled frames and how alike their pixels are. The output is one PNG, or one HTML page that also
says in a table what each word attended to.
"""

from pathlib import Path

from training_fla.console import Done
from training_fla.errors import InputError
from training_fla.folders import atomic_file

from .translate import add_language_argument, add_model_arguments

EXAMPLE = "fla inspect clip.mp4 --model runs/stage2 --out clip.html"


def add_arguments(parser) -> None:
    """Declare the options of `fla inspect`."""
    parser.add_argument("clip", metavar="CLIP", help="video file or folder of frames")
    parser.add_argument("--model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".png or .html (default: the clip's name, .png)")
    add_model_arguments(parser)
    add_language_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(args) -> Done:
    """Inspect the clip and write the picture."""
    out = args.out or Path(f"{Path(args.clip).stem}.png")
    if out.suffix.lower() not in (".png", ".html"):
        raise InputError(f"--out {out}: its name must end in .png or .html")
    if not Path(args.clip).exists():
        raise InputError(f"there is no clip {args.clip}")
    if args.model:
        from training_fla.viewing.loading import check_model

        check_model(args.model)
    with atomic_file(out, args.overwrite) as file:
        from training_fla.viewing.inspection import inspect_frames, inspect_translation
        from training_fla.viewing.picture import draw_png, write_page

        if args.model:
            from training_fla.viewing.loading import check_language, load_pipeline

            pipe = load_pipeline(args.model, args.device, args.precision)
            check_language(pipe.model, args.language)
            options = {"num_beams": args.num_beams, "language": args.language}
            options = {name: value for name, value in options.items() if value is not None}
            inspection = inspect_translation(args.clip, pipe, **options)
        else:
            from processing_fla import FlaVideoProcessor

            inspection = inspect_frames(args.clip, FlaVideoProcessor())
        (write_page if out.suffix.lower() == ".html" else draw_png)(inspection, file)
    if inspection.sentence:
        print(inspection.sentence)
    return Done(f"wrote {out}", "" if args.model else f"fla inspect {args.clip} --model MODEL --out NAME.html")
