"""BLEU-1..4, ROUGE-L and chrF by the conventions of the literature, with a signature that says how they were made.

    prediction, reference        raw sentences, never decoded label ids (those hide unknown tokens)
            |  TextForm           case, NFKC, characters or words, final period
    prepared text
            |  sentence_statistics    n-gram matches, lengths, longest common subsequences
    SentenceStatistics           one row a sentence; sums of rows give any corpus score, so bootstrap is cheap
            |
    corpus scores + signature

Published numbers use at least four text forms and five ROUGE-Ls. `CONVENTIONS` has the one that the tables of a corpus
share, `ALTERNATIVES` the others, so that a number from elsewhere can be recognised.
"""

import dataclasses
import functools
import importlib.metadata
import math
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu import __version__ as sacrebleu_version
from sacrebleu.metrics import BLEU

from training_fla.files import InputError
from training_fla.scoring.rouge import ROUGE_BETAS, ROUGE_VARIANTS, f_scores, google_tokens, lcs_counts, pypi_score

MAX_NGRAM_ORDER = 4
CHRF_ORDER, CHRF_BETA = 6, 2  # sacrebleu's chrF2
SCORE_NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf")
SPACELESS_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclasses.dataclass(frozen=True)
class TextForm:
    """What is done to a sentence before it is compared.

    Args:
        lowercase (`bool`): lower-case both sides.
        nfkc (`bool`): NFKC both sides: full-width punctuation becomes ASCII, as MBart's sentencepiece writes it.
        characters (`bool`): remove all spaces and compare characters instead of words.
        final_period (`str`): `"removed"` or `"added"` as a token of its own at the end, or `"as given"`.
        tokenize (`str`): sacrebleu's tokenizer for BLEU: `"none"` splits at spaces, `"13a"`, `"zh"`.
    """

    lowercase: bool = False
    nfkc: bool = False
    characters: bool = False
    final_period: str = "as given"
    tokenize: str = "none"

    def normalize(self, sentence: str) -> str:
        """Bring a sentence to this form; at character level without spaces.

        Args:
            sentence (`str`): as given.

        Returns:
            `str`: what is compared.
        """
        if self.nfkc:
            sentence = unicodedata.normalize("NFKC", sentence)
        if self.lowercase:
            sentence = sentence.lower()
        words = sentence.split()
        if self.final_period != "as given":
            while words and words[-1] == ".":
                words.pop()
            if self.final_period == "added":
                words.append(".")
        return ("" if self.characters else " ").join(words)

    def tokens(self, sentence: str) -> list[str]:
        """What ROUGE-L compares.

        Args:
            sentence (`str`): as given.

        Returns:
            `list[str]`: the characters, or the words between spaces.
        """
        text = self.normalize(sentence)
        return list(text) if self.characters else text.split()

    def rouge_form(self) -> "TextForm":
        """Leave out what only BLEU sees: forms that agree in the rest have the same ROUGE-L.

        Returns:
            [`TextForm`]: another one.
        """
        return dataclasses.replace(self, tokenize="none")

    def spaced(self, sentence: str) -> str:
        """What a scorer with its own splitting gets.

        Args:
            sentence (`str`): as given.

        Returns:
            `str`: spaced characters, or the sentence with its spaces as given.
        """
        if self.characters or self.final_period != "as given":
            return " ".join(self.tokens(sentence))
        sentence = unicodedata.normalize("NFKC", sentence) if self.nfkc else sentence
        return sentence.lower() if self.lowercase else sentence

    def bleu_tokens(self, sentence: str) -> list[str]:
        """What BLEU compares.

        Args:
            sentence (`str`): as given.

        Returns:
            `list[str]`: sacrebleu's tokens of the prepared text.
        """
        text = self.normalize(sentence)
        if self.characters and self.tokenize != "zh":  # `zh` separates the characters itself
            text = " ".join(text)
        return _bleu_tokenizer(self.tokenize)(text).split()

    def signature(self) -> str:
        """The fields of a signature that this form decides, in sacrebleu's manner.

        Returns:
            `str`: joined by bars.
        """
        period = {"as given": "as-given", "removed": "no-final-period", "added": "final-period"}[self.final_period]
        return "|".join(
            (
                f"case:{'lc' if self.lowercase else 'mixed'}",
                f"norm:{'nfkc' if self.nfkc else 'no'}",
                f"punct:{period}",
                f"level:{'char' if self.characters else 'word'}",
                f"tok:{self.tokenize}",
            )
        )


# Which form the tables of a corpus share. Unstated in the paper, which follows earlier work on each corpus.
CONVENTIONS = {
    "phoenix14t": TextForm(lowercase=True, final_period="removed"),
    "csl_daily": TextForm(nfkc=True, characters=True),
    "how2sign": TextForm(tokenize="13a"),
    "words": TextForm(tokenize="13a"),
    "characters": TextForm(nfkc=True, characters=True),
}
# The drawn corpus is German like PHOENIX14T.
CORPUS_CONVENTIONS = {**{name: name for name in CONVENTIONS}, "demo": "words"}

