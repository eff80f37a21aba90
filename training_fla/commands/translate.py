"""Translate sign videos: one line a clip, its path and the sentence.

A clip is a video file or a folder of frames. A folder of clips and a quoted pattern stand for all the clips in them. A
clip that cannot be read is reported on stderr and the others are translated all the same; the exit status is then 2.
"""

import argparse
import glob
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from training_fla.files import InputError

EXAMPLE = "fla translate runs/stage2 clips/*.mp4 --num-beams 5 --batch-size 4"

WINDOW_SECONDS = 6.0  # Unstated: a sentence of middling length
VIDEO_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv", ".wmv", ".3gp", ".mxf",
}  # fmt: skip
FRAME_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `fla translate`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="video file, folder of frames, folder of clips, pattern"
    )
    parser.add_argument(
        "--num-beams", type=positive, metavar="N", help="width of the beam search (default: the model's)"
    )
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="longest sentence (default: the model's)")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="clips at once (default 1)")
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that decode (default 0: none)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: as saved"
    )
    parser.add_argument(
        "--format",
        choices=("tsv", "jsonl", "table", "srt", "vtt"),
        default="tsv",
        help="tsv: path, tab, sentence (default); jsonl: score, length and errors besides; table: in columns; "
        "srt, vtt: subtitles for one long recording",
    )
    add_subtitle_arguments(parser)
    parse_args = parser.parse_args
    parser.parse_args = lambda argv: parse_args(protect_file_names(argv))


def add_subtitle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how a long recording is cut.

    Args:
        parser (`argparse.ArgumentParser`): gets a group of options.
    """
    parser = parser.add_argument_group(
        "subtitles",
        "A long recording is cut into windows of equal length, or at pauses, where little moves for a while.\n"
        "A pause of the hands is not always the end of a sentence, nor the other way round.",
    )
    parser.add_argument("--cut", choices=("windows", "pauses"), help="where a cue ends (default windows)")
    for option, default, text in (
        ("--window", "6", "windows: seconds translated at once"),
        ("--stride", "--window", "windows: seconds between their starts"),
        ("--min-pause", "0.4", "pauses: a shorter rest lies within a sentence"),
        ("--min-length", "0.3", "pauses: shorter signing is left out"),
        ("--max-length", "15, or the model's", "pauses: longer signing is cut at its stillest moment"),
    ):
        parser.add_argument(option, type=seconds, metavar="S", help=f"{text} (default {default})")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse.

    Args:
        text (`str`): from the command line.

    Returns:
        `int`: the number.

    Raises:
        ArgumentTypeError: it is below 1.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def seconds(text: str) -> float:
    """A length of time above 0, for argparse.

    Args:
        text (`str`): from the command line.

    Returns:
        `float`: the number.

    Raises:
        ArgumentTypeError: it is not above 0, or not finite.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return number


def protect_file_names(argv: list[str]) -> list[str]:
    """Keep existing files whose names start with a dash, as many of How2Sign's do, from being taken for options.

    Args:
        argv (`list[str]`): of the command line.

    Returns:
        `list[str]`: as many words.
    """
    taken_from = argv.index("--") if "--" in argv else len(argv)
    return [
        f".{os.sep}{argument}" if place < taken_from and argument[:1] == "-" and os.path.exists(argument) else argument
        for place, argument in enumerate(argv)
    ]


def run(args) -> int:
    """Translate the clips and print the results as they come."""
    clips = list(list_clips(args.videos))
    subtitles = args.format in ("srt", "vtt")
    check_subtitle_options(args, clips, subtitles)
    from tqdm import tqdm

    from training_fla.viewing.loading import load_pipeline

    translate = load_pipeline(args.model, args.device, args.dtype)

    options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    if subtitles:
        from training_fla.viewing.subtitles import print_subtitles

        window = args.window or WINDOW_SECONDS
        options["batch_size"] = args.batch_size
        print_subtitles(translate, clips[0], args.format, window, args.stride or window, pause_rules(args), **options)
        return 0
    results = translate(
        (clip for clip in clips),  # a generator, so that results are printed as they come
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        on_error="skip",
        **options,
    )
    num_bad = 0
    rows = []
    progress = tqdm(zip(clips, results, strict=True), total=len(clips), unit="clip", file=sys.stderr, disable=None)
    for clip, result in progress:
        num_bad += "error" in result
        if "error" in result:
            progress.write(f"fla translate: error: {result['error']}", file=sys.stderr)
        if args.format == "jsonl":
            progress.write(json.dumps({"video": printable(clip), **result}, ensure_ascii=False), file=sys.stdout)
        elif args.format == "tsv" and "error" not in result:
            progress.write(f"{printable(clip)}\t{one_line(result['translation_text'])}", file=sys.stdout)
        rows.append((clip, result))
    if args.format == "table":
        print_table(rows)
    return 2 if num_bad else 0


