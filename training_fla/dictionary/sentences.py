"""Pairs of glosses and a sentence: read from a table, or drawn from a grammar of templates.

A grammar is a YAML file with words and templates. A slot in braces stands for any gloss of its class; what a template
writes without braces is a gloss itself:

    words:
      person: {MOTHER: my mother, SON: my son}
      food: {EGG: {one: an egg, many: eggs}, BREAD: {one: bread, many: bread}}
    templates:
    - glosses: "{food} {person}"
      sentence: "{person} likes {food.many}."
    - glosses: "TOMORROW {person} {food} {food2}"
      sentence: "{person} buys {food.one} and {food2.many} tomorrow."
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training_fla.console import counted
from training_fla.corpora.row import canonical_split
from training_fla.errors import InputError, one_line
from training_fla.tables import BadRows, read_table, read_text

COLUMNS = ("glosses", "sentence", "split")
SLOT = re.compile(r"\{([a-z_]+)(\d*)(?:\.([a-z_]+))?\}")
TRIES = 200  # draws for each sentence asked for, before a grammar counts as too small


@dataclass(frozen=True)
class Pair:
    """Glosses in the order in which they are signed, and what they mean; `line` is that of a table."""

    glosses: tuple[str, ...]
    sentence: str
    split: str
    line: int | str = 0


def gloss_name(written: str) -> str:
    """A gloss as one word, since glosses are separated by spaces: `GOOD MORNING` is `GOOD-MORNING`."""
    return "-".join(written.split())


def stable_integer(*parts: object) -> int:
    """A number that depends on `parts` alone: not on the process, the platform or the Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def read_pairs(file: Path, bad: BadRows) -> list[Pair]:
    """The rows of a table with the columns `glosses`, `sentence` and perhaps `split`; bad ones go to `bad`.

    Where a row names no split, its signs decide: a tenth of the combinations is for dev and a tenth for test.
    """
    pairs = []
    for line, cells in read_table(file, COLUMNS[:2], COLUMNS[2:], bad):
        with bad.at(file, line):
            glosses, sentence = tuple(cells["glosses"].split()), one_line(cells["sentence"])
            if not glosses or not sentence:
                raise InputError(f"no {'sentence' if glosses else 'gloss'} in the row")
            named = cells.get("split", "").strip()
            split = canonical_split(named) if named else split_of_signs(glosses, {"train": 8, "dev": 1, "test": 1})
            pairs.append(Pair(glosses, sentence, split, line))
    if not pairs and not bad.found:
        raise InputError(f"{file} has no row of glosses and a sentence")
    return pairs


def split_of_signs(glosses: tuple[str, ...], parts: Mapping[str, int]) -> str:
    """The one split in which some signs may stand together, in any order; a sign alone stands in train."""
    if len(glosses) == 1 and parts.get("train"):
        return "train"
    place = stable_integer("split", *sorted(glosses)) / 2**64 * sum(parts.values())
    for split in sorted(parts):
        place -= parts[split]
        if place < 0:
            return split
    raise ValueError(f"no split has a part: {parts}")


@dataclass(frozen=True)
class Template:
    """Words that are glosses or slots, and a sentence with the same slots."""

    glosses: str
    sentence: str