_OF_WORDS = {
    "none": TextForm(),
    "13a_lowercase": TextForm(tokenize="13a", lowercase=True),
}
_OF_CHARACTERS = {
    "zh": TextForm(nfkc=True, characters=True, tokenize="zh"),
    "without_nfkc": TextForm(characters=True),
}
# By convention: other forms that papers on the corpus have used.
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


def convention_for(corpus: str | None, sentences: Sequence[str]) -> str:
    """The convention that a corpus is scored by.

    Args:
        corpus (`str` or `None`): its name; a name not in `CORPUS_CONVENTIONS` is somebody's own corpus.
        sentences (`Sequence[str]`): references, which decide for an own corpus: characters where most letters are of a
            script without spaces, else words.

    Returns:
        `str`: a key of `CONVENTIONS`.
    """
    if corpus in CORPUS_CONVENTIONS:
        return CORPUS_CONVENTIONS[corpus]
    letters = [character for sentence in sentences for character in sentence if character.isalpha()]
    spaceless = sum(unicodedata.name(letter, "").startswith(SPACELESS_SCRIPTS) for letter in letters)
    return "characters" if 2 * spaceless > len(letters) else "words"


@dataclasses.dataclass
class SentenceStatistics:
    """Sufficient statistics of a scored file; a corpus score depends only on their sum (ROUGE-L: mean) over sentences.

    Shapes: N sentences.

    Args:
        bleu (`np.ndarray` of shape `(N, 10)`):
            int64; tokens of prediction and of reference, then matches and then prediction n-grams for orders 1 to 4.
        chrf (`np.ndarray` of shape `(N, 18)`):
            int64; prediction, reference and matching character n-grams for orders 1 to 6.
        rouge_l (`np.ndarray` of shape `(N,)`): float64; ROUGE-L F of each sentence, 0 to 100.
    """

    bleu: np.ndarray
    chrf: np.ndarray
    rouge_l: np.ndarray


def sentence_statistics(
    predictions: Sequence[str], references: Sequence[str], form: TextForm, rouge: str = "beta1.2"
) -> SentenceStatistics:
    """Compare each prediction with its reference.

    Args:
        predictions (`Sequence[str]`): sentences of the system; an empty one is scored like any other.
        references (`Sequence[str]`): the raw references.
        form ([`TextForm`]): what to do to both before.
        rouge (`str`, *optional*, defaults to `"beta1.2"`): one of `ROUGE_VARIANTS`.

    Returns:
        [`SentenceStatistics`]
    """
    pairs = [["".join(form.normalize(s).split()) for s in side] for side in (predictions, references)]
    matches, prediction_totals, reference_totals = ngram_matches(*pairs, CHRF_ORDER)
    prediction_totals = np.where(reference_totals > 0, prediction_totals, 0)  # as sacrebleu counts
    chrf = np.stack([prediction_totals, reference_totals, matches], axis=2).reshape(len(pairs[0]), -1)
    bleu = bleu_statistics(predictions, references, form)
    return SentenceStatistics(bleu, chrf, rouge_scores(predictions, references, form, rouge))


def bleu_statistics(predictions: Sequence[str], references: Sequence[str], form: TextForm) -> np.ndarray:
    """Lengths and n-gram matches of each sentence.

    Args:
        predictions (`Sequence[str]`): one a sentence.
        references (`Sequence[str]`): as many.
        form ([`TextForm`]): how they are normalised and split.

    Returns:
        `np.ndarray` of shape `(sentences, 10)`, int64: the rows of [`SentenceStatistics.bleu`].
    """
    pairs = [[form.bleu_tokens(s) for s in side] for side in (predictions, references)]
    matches, prediction_totals, _ = ngram_matches(*pairs, MAX_NGRAM_ORDER)
    lengths = np.array([[len(p), len(r)] for p, r in zip(*pairs, strict=True)], dtype=np.int64).reshape(-1, 2)
    return np.concatenate([lengths, matches, prediction_totals], axis=1)


def rouge_scores(predictions: Sequence[str], references: Sequence[str], form: TextForm, rouge: str) -> np.ndarray:
    """ROUGE-L of each sentence.

    Args:
        predictions (`Sequence[str]`): sentences of the system.
        references (`Sequence[str]`): the references.
        form ([`TextForm`]): gives the tokens, except to Google's `rouge-score`, which splits the sentence as it is.
        rouge (`str`): one of `ROUGE_VARIANTS`.

    Returns:
        `np.ndarray` of shape `(N,)`: 0 to 100.
    """
    if rouge in ROUGE_BETAS:
        return f_scores(_form_counts(predictions, references, form), ROUGE_BETAS[rouge])
    if rouge == "rouge_pypi":
        pairs = zip(map(form.spaced, predictions), map(form.spaced, references), strict=True)
        return np.array([pypi_score(*pair) for pair in pairs], dtype=np.float64)
    stem = rouge == "rouge_score_stem"
    sides = [[google_tokens(sentence, stem) for sentence in side] for side in (predictions, references)]
    return f_scores(lcs_counts(*sides), beta=1.0)


