"""BLEU-1..4, ROUGE-L and chrF of raw sentences in a text form, their confidence intervals, and a signature."""

import importlib.metadata
from collections.abc import Sequence

import numpy as np
from sacrebleu import __version__ as sacrebleu_version
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import BLEUScore

from training_fla.errors import InputError
from training_fla.scoring.chrf import chrf_counts, chrf_of
from training_fla.scoring.conventions import ALTERNATIVES, CONVENTIONS, TextForm
from training_fla.scoring.resampling import Difference, Score, ratio_of, score_difference, score_interval
from training_fla.scoring.rouge import ROUGE_VARIANTS, f_score, google_rouge_l, rouge_l

MAX_NGRAM_ORDER = 4
SCORE_NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf")


def corpus_scores(
    predictions: Sequence[str], references: Sequence[str], form: TextForm, rouge: str = "beta1.2"
) -> dict[str, float]:
    """The figures of a whole file by `SCORE_NAMES`, 0 to 100, then the lengths that BLEU compares."""
    bleu = whole_bleu(predictions, references, form)
    predicted, wanted = ([form.text(sentence) for sentence in side] for side in (predictions, references))
    return bleu_scores(bleu) | {
        "rouge_l": rouge_l(predicted, wanted, ROUGE_VARIANTS[rouge]),
        "chrf": CHRF().corpus_score(predicted, [wanted]).score,
        "prediction_length": bleu.sys_len,
        "reference_length": bleu.ref_len,
    }


def answer_counts(predictions: Sequence[str], references: Sequence[str], form: TextForm) -> dict[str, int]:
    """How many predictions are their reference word by word, and how many different ones there are."""
    answers, wanted = ([tuple(form.tokens(sentence)) for sentence in side] for side in (predictions, references))
    return {
        "exact_matches": sum(ours == true for ours, true in zip(answers, wanted, strict=True)),
        "distinct_predictions": len(set(answers)),
        "distinct_references": len(set(wanted)),
    }


def whole_bleu(predictions: Sequence[str], references: Sequence[str], form: TextForm) -> BLEUScore:
    """BLEU-4 of a whole file, with its counts."""
    metric = BLEU(tokenize=form.tokenize, max_ngram_order=MAX_NGRAM_ORDER, force=True)
    return metric.corpus_score(list(map(form.bleu_text, predictions)), [list(map(form.bleu_text, references))])


def bleu_scores(
    whole: BLEUScore, smooth_method: str = "exp", smooth_value: float | None = None, effective_order: bool = False
) -> dict[str, float]:
    """Cumulative BLEU-1..4: the n-grams counted for BLEU-4 serve all four orders."""
    scores = {}
    for order in range(1, MAX_NGRAM_ORDER + 1):
        score = BLEU.compute_bleu(
            whole.counts[:order],
            whole.totals[:order],
            whole.sys_len,
            whole.ref_len,
            smooth_method=smooth_method,
            smooth_value=smooth_value,
            effective_order=effective_order,
            max_ngram_order=order,
        )
        scores[f"bleu{order}"] = score.score
    return scores


def alternative_scores(
    predictions: Sequence[str], references: Sequence[str], convention: str
) -> dict[str, dict | float]:
    """What other papers would have printed: other text forms, BLEU without smoothing, other ROUGE-Ls."""
    form, alternatives = CONVENTIONS[convention], {}
    for name, other in ALTERNATIVES.get(convention, {}).items():
        bleu = bleu_scores(whole_bleu(predictions, references, other))
        texts = (list(map(other.text, side)) for side in (predictions, references))
        alternatives[name] = bleu | {"rouge_l": rouge_l(*texts, ROUGE_VARIANTS["beta1.2"])}
        alternatives[name]["signature"] = signature_of(other)
    # As neccam/slt scores: no smoothing, effective order.
    alternatives["smooth_floor0"] = bleu_scores(
        whole_bleu(predictions, references, form), smooth_method="floor", smooth_value=0.0, effective_order=True
    )
    predicted, wanted = ([form.text(sentence) for sentence in side] for side in (predictions, references))
    for variant, beta in ROUGE_VARIANTS.items():
        if variant != "beta1.2":
            alternatives[f"rouge_l_{variant}"] = rouge_l(predicted, wanted, beta)
    google = google_rouge_l(predictions, references)
    if google is not None:
        alternatives["rouge_score"] = google
    return alternatives


def seed_intervals(
    seeds: Sequence[Sequence[str]],
    references: Sequence[str],
    form: TextForm,
    rouge: str = "beta1.2",
    samples: int = 0,
    names: Sequence[str] = SCORE_NAMES,
) -> dict[str, list[float]]:
    """95 % intervals of mean scores over seeds, one or more: low and high by name, over clips and seeds.

    0 samples: `resampling.SAMPLES`.
    """
    intervals = {}
    for name in names:
        statistics, score = sentence_statistics(name, seeds, references, form, rouge)
        intervals[name] = score_interval(statistics, score, samples)
    return intervals


