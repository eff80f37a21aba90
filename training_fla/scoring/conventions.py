"""What is done to a sentence before it is scored: published numbers use at least four text forms.

`CONVENTIONS` has the form that the tables of a corpus share; `ALTERNATIVES` has the others, to recognise a number.
"""

import dataclasses
import unicodedata
from collections.abc import Sequence

SPACELESS_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclasses.dataclass(frozen=True)
class TextForm:
    """What is done to prediction and reference before they are compared."""

    lowercase: bool = False
    nfkc: bool = False  # full-width punctuation becomes ASCII, as MBart's sentencepiece writes it
    characters: bool = False  # spaces go, and characters are compared instead of words
    final_period: str = "as given"  # or "removed", or "added" as a token of its own
    tokenize: str = "none"  # sacrebleu's tokenizer for BLEU: "none" splits at spaces, "13a", "zh"

    def text(self, sentence: str) -> str:
        """What ROUGE-L and chrF compare: spaced characters, or words with the spaces as given."""
        if self.nfkc:
            sentence = unicodedata.normalize("NFKC", sentence)
        if self.lowercase:
            sentence = sentence.lower()
        if self.final_period != "as given":
            words = sentence.split()
            while words and words[-1] == ".":
                words.pop()
            sentence = " ".join(words + (["."] if self.final_period == "added" else []))
        return " ".join("".join(sentence.split())) if self.characters else sentence

    def tokens(self, sentence: str) -> list[str]:
        """The words between spaces, or the characters."""
        return self.text(sentence).split()

    def bleu_text(self, sentence: str) -> str:
        """What BLEU's tokenizer gets; `zh` separates the characters itself."""
        text = self.text(sentence)
        return text.replace(" ", "") if self.characters and self.tokenize == "zh" else text

    def signature(self) -> str:
        """The fields of a signature that this form decides, in sacrebleu's manner."""
        period = {"as given": "as-given", "removed": "no-final-period", "added": "final-period"}[self.final_period]
        return (
            f"case:{'lc' if self.lowercase else 'mixed'}|norm:{'nfkc' if self.nfkc else 'no'}|punct:{period}"
            f"|level:{'char' if self.characters else 'word'}|tok:{self.tokenize}"
        )


# Unstated: the paper follows earlier work on each corpus; these are the forms its tables share.
CONVENTIONS = {
    "phoenix14t": TextForm(lowercase=True, final_period="removed"),
    "csl_daily": TextForm(nfkc=True, characters=True),
    "how2sign": TextForm(tokenize="13a"),
    "words": TextForm(tokenize="13a"),
    "characters": TextForm(nfkc=True, characters=True),
}
_OF_WORDS = {"none": TextForm(), "13a_lowercase": TextForm(tokenize="13a", lowercase=True)}
_OF_CHARACTERS = {
    "zh": TextForm(nfkc=True, characters=True, tokenize="zh"),
    "without_nfkc": TextForm(characters=True),
}
ALTERNATIVES = {
    "phoenix14t": {
        "with_final_period": TextForm(lowercase=True, final_period="added"),
        "as_given": TextForm(lowercase=True),
        "13a": TextForm(lowercase=True, final_period="removed", tokenize="13a"),
    },
    "csl_daily": _OF_CHARACTERS,
    "how2sign": _OF_WORDS,
    "words": _OF_WORDS,
    "characters": _OF_CHARACTERS,
}


def convention_for(name: str | None, references: Sequence[str]) -> str:
    """The convention of that name; for an own corpus characters where most letters have no spaces, else words."""
    if name in CONVENTIONS:
        return name
    letters = [character for sentence in references for character in sentence if character.isalpha()]
    spaceless = sum(unicodedata.name(letter, "").startswith(SPACELESS_SCRIPTS) for letter in letters)
    return "characters" if 2 * spaceless > len(letters) else "words"
