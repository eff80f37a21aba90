"""BLEU-1..4, ROUGE-L and chrF of raw sentences in a text form, their confidence intervals, and a signature."""

import importlib.metadata
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu import __version__ as sacrebleu_version
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.base import Score as SacrebleuScore
from sacrebleu.metrics.bleu import BLEUScore

from training_fla.files import InputError
from training_fla.scoring.conventions import ALTERNATIVES, CONVENTIONS, TextForm
from training_fla.scoring.resampling import Difference, Score, score_difference, score_interval
from training_fla.scoring.rouge import ROUGE_VARIANTS, RougeL

MAX_NGRAM_ORDER = 4
SCORE_NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf")


def corpus_scores(
    predictions: Sequence[str], references: Sequence[str], form: TextForm, rouge: str = "beta1.2"
) -> dict[str, float]:
    """The figures of a whole file by `SCORE_NAMES`, 0 to 100, then the lengths that BLEU compares."""
    whole = _whole("bleu4", predictions, references, form)
    others = {name: _whole(name, predictions, references, form, rouge).score for name in ("rouge_l", "chrf")}
    return bleu_scores(whole) | others | {"prediction_length": whole.sys_len, "reference_length": whole.ref_len}


def answer_counts(predictions: Sequence[str], references: Sequence[str], form: TextForm) -> dict[str, int]:
    """How many predictions are their reference word by word, and how many different ones there are."""
    answers, wanted = ([tuple(form.tokens(sentence)) for sentence in side] for side in (predictions, references))
    return {
        "exact_matches": sum(ours == true for ours, true in zip(answers, wanted, strict=True)),
        "distinct_predictions": len(set(answers)),
        "distinct_references": len(set(wanted)),
    }


def _metric(name: str, form: TextForm, rouge: str) -> tuple[Metric, Callable[[str], str]]:
    """Sacrebleu's metric of one score, and what prepares its sentences."""
    if name.startswith("bleu"):
        return BLEU(tokenize=form.tokenize, max_ngram_order=int(name[-1]), force=True), form.bleu_text
    return {"rouge_l": RougeL(rouge), "chrf": CHRF()}[name], form.text


def _whole(name: str, predictions, references, form: TextForm, rouge: str = "beta1.2") -> SacrebleuScore:
    """One score of a whole file."""
    metric, prepare = _metric(name, form, rouge)
    return metric.corpus_score(list(map(prepare, predictions)), [list(map(prepare, references))])


def bleu_scores(whole: BLEUScore, **options) -> dict[str, float]:
    """Cumulative BLEU-1..4: the n-grams counted for BLEU-4 serve all four orders."""
    options = {"smooth_method": "exp"} | options
    return {
        f"bleu{order}": BLEU.compute_bleu(
            whole.counts[:order], whole.totals[:order], whole.sys_len, whole.ref_len, max_ngram_order=order, **options
        ).score
        for order in range(1, MAX_NGRAM_ORDER + 1)
    }


def alternative_scores(
    predictions: Sequence[str], references: Sequence[str], convention: str
) -> dict[str, dict | float]:
    """What other papers would have printed: other text forms, BLEU without smoothing, other ROUGE-Ls."""
    form, found = CONVENTIONS[convention], {}
    for name, other in ALTERNATIVES.get(convention, {}).items():
        bleu, rouge_l = (_whole(score, predictions, references, other) for score in ("bleu4", "rouge_l"))
        found[name] = bleu_scores(bleu) | {"rouge_l": rouge_l.score, "signature": signature_of(other)}
    # As neccam/slt scores: no smoothing, effective order.
    floor = {"smooth_method": "floor", "smooth_value": 0.0, "effective_order": True}
    found["smooth_floor0"] = bleu_scores(_whole("bleu4", predictions, references, form), **floor)
    for variant in ROUGE_VARIANTS.keys() - {"beta1.2"}:
        found[f"rouge_l_{variant}"] = _whole("rouge_l", predictions, references, form, variant).score
    return found


def confidence_intervals(
    predictions: Sequence[str],
    references: Sequence[str],
    form: TextForm,
    rouge: str = "beta1.2",
    samples: int = 0,
    names: Sequence[str] = SCORE_NAMES,
) -> dict[str, list[float]]:
    """95 % intervals of corpus scores over clips: low and high by name; 0 samples: see `resampling`."""
    return seed_intervals([predictions], references, form, rouge, samples, names)


def seed_intervals(
    seeds: Sequence[Sequence[str]],
    references: Sequence[str],
    form: TextForm,
    rouge: str = "beta1.2",
    samples: int = 0,
    names: Sequence[str] = SCORE_NAMES,
) -> dict[str, list[float]]:
    """95 % intervals of mean scores over seeds; clips and seeds are drawn together."""
    found = {}
    for name in names:
        statistics, score = sentence_statistics(name, seeds, references, form, rouge)
        found[name] = score_interval(statistics, score, samples)
    return found


def compare_systems(
    ours: Sequence[Sequence[str]],
    theirs: Sequence[Sequence[str]],
    references: Sequence[str],
    form: TextForm,
    rouge: str = "beta1.2",
    samples: int = 0,
    names: Sequence[str] = SCORE_NAMES,
) -> dict[str, Difference]:
    """Is a system better than another one? Differences of mean scores by name, over clips and seeds.

    Args:
        ours (`Sequence[Sequence[str]]`): a system's predictions, one list for each seed of its training.
        theirs (`Sequence[Sequence[str]]`): the other system's, as many lists; list `i` of both has the same seed.
        references (`Sequence[str]`): the sentences, of all lists.
        form (`TextForm`): how sentences are prepared.
        rouge (`str`, *optional*, defaults to `"beta1.2"`): which F `rouge_l` is.
        samples (`int`, *optional*, defaults to 0): draws; 0 for `resampling.SAMPLES`.
        names (`Sequence[str]`, *optional*): of `SCORE_NAMES`.

    Returns:
        `dict[str, Difference]`: ours minus theirs in points of the score, 95 % interval, p and the least p there is.

    Raises:
        InputError: if the systems have different numbers of seeds.
    """
    if len(ours) != len(theirs):
        raise InputError(f"{len(ours)} seeds cannot be compared with {len(theirs)}: give as many of both systems")
    found = {}
    for name in names:
        first, score = sentence_statistics(name, ours, references, form, rouge)
        second, _ = sentence_statistics(name, theirs, references, form, rouge)
        found[name] = score_difference(first, second, score, samples)
    return found


def sentence_statistics(
    name: str, seeds: Sequence[Sequence[str]], references: Sequence[str], form: TextForm, rouge: str = "beta1.2"
) -> tuple[np.ndarray, Score]:
    """What sacrebleu sums over the sentences for a score, `(S, n, K)` for S seeds, and the score of such sums."""
    metric, prepare = _metric(name, form, rouge)
    prepared = [list(map(prepare, references))]
    statistics = [metric._extract_corpus_statistics(list(map(prepare, side)), prepared) for side in seeds]
    # As numpy's integers, sacrebleu would divide by 0 where it means not to.
    return np.array(statistics), lambda summed: metric._compute_score_from_stats(summed.tolist()).score


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
