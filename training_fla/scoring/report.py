"""Every sentence beside its reference, worst first, as a table and as one HTML page."""

import dataclasses
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import jinja2
from sacrebleu.metrics import BLEU

from training_fla.folders import atomic_file
from training_fla.scoring.conventions import TextForm
from training_fla.scoring.predictions import PredictionFile
from training_fla.scoring.rouge import ROUGE_VARIANTS, f_score
from training_fla.scoring.scores import SCORE_NAMES
from training_fla.tables import write_table

COLUMNS = (
    "id", "rouge_l", "bleu4", "prediction_length", "reference_length", "missed", "inserted", "foreign_script",
    "prediction", "reference",
)  # fmt: skip
TEMPLATE = Path(__file__).with_name("report.html")
LENGTH_BINS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))
FREQUENT = 25  # tokens in the lists of what is most often missed and inserted


@dataclasses.dataclass
class ScoredSentence:
    """One sentence of a file with its scores and its alignment."""

    id: str
    prediction: str
    reference: str
    rouge_l: float
    bleu4: float  # smoothed, over the orders that the sentence is long enough for
    alignment: list[tuple[str, str]]
    foreign_script: str  # predicted characters of a script that no reference uses

    def tokens(self, kind: str) -> list[str]:
        """The tokens of one kind in the alignment, in order."""
        return [token for kind_of, token in self.alignment if kind_of == kind]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of prediction and reference."""
        same = len(self.tokens("same"))
        return same + len(self.tokens("inserted")), same + len(self.tokens("missed"))


def scored_sentences(table: PredictionFile, form: TextForm, rouge: str = "beta1.2") -> list[ScoredSentence]:
    """Every sentence with its scores: lowest ROUGE-L first, then lowest BLEU-4, then file order."""
    scripts = {_script(character) for reference in table.references for character in reference}
    bleu = BLEU(tokenize=form.tokenize, effective_order=True)
    scored = []
    for identifier, prediction, reference in zip(table.ids, table.predictions, table.references, strict=True):
        foreign = dict.fromkeys(c for c in form.text(prediction) if _script(c) not in scripts)
        sentence = ScoredSentence(
            id=identifier,
            prediction=prediction,
            reference=reference,
            rouge_l=f_score(form.tokens(prediction), form.tokens(reference), ROUGE_VARIANTS[rouge]),
            bleu4=bleu.sentence_score(form.bleu_text(prediction), [form.bleu_text(reference)]).score,
            alignment=align(form.tokens(prediction), form.tokens(reference)),
            foreign_script="".join(foreign),
        )
        scored.append(sentence)
    return sorted(scored, key=lambda sentence: (sentence.rouge_l, sentence.bleu4))


def align(prediction: Sequence[str], reference: Sequence[str]) -> list[tuple[str, str]]:
    """Lay prediction and reference beside each other: `("same" | "missed" | "inserted", token)` in reading order."""
    alignment = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, reference, prediction, autojunk=False).get_opcodes():
        if kind == "equal":
            alignment += [("same", token) for token in reference[i:i_end]]
        else:
            alignment += [("missed", token) for token in reference[i:i_end]]
            alignment += [("inserted", token) for token in prediction[j:j_end]]
    return alignment


def write_sentence_table(scored: Iterable[ScoredSentence], path: Path, overwrite: bool = False) -> None:
    """Write the sentences as a tab-separated table with the columns `COLUMNS`."""
    rows = [
        (
            sentence.id,
            f"{sentence.rouge_l:.2f}",
            f"{sentence.bleu4:.2f}",
            *sentence.lengths,
            " ".join(sentence.tokens("missed")),
            " ".join(sentence.tokens("inserted")),
            sentence.foreign_script,
            sentence.prediction,
            sentence.reference,
        )
        for sentence in scored
    ]
    write_table(path, COLUMNS, rows, overwrite)


def write_html(scored: Sequence[ScoredSentence], summary: dict, path: Path, overwrite: bool = False) -> None:
    """Write one page that needs no other file; `summary` is what `fla score --json` prints, with `title`."""
    foreign = Counter(character for sentence in scored for character in sentence.foreign_script)
    frequent = {
        kind: Counter(token for sentence in scored for token in sentence.tokens(kind)).most_common(FREQUENT)
        for kind in ("missed", "inserted")
    }
    page = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True).render(
        summary=summary,
        score_names=SCORE_NAMES,
        frequent=frequent,
        lengths=_by_length(scored),
        empty=sum(not sentence.prediction.strip() for sentence in scored),
        foreign=" ".join(character for character, _ in foreign.most_common(FREQUENT)),
        with_foreign=sum(bool(sentence.foreign_script) for sentence in scored),
        between="" if all(len(token) == 1 for s in scored for _, token in s.alignment) else " ",
        sentences=scored,
    )
    with atomic_file(path, overwrite) as file:
        file.write_text(page + "\n", encoding="utf-8")


def _by_length(scored: Sequence[ScoredSentence]) -> list[tuple[str, int, float, float, float]]:
    """By length of the reference: label, sentences, predicted / reference length, mean ROUGE-L, mean BLEU-4."""
    rows = []
    for low, high in LENGTH_BINS:
        inside = [s for s in scored if s.lengths[1] >= low and (high is None or s.lengths[1] <= high)]
        if inside:
            ratio = sum(s.lengths[0] for s in inside) / sum(s.lengths[1] for s in inside)
            rouge_l, bleu4 = (statistics.fmean(getattr(s, name) for s in inside) for name in ("rouge_l", "bleu4"))
            rows.append((f"{low} to {high}" if high else f"{low} and more", len(inside), ratio, rouge_l, bleu4))
    return rows


def _script(character: str) -> str:
    """The script of a letter (`"LATIN"`, `"CJK"`, ...), and one name for everything that is no letter."""
    return unicodedata.name(character, "?").split(" ", 1)[0] if character.isalpha() else "no letter"
