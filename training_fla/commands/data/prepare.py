"""Turn a corpus into a packed dataset: Arrow shards of JPEG frames that training reads at the speed of the decoder.

An interrupted run goes on where it was when the same command is given again. What comes out is also a dataset that
`datasets.load_dataset` opens: `hf upload NAME/REPO DIR --repo-type dataset --private` takes it to the Hub, if its
owners allow that, and `hf download NAME/REPO --repo-type dataset --local-dir DIR` back for training.
"""

import argparse
import shlex
from functools import partial
from pathlib import Path

from training_fla.clone import open_experiments
from training_fla.files import Done, InputError, check_folder, check_not_inside, note, one_line, size_text

from .trim import trim_command

EXAMPLE = "fla prepare phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --out data/phoenix14t"
DATASET_COLUMNS = ("video", "sentence", "start", "end")
FEATURE_COLUMNS = ("features", "sentence", "split", "id", "signer", "language")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the corpora and their options."""
    from training_fla.corpora.manifest import COLUMNS
    from training_fla.corpora.registry import CORPORA

    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True, title="corpora")
    demo = corpora.add_parser("demo", help="a signer drawn by code who reports the weather; nothing is downloaded")
    _add_demo_arguments(demo)
    _add_packing_arguments(demo, size=64)
    manifest = corpora.add_parser("manifest", help="your own videos and a table of their sentences")
    _add_table_arguments(manifest, "video")
    _add_own_arguments(manifest, COLUMNS)
    for name, corpus in CORPORA.items():
        if corpus.read:
            release = corpora.add_parser(name, help=corpus.title)
            release.add_argument("--root", type=Path, metavar="DIR", help="the unpacked release")
            if name == "how2sign":
                text = "use the clips as released, cut at the unaligned times"
                release.add_argument("--released-clips", action="store_true", help=text)
            _add_reading_arguments(release, size=256)
    dataset = corpora.add_parser("dataset", help="a `datasets` folder or Hub dataset with videos and sentences")
    dataset.add_argument("--root", metavar="DIR_OR_ID", help="the folder or the Hub id")
    dataset.add_argument("--revision", help="of a Hub dataset")
    _add_own_arguments(dataset, DATASET_COLUMNS)
    features = corpora.add_parser("features", help="a table of feature files that another program made of clips")
    _add_feature_arguments(features)


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "draw this table of gloss<TAB>sentence instead; or phoenix14t: its glosses and sentences"
    add("--pairs", metavar="FILE.tsv", help=text)
    text = "of --pairs phoenix14t: the unpacked release, of which only the annotation files are read"
    add("--root", type=Path, metavar="DIR", help=text)
    add("--glosses", type=int, metavar="N", help="of --pairs phoenix14t: only clips of its N commonest glosses")
    add("--seed", type=int, default=0, help="everything drawn follows from it [%(default)s]")
    for split, count in (("train", 800), ("dev", 80), ("test", 100)):
        add(f"--num-{split}", type=int, default=count, help=f"{split} clips [%(default)s]")
    add("--clips", type=int, default=5, help="test clips also written as mp4 files [%(default)s]")
    add("--clip-size", type=int, default=160, help="side of those mp4 files in pixels [%(default)s]")
    add("--language", default="de_DE", help="MBart code of the --pairs sentences [%(default)s]")


def _add_table_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    add = parser.add_argument
    text = "table (CSV, TSV, JSON Lines), or a folder with one or with train.tsv, dev.tsv, test.tsv"
    add("--root", type=Path, metavar="FILE_OR_DIR", help=text)
    text = f"folder that {what} paths are relative to [that of the table]"
    add(f"--{what}-root", dest="video_root", type=Path, metavar="DIR", help=text)
    add("--default-split", default="train", metavar="SPLIT", help="split of rows that name none [%(default)s]")


def _add_feature_arguments(parser: argparse.ArgumentParser) -> None:
    from training_fla.corpora.registry import CORPORA

    add = parser.add_argument
    _add_table_arguments(parser, "features")
    _add_columns(parser, FEATURE_COLUMNS)
    parser.set_defaults(start_column="", end_column="", fps_column="")
    add("--extractor", default="", metavar="TEXT", help="what made the features, for the model's card")
    text = "corpus that the clips are of: its terms and its scoring convention"
    add("--of", choices=CORPORA, default="manifest", help=text)
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="to store [%(default)s]")
    parser.epilog = (
        f"columns: features and sentence; if they are there also {', '.join(FEATURE_COLUMNS[2:])}. A features file is "
        "a .npy, .npz or .pt file with one array (N, C). Other names are given with --features-column NAME and so on."
    )
    _add_reading_arguments(parser)


def _add_columns(parser: argparse.ArgumentParser, columns: tuple[str, ...]) -> None:
    for column in columns:
        dest = "video_column" if column == "features" else f"{column}_column"
        parser.add_argument(f"--{column}-column", dest=dest, default=column, metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--language", default="", help="MBart code of the sentences, such as en_XX")


def _add_own_arguments(parser: argparse.ArgumentParser, columns: tuple[str, ...]) -> None:
    _add_columns(parser, columns)
    text = "the clips are cut already: do not read the columns start and end"
    parser.add_argument("--no-times", action="store_true", help=text)
    parser.epilog = (
        f"columns: video and sentence; if they are there also {', '.join(columns[2:])}. Times are seconds "
        "(1.5 or 1,5) or hours:minutes:seconds. A video may be a folder of frames. Other names are given with "
        "--video-column NAME, --sentence-column NAME and so on."
    )
    _add_reading_arguments(parser, size=256)


def _add_reading_arguments(parser: argparse.ArgumentParser, size: int | None = None) -> None:
    text = "trust symbolic links that lead out of the corpus folder, as in a Hub cache"
    parser.add_argument("--follow-links", action="store_true", help=text)
    _add_packing_arguments(parser, size)


def _add_packing_arguments(parser: argparse.ArgumentParser, size: int | None) -> None:
    """Declare what is written; `size` is the default of the frames', and features have none."""
    add = parser.add_argument_group("packing").add_argument
    add("--out", type=Path, metavar="DIR", help="the folder to write")
    add("--check", action="store_true", help="only look the corpus over and report; write nothing")
    add("--verify", action="store_true", help="only compare --out, packed before, with its hashes")
    add("--frame-stride", type=int, default=1, help="store one source frame in so many; 1 stores all [%(default)s]")
    text = "at bad rows and clips: fail, or skip and list them [%(default)s]"
    add("--on-error", choices=("fail", "skip"), default="fail", help=text)
    add("--overwrite", action="store_true", help="replace the packed corpus at --out")
    if size is not None:
        add("--size", type=int, default=size, help="side of the stored frames in pixels [%(default)s]")
        add("--quality", type=int, default=95, help="JPEG quality [%(default)s]")
        add("--workers", type=int, help="processes [one a core]")
        add("--shard-clips", type=int, help="clips in a shard [2 to 128, by the size of the split]")
        add("--shard", type=_part, default=(1, 1), metavar="I/N", help="pack only the I-th of N parts")


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(part), int(parts)


