"""What `fla prepare` reads: each source declares its options, reads its rows, and says what comes next."""

import argparse
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from training_fla.clone import open_experiments
from training_fla.corpora.clips import FRAME_SIZE
from training_fla.corpora.manifest import COLUMNS as VIDEO_COLUMNS
from training_fla.errors import InputError

from .trim import trim_command

if TYPE_CHECKING:
    from training_fla.corpora.registry import Corpus
    from training_fla.corpora.row import CorpusRow, Reading

DATASET_COLUMNS = ("video", "sentence", "start", "end")
FEATURE_COLUMNS = ("features", "sentence", "split", "id", "signer", "language")


@dataclass
class Source(ABC):
    """A kind of corpus: one word behind `fla prepare`."""

    name: str  # also of the packed corpus
    help: str
    frame_size: int = FRAME_SIZE  # of the packed frames, unless --size says another
    has_times = False  # columns of times, whose unit the user knows
    has_frames = True  # which are packed; else features, which are stored

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what is asked for besides the packing."""

    @abstractmethod
    def read(self, args: argparse.Namespace, reading: "Reading") -> "Rows":
        """The rows, those that cannot be used aside."""

    def inputs(self, args: argparse.Namespace) -> list[str | Path | None]:
        """The files and folders that are read, which the output may not replace."""
        return [args.root]

    @abstractmethod
    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """What to type when the corpus is packed."""


@dataclass
class Rows:
    """What a source gives."""

    rows: "list[CorpusRow]"
    fingerprint: str = ""  # of what they were read from; another one packs anew
    expected: dict[str, int] = field(default_factory=dict)  # rows of each split, where that is known
    on_disk: Iterable[Path] = ()  # every clip that lies in the corpus
    add_files: Callable[[Path], None] | None = None  # writes what belongs beside the packed shards
    corpus: str = ""  # the name of the packed corpus, where it is not that of the source


@dataclass
class Release(Source):
    """A corpus in the form in which its owners give it out."""

    corpus: "Corpus | None" = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the folder, and what its reader alone asks."""
        parser.add_argument("--root", type=Path, metavar="DIR", help="the unpacked release")
        for name, text in self.corpus.reader_flags.items():
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
        add_links_argument(parser)

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """The rows of its annotation."""
        flags = {name: getattr(args, name) for name in self.corpus.reader_flags}
        rows = self.corpus.read(required(args.root), reading, **flags)
        if self.corpus.counts_note:
            reading.notes.append(self.corpus.counts_note)
        return Rows(rows, expected=self.corpus.expected, on_disk=self.corpus.media(args.root) if args.check else ())

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Trim a language model to its words."""
        return trim_command(args.out, language, f"mbart-{self.name}")


@dataclass
class VideoTable(Source):
    """A table of one's own videos."""

    has_times = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare where the table is and what its columns are called."""
        add_table_arguments(parser)
        text = "folder that video paths are relative to [that of the table]"
        parser.add_argument("--video-root", type=Path, metavar="DIR", help=text)
        add_column_arguments(parser, VIDEO_COLUMNS, "A video may be a folder of frames.")
        add_time_arguments(parser)
        add_links_argument(parser)

    def inputs(self, args: argparse.Namespace) -> list[str | Path | None]:
        """The table and the videos."""
        return [args.root, args.video_root]

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """The rows of the table."""
        from training_fla.corpora.manifest import manifest_fingerprint, read_manifest

        options = columns_asked(args, VIDEO_COLUMNS)
        options |= {name: getattr(args, name) for name in ("video_root", "default_split", "language")}
        rows = read_manifest(required(args.root), reading, **options)
        asked = options | ({} if reading.times == "seconds" else {"times": reading.times})
        return Rows(rows, manifest_fingerprint(args.root, rows, **asked))

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Train on it."""
        return own_clips_command(args.out, language)


@dataclass
class Dataset(Source):
    """A dataset that the library `datasets` opens."""

    has_times = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare where it is and what its columns are called."""
        parser.add_argument("--root", metavar="DIR_OR_ID", help="the folder or the Hub id")
        parser.add_argument("--revision", help="of a Hub dataset")
        add_column_arguments(parser, DATASET_COLUMNS, "A name such as json.sentence is of what lies in a column.")
        add_time_arguments(parser)
        add_links_argument(parser)

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """The rows of its splits."""
        from training_fla.corpora.hub_dataset import read_dataset

        options = columns_asked(args, DATASET_COLUMNS)
        return Rows(
            read_dataset(required(args.root), reading, **options, language=args.language, revision=args.revision)
        )

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Train on it."""
        return own_clips_command(args.out, language)


