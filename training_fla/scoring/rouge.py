"""ROUGE-L in the six forms that sign translation papers print under this one name, as a metric of sacrebleu.

All take the longest common subsequence (LCS) of prediction and reference, precision P = LCS / length of the
prediction, recall R = LCS / length of the reference, and average an F of both over the sentences. They differ in the
tokens and in the F.
"""

import functools
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.base import Metric, Score


def lcs_rows(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """The LCS table, a row in the bits of one integer.

    Bit j of row i is 0 where `second[: j + 1]` has a longer LCS with `first[:i]` than `second[:j]` has.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(second):
        positions[token] = positions.get(token, 0) | 1 << index
    rows = [full := (1 << len(second)) - 1]
    for token in first:
        matches = rows[-1] & positions.get(token, 0)
        rows.append(((rows[-1] + matches) | (rows[-1] - matches)) & full)
    return rows


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    return len(second) - lcs_rows(first, second)[-1].bit_count()


def f_score(prediction: Sequence[str], reference: Sequence[str], beta: float | None) -> float:
    """F of the LCS, 0 to 100; `beta` weighs recall, and `None` is P / R of the sentence."""
    common = lcs_length(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    square = (precision / recall if beta is None else beta) ** 2
    return 100 * (1 + square) * precision * recall / (recall + square * precision)


def google_tokens(sentence: str, stem: bool) -> list[str]:
    """Split as Google's `rouge-score` does: only a-z and 0-9, so umlauts and Chinese are deleted."""
    return [token for word in sentence.split() for token in _google_tokens(word, stem)]


@functools.lru_cache(maxsize=1 << 16)
def _google_tokens(word: str, stem: bool) -> list[str]:
    from rouge_score.tokenizers import DefaultTokenizer  # brings nltk, which takes a second to import

    return DefaultTokenizer(stem).tokenize(word)


def pypi_score(prediction: str, reference: str) -> float:
    """The `rouge` package of PyPI (1.0.1): F1 over *distinct* tokens, each part between periods compared with each."""
    sides = [[part.split() or [""] for part in text.split(".") if part] for text in (prediction, reference)]
    common = {token for r in sides[1] for p in sides[0] for token in _lcs_tokens(r, p)}
    if not common:
        return 0.0
    precision, recall = (len(common) / len({token for part in side for token in part}) for side in sides)
    return 100 * 2 * precision * recall / (precision + recall + 1e-8)


def _lcs_tokens(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The tokens of one LCS; where two are equally long, the one the `rouge` package walks."""
    rows = lcs_rows(first, second)
    i, j, tokens = len(first), len(second), set()
    while i and j:
        if first[i - 1] == second[j - 1]:
            tokens.add(first[i - 1])
            i, j = i - 1, j - 1
        elif rows[i] >> (j - 1) & 1:  # no longer with second[j - 1] than without it
            j -= 1
        else:
            i -= 1
    return tokens


ROUGE_VARIANTS = {
    # the evaluation code of MS COCO captions, which the tables of PHOENIX14T and CSL-Daily use
    "beta1.2": lambda prediction, reference: f_score(prediction.split(), reference.split(), 1.2),
    "f1": lambda prediction, reference: f_score(prediction.split(), reference.split(), 1.0),
    # TwoStream's: beta is P / R of each sentence
    "p_over_r": lambda prediction, reference: f_score(prediction.split(), reference.split(), None),
    "rouge_score": lambda p, r: f_score(google_tokens(p, stem=False), google_tokens(r, stem=False), 1.0),
    "rouge_score_stem": lambda p, r: f_score(google_tokens(p, stem=True), google_tokens(r, stem=True), 1.0),
    "rouge_pypi": pypi_score,
}


class SentenceRatio(Metric):
    """A sum over the sentences divided by another; the base class and its tests ask for the private methods."""

    @abstractmethod
    def parts(self, prediction: str, reference: str) -> tuple[float, float]:
        """What a sentence adds to the one sum and to the other."""

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict:
        return {"reference": refs[0]}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict) -> list[float]:
        return list(self.parts(hypothesis, ref_kwargs["reference"]))

    def _compute_score_from_stats(self, stats) -> Score:
        return Score(type(self).__name__, float(stats[0] / stats[1]))

    def _aggregate_and_compute(self, stats) -> Score:
        return self._compute_score_from_stats(np.sum(stats, axis=0))


class RougeL(SentenceRatio):
    """Mean ROUGE-L of the sentences."""

    def __init__(self, variant: str = "beta1.2"):
        super().__init__()
        self.variant = ROUGE_VARIANTS[variant]

    def parts(self, prediction: str, reference: str) -> tuple[float, float]:
        return self.variant(prediction, reference), 1