def run(args: argparse.Namespace) -> Done:
    """Read the corpus and pack it, or check the one or the other."""
    from training_fla.corpora.row import Reading

    are_features, workers = args.corpus == "features", getattr(args, "workers", None) or 0
    if args.check and args.verify:
        raise InputError("--check looks at the corpus, --verify at what was packed: give one of them")
    if workers < 0:
        raise InputError(f"--workers {workers}: must be 0 or more")
    if args.out is None and not args.check:
        raise InputError("--out DIR is missing: the folder to write")
    if args.verify:
        return _verify(args)
    if args.corpus != "demo" and args.root is None:
        raise InputError("--root is missing: where the corpus is")
    if are_features and args.frame_stride < 1:
        raise InputError(f"--frame-stride {args.frame_stride}: must be at least 1")
    if not args.check:
        check_not_inside([getattr(args, name, None) for name in ("root", "video_root", "pairs")], args.out)
        if are_features or not (args.out / "manifest.json").is_file():  # packing knows what it has finished
            check_folder(args.out, "corpus", args.overwrite)
    # Bad rows are named together with what else is bad.
    reading = Reading(getattr(args, "follow_links", False), args.check or are_features or args.on_error == "skip")
    rows, source = _read(args, reading)
    if are_features:
        return _store_features(args, rows, reading)
    return _check(args, rows, reading) if args.check else _pack(args, rows, source, reading)


