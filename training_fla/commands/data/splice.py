"""What `fla prepare splice` and `fla prepare sentences` do: sentences from the signs of a dictionary."""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training_fla.console import Done, note
from training_fla.errors import InputError
from training_fla.folders import check_file

from .sources import (
    Rows,
    Source,
    add_column_arguments,
    add_links_argument,
    add_time_arguments,
    columns_asked,
    own_clips_command,
)

if TYPE_CHECKING:
    from training_fla.corpora.row import Reading

HELP = "sentences spliced from the clips of a dictionary of single signs"
SENTENCES_HELP = "no corpus, but a table of sentences for splice, from a grammar"
SKIP = "`--on-error skip` goes on without them"
LEXICON_COLUMNS = ("video", "gloss", "split", "id", "signer", "start", "end", "fps")


@dataclass
class Lexicon(Source):
    """A table of clips of single signs, and one of sentences, by their glosses, that are to be spliced of them."""

    frame_size: int = 72
    has_times = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the two tables, who signs for which split, and what is drawn."""
        add = parser.add_argument
        add("--lexicon", type=Path, metavar="TABLE", dest="root", help="table of clips of single signs")
        add("--pairs", type=Path, metavar="TABLE", help="table with the columns glosses, sentence and perhaps split")
        text = "folder that video paths are relative to [that of the table]"
        add("--video-root", type=Path, metavar="DIR", help=text)
        text = "who signs for {} and for no other split, where the lexicon has no column split"
        for split in ("test", "dev"):
            add(f"--{split}-signers", nargs="+", default=[], metavar="NAME", help=text.format(split))
        text = "dev shows signers of train: one clip of each sign of which they have several, which train then lacks"
        add("--same-signers-in-dev", action="store_true", help=text)
        add("--renderings", type=int, default=3, help="clips of each sentence of train [%(default)s]")
        add("--seed", type=int, default=0, help="everything drawn follows from it [%(default)s]")
        text = "where the signs alone are packed, for all corpora of one dictionary [the name of --out with -signs]"
        add("--signs", type=Path, metavar="DIR", help=text)
        add_column_arguments(parser, LEXICON_COLUMNS, "Without start and end, a clip is cut to where hands move.")
        parser.epilog = parser.epilog.replace("and sentence;", "and gloss;").replace("--sentence-", "--gloss-")
        add_time_arguments(parser)
        add_links_argument(parser)

    def inputs(self, args: argparse.Namespace) -> list[str | Path | None]:
        """The tables and the videos."""
        return [args.root, args.pairs, args.video_root]

    def read(self, args: argparse.Namespace, reading: "Reading") -> Rows:
        """Clips that are spliced when they are packed; the signs alone are packed here."""
        from training_fla.data.packed_corpus import file_sha256
        from training_fla.dictionary.lexicon import Splits, deal, described, pack_signs, read_lexicon
        from training_fla.dictionary.sentences import read_pairs, summary
        from training_fla.dictionary.splicing import Splicer, signable

        check_splice(args)
        columns = columns_asked(args, LEXICON_COLUMNS)
        columns |= {"sentence_column": columns.pop("gloss_column"), "language_column": ""}
        rows, has_splits = read_lexicon(args.root, reading, video_root=args.video_root, **columns)
        splits = Splits(args.test_signers, args.dev_signers, args.same_signers_in_dev)
        dealt = deal(rows, has_splits, splits, args.seed)
        note(f"signs: {described(dealt)}")
        pairs = read_pairs(args.pairs, reading.bad)
        note(f"sentences: {summary(pairs)}")
        pairs = signable(pairs, dealt, args.pairs, reading.bad)
        if args.on_error == "fail" and not args.check:
            reading.bad.refuse(SKIP)
        if args.check:
            return Rows(dealt)
        folder = args.signs or args.out.with_name(f"{args.out.name}-signs")
        signs = pack_signs(
            rows,
            args.root,
            folder,
            size=args.size,
            quality=args.quality,
            num_workers=args.workers,
            on_error=args.on_error,
            overwrite=args.overwrite,
        )
        splicer = Splicer(signs, dealt, args.renderings, args.seed)
        spliced = splicer.sentences(pairs, args.pairs, args.language, reading.bad)
        drawn = f"{args.seed} {args.renderings} {splits}"
        return Rows(spliced, f"{signs.corpus.fingerprint} {file_sha256(args.pairs)[:32]} {drawn}")

    def next_command(self, args: argparse.Namespace, language: str) -> str:
        """Train on it."""
        return own_clips_command(args.out, language)


def check_splice(args: argparse.Namespace) -> None:
    """Refuse what is missing or cannot be, before anything is read."""
    for name in ("lexicon", "pairs"):
        file = args.root if name == "lexicon" else args.pairs
        if file is None:
            raise InputError(f"--{name} is missing: the table of the {'signs' if name == 'lexicon' else 'sentences'}")
        if not file.exists():
            raise InputError(f"--{name} {file} does not exist")
    if args.renderings < 1:
        raise InputError(f"--renderings must be 1 or more, got {args.renderings}")
    if both := set(args.test_signers) & set(args.dev_signers):
        raise InputError(f"signer {sorted(both)[0]} is named for test and for dev: choose one")


def add_sentences_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the grammar, how many sentences are drawn from it, and where they go."""
    add = parser.add_argument
    add("--grammar", type=Path, metavar="FILE.yaml", required=True, help="words and templates")
    add("--out", type=Path, metavar="TABLE", required=True, help="table of glosses, sentence and split to write")
    for split, count in (("train", 1600), ("dev", 200), ("test", 200)):
        text = f"sentences of two or more signs for {split} [%(default)s]"
        add(f"--num-{split}", type=int, default=count, help=text)
    add("--seed", type=int, default=0, help="everything drawn follows from it [%(default)s]")
    add("--overwrite", action="store_true", help="replace the table at --out")


def write_sentences(args: argparse.Namespace) -> Done:
    """Draw pairs of glosses and sentence from a grammar, and write them as a table."""
    from training_fla.dictionary.sentences import COLUMNS, Grammar, summary
    from training_fla.tables import write_table

    counts = {split: getattr(args, f"num_{split}") for split in ("train", "dev", "test")}
    for split, count in counts.items():
        if count < (split == "train"):
            raise InputError(f"--num-{split} {count}: must be {int(split == 'train')} or more")
    check_file(args.out, args.overwrite)
    pairs = Grammar(args.grammar).draw(counts, args.seed)
    rows = [(" ".join(pair.glosses), pair.sentence, pair.split) for pair in pairs]
    write_table(args.out, COLUMNS, rows, args.overwrite)
    note(summary(pairs))
    words = ["fla", "prepare", "splice", "--lexicon", "LEXICON.csv", "--pairs", str(args.out), "--out", "data/spliced"]
    return Done(f"wrote {args.out}", shlex.join(words))
