"""Turn a corpus into a packed dataset: Arrow shards of JPEG frames that training reads at the speed of the decoder.

An interrupted run goes on where it was when the same command is given again. What comes out is also a dataset that
`datasets.load_dataset` opens: `hf upload NAME/REPO DIR --repo-type dataset --private` takes it to the Hub, if its
owners allow that, and `hf download NAME/REPO --repo-type dataset --local-dir DIR` back for training.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training_fla.console import Done, counted, note, size_text
from training_fla.corpora.clips import JPEG_QUALITY
from training_fla.errors import InputError, one_line
from training_fla.folders import check_folder, check_not_inside

from . import splice, subtitles
from .sources import Rows, Source, add_links_argument, sources

if TYPE_CHECKING:
    from training_fla.corpora.row import Reading
    from training_fla.data.checking import CorpusReport

EXAMPLE = "fla prepare phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --out data/phoenix14t"
LATE = "after the end of its video"
LATE_CAUSES = (
    "clips begin or end after the end of their video: numbers of another unit are read with --times milliseconds or "
    "--times frames, and --no-times leaves start and end unread where the clips are cut already"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the corpora and their options."""
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True, title="corpora")
    for source in [*sources(), splice.Lexicon("splice", splice.HELP)]:
        of_source = corpora.add_parser(source.name, help=source.help)
        # What holds where a corpus has no such option.
        of_source.set_defaults(source=source, follow_links=False, times="seconds", no_times=False, workers=None)
        source.add_arguments(of_source)
        add_output_arguments(of_source)
        if source.has_frames:
            add_packing_arguments(of_source, source.frame_size)
    # What comes out of the next two is no corpus but a table.
    of_recordings = corpora.add_parser("subtitles", help=subtitles.HELP)
    subtitles.add_arguments(of_recordings)
    add_links_argument(of_recordings)
    of_recordings.set_defaults(source=None, write=subtitles.run)
    of_grammar = corpora.add_parser("sentences", help=splice.SENTENCES_HELP)
    splice.add_sentences_arguments(of_grammar)
    of_grammar.set_defaults(source=None, write=splice.write_sentences)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is done with the rows."""
    add = parser.add_argument_group("output").add_argument
    add("--out", type=Path, metavar="DIR", help="the folder to write")
    add("--check", action="store_true", help="only look the corpus over and report; write nothing")
    add("--verify", action="store_true", help="only compare --out, packed before, with its hashes")
    add("--frame-stride", type=int, default=1, help="store one source frame in so many; 1 stores all [%(default)s]")
    text = "at bad rows and clips: fail, or skip and list them [%(default)s]"
    add("--on-error", choices=("fail", "skip"), default="fail", help=text)
    add("--overwrite", action="store_true", help="replace the packed corpus at --out; unchanged shards are kept")


def add_packing_arguments(parser: argparse.ArgumentParser, size: int) -> None:
    """Declare how frames are stored; `size` is the default."""
    add = parser.add_argument_group("packing").add_argument
    add("--size", type=int, default=size, help="side of the stored frames in pixels [%(default)s]")
    add("--quality", type=int, default=JPEG_QUALITY, help="JPEG quality [%(default)s]")
    add("--workers", type=int, help="processes [one a core]")
    add("--shard-clips", type=int, help="clips in a shard [2 to 128, by the size of the split]")


def run(args: argparse.Namespace) -> Done:
    """Read the corpus and pack it, or check the one or the other."""
    from training_fla.corpora.row import Reading

    if args.source is None:
        return args.write(args)
    source: Source = args.source
    check_arguments(args)
    if args.verify:
        return verify(args.out)
    if not args.check:
        check_output(args)
    # Bad rows are named together with what else is bad.
    reading = Reading(args.follow_links, skip_bad_rows=True, times=args.times)
    found = source.read(args, reading)
    if not source.has_frames:
        return store(args, found, reading)
    return check(args, found, reading) if args.check else pack(args, found, reading)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, before anything is read."""
    if args.check and args.verify:
        raise InputError("--check looks at the corpus, --verify at what was packed: give one of them")
    if (args.workers or 0) < 0:
        raise InputError(f"--workers {args.workers}: must be 0 or more")
    if args.out is None and not args.check:
        raise InputError("--out DIR is missing: the folder to write")
    if args.frame_stride < 1:
        raise InputError(f"--frame-stride {args.frame_stride}: must be at least 1")
    if args.no_times and args.times != "seconds":
        raise InputError(f"--no-times leaves the times unread that --times {args.times} is about: give one of them")


def check_output(args: argparse.Namespace) -> None:
    """Refuse a folder that may not be written."""
    from training_fla.data.packed_corpus import MANIFEST

    check_not_inside(args.source.inputs(args), args.out)
    # Packing knows what it has finished.
    if not args.source.has_frames or not (args.out / MANIFEST).is_file():
        check_folder(args.out, "corpus", args.overwrite)