def check_subtitle_options(args, clips: list[str], subtitles: bool) -> None:
    """Refuse what makes no subtitles.

    Args:
        args (`argparse.Namespace`): `cut` and the lengths.
        clips (`list[str]`): what is to be translated.
        subtitles (`bool`): whether subtitles were asked for.

    Raises:
        InputError: several clips, a folder of frames, options without subtitles or of the other cut, or lengths that
            contradict each other.
    """
    of_cut = {"windows": ("window", "stride"), "pauses": ("min_pause", "min_length", "max_length")}
    cut = args.cut or "windows"
    for name in ("cut", *of_cut["windows"], *of_cut["pauses"]):
        option = f"--{name.replace('_', '-')}"
        if getattr(args, name) is None:
            continue
        if not subtitles:
            raise InputError(f"{option} is for subtitles: add --format srt or --format vtt")
        if name != "cut" and name not in of_cut[cut]:
            raise InputError(
                f"{option} does not go with --cut {cut}, which is {'given' if args.cut else 'the default'}"
            )
    if subtitles and (len(clips) != 1 or os.path.isdir(clips[0])):
        raise InputError("subtitles are made of one video file at a time")
    if subtitles and (args.stride or 0) > (args.window or WINDOW_SECONDS):
        raise InputError(f"--stride {args.stride} is longer than the window: what lies between would be lost")
    if args.min_length and args.max_length and args.min_length > args.max_length:
        raise InputError(f"--min-length {args.min_length} is longer than --max-length {args.max_length}")


def pause_rules(args):
    """The rules of `--cut pauses`.

    Args:
        args (`argparse.Namespace`): `cut` and the lengths.

    Returns:
        [`~training_fla.viewing.pauses.PauseRules`]: with the options that were given; `None` for windows.
    """
    if args.cut != "pauses":
        return None
    from training_fla.viewing.pauses import PauseRules

    given = {name: getattr(args, name) for name in ("min_pause", "min_length", "max_length")}
    return PauseRules(**{name: value for name, value in given.items() if value is not None})


def list_clips(arguments: list[str]) -> Iterator[str]:
    """Bring files, folders and patterns to single clips.

    Args:
        arguments (`list[str]`): from the command line.

    Yields:
        `str`: a video file or a folder of frames. One that does not exist is passed on, to be reported as its own.

    Raises:
        InputError: for a folder or a pattern without clips.
    """
    for argument in arguments:
        if not os.path.exists(argument) and glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                raise InputError(f"no file matches `{argument}`")
        else:
            matches = [argument]
        for match in matches:
            if os.path.isdir(match) and not holds(match, FRAME_SUFFIXES):
                inside = sorted(path for path in Path(match).iterdir() if is_clip(path))
                if not inside:
                    raise InputError(f"`{match}` holds neither videos nor frames")
                yield from map(str, inside)
            else:
                yield match


def holds(folder: str | Path, suffixes: set[str]) -> bool:
    """Whether a folder has a file with one of these suffixes directly in it.

    Args:
        folder (`str` or `Path`): a folder.
        suffixes (`set[str]`): with their points, in lower case.

    Returns:
        `bool`: subfolders do not count.
    """
    return any(entry.is_file() and Path(entry.name).suffix.lower() in suffixes for entry in os.scandir(folder))


def is_clip(path: Path) -> bool:
    """Whether a folder's entry is to be translated.

    Args:
        path (`Path`): the entry.

    Returns:
        `bool`: true for a video file and for a folder of frames.
    """
    if path.is_dir():
        return holds(path, FRAME_SUFFIXES)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def one_line(text: str) -> str:
    """Bring text to one line.

    Args:
        text (`str`): any.

    Returns:
        `str`: without tabs and line breaks.
    """
    return " ".join(text.split())


def printable(path: str) -> str:
    """A path as it was given, as text, whatever bytes its name is made of.

    Args:
        path (`str`): as the command line has it.

    Returns:
        `str`: without the prefix of [`protect_file_names`].
    """
    path = path[2:] if path.startswith(f".{os.sep}-") else path
    return os.fsencode(path).decode("utf-8", errors="replace")


def print_table(rows: list[tuple[str, dict]]) -> None:
    """Print paths, lengths, scores and sentences in columns.

    Args:
        rows (`list[tuple[str, dict]]`): clips and results of the pipeline.
    """
    lines = [("video", "frames", "seconds", "score", "sentence")]
    for clip, result in rows:
        if "error" in result:
            lines.append((printable(clip), "", "", "", "(not translated)"))
            continue
        seconds = "" if result["seconds"] is None else f"{result['seconds']:.2f}"
        sentence = one_line(result["translation_text"])
        lines.append((printable(clip), str(result["num_frames"]), seconds, f"{result['score']:.3f}", sentence))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(line[column].rjust(widths[column]) for column in (1, 2, 3)), line[4]]
        print("  ".join(cells))