def _verify(args: argparse.Namespace) -> Done:
    from training_fla.data.packed_corpus import verify_packed

    wrong = verify_packed(args.out)
    print("\n".join(wrong) or f"{args.out} is as it was packed")
    return Done(f"verified {args.out}", "packing again with --overwrite" if wrong else "", int(bool(wrong)))


def _check(args: argparse.Namespace, rows: list, reading) -> Done:
    from training_fla.corpora.registry import CORPORA
    from training_fla.data.checking import check_corpus

    corpus = CORPORA.get(args.corpus)
    expected, on_disk = (corpus.expected, corpus.media(args.root)) if corpus and corpus.media else ({}, ())
    report = check_corpus(rows, expected, on_disk, args.workers)
    report.bad_rows += reading.bad.lines()
    report.notes += reading.notes
    if hasattr(args, "no_times") and any("after the end of its video" in line for line in report.unreadable):
        report.notes.append("if the clips are cut already, --no-times leaves start and end unread")
    print("\n".join(report.lines()))
    if report.is_clean:
        return Done(f"checked {len(rows):,} rows", "the same command with --out DIR and without --check")
    return Done(f"checked {len(rows):,} rows", "mend what is listed, or pack with --on-error skip", 1)


def _pack(args: argparse.Namespace, rows: list, source: str, reading) -> Done:
    from training_fla.data.packing import pack
    from training_fla.tables import ROWS_NAMED

    left_out = [f"left out: {line}" for line in reading.bad.lines()]
    if len(left_out) > ROWS_NAMED:
        left_out[ROWS_NAMED:] = [f"left out: {len(left_out) - ROWS_NAMED} more rows, see skipped.tsv"]
    for text in [*reading.notes, *left_out]:
        note(f"note: {text}")
    names = ("size", "quality", "frame_stride", "shard_clips", "on_error", "overwrite", "corpus")
    options = {name: getattr(args, name) for name in names}
    options |= {"num_workers": args.workers, "machine": args.shard, "source": source, "left_out": reading.left_out()}
    add_files = partial(_add_demo, args) if args.corpus == "demo" else None
    done = pack(rows, args.out, add_files=add_files, **options)
    if not done:
        return Done(f"packed part {args.shard[0]} of {args.shard[1]}", "the other parts; the last makes the folder")
    size = size_text(sum(file.stat().st_size for file in done.rglob("*") if file.is_file()))
    return Done(f"packed into {args.out}, {size}", _next_command(args, rows[0].language))


def _next_command(args: argparse.Namespace, language: str) -> str:
    """The command that takes what was written, with the lines that its recipe cannot know."""
    from training_fla.data.packed_corpus import packed_splits

    splits, sentences = packed_splits(args.out), args.out / "train.sentences.txt"
    if args.corpus in ("manifest", "dataset"):
        words = ["python", "run_stage1.py", "recipes/own_clips/stage1.yaml", "--dataset", args.out]
        words += ["--language_code", language] if language else []
        for split in ("train", "dev", "test"):
            if split not in splits:
                words += [f"--{split}_split", splits[-1] if split == "test" else splits[0]]
    elif args.corpus == "demo":
        words = ["fla", "denoise", "--text", sentences, "--out", f"{args.out}-mbart"]
    else:
        return trim_command(args.out, language, f"mbart-{args.corpus}")
    return shlex.join(map(str, words))


