"""Gloss error rate: edits from predicted to signed glosses, over the number of glosses signed."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.base import Metric, Score


def num_edits(prediction: Sequence[str], reference: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that make the one of the other."""
    row = list(range(len(reference) + 1))
    for i, gloss in enumerate(prediction, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (gloss != other))
    return row[-1]


class GlossErrorRate(Metric):
    """Edits over glosses of a whole split, in percent; the base class and its tests ask for the five methods."""

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict:
        return {"reference": refs[0].split()}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict) -> list[float]:
        return [num_edits(hypothesis.split(), ref_kwargs["reference"]), len(ref_kwargs["reference"])]

    def _compute_score_from_stats(self, stats) -> Score:
        return Score("GER", float(100 * stats[0] / stats[1]))

    def _aggregate_and_compute(self, stats) -> Score:
        return self._compute_score_from_stats(np.sum(stats, axis=0))
