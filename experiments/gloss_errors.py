"""Gloss error rate: edits from predicted to signed glosses, over the number of glosses signed."""

from collections.abc import Sequence

import numpy as np

from training_fla.scoring.resampling import ratio_of


def gloss_statistics(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """100 times the edits (insertions, deletions, substitutions), and the glosses signed, of each clip: `(n, 2)`."""
    from nltk.metrics.distance import edit_distance  # takes a second to import

    statistics = []
    for prediction, reference in zip(predictions, references, strict=True):
        glosses = reference.split()
        statistics.append((100 * edit_distance(prediction.split(), glosses), len(glosses)))
    return np.array(statistics)


def gloss_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Edits over glosses of a whole split, in percent."""
    return ratio_of(gloss_statistics(predictions, references).sum(0))