@dataclass
class FeatureTable(Source):
    """A table of files that another program made of clips; they are stored, not packed."""

    has_frames = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare where the table is, what its columns are called and what the features are."""
        from training_fla.corpora.registry import CORPORA

        add_table_arguments(parser)
        text = "folder that features paths are relative to [that of the table]"
        parser.add_argument("--features-root", type=Path, metavar="DIR", help=text)
        form = "A features file is a .npy, .npz, .pt, .safetensors or .h5 file with one array (N, C), or a .pose file."
        add_column_arguments(parser, FEATURE_COLUMNS, form)
        parser.add_argument("--extractor", default="", metavar="TEXT", help="what made the features, for the card")
        text = "numbers of both shoulders among key points, from 0 [by name in .pose files, else MediaPipe's 11 12]"
        parser.add_argument("--shoulders", type=int, nargs=2, metavar="N", help=text)
        text = "corpus that the clips are of: its terms and its scoring convention"
        parser.add_argument("--of", choices=CORPORA, default="manifest", help=text)
        text = "to store [%(default)s]"
        parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help=text)
        add_links_argument(parser)

    def inputs(self, args: argparse.Namespace) -> list[str | Path | None]:
        """The table and the features."""
        return [args.root, args.features_root]

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """The rows of the table, each with its file in the place of a video."""
        from training_fla.corpora.feature_files import FEATURE_SUFFIXES
        from training_fla.corpora.manifest import read_manifest

        options = columns_asked(args, FEATURE_COLUMNS)
        options["video_column"] = options.pop("features_column")
        options |= {"start_column": "", "end_column": "", "fps_column": ""}
        options |= {"video_root": args.features_root, "suffixes": FEATURE_SUFFIXES}
        options |= {"default_split": args.default_split, "language": args.language}
        return Rows(read_manifest(required(args.root), reading, **options))

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Trim a language model to their words."""
        return trim_command(args.out, language, f"mbart-{self.name}")


