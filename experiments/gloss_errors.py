"""Gloss error rate: edits from predicted to signed glosses, over the number of glosses signed."""

from collections.abc import Sequence

import numpy as np

from training_fla.scoring.rouge import SentenceRatio


class GlossErrorRate(SentenceRatio):
    """Edits (insertions, deletions and substitutions) over glosses of a whole split, in percent."""

    def parts(self, prediction: str, reference: str) -> tuple[float, float]:
        from nltk.metrics.distance import edit_distance  # takes a second to import

        glosses = reference.split()
        return 100 * edit_distance(prediction.split(), glosses), len(glosses)


def gloss_statistics(seeds: Sequence[Sequence[str]], references: Sequence[str]) -> np.ndarray:
    """Edits and glosses of each clip, of each seed's predictions: `(S, n, 2)`."""
    parts = GlossErrorRate().parts
    return np.array([[parts(*pair) for pair in zip(predictions, references, strict=True)] for predictions in seeds])


def rate_of(summed: np.ndarray) -> float:
    """The rate of summed statistics `(2,)`."""
    return float(summed[0] / summed[1])


def gloss_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Of a whole split."""
    return GlossErrorRate().corpus_score(predictions, [references]).score
