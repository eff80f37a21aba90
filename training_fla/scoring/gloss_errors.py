"""Gloss error rate: edits from predicted to signed glosses, over the number of glosses signed."""

from collections.abc import Sequence

from training_fla.scoring.rouge import SentenceRatio


def num_edits(prediction: Sequence[str], reference: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that make the one of the other."""
    row = list(range(len(reference) + 1))
    for i, gloss in enumerate(prediction, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (gloss != other))
    return row[-1]


class GlossErrorRate(SentenceRatio):
    """Edits over glosses of a whole split, in percent."""

    def parts(self, prediction: str, reference: str) -> tuple[float, float]:
        glosses = reference.split()
        return 100 * num_edits(prediction.split(), glosses), len(glosses)
