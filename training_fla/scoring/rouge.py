"""ROUGE-L in the two forms of the tables of PHOENIX14T and CSL-Daily, as a metric of sacrebleu.

Both take the longest common subsequence (LCS) of prediction and reference, words or characters, precision P = LCS /
length of the prediction, recall R = LCS / length of the reference, and average an F of both over the sentences.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.base import Metric, Score


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
        self.beta = ROUGE_VARIANTS[variant]

    def parts(self, prediction: str, reference: str) -> tuple[float, float]:
        return f_score(prediction.split(), reference.split(), self.beta), 1