def _form_counts(predictions: Sequence[str], references: Sequence[str], form: TextForm) -> np.ndarray:
    return lcs_counts(*([form.tokens(sentence) for sentence in side] for side in (predictions, references)))


def _mean(values: np.ndarray) -> float:
    return math.fsum(values) / len(values)


def ngram_matches(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], max_order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count n-grams and clipped n-gram matches of all sentences at once.

    Shapes: N sentences, O = `max_order`.

    Args:
        predictions (`Sequence[Sequence[str]]`): tokens, or a string for its characters.
        references (`Sequence[Sequence[str]]`): the same of the references.
        max_order (`int`): the longest n-gram.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: matches, n-grams of the prediction, n-grams of the reference, each
        `int64` of shape `(N, O)`.
    """
    num_sentences = len(predictions)
    segments = [segment for pair in zip(predictions, references, strict=True) for segment in pair]
    tokens = _numbered(segments)
    vocabulary_size = int(tokens.max(initial=0)) + 1
    lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
    segment_of = np.repeat(np.arange(len(segments)), lengths)  # 2 * sentence + (1 for the reference)

    totals = np.maximum(lengths[:, None] - np.arange(max_order), 0)  # (2N, O)
    matches = np.zeros((num_sentences, max_order), dtype=np.int64)
    ngrams, bound = tokens, vocabulary_size
    for order in range(1, max_order + 1):
        if len(tokens) < order:
            break
        if order > 1:
            if bound * vocabulary_size * len(segments) >= 2**62:
                ngrams = np.unique(ngrams, return_inverse=True)[1]
                bound = int(ngrams.max()) + 1
            # An n-gram is an (n-1)-gram and one more token.
            ngrams, bound = ngrams[:-1] * vocabulary_size + tokens[order - 1 :], bound * vocabulary_size
        starts = segment_of[: len(ngrams)]
        inside = starts == segment_of[order - 1 :]
        sentence, side = np.divmod(starts[inside], 2)
        keys, counts = np.unique((sentence * bound + ngrams[inside]) * 2 + side, return_counts=True)
        # Prediction and reference of one sentence and n-gram are neighbours after sorting.
        both = np.flatnonzero(keys[1:] >> 1 == keys[:-1] >> 1)
        clipped = np.minimum(counts[both], counts[both + 1])
        found = np.bincount((keys[both] >> 1) // bound, weights=clipped, minlength=num_sentences)
        matches[:, order - 1] = found.astype(np.int64)
    return matches, totals[0::2], totals[1::2]


def _numbered(segments: Sequence[Sequence[str]]) -> np.ndarray:
    """The tokens of all segments in a row, each as a small number."""
    if all(isinstance(segment, str) for segment in segments):
        codes = np.frombuffer("".join(segments).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        return np.unique(codes, return_inverse=True)[1].astype(np.int64)
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(token, len(ids)) for segment in segments for token in segment], dtype=np.int64)


def bleu_scores(totals: Sequence[int], smooth_method: str = "exp", effective_order: bool = False) -> list[float]:
    """BLEU-1..4, cumulative: sacrebleu's formula on summed statistics.

    Args:
        totals (`Sequence[int]`): a row of [`SentenceStatistics.bleu`] or a sum of rows.
        smooth_method (`str`, *optional*, defaults to `"exp"`): sacrebleu's; matters only without any 4-gram match.
        effective_order (`bool`, *optional*, defaults to `False`): leave out orders no sentence is long enough for.

    Returns:
        `list[float]`: four scores, 0 to 100.
    """
    row = [int(count) for count in totals]
    return [
        BLEU.compute_bleu(
            correct=row[2 : 2 + order],
            total=row[2 + MAX_NGRAM_ORDER : 2 + MAX_NGRAM_ORDER + order],
            sys_len=row[0],
            ref_len=row[1],
            smooth_method=smooth_method,
            smooth_value=0.0 if smooth_method == "floor" else None,
            effective_order=effective_order,
            max_ngram_order=order,
        ).score
        for order in range(1, MAX_NGRAM_ORDER + 1)
    ]


def chrf_score(totals: Sequence[int]) -> float:
    """The chrF2 of summed statistics as sacrebleu defines it: P and R averaged over the orders that occur.

    Args:
        totals (`Sequence[int]`): a row of [`SentenceStatistics.chrf`] or a sum of rows.

    Returns:
        `float`: 0 to 100.
    """
    counts = np.asarray(totals, dtype=np.float64).reshape(CHRF_ORDER, 3)
    counts = counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)]
    if not len(counts):
        return 0.0
    precision, recall = (counts[:, 2] / counts[:, 0]).mean(), (counts[:, 2] / counts[:, 1]).mean()
    if precision + recall == 0:
        return 0.0
    factor = CHRF_BETA**2
    return float(100 * (1 + factor) * precision * recall / (factor * precision + recall))


def corpus_scores(statistics: SentenceStatistics) -> dict[str, float]:
    """The figures of a whole file.

    Args:
        statistics ([`SentenceStatistics`]): of its sentences.

    Returns:
        `dict[str, float]`: `bleu1` ... `bleu4`, `rouge_l` and `chrf`, 0 to 100.
    """
    bleu = bleu_scores(statistics.bleu.sum(axis=0))
    figures = (*bleu, _mean(statistics.rouge_l), chrf_score(statistics.chrf.sum(axis=0)))
    return dict(zip(SCORE_NAMES, figures, strict=True))


def signature_of(form: TextForm, rouge: str = "beta1.2", references: str = "raw") -> str:
    """What has to be known to compute the same figures.

    Args:
        form ([`TextForm`]): how sentences are normalised and split.
        rouge (`str`): ROUGE-L's variant.
        references (`str`): `raw`, or `decoded` from token ids.

    Returns:
        `str`: text form, smoothing, ROUGE-L's F and versions, joined by bars.
    """
    return "|".join(
        (
            "nrefs:1",
            f"refs:{references}",
            form.signature(),
            "smooth:exp",
            "eff:no",
            f"rouge-l:{rouge},sentence-mean",
            f"chrf:nc{CHRF_ORDER},nw0,beta{CHRF_BETA}",
            f"sacrebleu:{sacrebleu_version}",
            f"fla-llm:{importlib.metadata.version('fla-llm')}",
        )
    )


def alternative_scores(
    predictions: Sequence[str], references: Sequence[str], convention: str
) -> dict[str, dict | float]:
    """The figures that other papers would have printed for the same predictions.

    Args:
        predictions (`Sequence[str]`): sentences of the system.
        references (`Sequence[str]`): the raw references.
        convention (`str`): a key of `CONVENTIONS`.

    Returns:
        `dict`: for each other text form its BLEU-1..4, ROUGE-L and signature; for `smooth_floor0` (no smoothing,
        effective order, as neccam/slt) BLEU-1..4; for each other ROUGE variant its figure.
    """
    form = CONVENTIONS[convention]
    found: dict[str, dict | float] = {}
    counts = {form.rouge_form(): _form_counts(predictions, references, form)}
    for name, other in ALTERNATIVES[convention].items():
        key = other.rouge_form()
        if key not in counts:
            counts[key] = _form_counts(predictions, references, other)
        bleu = bleu_scores(bleu_statistics(predictions, references, other).sum(axis=0))
        rouge_l = _mean(f_scores(counts[key], ROUGE_BETAS["beta1.2"]))
        figures = dict(zip(SCORE_NAMES, (*bleu, rouge_l), strict=False))
        found[name] = figures | {"signature": signature_of(other)}
    total = bleu_statistics(predictions, references, form).sum(axis=0)
    floor = bleu_scores(total, smooth_method="floor", effective_order=True)
    found["smooth_floor0"] = dict(zip(SCORE_NAMES, floor, strict=False))
    for name, beta in ROUGE_BETAS.items():
        if name != "beta1.2":
            found[f"rouge_l_{name}"] = _mean(f_scores(counts[form.rouge_form()], beta))
    for name in ROUGE_VARIANTS[len(ROUGE_BETAS) :]:
        if not (form.characters and name == "rouge_score_stem"):
            found[name] = _mean(rouge_scores(predictions, references, form, name))
    return found


def check_sentences(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse what cannot be scored.

    Args:
        predictions (`Sequence[str]`): one a sentence.
        references (`Sequence[str]`): as many.

    Raises:
        InputError: if there are no sentences, the numbers differ, or one is not text (`None`, NaN).
    """
    if len(predictions) != len(references):
        raise InputError(f"{len(predictions)} predictions and {len(references)} references: the numbers must be equal")
    if not len(predictions):
        raise InputError("there are no sentences to score")
    for name, sentences in (("prediction", predictions), ("reference", references)):
        for index, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise InputError(f"{name} {index} is not text: {sentence!r}")


@functools.lru_cache
def _bleu_tokenizer(name: str) -> Callable[[str], str]:
    """The tokenizer of sacrebleu of that name."""
    return BLEU(tokenize=name).tokenizer
