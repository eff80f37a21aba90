"""The demo corpus: a drawn signer reports the weather, and draws any gloss table of yours; nothing is downloaded.

`read_demo` makes the corpus of `make demo`; `read_pairs` draws a table of glosses and sentences, which makes a
benchmark of any gloss-annotated corpus; `demo_text` and `broad_text` are sentences to pre-train a language model on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training_fla.corpora.clips import DrawnVideo
from training_fla.corpora.drawn.broad_text import broad_text
from training_fla.corpora.drawn.drawing import FRAMES_PER_SECOND, Signing
from training_fla.corpora.drawn.grammar import (
    Report,
    sample_reports,
    single_sign_reports,
)
from training_fla.corpora.drawn.signs import DEMO_SIGNS, Sign, signs_of_glosses, stable_integer
from training_fla.corpora.row import CorpusRow, canonical_split
from training_fla.files import InputError

__all__ = ["broad_text", "demo_text", "read_demo", "read_pairs"]

LANGUAGE = "de_DE"
# Many short clips ground the learning: a clip of one sign says at once what the sign means.
TRAIN_LENGTH_SHARES = {2: 0.30, 3: 0.28, 4: 0.20, 5: 0.13, 6: 0.09}
HELD_OUT_LENGTH_SHARES = {2: 0.15, 3: 0.30, 4: 0.25, 5: 0.17, 6: 0.13}
TEXT_LENGTH_SHARES = {2: 0.05, 3: 0.15, 4: 0.25, 5: 0.28, 6: 0.27}
SINGLE_SIGN_SHARE = 0.18
# Many train signers, or the model learns them by heart; none of them signs in dev or test.
NUM_SIGNERS = {"train": 48, "dev": 6, "test": 8}


def read_demo(
    seed: int = 0,
    num_train: int = 800,
    num_dev: int = 80,
    num_test: int = 100,
    size: int = 64,
) -> list[CorpusRow]:
    """The demo corpus: weather reports in signs, drawn when their frames are asked for.

    Signers differ between the splits, and so do sentences: what dev and test say is never signed in train, only made
    of the same signs. Clips of a single sign are in train alone.

    Args:
        seed (`int`, defaults to 0): Everything follows from it: the same seed gives the same frames anywhere.
        num_train (`int`, defaults to 800): Clips to train on; 0 leaves a split out.
        num_dev (`int`, defaults to 80): Clips to choose a model by.
        num_test (`int`, defaults to 100): Clips to score it on.
        size (`int`, defaults to 64): Height and width of a frame in pixels.

    Returns:
        `list[CorpusRow]`: Train, then dev, then test.

    Raises:
        InputError: if a count is negative, the size is below 16, or the seed is negative.
    """
    counts = {"train": num_train, "dev": num_dev, "test": num_test}
    _check_drawing(seed, size)
    for split, count in counts.items():
        if count < 0:
            raise InputError(f"num_{split} must be 0 or more, got {count}")
    rows = []
    for split, count in counts.items():
        rng = np.random.default_rng([seed, stable_integer("sentences", split)])
        reports = _reports_of_split(rng, split, count)
        signers = rng.permutation(np.arange(count) % NUM_SIGNERS[split])
        for index, (report, signer) in enumerate(zip(reports, signers, strict=True)):
            signs = tuple(DEMO_SIGNS[gloss] for gloss in report.glosses)
            clip_id = f"{split}-{index:05d}"
            rows.append(_drawn_row(clip_id, signs, report.sentence, split, f"{split}-signer-{signer:02d}", size, seed))
    return rows


def demo_text(seed: int = 0, num_sentences: int = 6000) -> list[str]:
    """Distinct sentences of the demo's grammar that stand in neither its dev nor its test split, for any seed.

    Args:
        seed (`int`, defaults to 0): Decides which sentences are drawn.
        num_sentences (`int`, defaults to 6000): How many to draw; the few that repeat are dropped.

    Returns:
        `list[str]`: Lower-case German, in an order that follows from the seed.

    Raises:
        InputError: if the seed is negative.
    """
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, got {seed}")
    rng = np.random.default_rng([seed, stable_integer("text")])
    reports = [*single_sign_reports(), *sample_reports(rng, "train", num_sentences, TEXT_LENGTH_SHARES)]
    sentences = list(dict.fromkeys(report.sentence for report in reports))
    return [sentences[index] for index in rng.permutation(len(sentences))]


def read_pairs(file: str | Path, size: int = 64, seed: int = 0, language: str = LANGUAGE) -> list[CorpusRow]:
    """Draw a table of `glosses<TAB>sentence` lines: a corpus of the table's own language in drawn signs.

    Every gloss has its own sign, which follows from its spelling; see [`signs_of_glosses`]. A header line is known by
    its column names (`gloss`, `glosses` or `orth`; `sentence`, `translation` or `text`; optional `split`; `id` or
    `name`; `signer` or `speaker`; other columns are left alone). Without one the columns are glosses, sentence, split,
    id and signer, of which the last three may be absent. Where a line names no split, its sentence decides: a tenth
    of them is for dev and a tenth for test. Where it names no signer, it gets one of its split's own.

    PHOENIX14T's own annotation is such a table once `|` is a tab: the columns are `name`, `orth` and `translation`.

    Args:
        file (`str` or `Path`): UTF-8 text; glosses are separated by spaces, columns by tabs, nothing is quoted.
        size (`int`, defaults to 64): Height and width of a frame in pixels.
        seed (`int`, defaults to 0): Decides looks and variation; the sign of a gloss does not depend on it.
        language (`str`, defaults to `"de_DE"`): MBart code of the sentences' language.

    Returns:
        `list[CorpusRow]`: One row a line, in the order of the file.

    Raises:
        InputError: naming the file and the line, where a line cannot be used; or the file, where it cannot be read.
    """
    _check_drawing(seed, size)
    pairs = list(_pairs(Path(file)))
    if not pairs:
        raise InputError(f"{file} has no line `glosses<TAB>sentence`")
    splits = _splits_of_sentences(pair.sentence for pair in pairs)
    signs = signs_of_glosses(gloss for pair in pairs for gloss in pair.glosses)
    rows, lines = [], {}
    for pair in pairs:
        split = pair.split or splits[pair.sentence]
        clip_id = pair.id or f"{Path(file).stem}-{pair.line:06d}"
        if (split, clip_id) in lines:
            raise InputError(
                f"{file}, line {pair.line}: id {clip_id!r} is already that of line {lines[split, clip_id]}"
            )
        lines[split, clip_id] = pair.line
        signer = pair.signer or f"{split}-signer-{stable_integer('signer of', clip_id) % NUM_SIGNERS[split]:02d}"
        glosses = tuple(signs[gloss] for gloss in pair.glosses)
        rows.append(_drawn_row(clip_id, glosses, pair.sentence, split, signer, size, seed, language))
    return rows


# The columns of a pair table, in the order they have where no header names them.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "glosses": ("glosses", "gloss", "orth"),
    "sentence": ("sentence", "translation", "text"),
    "split": ("split",),
    "id": ("id", "name"),
    "signer": ("signer", "speaker"),
}


@dataclass(frozen=True)
class _Pair:
    line: int
    glosses: tuple[str, ...]
    sentence: str
    split: str
    id: str
    signer: str


def _pairs(file: Path) -> Iterator[_Pair]:
    """The lines of a pair table, each checked."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{file}, line {line}: not UTF-8 text") from error
    columns, width = None, 0
    # Not `splitlines()`: rare characters inside a sentence would end a line there.
    for number, line in enumerate(text.split("\n"), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if columns is None:
            columns = _header(cells)
            width = len(cells) if columns else len(COLUMN_NAMES)
            if columns:
                continue
            columns = {name: index for index, name in enumerate(COLUMN_NAMES)}
        if len(cells) > width:
            raise InputError(f"{file}, line {number}: {len(cells)} columns where the table has {width}")
        yield _pair(f"{file}, line {number}", number, cells, columns)


def _header(cells: list[str]) -> dict[str, int] | None:
    """Where each column is, if a line names the columns."""
    names = [cell.lower() for cell in cells]
    found = {}
    for column, spellings in COLUMN_NAMES.items():
        for spelling in spellings:
            if spelling in names:
                found.setdefault(column, names.index(spelling))
    return found if "glosses" in found and "sentence" in found else None


def _pair(where: str, number: int, cells: list[str], columns: dict[str, int]) -> _Pair:
    if len(cells) <= max(columns["glosses"], columns["sentence"]):
        raise InputError(f"{where}: expected glosses, a tab and a sentence, got {' '.join(cells)[:60]!r}")
    values = {name: cells[index] if index < len(cells) else "" for name, index in columns.items()}
    glosses = tuple(values["glosses"].split())
    if not glosses:
        raise InputError(f"{where}: no gloss before the sentence {values['sentence'][:60]!r}")
    if not values["sentence"]:
        raise InputError(f"{where}: no sentence after the glosses {values['glosses'][:60]!r}")
    split = values.get("split", "")
    try:
        split = canonical_split(split) if split else ""
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return _Pair(number, glosses, values["sentence"], split, values.get("id", ""), values.get("signer", ""))


def _splits_of_sentences(sentences: Iterable[str]) -> dict[str, str]:
    """Deal distinct sentences to splits, eight in ten to train; the order they stand in does not matter."""
    ranked = sorted(set(sentences), key=lambda sentence: stable_integer("split", sentence))
    num_held_out = max(1, round(0.1 * len(ranked))) if len(ranked) > 2 else 0
    dev = dict.fromkeys(ranked[:num_held_out], "dev")
    test = dict.fromkeys(ranked[num_held_out : 2 * num_held_out], "test")
    return {**dict.fromkeys(ranked, "train"), **dev, **test}


def _reports_of_split(rng: np.random.Generator, split: str, count: int) -> list[Report]:
    if split != "train":
        return sample_reports(rng, split, count, HELD_OUT_LENGTH_SHARES)
    singles = single_sign_reports()
    num_singles = round(SINGLE_SIGN_SHARE * count)
    reports = [singles[index % len(singles)] for index in range(num_singles)]
    reports += sample_reports(rng, split, count - num_singles, TRAIN_LENGTH_SHARES)
    return [reports[index] for index in rng.permutation(count)]


def _drawn_row(
    clip_id: str,
    signs: tuple[Sign, ...],
    sentence: str,
    split: str,
    signer: str,
    size: int,
    seed: int,
    language: str = LANGUAGE,
) -> CorpusRow:
    signing = Signing(signs, signer, clip_id, size, seed)
    video = DrawnVideo(signing, fps=FRAMES_PER_SECOND, name=clip_id)
    return CorpusRow(clip_id, video, sentence, split, signer, language, signing.num_frames)


def _check_drawing(seed: int, size: int) -> None:
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, got {seed}")
    if size < 16:
        raise InputError(f"a drawn frame needs at least 16 pixels a side, got {size}")
