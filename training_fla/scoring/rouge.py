"""ROUGE-L in the two forms of the tables of PHOENIX14T and CSL-Daily, and as the package `rouge-score` computes it.

All take the longest common subsequence (LCS) of prediction and reference, words or characters, precision P = LCS /
length of the prediction, recall R = LCS / length of the reference, and average an F of both over the sentences.
"""

from collections.abc import Sequence

import numpy as np


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence (LCS).

    A row of its table is the bits of one integer: bit j is 0 where `second[: j + 1]` has a longer LCS with what was
    read of `first` than `second[:j]` has.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(second):
        positions[token] = positions.get(token, 0) | 1 << index
    row = full = (1 << len(second)) - 1
    for token in first:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(second) - row.bit_count()


def f_score(prediction: Sequence[str], reference: Sequence[str], beta: float | None) -> float:
    """F of the LCS, 0 to 100; `beta` weighs recall, and `None` is P / R of the sentence."""
    common = lcs_length(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    square = (precision / recall if beta is None else beta) ** 2
    return 100 * (1 + square) * precision * recall / (recall + square * precision)


ROUGE_VARIANTS: dict[str, float | None] = {
    "beta1.2": 1.2,  # the evaluation code of MS COCO captions, as GFSLT-VLP's and neccam/slt's
    "p_over_r": None,  # TwoStream's and MMTLB's: beta is P / R of each sentence
}


def rouge_l(predictions: Sequence[str], references: Sequence[str], beta: float | None) -> float:
    """The mean F of sentences that are split at spaces."""
    pairs = zip(predictions, references, strict=True)
    scores = [f_score(prediction.split(), reference.split(), beta) for prediction, reference in pairs]
    return float(np.sum(scores) / len(scores))


def google_rouge_l(predictions: Sequence[str], references: Sequence[str]) -> float | None:
    """ROUGE-L by the package `rouge-score`, as `evaluate`'s `rouge` computes it, 0 to 100.

    Its words are made of a to z and 0 to 9: every other character is deleted, umlauts too. `None` where that is most
    of the letters, as of Chinese.
    """
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk, which takes a second to import

    letters = [character for reference in references for character in reference if character.isalpha()]
    if 2 * sum(letter.isascii() for letter in letters) <= len(letters):
        return None
    scorer = RougeScorer(["rougeL"])
    pairs = zip(predictions, references, strict=True)
    scores = [scorer.score(reference, prediction)["rougeL"].fmeasure for prediction, reference in pairs]
    return 100 * sum(scores) / len(scores)