def verify(out: Path) -> Done:
    """Compare a packed folder with its hashes."""
    from training_fla.data.packed_corpus import verify_packed

    wrong = verify_packed(out)
    print("\n".join(wrong) or f"{out} is as it was packed")
    return Done(f"verified {out}", "packing again with --overwrite" if wrong else "", int(bool(wrong)))


def report_on(args: argparse.Namespace, found: Rows, reading: "Reading", decode: bool) -> "CorpusReport":
    """Look the rows over."""
    from training_fla.data.checking import check_corpus

    report = check_corpus(
        found.rows, found.expected, found.on_disk, args.workers, decode=decode, frame_stride=args.frame_stride
    )
    report.bad_rows += reading.bad.lines()
    report.notes += reading.notes
    late = sum(LATE in line for line in report.unreadable)
    if args.source.has_times and late:
        report.notes.append(f"{late} {LATE_CAUSES}")
    return report


def check(args: argparse.Namespace, found: Rows, reading: "Reading") -> Done:
    """Print all that is amiss; nothing is written."""
    report = report_on(args, found, reading, decode=True)
    print("\n".join(report.lines()))
    if report.is_clean:
        return Done(
            f"checked {counted(len(found.rows), 'row')}", "the same command with --out DIR and without --check"
        )
    return Done(f"checked {counted(len(found.rows), 'row')}", "mend what is listed, or pack with --on-error skip", 1)


def pack(args: argparse.Namespace, found: Rows, reading: "Reading") -> Done:
    """Refuse or leave out what cannot be packed, and pack the rest."""
    from training_fla.data import packing

    refuse_bad_rows(args, found, reading)
    folder = packing.pack(
        found.rows,
        args.out,
        size=args.size,
        quality=args.quality,
        frame_stride=args.frame_stride,
        shard_clips=args.shard_clips,
        on_error=args.on_error,
        overwrite=args.overwrite,
        corpus=found.corpus or args.source.name,
        num_workers=args.workers,
        source=found.fingerprint,
        left_out=reading.left_out(),
        add_files=found.add_files,
    )
    size = size_text(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    return Done(f"packed into {args.out}, {size}", args.source.next_command(args, found.rows[0].language))


def refuse_bad_rows(args: argparse.Namespace, found: Rows, reading: "Reading") -> None:
    """Refuse what cannot be packed, before hours of work, or say that it is left out; and name what is odd."""
    from training_fla.data.packed_corpus import MANIFEST
    from training_fla.data.packing import work_folder
    from training_fla.tables import ROWS_NAMED

    odd: list[str] = []
    has_begun = work_folder(args.out).exists()
    is_packed = (args.out / MANIFEST).exists() and not args.overwrite
    if not (has_begun or is_packed):  # else it was looked over then
        report = report_on(args, found, reading, decode=False)
        odd = [f"warning: {warning}" for warning in report.warnings]
        if args.on_error == "fail":
            for row, reason in report.refused:
                reading.bad.add(*(row.place or (Path(args.root), f"{row.split} clip {row.id!r}")), reason)
        reading.notes = report.notes
    if args.on_error == "fail":
        late = args.source.has_times and any(LATE in reason for _, _, reason in reading.bad.found)
        reading.bad.refuse(f"{LATE_CAUSES}; {splice.SKIP}" if late else splice.SKIP)
    left_out = [f"note: left out: {line}" for line in reading.bad.lines()]
    for lines, rest in ((odd, "warnings, see --check"), (left_out, "rows left out, see skipped.tsv")):
        for line in lines[:ROWS_NAMED]:
            note(line)
        if len(lines) > ROWS_NAMED:
            note(f"note: {len(lines) - ROWS_NAMED:,} more {rest}")
    for text in reading.notes:
        note(f"note: {text}")


def store(args: argparse.Namespace, found: Rows, reading: "Reading") -> Done:
    """Check the features of a table, and store them."""
    from training_fla.corpora.feature_files import check_feature_files
    from training_fla.data.feature_store import splits_of_files, write_feature_corpus

    clips, size, points = check_feature_files(found.rows, reading, args.frame_stride, args.shoulders)
    for text in reading.notes:
        note(f"note: {text}")
    if args.check:
        print("\n".join(reading.bad.lines()) or "no bad row")
        remedy = "mend what is listed, or --on-error skip" if reading.bad.found else "the same with --out DIR"
        return Done(f"checked {counted(len(clips), 'good clip')}, C = {size}", remedy, int(bool(reading.bad.found)))
    if args.on_error == "fail":
        reading.bad.refuse(splice.SKIP)
    write_feature_corpus(
        args.out,
        splits_of_files(clips, args.frame_stride, args.shoulders),
        feature_size=size,
        extractor="; ".join(filter(None, [one_line(args.extractor), points])),
        dtype=args.dtype,
        frame_stride=args.frame_stride,
        corpus=args.of,
        skipped=reading.left_out(),
        overwrite=args.overwrite,
    )
    next_command = args.source.next_command(args, clips[0][0].language)
    return Done(f"stored {counted(len(clips), 'clip')}, C = {size}, in {args.out}", next_command)
