"""Turn a corpus into a packed dataset: Arrow shards of JPEG frames that training reads at the speed of the decoder.

An interrupted run goes on where it was when the same command is given again.
"""

import argparse
from pathlib import Path

EXAMPLE = "fla prepare phoenix14t --root PHOENIX-2014-T-release-v3/PHOENIX-2014-T --out data/phoenix14t"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the corpora and their options."""
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True, title="corpora")
    demo = corpora.add_parser("demo", help="a signer drawn by code who reports the weather; nothing is downloaded")
    _add_demo_arguments(demo)
    _add_packing_arguments(demo, size=64)
    manifest = corpora.add_parser("manifest", help="your own videos and a table of their sentences")
    _add_manifest_arguments(manifest)
    _add_packing_arguments(manifest, size=256)


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, metavar="FILE.tsv", help="draw this table of gloss<TAB>sentence instead")
    parser.add_argument("--seed", type=int, default=0, help="everything drawn follows from it [%(default)s]")
    for split, count in (("train", 800), ("dev", 80), ("test", 100)):
        parser.add_argument(f"--num-{split}", type=int, default=count, help=f"{split} clips [%(default)s]")
    parser.add_argument("--clips", type=int, default=5, help="test clips also written as mp4 files [%(default)s]")
    parser.add_argument("--language", default="de_DE", help="MBart code of the --pairs sentences [%(default)s]")


def _add_manifest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, help="CSV, TSV or JSONL file, or the folder that holds it")
    parser.add_argument("--video-root", type=Path, help="folder that video paths are relative to [that of the table]")
    for column in ("video", "sentence", "split", "id", "signer", "language", "start", "end"):
        parser.add_argument(f"--{column}-column", default=column, metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument(
        "--default-split", default="train", metavar="SPLIT", help="split of rows that name none [%(default)s]"
    )
    parser.add_argument("--language", default="", help="MBart code of the sentences, such as en_XX")
    parser.epilog = (
        "columns: video and sentence; if they are there also split, id, signer, language, start and end (seconds). "
        "Other names are given with --video-column NAME, --sentence-column NAME and so on."
    )


def _add_packing_arguments(parser: argparse.ArgumentParser, size: int) -> None:
    group = parser.add_argument_group("packing")
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    group.add_argument("--size", type=int, default=size, help="side of the stored frames in pixels [%(default)s]")
    group.add_argument("--quality", type=int, default=95, help="JPEG quality [%(default)s]")
    group.add_argument(
        "--frame-stride", type=int, default=1, help="store one source frame in so many; 1 stores all [%(default)s]"
    )
    group.add_argument("--workers", type=int, help="processes [one a core]")
    group.add_argument("--shard-clips", type=int, help="clips in a shard [8 to 128, by the size of the split]")
    group.add_argument("--on-error", choices=("fail", "skip"), default="fail", help="at a bad clip [%(default)s]")
    group.add_argument("--shard", type=_part, default=(1, 1), metavar="I/N", help="pack only the I-th of N parts")
    group.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(part), int(parts)


def run(args: argparse.Namespace) -> int:
    """Read the corpus and pack it."""
    return {"demo": _demo, "manifest": _manifest}[args.corpus](args)


def _pack(args: argparse.Namespace, rows, source: str = "", add_files=None) -> int:
    from ..packing import pack

    done = pack(
        rows,
        args.out,
        size=args.size,
        quality=args.quality,
        frame_stride=args.frame_stride,
        num_workers=args.workers,
        shard_clips=args.shard_clips,
        on_error=args.on_error,
        overwrite=args.overwrite,
        corpus=args.corpus,
        source=source,
        machine=args.shard,
        add_files=add_files,
    )
    print(f"packed into {args.out}" if done else "this part is done; the last of the other parts makes the folder")
    return 0


def _demo(args: argparse.Namespace) -> int:
    import hashlib

    from ..corpora.demo import read_demo, read_pairs

    if args.pairs:
        rows = read_pairs(args.pairs, size=args.size, seed=args.seed, language=args.language)
        table = hashlib.sha256(args.pairs.read_bytes()).hexdigest()[:32]
    else:
        rows = read_demo(args.seed, args.num_train, args.num_dev, args.num_test, args.size)
        table = ""
    return _pack(
        args, rows, f"seed {args.seed} clips {args.clips} {table}", lambda folder: _add_demo(args, rows, folder)
    )


def _add_demo(args: argparse.Namespace, rows, folder: Path) -> None:
    """Text to pre-train a language model on, and a few clips as files to translate."""
    from ..clip_files import write_clip
    from ..corpora.demo import broad_text, demo_text

    if not args.pairs:
        for name, sentences in (("demo_text", demo_text(args.seed)), ("broad_text", broad_text(args.seed))):
            (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
    (folder / "clips").mkdir(exist_ok=True)
    for row in [row for row in rows if row.split == "test"][: args.clips]:
        write_clip(folder / "clips" / f"{row.id}.mp4", row.video.frames(), row.video.fps)


def _manifest(args: argparse.Namespace) -> int:
    from ..corpora.manifest import manifest_fingerprint, read_manifest

    columns = {name: getattr(args, name) for name in vars(args) if name.endswith("_column")}
    names = {name.removesuffix("_column"): column for name, column in columns.items()}
    options = {
        "video_column": names.pop("video"),
        "sentence_column": names.pop("sentence"),
        "video_root": args.video_root,
        "default_split": args.default_split,
        "language": args.language,
        **names,
    }
    return _pack(args, read_manifest(args.root, **options), manifest_fingerprint(args.root, **options))
