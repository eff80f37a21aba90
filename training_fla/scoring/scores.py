"""BLEU-1..4, ROUGE-L and chrF of raw sentences in a text form, their confidence intervals, and a signature."""

import importlib.metadata
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu import __version__ as sacrebleu_version
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric, Score
from sacrebleu.metrics.bleu import BLEUScore
from sacrebleu.significance import PairedTest

from training_fla.files import InputError
from training_fla.scoring.conventions import ALTERNATIVES, CONVENTIONS, TextForm
from training_fla.scoring.gloss_errors import GlossErrorRate
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


def _metric(name: str, form: TextForm, rouge: str) -> tuple[Metric, Callable[[str], str]]:
    """Sacrebleu's metric of one score, and what prepares its sentences."""
    if name.startswith("bleu"):
        return BLEU(tokenize=form.tokenize, max_ngram_order=int(name[-1]), force=True), form.bleu_text
    return {"rouge_l": RougeL(rouge), "chrf": CHRF(), "gloss_errors": GlossErrorRate()}[name], form.text


def _whole(name: str, predictions, references, form: TextForm, rouge: str = "beta1.2") -> Score:
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
    for variant in ROUGE_VARIANTS:
        if variant != "beta1.2" and not (form.characters and variant == "rouge_score_stem"):
            name = variant if variant.startswith("rouge_") else f"rouge_l_{variant}"
            found[name] = _whole("rouge_l", predictions, references, form, variant).score
    return found


def confidence_intervals(
    predictions: Sequence[str], references: Sequence[str], form: TextForm, **options
) -> dict[str, list[float]]:
    """95 % intervals of corpus scores by sacrebleu's bootstrap: low and high by name; options as `_paired_tests`."""
    found = {}
    for name, (result,) in _paired_tests([predictions], references, form, "bs", **options).items():
        low, high = float(result.mean - result.ci), float(result.mean + result.ci)
        found[name] = [max(0.0, low), min(100.0, high) if name in SCORE_NAMES else high]
    return found


def paired_significance(
    predictions: Sequence[str], others: Sequence[str], references: Sequence[str], form: TextForm, **options
) -> dict[str, dict[str, float]]:
    """Is the first system better than the other? Difference and p-value of sacrebleu's approximate randomisation."""
    found = {}
    for name, (other, system) in _paired_tests([others, predictions], references, form, "ar", **options).items():
        difference = system.score - other.score
        # sacrebleu gives two equal systems the smallest p-value there is.
        found[name] = {"difference": difference, "p_value": system.p_value if difference else 1.0}
    return found


def num_samples(num_sentences: int) -> int:
    """Bootstrap samples: 1000, and fewer for more than 4000 sentences, as sacrebleu holds all samples at once."""
    return max(200, min(1000, 4_000_000 // num_sentences))


def _paired_tests(
    systems, references, form, test: str, rouge: str = "beta1.2", samples: int = 0, names=SCORE_NAMES, seeds: int = 1
) -> dict[str, list]:
    """Sacrebleu's results of each system by name, of `SCORE_NAMES` or `gloss_errors`; 0 samples: see `num_samples`.

    Of `seeds` one after the other, a sample takes a clip in all: their translations of it depend on each other.
    """
    found = {}
    for name in names:
        metric, prepare = _metric(name, form, rouge)
        each = metric._extract_corpus_statistics
        metric._extract_corpus_statistics = lambda clips, signed, each=each: sum(
            np.array(each([clip[seed] for clip in clips], [[clip[seed] for clip in signed[0]]]))
            for seed in range(seeds)
        )
        sides = [np.array([*map(prepare, side)], object).reshape(seeds, -1).T for side in (*systems, references)]
        named = [(f"system {number}", side) for number, side in enumerate(sides[:-1])]
        paired = PairedTest(named, {name: metric}, [sides[-1]], test, samples or num_samples(len(references)))
        found[name] = next(results for key, results in paired()[1].items() if key != "System")
    return found


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