class Grammar:
    """The words and templates of a YAML file, checked."""

    def __init__(self, file: Path):
        self.file = file
        try:
            content = yaml.safe_load(read_text(file))
        except yaml.YAMLError as error:
            raise InputError(f"{file} is not YAML: {one_line(error)}") from error
        if not isinstance(content, dict) or content.keys() != {"words", "templates"}:
            raise InputError(f"{file}: a grammar has two parts, `words` and `templates`")
        self.words = {name: self._class(name, words) for name, words in self._mapping(content["words"], "words")}
        self.templates = [self._template(n, entry) for n, entry in enumerate(content["templates"] or (), start=1)]
        if not self.templates:
            raise InputError(f"{file} has no template")

    def draw(self, counts: Mapping[str, int], seed: int) -> list[Pair]:
        """As many sentences of two or more signs a split as `counts` says, and each sign that stands alone, for train.

        No two rows have the same glosses or the same sentence, and no combination of signs stands in two splits.
        """
        pairs: dict[tuple[str, ...], Pair] = {}
        sentences: set[str] = set()
        left = dict(counts)

        def add(pair: Pair) -> bool:
            is_new = pair.glosses not in pairs and pair.sentence not in sentences
            if is_new:
                pairs[pair.glosses] = pair
                sentences.add(pair.sentence)
            return is_new

        longer = [template for template in self.templates if len(template.glosses.split()) > 1]
        for template in (template for template in self.templates if template not in longer):
            for fill in self._fills_of_one(template):
                add(self._pair(template, fill, counts))
        rng = np.random.default_rng(seed)
        for _ in range(TRIES * sum(counts.values()) if longer else 0):
            if not any(left.values()):
                break
            template = longer[rng.integers(len(longer))]
            pair = self._pair(template, self._drawn_fill(template, rng), counts)
            if left[pair.split] and add(pair):
                left[pair.split] -= 1
        for split, number in left.items():
            if number:
                found = f"{self.file} gives {counts[split] - number} different sentences for {split}"
                raise InputError(f"{found}, not {counts[split]}: add words or templates, or lower --num-{split}")
        return sorted(pairs.values(), key=lambda pair: (list(counts).index(pair.split), len(pair.glosses) > 1))

    def _pair(self, template: Template, fill: dict[str, str], counts: Mapping[str, int]) -> Pair:
        glosses = SLOT.sub(lambda slot: fill[slot[1] + slot[2]], template.glosses).split()

        def word(slot: re.Match) -> str:
            forms = self.words[slot[1]][fill[slot[1] + slot[2]]]
            if (slot[3] or "") not in forms:
                gloss, form = fill[slot[1] + slot[2]], slot[3] or "without a form"
                raise InputError(f"{self.file}: {gloss} has no word {form!r}, which {template.sentence!r} asks for")
            return forms[slot[3] or ""]

        sentence = one_line(SLOT.sub(word, template.sentence))
        return Pair(tuple(glosses), sentence[0].upper() + sentence[1:], split_of_signs(tuple(glosses), counts))

    def _fills_of_one(self, template: Template) -> list[dict[str, str]]:
        slot = SLOT.search(template.glosses)
        return [{slot[1] + slot[2]: gloss} for gloss in self.words[slot[1]]] if slot else [{}]

    def _drawn_fill(self, template: Template, rng: np.random.Generator) -> dict[str, str]:
        """A gloss for each slot; slots of one class get different ones."""
        fill: dict[str, str] = {}
        for slot in SLOT.finditer(template.glosses):
            options = [gloss for gloss in self.words[slot[1]] if gloss not in fill.values()]
            if not options:
                raise InputError(f"{self.file}: {template.glosses!r} has more slots than `{slot[1]}` has glosses")
            fill[slot[1] + slot[2]] = options[rng.integers(len(options))]
        return fill

    def _mapping(self, value: Any, name: str) -> list[tuple[str, Any]]:
        if not isinstance(value, dict) or not value:
            raise InputError(f"{self.file}: `{name}` must name at least one thing")
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{self.file}: `{name}` holds {key!r}, which YAML does not read as text: quote it")
        return list(value.items())

    def _class(self, name: str, words: Any) -> dict[str, dict[str, str]]:
        """The forms of each gloss of a class; the only form of a plain text is the one without a name."""
        if not re.fullmatch(r"[a-z_]+", name):
            raise InputError(f"{self.file}: a class is called by small letters without digits, not {name!r}")
        found = {}
        for gloss, forms in self._mapping(words, name):
            forms = dict(self._mapping(forms, gloss)) if isinstance(forms, dict) else {"": forms}
            for form, text in forms.items():
                if not isinstance(text, str) or not text.strip():
                    raise InputError(f"{self.file}: the word {form!r} of {gloss} is {text!r}, not a text: quote it")
            found[gloss_name(gloss)] = forms
        return found

    def _template(self, number: int, entry: Any) -> Template:
        where = f"{self.file}, template {number}"
        if not isinstance(entry, dict) or entry.keys() != {"glosses", "sentence"}:
            raise InputError(f"{where}: a template has `glosses` and `sentence`")
        template = Template(*(str(entry[key]) for key in ("glosses", "sentence")))
        signed, said = ({(s[1], s[2]) for s in SLOT.finditer(text)} for text in (template.glosses, template.sentence))
        if signed != said:
            names = ", ".join(sorted("".join(slot) for slot in signed ^ said))
            raise InputError(f"{where}: {names} stands in the glosses or in the sentence alone")
        for name, _ in signed:
            if name not in self.words:
                raise InputError(f"{where}: there is no class {name!r}, only {', '.join(self.words)}")
        for text in (template.glosses, template.sentence):
            if re.search(r"[{}]", SLOT.sub("", text)) or not text.strip():
                raise InputError(f"{where}: {text!r} is empty or has a brace that is no slot such as {{food}}")
        return template


def summary(pairs: list[Pair]) -> str:
    """How many sentences each split has, and of how many signs and glosses."""
    parts = []
    for split in dict.fromkeys(pair.split for pair in pairs):
        of_split = [pair.glosses for pair in pairs if pair.split == split]
        lengths = sorted(map(len, of_split))
        glosses = {gloss for glosses in of_split for gloss in glosses}
        signs = f"{lengths[0]} to {lengths[-1]} signs, {len(glosses)} different"
        parts.append(f"{split} {counted(len(of_split), 'sentence')} of {signs}")
    return "; ".join(parts)
