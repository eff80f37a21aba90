"""chrF from counts of single sentences, equal to sacrebleu's to the last bit; sacrebleu offers only the score."""

from collections.abc import Sequence

from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams


def chrf_counts(prediction: str, reference: str) -> list[int]:
    """For each length of character n-grams: those of the prediction, those of the reference, those in common."""
    counts = []
    sides = (extract_all_char_ngrams(sentence, CHRF.CHAR_ORDER) for sentence in (prediction, reference))
    for predicted, wanted in zip(*sides, strict=True):
        # As sacrebleu: n-grams that are longer than the whole reference are not counted against a prediction.
        counts += [predicted.total() if wanted else 0, wanted.total(), (predicted & wanted).total()]
    return counts


def chrf_of(counts: Sequence[int]) -> float:
    """chrF, 0 to 100, of counts that are summed over sentences."""
    precision, recall, num_orders = 0.0, 0.0, 0
    for start in range(0, len(counts), 3):
        predicted, wanted, common = counts[start : start + 3]
        if predicted and wanted:
            precision += common / predicted
            recall += common / wanted
            num_orders += 1
    if not precision + recall:
        return 0.0
    precision /= num_orders
    recall /= num_orders
    square = CHRF.BETA**2
    # In sacrebleu's order of operations, on which the last bit depends.
    score = (1 + square) * precision * recall
    score /= square * precision + recall
    return 100 * score