def compare_systems(
    ours: Sequence[Sequence[str]],
    theirs: Sequence[Sequence[str]],
    references: Sequence[str],
    form: TextForm,
    rouge: str = "beta1.2",
    samples: int = 0,
    names: Sequence[str] = SCORE_NAMES,
    margin: float | None = None,
) -> dict[str, Difference]:
    """Is a system better than another one? Differences of mean scores by name, over clips and seeds.

    Args:
        ours (`Sequence[Sequence[str]]`): a system's predictions, one list for each seed of its training.
        theirs (`Sequence[Sequence[str]]`): the other system's, as many lists.
        references (`Sequence[str]`): the sentences, of all lists.
        form (`TextForm`): how sentences are prepared.
        rouge (`str`, *optional*, defaults to `"beta1.2"`): which F `rouge_l` is.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `resampling.SAMPLES`.
        names (`Sequence[str]`, *optional*): of `SCORE_NAMES`.
        margin (`float`, *optional*): points of the score; a test asks if the systems differ by less.

    Returns:
        `dict[str, Difference]`: ours minus theirs in points of the score, 95 % interval, p and the least p there is.

    Raises:
        InputError: if the systems have different numbers of seeds.
    """
    if len(ours) != len(theirs):
        raise InputError(f"{len(ours)} seeds cannot be compared with {len(theirs)}: give as many of both systems")
    differences = {}
    for name in names:
        first, score = sentence_statistics(name, ours, references, form, rouge)
        second, _ = sentence_statistics(name, theirs, references, form, rouge)
        differences[name] = score_difference(first, second, score, samples, margin)
    return differences


def sentence_statistics(
    name: str, seeds: Sequence[Sequence[str]], references: Sequence[str], form: TextForm, rouge: str = "beta1.2"
) -> tuple[np.ndarray, Score]:
    """What each sentence adds to the sums of a score, `(S, n, K)` for S seeds, and the score of such sums."""
    if name.startswith("bleu"):
        return bleu_statistics(int(name[-1]), seeds, references, form)
    if name == "chrf":
        count, score = chrf_counts, lambda sums: chrf_of(sums.tolist())
    else:
        beta, score = ROUGE_VARIANTS[rouge], ratio_of

        def count(prediction: str, reference: str) -> tuple[float, int]:
            return f_score(prediction.split(), reference.split(), beta), 1

    wanted = list(map(form.text, references))
    statistics = []
    for predictions in seeds:
        pairs = zip(map(form.text, predictions), wanted, strict=True)
        statistics.append([count(prediction, reference) for prediction, reference in pairs])
    return np.array(statistics), score


def bleu_statistics(
    order: int, seeds: Sequence[Sequence[str]], references: Sequence[str], form: TextForm
) -> tuple[np.ndarray, Score]:
    """Both lengths, n-grams in common and n-grams predicted, `(S, n, 2 + 2 * order)`, and BLEU of their sums."""
    metric = BLEU(tokenize=form.tokenize, max_ngram_order=order, effective_order=True)  # which changes no count
    wanted = list(map(form.bleu_text, references))
    statistics = []
    for predictions in seeds:
        pairs = zip(map(form.bleu_text, predictions), wanted, strict=True)
        scores = [metric.sentence_score(prediction, [reference]) for prediction, reference in pairs]
        statistics.append([[each.sys_len, each.ref_len, *each.counts, *each.totals] for each in scores])

    def score(sums: np.ndarray) -> float:
        # Of numpy's integers, sacrebleu would divide by 0 where it means not to.
        predicted, wanted, *counts = sums.tolist()
        matches, totals = counts[:order], counts[order:]
        whole = BLEU.compute_bleu(matches, totals, predicted, wanted, smooth_method="exp", max_ngram_order=order)
        return whole.score

    return np.array(statistics), score


def signature_of(form: TextForm, rouge: str = "beta1.2") -> str:
    """What has to be known to compute the same figures: text form, smoothing, ROUGE-L's F and versions."""
    version = importlib.metadata.version("fla-llm")
    return (
        f"nrefs:1|refs:raw|{form.signature()}|smooth:exp|eff:no|rouge-l:{rouge},sentence-mean"
        f"|chrf:nc6,nw0,beta2|sacrebleu:{sacrebleu_version}|fla-llm:{version}"
    )


def check_sentences(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse no sentences, and what is not text (`None`, NaN); `evaluate` refuses unequal numbers."""
    if not len(predictions):
        raise InputError("there are no sentences to score")
    for name, sentences in (("prediction", predictions), ("reference", references)):
        for index, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise InputError(f"{name} {index} is not text: {sentence!r}")