def _store_features(args: argparse.Namespace, rows: list, reading) -> Done:
    from training_fla.data.features import check_feature_files, write_feature_table

    clips, size = check_feature_files(rows, reading, args.frame_stride)
    for text in reading.notes:
        note(f"note: {text}")
    if args.check:
        print("\n".join(reading.bad.lines()) or "no bad row")
        remedy = "mend what is listed, or --on-error skip" if reading.bad.found else "the same with --out DIR"
        return Done(f"checked {len(clips)} good clips, C = {size}", remedy, int(bool(reading.bad.found)))
    if args.on_error == "fail":
        reading.bad.refuse("`--on-error skip` goes on without them")
    parameters = {"feature_size": size, "extractor": one_line(args.extractor), "dtype": args.dtype}
    parameters |= {"frame_stride": args.frame_stride}
    options = {"corpus": args.of, "skipped": reading.left_out(), "overwrite": args.overwrite}
    write_feature_table(args.out, clips, parameters, **options)
    next_command = _next_command(args, clips[0][0].language)
    return Done(f"stored {len(clips)} clips, C = {size}, in {args.out}", next_command)


def _read(args: argparse.Namespace, reading) -> tuple[list, str]:
    """The rows of the corpus, and a fingerprint of what they were read from."""
    from training_fla.corpora.registry import CORPORA
    from training_fla.data.packed_corpus import file_sha256

    if args.corpus == "demo":
        table = file_sha256(Path(args.pairs))[:32] if Path(args.pairs or "").is_file() else ""
        source = f"seed {args.seed} clips {args.clips} of {args.clip_size} pixels {table}"
        return _demo_rows(args, args.size, reading), source
    options = {name: value for name, value in vars(args).items() if name.endswith("_column")}
    if getattr(args, "no_times", False):
        options |= {"start_column": "", "end_column": ""}
    if args.corpus in ("manifest", "features"):
        from training_fla.corpora.manifest import manifest_fingerprint, read_manifest

        options |= {name: getattr(args, name) for name in ("video_root", "default_split", "language")}
        rows = read_manifest(args.root, reading, **options)
        return rows, manifest_fingerprint(args.root, rows, **options)
    if args.corpus == "dataset":
        from training_fla.corpora.hub_dataset import read_dataset

        return read_dataset(args.root, reading, **options, language=args.language, revision=args.revision), ""
    corpus = CORPORA[args.corpus]
    options = {"released_clips": args.released_clips} if args.corpus == "how2sign" else {}
    rows = corpus.read(args.root, reading, **options)
    reading.notes += [corpus.counts_note] if corpus.counts_note else []
    return rows, ""


def _demo_rows(args: argparse.Namespace, size: int, reading=None) -> list:
    open_experiments("fla prepare demo")
    from experiments.drawn.demo import read_demo
    from experiments.drawn.pairs import read_pairs, read_phoenix_pairs

    if args.pairs == "phoenix14t":
        if args.root is None:
            raise InputError("--pairs phoenix14t needs --root: where the release, or its annotations/manual, lies")
        if args.glosses is not None and args.glosses < 1:
            raise InputError(f"--glosses must be 1 or more, got {args.glosses}")
        return read_phoenix_pairs(args.root, args.glosses, size, args.seed, reading)
    for name in ("root", "glosses"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} is read beside --pairs phoenix14t only")
    if args.pairs:
        return read_pairs(args.pairs, size=size, seed=args.seed, language=args.language)
    return read_demo(args.seed, args.num_train, args.num_dev, args.num_test, size)


def _add_demo(args: argparse.Namespace, folder: Path) -> None:
    """Text to pre-train a language model on, and a few clips as files to translate."""
    from experiments.drawn.broad_text import broad_text
    from experiments.drawn.demo import demo_text
    from experiments.drawn.pairs import phoenix_text
    from training_fla.corpora.clips import write_clip

    texts = {} if args.pairs else {"demo_text": demo_text(args.seed), "broad_text": broad_text(args.seed)}
    if args.pairs == "phoenix14t":
        texts = {"phoenix_text": phoenix_text(args.root)}
    for name, sentences in texts.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
    (folder / "clips").mkdir(exist_ok=True)
    # What is packed is as small as training likes it; a file to watch and to translate is drawn larger.
    rows = _demo_rows(args, args.clip_size)
    for number, row in enumerate([row for row in rows if row.split == "test"][: args.clips]):
        # The ids of --pairs are the user's, and need not be good file names.
        name = f"test-{number:05d}" if args.pairs else row.id
        write_clip(folder / "clips" / f"{name}.mp4", row.video.frames(), row.video.fps)
