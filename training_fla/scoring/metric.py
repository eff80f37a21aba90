"""`SignTranslationMetric`: the figures of `scoring.py` as an `evaluate.Metric`, for training loops, ours or not."""

import datasets
import evaluate

from training_fla.files import InputError
from training_fla.scoring.conventions import (
    CONVENTIONS,
    CORPUS_CONVENTIONS,
    alternative_scores,
    check_sentences,
    convention_for,
    corpus_scores,
    sentence_statistics,
    signature_of,
)
from training_fla.scoring.rouge import ROUGE_VARIANTS

__all__ = ["CONVENTIONS", "SignTranslationMetric", "convention_for"]


class SignTranslationMetric(evaluate.Metric):
    """BLEU-1..4, ROUGE-L and chrF of translations, as an [`evaluate.Metric`] that needs no network.

    `add`, `add_batch` and gathering over processes (`num_process`, `process_id`, `experiment_id`) are those of
    `evaluate`. With one process nothing is written to its cache.

    Args:
        convention (`str`, *optional*, defaults to `"auto"`):
            A key of `CONVENTIONS` or `"demo"`; `"auto"` decides by the script of the references.
        rouge (`str`, *optional*, defaults to `"beta1.2"`):
            Which F `rouge_l` is: `"beta1.2"` (the tables), `"f1"`, `"p_over_r"` (TwoStream), `"rouge_score"` (Google's
            package, which deletes umlauts and Chinese), `"rouge_score_stem"`, `"rouge_pypi"`.
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
        if convention not in (*CORPUS_CONVENTIONS, "auto"):
            raise InputError(f"unknown convention {convention!r}: known are {', '.join(CORPUS_CONVENTIONS)} and auto")
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

    def _compute(self, predictions: list[str], references: list[str], alternatives: bool = False) -> dict:
        """Score a file's sentences; `alternatives=True` adds what other conventions give."""
        predictions, references = list(predictions), list(references)
        check_sentences(predictions, references)
        convention = convention_for(self.convention, references)
        form = CONVENTIONS[convention]
        statistics = sentence_statistics(predictions, references, form, self.rouge)
        prediction_length, reference_length = (int(n) for n in statistics.bleu[:, :2].sum(axis=0))
        scores = corpus_scores(statistics) | {
            "prediction_length": prediction_length,
            "reference_length": reference_length,
            "length_ratio": prediction_length / max(reference_length, 1),
            "num_sentences": len(predictions),
            "signature": signature_of(form, self.rouge),
        }
        return scores | (
            {"alternatives": alternative_scores(predictions, references, convention)} if alternatives else {}
        )