@dataclass
class Demo(Source):
    """The drawn corpus of `experiments`."""

    frame_size: int = 64

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what is drawn."""
        add = parser.add_argument
        text = "draw this table of gloss<TAB>sentence instead; or phoenix14t: its glosses and sentences"
        add("--pairs", metavar="FILE.tsv", help=text)
        text = "of --pairs phoenix14t: the unpacked release, of which only the annotation files are read"
        add("--root", type=Path, metavar="DIR", help=text)
        add("--glosses", type=int, metavar="N", help="of --pairs phoenix14t: only clips of its N commonest glosses")
        add("--bare-hands", action="store_true", help="draw no gloves: the hands have the colour of the face")
        add("--seed", type=int, default=0, help="everything drawn follows from it [%(default)s]")
        for split, count in (("train", 800), ("dev", 80), ("test", 100)):
            add(f"--num-{split}", type=int, default=count, help=f"{split} clips [%(default)s]")
        add("--clips", type=int, default=5, help="test clips also written as mp4 files [%(default)s]")
        add("--clip-size", type=int, default=160, help="side of those mp4 files in pixels [%(default)s]")
        add("--language", default="de_DE", help="de_DE or zh_CN; of --pairs: any MBart code [%(default)s]")

    def inputs(self, args: argparse.Namespace) -> list[str | Path | None]:
        """The pairs and the release that they are taken from."""
        return [args.root, args.pairs]

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """Rows that draw their clips."""
        from training_fla.data.packed_corpus import file_sha256

        table = file_sha256(Path(args.pairs))[:32] if Path(args.pairs or "").is_file() else ""
        fingerprint = f"seed {args.seed} clips {args.clips} of {args.clip_size} pixels {table}"
        fingerprint += " bare hands" if args.bare_hands else ""
        fingerprint += "" if args.language == "de_DE" else f" {args.language}"
        rows = self._rows(args, args.size, reading)
        from experiments.drawn.demo import CORPUS_OF_LANGUAGE

        corpus = "" if args.pairs else CORPUS_OF_LANGUAGE[args.language]
        return Rows(rows, fingerprint, add_files=lambda folder: self._add_files(args, folder), corpus=corpus)

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Pre-train a language model on its text."""
        sentences = args.out / "train.sentences.txt"
        return shlex.join(["fla", "denoise", "--text", str(sentences), "--out", f"{args.out}-mbart"])

    def _rows(self, args: argparse.Namespace, size: int, reading: "Reading | None" = None) -> "list[CorpusRow]":
        open_experiments("fla prepare demo")
        gloves = not args.bare_hands
        from experiments.drawn.demo import read_demo
        from experiments.drawn.pairs import read_pairs, read_phoenix_pairs

        if args.pairs == "phoenix14t":
            if args.root is None:
                raise InputError("--pairs phoenix14t needs --root: where the release, or its annotations/manual, lies")
            if args.glosses is not None and args.glosses < 1:
                raise InputError(f"--glosses must be 1 or more, got {args.glosses}")
            return read_phoenix_pairs(args.root, args.glosses, size, args.seed, reading, gloves)
        for name in ("root", "glosses"):
            if getattr(args, name) is not None:
                raise InputError(f"--{name} is read beside --pairs phoenix14t only")
        if args.pairs:
            return read_pairs(args.pairs, size, args.seed, args.language, gloves)
        return read_demo(args.seed, args.num_train, args.num_dev, args.num_test, size, gloves, args.language)

    def _add_files(self, args: argparse.Namespace, folder: Path) -> None:
        """Write text to pre-train a language model on, and a few clips as files to translate."""
        from experiments.drawn.broad_text import broad_text
        from experiments.drawn.demo import demo_text
        from experiments.drawn.pairs import phoenix_text
        from training_fla.corpora.clips import write_clip

        texts = {} if args.pairs else {"demo_text": demo_text(args.seed, language=args.language)}
        if not args.pairs and args.language == "de_DE":
            texts["broad_text"] = broad_text(args.seed)
        if args.pairs == "phoenix14t":
            texts = {"phoenix_text": phoenix_text(args.root)}
        for name, sentences in texts.items():
            (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
        (folder / "clips").mkdir(exist_ok=True)
        # What is packed is as small as training likes it; a file to watch and to translate is drawn larger.
        rows = [row for row in self._rows(args, args.clip_size) if row.split == "test"]
        for number, row in enumerate(rows[: args.clips]):
            # The ids of --pairs are the user's, and need not be good file names.
            name = f"test-{number:05d}" if args.pairs else row.id
            write_clip(folder / "clips" / f"{name}.mp4", row.video.frames(), row.video.fps)


def sources() -> list[Source]:
    """All that `fla prepare` reads."""
    from training_fla.corpora.registry import CORPORA

    return [
        Demo("demo", "a signer drawn by code who reports the weather; nothing is downloaded"),
        VideoTable("manifest", "your own videos and a table of their sentences"),
        *(Release(name, corpus.title, corpus=corpus) for name, corpus in CORPORA.items() if corpus.read),
        Dataset("dataset", "a `datasets` folder or Hub dataset with videos and sentences"),
        FeatureTable("features", "a table of feature files that another program made of clips"),
    ]


def own_clips_command(out: Path, language: str) -> str:
    """The command that trains on one's own clips, with the lines that its recipe cannot know."""
    from training_fla.data.packed_corpus import packed_splits

    splits = packed_splits(out)
    words = ["python", "run_stage1.py", "recipes/own_clips/stage1.yaml", "--dataset", str(out)]
    words += ["--language_code", language] if language else []
    for split in ("train", "dev", "test"):
        if split not in splits:
            words += [f"--{split}_split", splits[-1] if split == "test" else splits[0]]
    return shlex.join(words)


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where a table is."""
    text = "table (CSV, TSV, JSON Lines), or a folder with one or with train.tsv, dev.tsv, test.tsv"
    parser.add_argument("--root", type=Path, metavar="FILE_OR_DIR", help=text)
    text = "split of rows that name none [%(default)s]"
    parser.add_argument("--default-split", default="train", metavar="SPLIT", help=text)


def add_column_arguments(parser: argparse.ArgumentParser, columns: tuple[str, ...], more: str) -> None:
    """Declare what columns are called; the first two are required, and `--help` names them all in one line."""
    for column in columns:
        parser.add_argument(f"--{column}-column", default=column, metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--language", default="", help="MBart code of the sentences, such as en_XX")
    parser.epilog = (
        f"columns: {columns[0]} and sentence; if they are there also {', '.join(columns[2:])}. {more} "
        f"Other names are given with --{columns[0]}-column NAME, --sentence-column NAME and so on."
    )


def add_time_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how the columns of times are read."""
    from training_fla.corpora.row import UNITS

    text = "what numbers in start and end count; hours:minutes:seconds are read besides [%(default)s]"
    parser.add_argument("--times", choices=UNITS, default=UNITS[0], help=text)
    text = "the clips are cut already: do not read the columns start and end"
    parser.add_argument("--no-times", action="store_true", help=text)


def add_links_argument(parser: argparse.ArgumentParser) -> None:
    """Declare whether links are trusted."""
    text = "trust symbolic links that lead out of the corpus folder, as in a Hub cache"
    parser.add_argument("--follow-links", action="store_true", help=text)


def columns_asked(args: argparse.Namespace, columns: tuple[str, ...]) -> dict[str, str]:
    """What the columns are called; those of times have no name where they are not to be read."""
    names = {f"{column}_column": getattr(args, f"{column}_column") for column in columns}
    if args.no_times:
        names |= {"start_column": "", "end_column": ""}
    return names


def required(root: Path | str | None) -> Path | str:
    """The place of a corpus, which must be given."""
    if root is None:
        raise InputError("--root is missing: where the corpus is")
    return root
