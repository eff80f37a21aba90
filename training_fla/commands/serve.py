"""Serve a page on which people try a model: send or record a clip, read the translation as it is written.

The page shows the frames the model saw, the beam's other sentences with scores, and where the model looked as it wrote
each word. Clips are translated one after the other and deleted at once. --write-space writes the same page as a folder
that can be pushed to the Hugging Face Hub as a Space.
"""

import signal
import threading
from dataclasses import replace
from pathlib import Path

from training_fla.commands.translate import positive, seconds
from training_fla.files import InputError

EXAMPLE = "fla serve runs/stage2 --port 7860 --max-seconds 30 --max-megabytes 64"


def add_arguments(parser) -> None:
    """Declare the options of `fla serve`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 0 takes a free one (default 7860)")
    parser.add_argument("--title", metavar="NAME", help="what the page calls the model (default: from MODEL)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: as saved"
    )
    parser.add_argument(
        "--num-beams", type=positive, metavar="N", help="width of the beam search (default: the model's)"
    )
    parser.add_argument("--max-megabytes", type=seconds, default=64, metavar="N", help="largest file (default 64)")
    parser.add_argument("--max-seconds", type=seconds, default=30, metavar="S", help="longest clip (default 30)")
    parser.add_argument(
        "--time-limit", type=seconds, default=120, metavar="S", help="seconds of work on one clip (default 120)"
    )
    parser.add_argument(
        "--max-waiting", type=positive, default=8, metavar="N", help="clips that may wait for their turn (default 8)"
    )
    parser.add_argument(
        "--write-space", type=Path, metavar="DIR", help="write the page as a Hugging Face Space and stop"
    )


def run(args) -> int:
    """Serve until Ctrl-C, or write the Space."""
    if args.write_space:
        from training_fla.serving.space import write_space

        print(f"wrote {write_space(args.write_space, args)}: try it with `python app.py`, push it with `git` or `hf`")
        return 0
    from training_fla.serving.limits import Limits
    from training_fla.serving.page import ClipService, build_page, import_gradio, launch_page
    from training_fla.serving.translation import ClipTranslator, most_frames
    from training_fla.serving.upload_folder import UploadFolder
    from training_fla.viewing.loading import load_pipeline, model_name

    if not 0 <= args.port < 65536:
        raise InputError(f"--port {args.port}: must be 0 to 65535")
    limits = Limits(args.max_megabytes, args.max_seconds, args.time_limit, args.max_waiting)
    uploads = UploadFolder(limits.keep_seconds)
    stop = threading.Event()
    try:
        import_gradio()
        pipe = load_pipeline(args.model, args.device, args.dtype)
        limits = replace(limits, max_frames=most_frames(pipe.model))
        translator = ClipTranslator(pipe, limits, args.num_beams)
        page = build_page(ClipService(translator, uploads), args.title or model_name(args.model))
        address = launch_page(page, args.host, args.port, limits.max_bytes)
        print(f"serving {args.model} at {address} (Ctrl-C stops it)", flush=True)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        stop.wait()
        page.close(verbose=False)
    finally:
        uploads.close()
    return 0
