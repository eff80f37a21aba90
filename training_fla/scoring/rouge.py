"""ROUGE-L in the six forms that sign translation papers print under this one name.

All take the longest common subsequence (LCS) of prediction and reference, precision P = LCS / length of the
prediction, recall R = LCS / length of the reference, and average an F of both over the sentences. They differ in the
tokens and in the F.
"""

import functools
import re
from collections.abc import Hashable, Sequence

import numpy as np

ROUGE_BETAS = {
    "beta1.2": 1.2,  # the evaluation code of MS COCO captions, which the tables of PHOENIX14T and CSL-Daily use
    "f1": 1.0,
    "p_over_r": None,  # TwoStream's: beta is P / R of each sentence
}
# Beside those on the tokens of a text form: other packages with their own splitting.
ROUGE_VARIANTS = (*ROUGE_BETAS, "rouge_score", "rouge_score_stem", "rouge_pypi")


def lcs_rows(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[int]:
    """The table of longest common subsequences, a row in the bits of one integer.

    Args:
        first (`Sequence[Hashable]`): tokens; one row for each, after a row for none.
        second (`Sequence[Hashable]`): tokens; one bit for each.

    Returns:
        `list[int]`: bit j of row i is 0 where `second[: j + 1]` has a longer subsequence in common with `first[:i]`
        than `second[:j]` has, so the 0 bits count the length.
    """
    positions: dict[Hashable, int] = {}
    for index, token in enumerate(second):
        positions[token] = positions.get(token, 0) | 1 << index
    row = full = (1 << len(second)) - 1
    rows = [row]
    for token in first:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
        rows.append(row)
    return rows


def lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    Args:
        first (`Sequence[Hashable]`): tokens.
        second (`Sequence[Hashable]`): tokens.

    Returns:
        `int`: 0 where nothing is common.
    """
    return len(second) - lcs_rows(first, second)[-1].bit_count()


def lcs_counts(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """LCS length, prediction length and reference length of each sentence.

    Args:
        predictions (`Sequence[Sequence[str]]`): tokens of each prediction.
        references (`Sequence[Sequence[str]]`): tokens of each reference.

    Returns:
        `np.ndarray` of shape `(N, 3)`, `int64`.
    """
    rows = [(lcs_length(p, r), len(p), len(r)) for p, r in zip(predictions, references, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def f_scores(counts: np.ndarray, beta: float | None) -> np.ndarray:
    """F of precision and recall of the LCS.

    Args:
        counts (`np.ndarray` of shape `(N, 3)`): int64, from [`lcs_counts`].
        beta (`float` or `None`): weight of recall; `None` is P / R of each sentence.

    Returns:
        `np.ndarray` of shape `(N,)`: 0 to 100; 0 where nothing is common, also where both are empty.
    """
    common, predicted, expected = counts.astype(np.float64).T
    some = np.where(common > 0, common, 1.0)
    precision, recall = some / np.maximum(predicted, 1), some / np.maximum(expected, 1)
    square = (precision / recall if beta is None else beta) ** 2
    return np.where(common > 0, 100 * (1 + square) * precision * recall / (recall + square * precision), 0.0)


def google_tokens(sentence: str, stem: bool) -> list[str]:
    """Split as Google's `rouge-score` does: lower case, only a-z and 0-9, so umlauts and Chinese are deleted.

    Args:
        sentence (`str`): any.
        stem (`bool`): cut English endings off.

    Returns:
        `list[str]`: tokens.
    """
    tokens = re.findall("[a-z0-9]+", sentence.lower())
    return list(map(_google_stem, tokens)) if stem else tokens


def pypi_score(prediction: str, reference: str) -> float:
    """The `rouge` package of PyPI (1.0.1): F1 over *distinct* tokens, each part between periods compared with each.

    The common tokens are those of one LCS per pair of parts, taken as a set; lengths count distinct tokens. A space
    behind the last period is a part with an empty token, as in the package.

    Args:
        prediction (`str`): tokens separated by spaces.
        reference (`str`): tokens separated by spaces.

    Returns:
        `float`: 0 to 100; 0 for an empty side, where the package gives up.
    """
    parts = [[part.split() or [""] for part in text.split(".") if part] for text in (prediction, reference)]
    distinct = [{token for part in side for token in part} for side in parts]
    common: set[str] = set()
    for reference_part in parts[1]:
        for prediction_part in parts[0]:
            common |= _lcs_tokens(reference_part, prediction_part)
    if not common:
        return 0.0
    precision, recall = len(common) / len(distinct[0]), len(common) / len(distinct[1])
    return 100 * 2 * precision * recall / (precision + recall + 1e-8)


def _lcs_tokens(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The tokens of one longest common subsequence; where two are equally long, the one the `rouge` package walks."""
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


@functools.lru_cache(maxsize=1 << 16)
def _google_stem(token: str) -> str:
    return _google_tokenizer().tokenize(token)[0]


@functools.lru_cache
def _google_tokenizer():
    from rouge_score.tokenizers import DefaultTokenizer  # brings nltk, which takes a second to import

    return DefaultTokenizer(use_stemmer=True)
