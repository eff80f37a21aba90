"""How sure a score is: bootstrap intervals for one system, a paired test for two, mean and deviation over seeds.

Everything works on [`SentenceStatistics`]: a resampled corpus is a weighted sum of its rows.
"""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from training_fla.scoring.conventions import SCORE_NAMES, SentenceStatistics, bleu_scores, chrf_score

CONFIDENCE = 0.95
CHUNK = 100  # resampled corpora at once, which bounds the memory


def bootstrap_intervals(
    sentences: SentenceStatistics, num_samples: int = 1000, seed: int = 12345
) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of the corpus scores (percentile bootstrap over sentences).

    Args:
        sentences ([`SentenceStatistics`]): of one system.
        num_samples (`int`, *optional*, defaults to 1000): resampled corpora.
        seed (`int`, *optional*, defaults to 12345): of the resampling.

    Returns:
        `dict[str, tuple[float, float]]`: low and high by the names of `SCORE_NAMES`.
    """
    rows = _stacked(sentences)
    scores = [_scores(total) for total in _resampled_totals(rows, num_samples, seed)]
    return _percentiles(np.array(scores))


def paired_significance(
    sentences: SentenceStatistics, other: SentenceStatistics, num_samples: int = 1000, seed: int = 12345
) -> dict[str, dict]:
    """Is the first system better than the other on the same sentences?

    The p-value is that of the approximate randomisation test: how often exchanging the two outputs of randomly chosen
    sentences gives at least the difference seen. The interval is that of the difference under a paired bootstrap.

    Args:
        sentences ([`SentenceStatistics`]): of the one system.
        other ([`SentenceStatistics`]): of the other on the same sentences in the same order.
        num_samples (`int`, *optional*, defaults to 1000): exchanges, and resampled corpora.
        seed (`int`, *optional*, defaults to 12345): of both.

    Returns:
        `dict[str, dict]`: by the names of `SCORE_NAMES`: `difference` (first less other), `p_value`, `interval`.
    """
    first, second = _stacked(sentences), _stacked(other)
    difference = _scores(first.sum(axis=0)) - _scores(second.sum(axis=0))

    change, exceeded = second - first, np.zeros(len(SCORE_NAMES))
    random = np.random.default_rng(seed)
    for start in range(0, num_samples, CHUNK):
        swapped = random.integers(0, 2, size=(min(CHUNK, num_samples - start), len(first))).astype(np.float64)
        moved = swapped @ change
        for row in moved:
            exchanged = _scores(first.sum(axis=0) + row) - _scores(second.sum(axis=0) - row)
            exceeded += np.abs(exchanged) >= np.abs(difference) - 1e-9
    p_values = (exceeded + 1) / (num_samples + 1)

    both = np.concatenate([first, second], axis=1)
    width = first.shape[1]
    drawn = [_scores(t[:width]) - _scores(t[width:]) for t in _resampled_totals(both, num_samples, seed)]
    intervals = _percentiles(np.array(drawn))
    return {
        name: {"difference": float(d), "p_value": float(p), "interval": intervals[name]}
        for name, d, p in zip(SCORE_NAMES, difference, p_values, strict=True)
    }


def pooled(scores: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation over several seeds' scores.

    Args:
        scores (`Sequence[dict[str, float]]`): one `corpus_scores` for each seed, two or more.

    Returns:
        `dict[str, dict[str, float]]`: `mean` and `deviation` by score name.
    """
    return {
        name: {
            "mean": statistics.fmean(score[name] for score in scores),
            "deviation": statistics.stdev(score[name] for score in scores),
        }
        for name in SCORE_NAMES
    }


def _stacked(sentences: SentenceStatistics) -> np.ndarray:
    """One row a sentence whose sum determines all scores: BLEU, chrF, ROUGE-L and a 1 that counts the sentences."""
    columns = (sentences.bleu, sentences.chrf, sentences.rouge_l[:, None], np.ones((len(sentences.bleu), 1)))
    return np.concatenate(columns, axis=1).astype(np.float64)


def _scores(total: np.ndarray) -> np.ndarray:
    """The corpus scores of a sum of [`_stacked`] rows, in the order of `SCORE_NAMES`."""
    counts = np.rint(total[:-2])
    return np.array([*bleu_scores(counts[:10]), total[-2] / total[-1], chrf_score(counts[10:])])


def _resampled_totals(rows: np.ndarray, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums of rows drawn with replacement, as many as there are."""
    random, num_rows = np.random.default_rng(seed), len(rows)
    for start in range(0, num_samples, CHUNK):
        drawn = random.integers(0, num_rows, size=(min(CHUNK, num_samples - start), num_rows))
        weights = np.stack([np.bincount(sample, minlength=num_rows) for sample in drawn]).astype(np.float64)
        yield from weights @ rows


def _percentiles(scores: np.ndarray) -> dict[str, tuple[float, float]]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(scores, [tail, 100 - tail], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(SCORE_NAMES, low, high, strict=True)}
