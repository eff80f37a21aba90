"""Recordings with subtitles or annotations become a table of sentences, for `fla prepare manifest`."""

import argparse
import shlex
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from training_fla.console import Done, counted, note, time_text
from training_fla.errors import InputError

if TYPE_CHECKING:
    from training_fla.corpora.recordings.cue_files import TimedText
    from training_fla.corpora.recordings.pairs import Recording
    from training_fla.corpora.recordings.sentences import Findings

HELP = "recordings with subtitles (SRT, WebVTT, ASS, SBV) or ELAN annotations: writes a table for manifest"
SPLITS = ("train", "dev", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is read and what is done with the cues."""
    parser.description = "A table of sentences: read it, correct it, and pack it with `fla prepare manifest`."
    add = parser.add_argument
    add("--root", type=Path, metavar="DIR", help="folder with the recordings and their files")
    text = (
        "table with the columns video and subtitles, if there also split and tier; paths are relative to --root [its "
    )
    add("--pairs", type=Path, metavar="FILE", help=text + "folder]")
    text = "how the names of the files end, where a recording has several: .de takes talk.de.srt"
    add("--suffix", default="", metavar="END", help=text)
    add("--tier", default="", help="of ELAN files; without it, tiers are listed where a file has several")
    add = parser.add_argument_group("sentences").add_argument
    text = "join cues up to one that ends with . ? or !, over gaps of at most so many seconds"
    add("--merge", type=not_negative, metavar="S", help=text)
    add("--drop-sounds", action="store_true", help="drop what is in brackets, between notes or asterisks")
    text = "drop dashes that open a turn, and names in capitals before a colon"
    add("--drop-speakers", action="store_true", help=text)
    add("--shortest", type=not_negative, default=0.0, metavar="S", help="leave out shorter clips [%(default)s]")
    add("--longest", type=not_negative, default=float("inf"), metavar="S", help="leave out longer clips [%(default)s]")
    add("--shift", type=float, default=0.0, metavar="S", help="seconds added to all times [%(default)s]")
    text = "seconds added before and after each sentence [%(default)s]"
    add("--margin", type=not_negative, default=0.0, metavar="S", help=text)
    add = parser.add_argument_group("splits", "A recording is in one split.").add_argument
    for split in SPLITS[1:]:
        text = f"share of the recordings that are {split} [%(default)s]"
        add(f"--{split}", type=not_negative, default=0.1, metavar="SHARE", help=text)
    add("--seed", type=int, default=0, help="of drawing them [%(default)s]")
    add("--splits", type=Path, metavar="FILE", help="an earlier table, whose recordings keep their splits")
    add = parser.add_argument_group("output").add_argument
    add("--out", type=Path, metavar="FILE", help="the table to write, .csv or .tsv")
    add("--check", action="store_true", help="only name what is amiss, all of it; write nothing")
    add("--overwrite", action="store_true", help="replace the table at --out")


def not_negative(text: str) -> float:
    """A finite number of at least 0, for argparse."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return number


def run(args: argparse.Namespace) -> Done:
    """Read the recordings and write their table, or name what is amiss."""
    from training_fla.corpora.recordings.pairs import with_splits
    from training_fla.corpora.recordings.sentences import CueRules, Findings
    from training_fla.corpora.recordings.table import COLUMNS, earlier_splits, read_recordings, table_rows
    from training_fla.tables import write_table

    check_arguments(args)
    root, recordings, alone = pairs_of(args)
    kept = earlier_splits(args.splits, recordings) if args.splits else {}
    recordings = with_splits(recordings, kept, {split: getattr(args, split) for split in SPLITS[1:]}, args.seed)
    rules = CueRules(
        merge=args.merge,
        drop_sounds=args.drop_sounds,
        drop_speakers=args.drop_speakers,
        shortest=args.shortest,
        longest=args.longest,
        shift=args.shift,
        margin=args.margin,
    )
    findings = Findings()
    rows = read_recordings(recordings, args.tier, rules, findings)
    if args.check:
        return report(rows, findings, alone)
    if not rows:
        raise InputError(f"no sentence is left of {counted(len(recordings), 'recording')}: --check says why")
    folder = args.out.absolute().parent
    is_below = root.resolve().is_relative_to(folder.resolve())
    prefix = root.resolve().relative_to(folder.resolve()) if is_below else PurePath()
    write_table(args.out, COLUMNS, table_rows(rows, root, prefix), args.overwrite)
    name_findings(findings, alone)
    for line in counts_of(rows):
        note(line)
    words = ["fla", "prepare", "manifest", "--root", str(args.out)]
    words += [] if is_below else ["--video-root", str(root)]
    words += ["--out", str(Path("data") / args.out.stem)]
    return Done(f"wrote {counted(len(rows), 'sentence')} to {args.out}: correct it", shlex.join(words))


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what is missing or contradicts, before anything is read."""
    from training_fla.folders import check_file

    if args.root is None and args.pairs is None:
        raise InputError("--root is missing: the folder with the recordings and their subtitles")
    if args.out is None and not args.check:
        raise InputError("--out FILE is missing: the table to write")
    if args.out is not None and args.out.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(f"--out {args.out}: a table's name ends with .csv or .tsv")
    if not args.check:
        check_file(args.out, args.overwrite)
    if args.dev + args.test >= 1:
        raise InputError(f"--dev {args.dev:g} and --test {args.test:g} leave nothing to train on")
    if args.shortest > args.longest:
        raise InputError(f"--shortest {args.shortest:g} is more than --longest {args.longest:g}")
    if args.pairs and args.suffix:
        raise InputError("--suffix finds files by their names, --pairs names them: give one of them")


def pairs_of(args: argparse.Namespace) -> "tuple[Path, list[Recording], list[str]]":
    """The folder of the recordings, these with their files, and what has no counterpart."""
    from training_fla.corpora.recordings.pairs import find_pairs, read_pairs
    from training_fla.tables import BadRows

    root = args.root or args.pairs.parent
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    if args.pairs is None:
        return root, *find_pairs(root, args.suffix, args.follow_links)
    bad = BadRows()
    recordings = read_pairs(args.pairs, root, args.follow_links, bad)
    bad.refuse()
    if not recordings:
        raise InputError(f"{args.pairs} has no rows")
    return root, recordings, []


def report(rows: "list[tuple[Recording, TimedText]]", findings: "Findings", alone: list[str]) -> Done:
    """Print all that is amiss."""
    for title, lines in (
        ("cues left out", findings.left_out.lines()),
        ("cues to look at", findings.odd.lines()),
        ("files without a counterpart", alone),
    ):
        print(f"{title}: {len(lines) or 'none'}")
        print("".join(f"  {line}\n" for line in lines), end="")
    print("\n".join([*left_out_counts(findings), *counts_of(rows)]))
    is_amiss = bool(findings.left_out.found or findings.odd.found or alone)
    remedy = "the same command with --out FILE and without --check"
    return Done(f"checked {counted(len(rows), 'sentence')}", remedy, int(is_amiss))


def name_findings(findings: "Findings", alone: list[str]) -> None:
    """Note what is amiss, the first of each kind."""
    from training_fla.tables import ROWS_NAMED

    for kind, lines in (
        ("note: left out: ", findings.left_out.lines()),
        ("warning: ", findings.odd.lines()),
        ("note: ", alone),
    ):
        for line in lines[:ROWS_NAMED]:
            note(f"{kind}{line}")
        if len(lines) > ROWS_NAMED:
            note(f"{kind}{len(lines) - ROWS_NAMED:,} more, see --check")
    for line in left_out_counts(findings):
        note(f"note: {line}")


def left_out_counts(findings: "Findings") -> list[str]:
    """What is left out because it was asked for."""
    counts = (
        (findings.dropped, "cue", "that say nothing but sounds or a name"),
        (findings.too_short, "clip", "shorter than --shortest"),
        (findings.too_long, "clip", "longer than --longest"),
    )
    return [f"left out: {counted(number, thing)} {what}" for number, thing, what in counts if number]


def counts_of(rows: "list[tuple[Recording, TimedText]]") -> list[str]:
    """Sentences, recordings and time of each split."""
    lines = []
    for split in SPLITS:
        of_split = [(recording, sentence) for recording, sentence in rows if recording.split == split]
        seconds = sum(sentence.end - sentence.start for _, sentence in of_split)
        recordings = counted(len({recording.video for recording, _ in of_split}), "recording")
        lines.append(f"{split}: {counted(len(of_split), 'sentence')} of {recordings}, {time_text(seconds)}")
    return lines
