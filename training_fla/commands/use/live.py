"""Caption signing as it is shown: a draft while somebody signs, the sentence when the hands rest.

The source is a camera of this machine, a stream or a video file. Nothing is kept but the captions in --out. It is for
one person in front of one camera: whoever else moves counts as signing, and a rest of the hands is not always the end
of a sentence. Ctrl-C ends it.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from training_fla.console import Done, counted, is_quiet
from training_fla.errors import InputError, one_line
from training_fla.folders import check_file

from .translate import (
    add_language_argument,
    add_model_arguments,
    add_pause_arguments,
    options_of_cuts,
    pause_rules,
    positive,
)

EXAMPLE = "fla live runs/stage2 --source camera --out captions.vtt"


def add_arguments(parser) -> None:
    """Declare the options of `fla live`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument(
        "--source",
        default="camera",
        metavar="SOURCE",
        help="camera (the first one), camera:NAME or camera:NUMBER, a URL that FFmpeg reads, or a video file",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.vtt", help="write the captions as they come, as WebVTT")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--real-time", action="store_true", help="show a file as a camera would: frames that come too fast are dropped"
    )
    add_model_arguments(parser)
    add_language_argument(parser)
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="longest sentence (default: the model's)")
    add_pause_arguments(parser)


def run(args) -> Done:
    """Print the captions until the source ends."""
    from training_fla.viewing.loading import check_language, check_model, load_pipeline

    check_model(args.model)
    rules = pause_rules(options_of_cuts(args))
    is_file = "://" not in args.source and not args.source.startswith("camera")
    if is_file and not os.path.isfile(args.source):
        raise InputError(f"--source {args.source}: there is no such file; give a file, a URL or camera")
    if args.real_time and not is_file:
        raise InputError(f"--real-time is for a file: drop it for --source {args.source}")
    if args.out:
        check_file(args.out, args.overwrite)
    from training_fla.captions.captioner import Captioner
    from training_fla.captions.live import live_captions
    from training_fla.captions.sources import open_source

    translate = load_pipeline(args.model, args.device, args.precision)
    check_language(translate.model, args.language)
    if args.language:  # of drafts and sentences
        translate.model.begin_in(args.language)
    captioner = Captioner(translate, rules, args.max_new_tokens)
    options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    source = open_source(args.source, translate.processor.video_processor.reading_size, args.real_time)
    before = signal.getsignal(signal.SIGINT)

    def stop(*_) -> None:
        """Let the last sentence be written; a second Ctrl-C does not wait for it."""
        source.close()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    with CaptionWriter(args.out) as writer:
        try:
            for caption in live_captions(translate, captioner, source, writer.shows_drafts, **options):
                writer.write(caption)
        except InputError as error:
            print(f"fla live: error: {one_line(error)}", file=sys.stderr)
            return Done(writer.made(source), status=2)
        finally:
            signal.signal(signal.SIGINT, before)
    return Done(writer.made(source))


class CaptionWriter:
    """Prints captions, and writes them to a file that is whole at any moment; drafts are shown on a terminal only."""

    def __init__(self, out: Path | None):
        self.out, self.file, self.number = out, None, 0
        self.shows_drafts = sys.stderr.isatty() and not is_quiet()

    def __enter__(self):
        if self.out:
            try:
                self.file = open(self.out, "w", encoding="utf-8")
            except OSError as error:
                raise InputError(f"cannot write {self.out}: {error.strerror}") from error
            self.put("WEBVTT\n")
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()

    def write(self, caption) -> None:
        """Print a caption, or show a draft in the place of the one before."""
        from training_fla.viewing.subtitles import subtitle, timestamp

        text = one_line(caption.text)
        if self.shows_drafts:
            shown = f"... {text}"[: shutil.get_terminal_size().columns - 1] if caption.is_draft else ""
            print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)
        if caption.is_draft or not text:
            return
        self.number += 1
        print(f"{timestamp(caption.start, '.')} {text}", flush=True)
        if self.file:
            self.put(subtitle(self.number, caption.start, caption.end, text, "vtt"))

    def put(self, text: str) -> None:
        """Write at once, so that a player sees it."""
        print(text, file=self.file, flush=True)

    def made(self, source) -> str:
        """What was captioned, for the last line."""
        dropped = (
            f", {counted(source.num_dropped, 'frame')} came too fast and were dropped" if source.num_dropped else ""
        )
        where = f" into {self.out}" if self.out else ""
        return f"captioned {counted(self.number, 'sentence')}{where}{dropped}"
