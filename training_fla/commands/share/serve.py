"""Serve a page on which people try a model: send or record a clip, read the translation as it is written.

The page shows the frames the model saw, the beam's other sentences with scores, and where the model looked as it wrote
each word. Clips are translated one after the other and deleted at once. --write-space writes the same page as a folder
that can be pushed to the Hugging Face Hub as a Space.
"""

from pathlib import Path

from training_fla.commands.use.translate import add_model_arguments, positive, seconds
from training_fla.console import Done
from training_fla.errors import InputError

EXAMPLE = "fla serve runs/stage2 --port 7860 --max-seconds 30 --max-megabytes 64"


def add_arguments(parser) -> None:
    """Declare the options of `fla serve`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 0 takes a free one (default 7860)")
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="where a proxy shows the page, if not at its top: /signs, or https://example.org/signs",
    )
    parser.add_argument("--title", metavar="NAME", help="what the page calls the model (default: from MODEL)")
    add_model_arguments(parser)
    parser.add_argument("--max-megabytes", type=seconds, default=64, metavar="N", help="largest request (default 64)")
    parser.add_argument("--max-seconds", type=seconds, default=30, metavar="S", help="longest clip (default 30)")
    parser.add_argument("--time-limit", type=seconds, default=120, metavar="S", help="of work on a clip (default 120)")
    parser.add_argument("--max-waiting", type=positive, default=8, metavar="N", help="clips in the queue (default 8)")
    parser.add_argument("--write-space", type=Path, metavar="DIR", help="write the page as a Space and stop")
    parser.add_argument("--overwrite", action="store_true", help="replace a Space that was written before")


def run(args) -> Done:
    """Serve until Ctrl-C, or write the Space."""
    if not 0 <= args.port < 65536:
        raise InputError(f"--port {args.port}: must be 0 to 65535")
    args.root_path = args.root_path.rstrip("/")
    if args.root_path and not args.root_path.startswith(("/", "http://", "https://")):
        raise InputError(f"--root-path {args.root_path}: must begin with / or be a whole address")
    from training_fla.viewing.loading import check_model

    if not args.write_space:
        check_model(args.model)
    from training_fla.hub.card import public_name
    from training_fla.serving.limits import Limits

    limits = Limits(args.max_megabytes, args.max_seconds, args.time_limit, args.max_waiting)
    title = args.title or public_name(args.model)
    search = {"num_beams": args.num_beams, "precision": args.precision}
    if args.write_space:
        from training_fla.serving.space import write_space

        write_space(args.write_space, args.model, title, limits, args.overwrite, **search)
        push = f"hf upload NAME/SPACE {args.write_space} --repo-type space"
        return Done(f"wrote {args.write_space}", f"python {args.write_space}/app.py to try it, {push} to share it")
    from training_fla.serving.page import serve

    serve(args.model, title, limits, args.host, args.port, root_path=args.root_path, device=args.device, **search)
    return Done("the page is closed")
