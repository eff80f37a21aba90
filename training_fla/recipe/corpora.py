"""The corpora that a recipe's `dataset` lists, each one record."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_fla.errors import InputError
from training_fla.recipe.arguments import DataArguments

PLAIN_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class CorpusEntry:
    """One corpus of several: where it lies, what it is called, and what its clips have in common."""

    path: str
    name: str  # in scores and file names
    weight: float = 1.0  # how often a clip is drawn, beside the clips of the other corpora
    language: str | None = None  # the tokenizer's code; `None`: that of each row
    convention: str | None = None  # of its scores; `None`: as of the corpus alone


def corpus_entries(data: DataArguments) -> list[CorpusEntry]:
    """The entries of a `dataset` that is a list; none of a recipe with one corpus."""
    if not isinstance(data.dataset, list):
        if data.sampling_temperature != 1:
            raise InputError("`sampling_temperature` would have no effect: `dataset` lists no corpora")
        return []
    entries = [_entry(written) for written in data.dataset]
    if not entries:
        raise InputError("`dataset` is an empty list: name a packed folder, or several")
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two corpora of `dataset` are called {name}: give one another `name`")
    return entries


def dataset_places(data: DataArguments) -> list[str]:
    """Where the corpora of a recipe lie, one or several."""
    entries = corpus_entries(data)
    return [entry.path for entry in entries] or [place for place in (data.dataset,) if place]


def _entry(written: Any) -> CorpusEntry:
    """An entry as a recipe has it: a path, or a mapping with the fields of [`CorpusEntry`]."""
    fields = {"path": written} if isinstance(written, str) else written
    names = [field.name for field in dataclasses.fields(CorpusEntry)]
    if not isinstance(fields, dict) or "path" not in fields:
        raise InputError(f"`dataset`: {written!r} is neither a path nor a mapping with a `path`")
    for name, value in fields.items():
        if name not in names:
            raise InputError(f"`dataset`: {fields['path']} has no field `{name}`, only {', '.join(names)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "weight" and not (is_number and 0 < value < float("inf")):
            raise InputError(f"`dataset`: weight of {fields['path']} must be a number above 0, got {value!r}")
        if name != "weight" and not (isinstance(value, str) and value):
            raise InputError(f"`dataset`: {name} of {fields['path']} must be a text, got {value!r}: put it in quotes")
    entry = CorpusEntry(**{"name": Path(fields["path"].rstrip("/")).name} | fields)
    if not PLAIN_NAME.fullmatch(entry.name):
        raise InputError(f"`dataset`: {entry.name!r} is not a plain name: give {entry.path} a `name` of letters")
    return entry
