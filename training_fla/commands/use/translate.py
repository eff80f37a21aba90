"""Translate sign videos: one line a clip, its path and the sentence.

A clip is a video file or a folder of frames. A folder of clips and a quoted pattern stand for all the clips in them. A
clip that cannot be read is reported on stderr, the others are translated, and the exit status is 2.
"""

import argparse
import os
import shlex
import sys

from training_fla.console import Done, counted
from training_fla.errors import InputError
from training_fla.viewing.loading import PRECISIONS

EXAMPLE = "fla translate runs/stage2 clips/*.mp4 --num-beams 5 --batch-size 4"
SUBTITLES = ("srt", "vtt", "eaf")
CUTS = {"windows": ("window",), "pauses": ("min_pause", "min_length", "max_length")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `fla translate`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video file, folder of frames or clips, pattern")
    add_model_arguments(parser)
    add_language_argument(parser)
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="longest sentence (default: the model's)")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="clips at once (default 1)")
    parser.add_argument(
        "--num-workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that decode several clips (default 1); with 0, a clip that crashes FFmpeg ends the command",
    )
    parser.add_argument(
        "--format",
        choices=("tsv", "jsonl", *SUBTITLES),
        default="tsv",
        help="tsv: path, tab, sentence (default); jsonl: score, length and errors besides; "
        "srt, vtt: subtitles for one long recording; eaf: the same as ELAN's file",
    )
    add_subtitle_arguments(parser)
    parse_args = parser.parse_args
    parser.parse_args = lambda argv: parse_args(protect_file_names(argv))


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how a model is loaded and how it searches."""
    parser.add_argument("--num-beams", type=positive, metavar="N", help="width of the search (default: the model's)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    text = "auto: as saved (default); int8: of the language model, for processors"
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help=text)


def add_language_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the language of the sentences."""
    text = "language of the sentences, e.g. zh_CN, of a model that has several (default: the model's)"
    parser.add_argument("--language", metavar="CODE", help=text)


def add_subtitle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how a long recording is cut."""
    parser = parser.add_argument_group(
        "subtitles",
        "A long recording is cut into windows of equal length, or at pauses, where little moves for a while.\n"
        "A pause of the hands is not always the end of a sentence, nor the other way round.",
    )
    parser.add_argument("--cut", choices=tuple(CUTS), help="where a cue ends (default windows)")
    parser.add_argument("--window", type=seconds, metavar="S", help="windows: seconds translated at once (default 6)")
    add_pause_arguments(parser)


def add_pause_arguments(parser) -> None:
    """Declare what a pause and a sentence are."""
    for option, default, text in (
        ("--min-pause", "0.4", "pauses: a shorter rest lies within a sentence"),
        ("--min-length", "0.3", "pauses: shorter signing is left out"),
        ("--max-length", "15, or the model's", "pauses: longer signing is cut at its stillest moment before"),
    ):
        parser.add_argument(option, type=seconds, metavar="S", help=f"{text} (default {default})")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def seconds(text: str) -> float:
    """A finite number above 0, for argparse."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return number


def protect_file_names(argv: list[str]) -> list[str]:
    """Keep existing files whose names start with a dash, as many of How2Sign's do, from being taken for options."""
    taken_from = argv.index("--") if "--" in argv else len(argv)
    return [
        f".{os.sep}{argument}" if place < taken_from and argument[:1] == "-" and os.path.exists(argument) else argument
        for place, argument in enumerate(argv)
    ]


def run(args) -> Done:
    """Translate the clips and print the results as they come."""
    from training_fla.corpora.recordings.elan import import_pympi
    from training_fla.viewing.loading import check_language, check_model, load_pipeline

    if args.num_workers < 0:
        raise InputError(f"--num-workers {args.num_workers}: must be 0 or more")
    check_model(args.model)
    check_no_cut_but_of_subtitles(args)
    if args.format == "eaf":
        import_pympi("--format eaf needs pympi")
    from training_fla.viewing.reading_process import ReadingProcess
    from training_fla.viewing.subtitles import print_subtitles
    from training_fla.viewing.translations import list_clips, print_translations, read_by

    clips = list(list_clips(args.videos))
    cut = chosen_cut(args, clips)
    # A clip that crashes its decoder costs no other clip.
    processes = [ReadingProcess() for _ in range(args.num_workers if len(clips) > 1 else 0)]
    for process in processes:  # before there are threads
        process.start()
    translate = load_pipeline(args.model, args.device, args.precision)
    check_language(translate.model, args.language)
    options = {
        "language": args.language,
        "num_beams": args.num_beams,
        "max_new_tokens": args.max_new_tokens,
        "batch_size": args.batch_size,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if cut:
        number = print_subtitles(translate, clips[0], args.format, cut, **options)
        look = f"the same with > FILE.{args.format}" if sys.stdout.isatty() else ""
        return Done(f"translated {clips[0]} into {counted(number, 'subtitle')}", look)
    with read_by(translate, processes, clips):
        translated = print_translations(translate, clips, args.format, **options)
    words = ["fla", "inspect", *translated[:1], "--model", args.model, "--out", "inspection.html", "--overwrite"]
    made = f"translated {len(translated):,} of {counted(len(clips), 'clip')}"
    return Done(made, shlex.join(words) if translated else "", 2 if len(translated) < len(clips) else 0)


def options_of_cuts(args) -> dict:
    """The options of cutting a recording that were given."""
    given = {name: getattr(args, name, None) for names in CUTS.values() for name in names}
    return {name: value for name, value in given.items() if value is not None}


def check_no_cut_but_of_subtitles(args) -> None:
    """Refuse options that would have no effect."""
    if args.format not in SUBTITLES:
        for name in [*(["cut"] if args.cut else []), *options_of_cuts(args)]:
            raise InputError(f"--{name.replace('_', '-')} is for subtitles: add --format srt, vtt or eaf")


def chosen_cut(args, clips: list[str]):
    """The rules by which a recording is cut into cues, or `None` where no subtitles are asked for."""
    from training_fla.viewing.subtitles import WINDOW_SECONDS

    given = options_of_cuts(args)
    if args.format not in SUBTITLES:
        return None
    if len(clips) != 1 or os.path.isdir(clips[0]):
        raise InputError("subtitles are made of one video file at a time")
    cut = args.cut or "windows"
    for name in sorted(set(given) - set(CUTS[cut])):
        which = "given" if args.cut else "the default"
        raise InputError(f"--{name.replace('_', '-')} does not go with --cut {cut}, which is {which}")
    return pause_rules(given) if cut == "pauses" else args.window or WINDOW_SECONDS


def pause_rules(given: dict):
    """What counts as a pause and as a sentence, by the options that were given."""
    from training_fla.captions.pauses import PauseRules

    rules = PauseRules(**given)
    if rules.min_length > rules.max_length:
        raise InputError(f"--min-length {rules.min_length:g} is longer than --max-length {rules.max_length:g}")
    return rules
