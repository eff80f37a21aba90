"""`fla prepare demo --pairs`: any table of glosses and sentences, or PHOENIX14T's, as a corpus in drawn signs."""

import re
from collections import Counter
from pathlib import Path

from experiments.drawn.demo import LANGUAGE, NUM_SIGNERS, check_drawing, drawn_row
from experiments.drawn.signs import signs_of_glosses
from training_fla.corpora.phoenix14t import read_phoenix14t
from training_fla.corpora.row import CorpusRow, Reading, canonical_split
from training_fla.dictionary.sentences import stable_integer
from training_fla.errors import InputError
from training_fla.tables import BadRows, read_table, read_text

# The columns by their names in a header, and in the order they have without one; the first two are needed.
COLUMN_NAMES = {
    "glosses": ("glosses", "gloss", "orth"),
    "sentence": ("sentence", "translation", "text"),
    "split": ("split",),
    "id": ("id", "name"),
    "signer": ("signer", "speaker"),
}


def read_pairs(
    file: str | Path, size: int = 64, seed: int = 0, language: str = LANGUAGE, gloves: bool = True
) -> list[CorpusRow]:
    """Draw a table of glosses and sentences, with or without a header; PHOENIX14T's annotation is such a table.

    The sign of a gloss follows from its spelling. Where a row names no split, its sentence decides: a tenth of the
    sentences is for dev and a tenth for test. Where it names no signer, it gets one of its split's own.
    """
    check_drawing(seed, size)
    file, bad, lines = Path(file), BadRows(), {}
    table = _table(file, bad)
    splits = _splits_of_sentences({cells["sentence"] for _, cells in table})
    for line, cells in table:
        with bad.at(file, line):
            if not cells["glosses"]:
                raise InputError(f"no gloss before the sentence {cells['sentence'][:60]!r}")
            if not cells["sentence"]:
                raise InputError(f"no sentence after the glosses {cells['glosses'][:60]!r}")
            cells["split"] = canonical_split(cells.get("split") or splits[cells["sentence"]])
            cells["id"] = cells.get("id") or f"{file.stem}-{line:06d}"
            first = lines.setdefault((cells["split"], cells["id"]), line)
            if first != line:
                raise InputError(f"id {cells['id']!r} is already that of line {first}")
    bad.refuse()
    if not table:
        raise InputError(f"{file} has no row of glosses and a sentence")
    return _drawn([cells for _, cells in table], size, seed, language, gloves)


def read_phoenix_pairs(
    root: str | Path,
    num_glosses: int | None = None,
    size: int = 64,
    seed: int = 0,
    reading: Reading | None = None,
    gloves: bool = True,
) -> list[CorpusRow]:
    """Draw the clips of PHOENIX14T by their glosses: all, or those whose glosses are all among the commonest of train.

    Only the annotation files are read. Signers are drawn ones, and none of one split signs in another.
    """
    check_drawing(seed, size)
    rows = [row for row in read_phoenix14t(root, reading) if row.glosses]
    counts = Counter(gloss for row in rows if row.split == "train" for gloss in row.glosses.split())
    if num_glosses is not None:
        kept = set(sorted(counts, key=lambda gloss: (-counts[gloss], gloss))[:num_glosses])
        rows = [row for row in rows if kept.issuperset(row.glosses.split())]
    if not rows:
        raise InputError(f"{root}: its annotation files hold no glosses in a column `orth`")
    names = ("glosses", "sentence", "split", "id")
    return _drawn([{name: getattr(row, name) for name in names} for row in rows], size, seed, LANGUAGE, gloves)


def _drawn(table: list[dict[str, str]], size: int, seed: int, language: str, gloves: bool) -> list[CorpusRow]:
    """A clip for each row of glosses, sentence, split, id and perhaps signer."""
    signs, rows = signs_of_glosses(gloss for cells in table for gloss in cells["glosses"].split()), []
    for cells in table:
        split, number = cells["split"], stable_integer("signer of", cells["id"]) % NUM_SIGNERS[cells["split"]]
        signer = cells.get("signer") or f"{split}-signer-{number:02d}"
        rows.append(drawn_row(cells | {"signer": signer}, signs, size, seed, language, gloves))
    return rows


def phoenix_text(root: str | Path) -> list[str]:
    """The distinct training sentences of PHOENIX14T that stand in neither dev nor test: text for a language model."""
    rows = read_phoenix14t(root, Reading(skip_bad_rows=True))
    held_out = {row.sentence for row in rows if row.split != "train"}
    return [sentence for sentence in dict.fromkeys(row.sentence for row in rows) if sentence not in held_out]


def _table(file: Path, bad: BadRows) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and cells by the keys of `COLUMN_NAMES`."""
    text = read_text(file)
    header = re.split(r"[\t|;,]", text.lstrip("\n").split("\n")[0].lower())
    header = {name.strip(' "') for name in header}
    named = {column: next((n for n in names if n in header), "") for column, names in COLUMN_NAMES.items()}
    rows = []
    if named["glosses"] and named["sentence"]:
        for line, cells in read_table(file, [name for name in named.values() if name], bad=bad):
            rows.append((line, {column: cells[name].strip() for column, name in named.items() if name}))
        return rows
    for line, content in enumerate(text.split("\n"), start=1):
        cells = [cell.strip() for cell in content.split("\t")]
        if 2 <= len(cells) <= len(COLUMN_NAMES) and any(cells):
            rows.append((line, dict(zip(COLUMN_NAMES, cells, strict=False))))
        elif any(cells):
            bad.add(file, line, f"expected glosses, a tab and a sentence, got {' '.join(cells)[:60]!r}")
    return rows


def _splits_of_sentences(sentences: set[str]) -> dict[str, str]:
    """Deal sentences to splits, eight in ten to train; the order they stand in does not matter."""
    ranked = sorted(sentences, key=lambda sentence: stable_integer("split", sentence))
    num_held_out = max(1, round(0.1 * len(ranked))) if len(ranked) > 2 else 0
    names = ["dev"] * num_held_out + ["test"] * num_held_out
    return dict(zip(ranked, names + ["train"] * len(ranked), strict=False))
