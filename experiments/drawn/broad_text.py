"""Thousands of German word forms in random order: text for a tokenizer to be trained on.

The weather grammar alone has a few hundred words, so its vocabulary has nothing to trim. Only letters, endings,
compounds and punctuation matter here. All of it is lower-case, as the demo's weather reports are.
"""

from pathlib import Path

import numpy as np
import yaml

from experiments.drawn.grammar import choose

_LISTS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
WORDS = {name: words.split(", ") if "," in words else words.split() for name, words in _LISTS.items()}
FIRST_PARTS, UNITS, TENS = WORDS.pop("first_parts"), WORDS.pop("units"), WORDS.pop("tens")
ENDINGS = {"verbs": ("e", "st", "est", "t", "et", "en", "te", "ten"), "adjectives": ("", "e", "er", "es", "en", "em")}


def broad_text(seed: int = 0, num_sentences: int = 30000) -> list[str]:
    """Distinct rows of words with every German letter, endings, compounds, numbers and punctuation."""
    rng = np.random.default_rng([seed, 1])
    rows = (" ".join(_word(rng) for _ in range(rng.integers(4, 9))) for _ in range(num_sentences))
    return list(dict.fromkeys(row + choose(rng, ".?!") for row in rows))


def _word(rng: np.random.Generator) -> str:
    kind = choose(rng, ["numbers", *WORDS])
    if kind == "numbers":
        return f"{choose(rng, UNITS[2:10])}und{choose(rng, TENS)}" if rng.random() < 0.7 else choose(rng, UNITS)
    word = choose(rng, WORDS[kind]).rpartition(":")[2]  # nouns stand after their gender
    if kind == "things" and rng.random() < 0.6:
        word = choose(rng, FIRST_PARTS) + word
    return word + choose(rng, ENDINGS.get(kind, ("",))) + choose(rng, [""] * 9 + [",", ";", ":", " -"])
