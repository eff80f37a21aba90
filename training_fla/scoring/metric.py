"""`SignTranslationMetric`: the scores as an `evaluate.Metric`, for training loops, ours or not."""

import statistics
from collections.abc import Sequence

import datasets
import evaluate

from training_fla.errors import InputError
from training_fla.scoring.conventions import CONVENTIONS, convention_for
from training_fla.scoring.rouge import ROUGE_VARIANTS
from training_fla.scoring.scores import (
    SCORE_NAMES,
    alternative_scores,
    answer_counts,
    check_sentences,
    corpus_scores,
    seed_intervals,
    signature_of,
)


class SignTranslationMetric(evaluate.Metric):
    """BLEU-1..4, ROUGE-L and chrF of translations, as an [`evaluate.Metric`] that needs no network.

    Args:
        convention (`str`, *optional*, defaults to `"auto"`):
            A key of `CONVENTIONS`; `"auto"` decides by the script of the references.
        rouge (`str`, *optional*, defaults to `"beta1.2"`):
            Which F `rouge_l` is, a key of `ROUGE_VARIANTS`.
        **kwargs: passed to [`evaluate.Metric`].

    Raises:
        InputError: if `convention` or `rouge` is unknown.

    Example:
        ```python
        >>> metric = SignTranslationMetric("phoenix14t")
        >>> scores = metric.compute(predictions=["der wind weht morgen ."], references=["der wind weht morgen"])
        >>> round(scores["bleu4"], 2), round(scores["rouge_l"], 2), scores["num_sentences"]
        (100.0, 100.0, 1)

        ```
    """

    def __init__(self, convention: str = "auto", rouge: str = "beta1.2", **kwargs):
        if convention not in (*CONVENTIONS, "auto"):
            raise InputError(f"unknown convention {convention!r}: known are {', '.join(CONVENTIONS)} and auto")
        if rouge not in ROUGE_VARIANTS:
            raise InputError(f"unknown ROUGE-L variant {rouge!r}: known are {', '.join(ROUGE_VARIANTS)}")
        self.convention, self.rouge = convention, rouge
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="BLEU-1..4, ROUGE-L and chrF of sign language translations, by stated conventions.",
            citation="",
            inputs_description="predictions: translations; references: the raw sentences, one for each.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, alternatives: bool = False, intervals: bool = False) -> dict:
        """Score; `alternatives` adds what other conventions give, `intervals` the 95 % confidence intervals."""
        predictions, references = list(predictions), list(references)
        check_sentences(predictions, references)
        convention = convention_for(self.convention, references)
        form = CONVENTIONS[convention]
        scores = corpus_scores(predictions, references, form, self.rouge)
        scores |= {
            "length_ratio": scores["prediction_length"] / max(scores["reference_length"], 1),
            "num_sentences": len(predictions),
            **answer_counts(predictions, references, form),
            "signature": signature_of(form, self.rouge),
        }
        if intervals:
            scores["confidence_intervals"] = seed_intervals([predictions], references, form, rouge=self.rouge)
        if alternatives:
            scores["alternatives"] = alternative_scores(predictions, references, convention)
        return scores


SUMS = ("num_sentences", "exact_matches", "distinct_predictions", "distinct_references")


def score_dataset(metric: SignTranslationMetric | None, dataset, translations: Sequence[str], **options) -> dict:
    """Scores of the sentences of a dataset; of one with `parts` each by its convention, in `corpora`, and their means.

    `options` are those of [`SignTranslationMetric`].
    """
    sentences = dataset.sentences
    parts = getattr(dataset, "parts", None)
    if parts is None:
        return metric.compute(predictions=translations, references=sentences, **options)
    corpora = {}
    for part in parts:
        sides = {"predictions": translations, "references": sentences}
        sides = {name: side[part.clips.start : part.clips.stop] for name, side in sides.items()}
        corpora[part.name] = SignTranslationMetric(part.convention).compute(**sides, **options)
    scores = {name: statistics.fmean(of[name] for of in corpora.values()) for name in SCORE_NAMES}
    return scores | {name: sum(of[name] for of in corpora.values()) for name in SUMS} | {"corpora": corpora}
