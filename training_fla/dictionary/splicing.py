"""Sentences spliced from the clips of single signs: who signs, which clips, how fast, and how one joins the next.

    pair of glosses and sentence  ->  clips of one signer of its split  ->  spans of output time  ->  frames

All that is drawn follows from the seed, the pair and the number of the rendering.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training_fla.corpora.clips import ClipSource, OpenedClip
from training_fla.corpora.row import SPLITS, CorpusRow
from training_fla.errors import InputError
from training_fla.tables import BadRows

from .lexicon import Signs
from .sentences import Pair, stable_integer

if TYPE_CHECKING:
    from processing_fla.frame_conversion_fla import SizeRule

# Unstated: the paper splices nothing. Signers differ in speed by about this factor, and their signs by less.
CLIP_SPEED, SIGN_SPEED = 1.2, 1.1
FADE_SECONDS = 0.16  # Unstated: in which one sign becomes the next; as long as four frames
MOST_FADED = 0.45  # share of a piece that its neighbour may overlap; below a half, so that three never do
THROUGH_REST = 0.3  # Unstated: share of the joints at which hands go to the rest between two signs

SignsOfSigners = dict[str, dict[str, list[str]]]  # ids of clips by signer and gloss


@dataclass(frozen=True)
class Piece:
    """A sign of a spliced sentence: the part of its packed clip that is shown, in seconds, and how fast."""

    sign: str
    start: float
    end: float
    speed: float


@dataclass(frozen=True)
class SplicedVideo(ClipSource):
    """A sentence made of packed signs, the same at every call."""

    pieces: tuple[Piece, ...]
    name: str
    signs: Signs = field(repr=False, compare=False)

    @contextmanager
    def opened(self, stride: int = 1, size: "SizeRule" = None) -> Iterator[OpenedClip]:
        """As [`ClipSource.opened`]."""
        from processing_fla.frame_conversion_fla import scaled

        yield OpenedClip((scaled(frame[None], size)[0] for frame in self.joined(stride)), self.signs.common_fps)

    def joined(self, stride: int) -> Iterator[np.ndarray]:
        """Every `stride`-th frame, `(H, W, 3)` uint8 RGB; where two signs overlap, the one fades into the other."""
        fps = self.signs.common_fps
        begins, ends = spans(self.pieces)
        moments = np.arange(0, max(1, int(ends[-1] * fps)), stride) / fps
        shown: list[list[np.ndarray]] = [[] for _ in moments]
        for number, piece in enumerate(self.pieces):
            places = np.flatnonzero((moments >= begins[number]) & (moments < ends[number]))
            if len(places):
                seconds = piece.start + (moments[places] - begins[number]) * piece.speed
                for place, frame in zip(places, self.signs.frames(piece.sign, seconds), strict=True):
                    shown[place].append(frame)
        for place, frames in enumerate(shown):
            if len(frames) == 1:
                yield frames[0]
            else:
                number = int(np.searchsorted(begins, moments[place], side="right")) - 1
                share = (moments[place] - begins[number]) / (ends[number - 1] - begins[number])
                before, after = (frame.astype(np.float32) for frame in frames)
                yield (before + share * (after - before) + 0.5).astype(np.uint8)


def spans(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
    """When each piece begins and ends in the sentence, in seconds; neighbours overlap, others never do."""
    lengths = [(piece.end - piece.start) / piece.speed for piece in pieces]
    begins = [0.0]
    for before, after in pairwise(lengths):
        begins.append(begins[-1] + before - min(FADE_SECONDS, MOST_FADED * before, MOST_FADED * after))
    return np.array(begins), np.array(begins) + lengths


def signs_by_signer(rows: Sequence[CorpusRow]) -> dict[str, SignsOfSigners]:
    """For each split its signers, for each of them the glosses, for each of these the ids of its clips."""
    found: dict[str, SignsOfSigners] = {split: {} for split in SPLITS}
    for row in rows:
        found[row.split].setdefault(row.signer, {}).setdefault(row.sentence, []).append(row.id)
    return found


def able_signers(pair: Pair, signers: SignsOfSigners) -> list[str]:
    """Who has all signs of a pair; refused if nobody has."""
    if not signers:
        remedy = "leave some signers to it"
        if pair.split != "train":
            remedy = f"name who signs for it with --{pair.split}-signers, or in a column split"
        raise InputError(f"no clip of the lexicon is for {pair.split}: {remedy}")
    able = [name for name, signs in signers.items() if all(gloss in signs for gloss in pair.glosses)]
    if not able:
        missing = [gloss for gloss in pair.glosses if not any(gloss in signs for signs in signers.values())]
        together = "" if missing else " together"
        named = ", ".join(dict.fromkeys(missing or pair.glosses))
        raise InputError(f"no signer of {pair.split} has {named}{together}")
    return able


def signable(pairs: Sequence[Pair], rows: Sequence[CorpusRow], file: Path, bad: BadRows) -> list[Pair]:
    """The pairs that some signer of their split has all signs of; the others are named in `bad`."""
    signers, kept = signs_by_signer(rows), []
    for pair in pairs:
        with bad.at(file, pair.line):
            able_signers(pair, signers[pair.split])
            kept.append(pair)
    return kept


@dataclass(frozen=True)
class Splicer:
    """Makes clips of sentences from the signs that signers of their split have."""

    signs: Signs
    rows: Sequence[CorpusRow]  # of the dictionary, each in its split
    renderings: int  # of each sentence of train
    seed: int

    def sentences(self, pairs: Sequence[Pair], file: Path, language: str, bad: BadRows) -> list[CorpusRow]:
        """The clips of all pairs; one whose glosses no signer of its split has is named in `bad`."""
        # Damaged signs were left out.
        signers = signs_by_signer([row for row in self.rows if row.id in self.signs.places])
        clips = []
        for pair in pairs:
            with bad.at(file, pair.line):
                clips += self.renderings_of(pair, signers[pair.split], language)
        return clips

    def renderings_of(self, pair: Pair, signers: SignsOfSigners, language: str) -> list[CorpusRow]:
        """The clips of a pair; `signers` have clips by their glosses."""
        rows = []
        for number, (signer, ids) in enumerate(self.choices(pair, signers)):
            row = CorpusRow(
                id=f"{pair.line:06d}-{number}" if isinstance(pair.line, int) else f"{pair.line}-{number}",
                video=SplicedVideo(self.pieces(ids, self.rng(pair, number)), " + ".join(ids), self.signs),
                sentence=pair.sentence,
                split=pair.split,
                signer=signer,
                language=language,
                glosses=" ".join(pair.glosses),
            )
            rows.append(row)
        return rows

    def choices(self, pair: Pair, signers: SignsOfSigners) -> list[tuple[str, tuple[str, ...]]]:
        """Signer and clips of each rendering. A sign of train that stands alone is shown in every clip of it."""
        able = able_signers(pair, signers)
        is_train = pair.split == "train"
        if is_train and len(pair.glosses) == 1:
            return [(name, (id_,)) for name in able for id_ in signers[name][pair.glosses[0]]]
        rng = self.rng(pair, "signers")
        order = [able[place] for place in rng.permutation(len(able))]
        choices = []
        for number in range(self.renderings if is_train else 1):
            signer = order[number % len(order)]
            clips = [signers[signer][gloss] for gloss in pair.glosses]
            choices.append((signer, tuple(ids[rng.integers(len(ids))] for ids in clips)))
        return choices

    def rng(self, pair: Pair, what: object) -> np.random.Generator:
        """Random numbers for one thing of a pair."""
        return np.random.default_rng(stable_integer(self.seed, what, pair.split, *pair.glosses, pair.sentence))

    def pieces(self, ids: Sequence[str], rng: np.random.Generator) -> tuple[Piece, ...]:
        """The parts of the clips that are shown: with some of the rest at both ends, and at some joints."""
        clip_speed = CLIP_SPEED ** rng.uniform(-1, 1)
        rests = [True, *(rng.random(len(ids) - 1) < THROUGH_REST), True]
        shares = rng.random((len(ids), 2))  # of the rest before and after the motion, that is shown
        speeds = clip_speed * SIGN_SPEED ** rng.uniform(-1, 1, len(ids))
        pieces = []
        for number, id_ in enumerate(ids):
            length = self.signs.seconds(id_)
            begin, end = self.signs.moving[id_]
            begin, end = min(begin, length / 2), min(end, length)
            before, after = shares[number] * rests[number : number + 2]
            begin, end = begin - before * begin, end + after * (length - end)
            pieces.append(Piece(id_, begin, max(end, begin + 1e-3), float(speeds[number])))
        return tuple(pieces)
