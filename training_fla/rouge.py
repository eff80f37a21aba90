"""ROUGE-L in the five forms that sign translation papers print under this one name.

All take the longest common subsequence (LCS) of prediction and reference, precision P = LCS / length of the
prediction, recall R = LCS / length of the reference, and average an F of both over the sentences. They differ in the
tokens and in the F.
"""

import functools
import re
from collections.abc import Callable, Hashable, Sequence

ROUGE_BETA = 1.2  # the evaluation code of MS COCO captions, which the tables of PHOENIX14T and CSL-Daily use


def lcs_length(prediction: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a whole row of the table at a time in one integer's bits."""
    positions: dict[Hashable, int] = {}
    for index, token in enumerate(reference):
        positions[token] = positions.get(token, 0) | 1 << index
    full = (1 << len(reference)) - 1
    row = full  # a 0 bit is a step up of the row
    for token in prediction:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(reference) - row.bit_count()


def rouge_f(prediction: Sequence[Hashable], reference: Sequence[Hashable], beta: float | None) -> float:
    """F of precision and recall of the LCS, 0 to 100.

    Args:
        prediction (`Sequence[Hashable]`): tokens.
        reference (`Sequence[Hashable]`): tokens.
        beta (`float` or `None`): weight of recall; `None` is P / R of the sentence, as TwoStream weights it.

    Returns:
        `float`: 0 where nothing is common, also where both are empty.
    """
    common = lcs_length(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    square = (precision / recall if beta is None else beta) ** 2
    return 100 * (1 + square) * precision * recall / (recall + square * precision)


def rouge_google(prediction: str, reference: str, form, stem: bool) -> float:
    """F1 on the tokens of Google's `rouge-score`: lower case, only a-z and 0-9, so umlauts and Chinese are deleted."""
    return rouge_f(_google_tokens(prediction, stem), _google_tokens(reference, stem), beta=1.0)


def rouge_pypi(prediction: str, reference: str, form) -> float:
    """The `rouge` package of PyPI (1.0.1): F1 over *distinct* tokens, each part between periods compared with each.

    The common tokens are those of one LCS per pair of parts, taken as a set; lengths count distinct tokens. A space
    behind the last period is a part with an empty token, as in the package.
    """
    texts = [form.spaced(sentence) for sentence in (prediction, reference)]
    parts = [[part.split() or [""] for part in text.split(".") if part] for text in texts]
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
    rows = [[0] * (len(second) + 1)]
    for token in first:
        above, row = rows[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if token == other else max(above[column + 1], row[column]))
        rows.append(row)
    i, j, tokens = len(first), len(second), set()
    while i and j:
        if first[i - 1] == second[j - 1]:
            tokens.add(first[i - 1])
            i, j = i - 1, j - 1
        elif rows[i - 1][j] > rows[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return tokens


def _google_tokens(sentence: str, stem: bool) -> list[str]:
    tokens = re.findall("[a-z0-9]+", sentence.lower())
    return list(map(_google_stem, tokens)) if stem else tokens


@functools.lru_cache(maxsize=1 << 16)
def _google_stem(token: str) -> str:
    return _google_tokenizer().tokenize(token)[0]


@functools.lru_cache
def _google_tokenizer():
    from rouge_score.tokenizers import DefaultTokenizer  # brings nltk, which takes a second to import

    return DefaultTokenizer(use_stemmer=True)


def _on_form_tokens(beta: float | None) -> Callable:
    return lambda prediction, reference, form: rouge_f(form.tokens(prediction), form.tokens(reference), beta)


# Each takes prediction, reference and the convention's `TextForm`, and gives 0 to 100.
ROUGE_VARIANTS: dict[str, Callable] = {
    "beta1.2": _on_form_tokens(ROUGE_BETA),
    "f1": _on_form_tokens(1.0),
    "p_over_r": _on_form_tokens(None),
    "rouge_score": functools.partial(rouge_google, stem=False),
    "rouge_score_stem": functools.partial(rouge_google, stem=True),
    "rouge_pypi": rouge_pypi,
}
