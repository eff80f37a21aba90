"""Everyday German in thousands of word forms, put together from word lists: text for a tokenizer to be trained on.

The weather grammar alone has a few hundred words, so its vocabulary has nothing to trim. Only letters, endings,
compounds and punctuation matter here. All of it is lower-case, as the demo's weather reports are.
"""

from pathlib import Path

import numpy as np
import yaml

_LISTS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
WORDS = {name: words.split(", ") if "," in words else words.split() for name, words in _LISTS.items()}
WORDS["questions"] = ["wann", "warum", "wo", "wie oft", "mit wem", "weshalb"]

PRESENT_ENDINGS = {"ich": "e", "du": "st", "er": "t", "sie": "t", "wir": "en", "ihr": "t"}
PAST_ENDINGS = {"ich": "te", "du": "test", "er": "te", "sie": "te", "wir": "ten", "ihr": "tet"}
HAVE = {"ich": "habe", "du": "hast", "wir": "haben", "ihr": "habt"}
# Article and ending of an adjective after it, for m, f and n.
ARTICLES = {
    ("the", "nominative"): {"m": "der e", "f": "die e", "n": "das e"},
    ("the", "accusative"): {"m": "den en", "f": "die e", "n": "das e"},
    ("the", "dative"): {"m": "dem en", "f": "der en", "n": "dem en"},
    ("a", "nominative"): {"m": "ein er", "f": "eine e", "n": "ein es"},
    ("a", "accusative"): {"m": "einen en", "f": "eine e", "n": "ein es"},
    ("a", "dative"): {"m": "einem en", "f": "einer en", "n": "einem en"},
}
# What is drawn, in this order, and the sentence made of it.
TEMPLATES = (
    *2 * [("subject present thing:accusative times adverbs places", "{3} {1} {0} {4} {2} {5}.")],
    ("subject thing:accusative past people:nominative", "{0} {2} {1}, aber {3} war dagegen."),
    ("subject have questions thing:accusative participle", "{2} {1} {0} {3} {4}?"),
    ("subject present adjectives adjectives thing:accusative adverbs", "es ist {2} und {3}, weil {0} {4} {5} {1}!"),
    ("thing:nominative thing:dative adjectives places", "{0} neben {1} ist {2}; {3} weiß das jeder."),
    ("thing:nominative number number measures times", "{0} hat {1} {3} - {4} waren es noch {2}."),
    ("verbs thing:accusative people:dative number measures", "bitte {0}en sie {1} mit {2}: {3} {4} sind genug."),
)


def broad_text(seed: int = 0, num_sentences: int = 30000) -> list[str]:
    """Distinct everyday sentences with thousands of word forms, every German letter and punctuation."""
    rng = np.random.default_rng([seed, 1])
    templates = (TEMPLATES[rng.integers(len(TEMPLATES))] for _ in range(num_sentences))
    return list(dict.fromkeys(_sentence(rng, *template) for template in templates))


def _sentence(rng: np.random.Generator, slots: str, text: str) -> str:
    words, pronoun = [], "er"
    for slot in slots.split():
        kind, _, case = slot.partition(":")
        if kind == "subject":
            word, pronoun = _subject(rng)
        elif case:
            word = _noun_phrase(rng, _thing(rng) if kind == "thing" else _pick(rng, "people"), case)
        elif kind == "have":
            word = HAVE.get(pronoun, "hat")
        elif kind == "number":
            word = _number(rng)
        elif kind in WORDS:
            word = _pick(rng, kind)
        else:
            word = _verb(_pick(rng, "verbs"), kind, pronoun)
        words.append(word)
    return text.format(*words)


def _pick(rng: np.random.Generator, name: str) -> str:
    return WORDS[name][rng.integers(len(WORDS[name]))]


def _verb(stem: str, form: str, pronoun: str) -> str:
    link = "e" if stem.endswith(("t", "d", "chn", "ffn")) else ""  # rechnet, not rechnt
    if form == "past":
        return stem + link + PAST_ENDINGS[pronoun]
    if form == "participle":
        has_prefix = stem.startswith(("be", "er", "ver")) or stem.endswith("ier")
        return ("" if has_prefix else "ge") + stem + link + "t"
    ending = PRESENT_ENDINGS[pronoun]
    if ending == "st" and stem[-1] in "sßxz":
        ending = "t"
    return stem + (link if ending in ("st", "t") else "") + ending


def _thing(rng: np.random.Generator) -> str:
    gender, _, word = _pick(rng, "things").partition(":")
    return f"{gender}:{_pick(rng, 'first_parts')}{word}" if rng.random() < 0.6 else f"{gender}:{word}"


def _noun_phrase(rng: np.random.Generator, noun: str, case: str) -> str:
    gender, _, word = noun.partition(":")
    article, ending = ARTICLES[("the", "a")[rng.integers(2)], case][gender].split()
    adjective = f"{_pick(rng, 'adjectives')}{ending} " if rng.random() < 0.45 else ""
    return f"{article} {adjective}{word}"


def _number(rng: np.random.Generator) -> str:
    """A number from two to ninety-nine in words."""
    number = int(rng.integers(2, 100))
    tens, ones = divmod(number, 10)
    if number < 20:
        return WORDS["units"][number]
    first = "" if ones == 0 else f"{'ein' if ones == 1 else WORDS['units'][ones]}und"
    return first + WORDS["tens"][tens - 2]


def _subject(rng: np.random.Generator) -> tuple[str, str]:
    """A subject and the pronoun its verb agrees with."""
    kind = rng.random()
    if kind < 0.4:
        pronoun = tuple(PRESENT_ENDINGS)[rng.integers(len(PRESENT_ENDINGS))]
        return pronoun, pronoun
    return (_pick(rng, "names") if kind < 0.6 else _noun_phrase(rng, _pick(rng, "people"), "nominative")), "er"
