"""Where a system fails: every sentence beside its reference, worst first, as a table and as one HTML page."""

import dataclasses
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import jinja2
from sacrebleu.metrics import BLEU

from training_fla.files import atomic_file
from training_fla.scoring.conventions import TextForm
from training_fla.scoring.predictions import PredictionFile
from training_fla.scoring.rouge import ROUGE_VARIANTS
from training_fla.scoring.scores import SCORE_NAMES
from training_fla.tables import write_table

COLUMNS = (
    "id", "rouge_l", "bleu4", "prediction_length", "reference_length", "missed", "inserted", "foreign_script",
    "prediction", "reference",
)  # fmt: skip
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
            rouge_l=ROUGE_VARIANTS[rouge](form.text(prediction), form.text(reference)),
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
    page = jinja2.Template(PAGE, autoescape=True).render(
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


PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ summary.title }}</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.25em .7em;text-align:left;vertical-align:top;
border-bottom:1px solid #ddd}th{background:#f4f4f4}small{color:#666}code{word-break:break-all}
.missed{background:#fdd;text-decoration:line-through}.inserted{background:#dfd}
.beside{display:flex;gap:3em;flex-wrap:wrap}.sentences td:first-child{word-break:break-all;max-width:12em}
</style></head>
<body><h1>{{ summary.title }}</h1>
<h2>Scores</h2><p>{{ summary.num_sentences }} sentences. Signature: <code>{{ summary.signature }}</code></p>
<table><tr><th>score<th>value<th>95 % interval</tr>
{%- for name in score_names %}
<tr><td>{{ name }}<td>{{ "%.2f" % summary[name] }}
<td>{% if summary.confidence_intervals %}{% set low, high = summary.confidence_intervals[name] %}
{{- "%.2f to %.2f" % (low, high) }}{% endif %}</tr>
{%- endfor %}
</table>
<h2>Missed and inserted</h2><div class="beside">
{%- for kind, heading in (("missed", "Most often missed"), ("inserted", "Most often inserted")) %}
<div><h3>{{ heading }}</h3><table><tr><th>token<th>times</tr>
{%- for token, times in frequent[kind] %}
<tr><td><span class="{{ kind }}">{{ token }}</span><td>{{ times }}</tr>
{%- endfor %}
</table></div>
{%- endfor %}
</div>
<h2>By length</h2>
<table><tr><th>tokens of the reference<th>sentences<th>predicted / reference length<th>ROUGE-L<th>sentence BLEU-4</tr>
{%- for label, number, ratio, rouge_l, bleu4 in lengths %}
<tr><td>{{ label }}<td>{{ number }}<td>{{ "%.2f" % ratio }}<td>{{ "%.1f" % rouge_l }}<td>{{ "%.1f" % bleu4 }}</tr>
{%- endfor %}
</table>
<h2>Script and empty predictions</h2><p>{{ empty }} predictions are empty.<br>
{% if foreign %}{{ with_foreign }} predictions have letters of a script that no reference uses: {{ foreign }}
{%- else %}No prediction has letters of a script that no reference uses.{% endif %}</p>
<h2>Sentences, worst first</h2>
<p><span class="missed">missed</span>: only in the reference. <span class="inserted">inserted</span>: only in the
prediction. Below each: the prediction, then the reference, as in the file.</p>
<p><input id="find" placeholder="show only sentences with ..."></p>
<table class="sentences"><thead><tr><th>id<th>ROUGE-L<th>BLEU-4<th>length<th>prediction against reference</tr></thead>
<tbody>
{%- for s in sentences %}
<tr><td>{{ s.id }}<td>{{ "%.1f" % s.rouge_l }}<td>{{ "%.1f" % s.bleu4 }}<td>{{ s.lengths[0] }} / {{ s.lengths[1] }}
<td><div>{% for kind, token in s.alignment %}{% if kind == "same" %}{{ token }}{% else %}\
<span class="{{ kind }}">{{ token }}</span>{% endif %}{{ between }}{% endfor %}</div>
<small>{{ s.prediction }}<br>{{ s.reference }}</small></tr>
{%- endfor %}
</tbody></table>
<script>
document.getElementById("find").addEventListener("input",function(){const wanted=this.value.toLowerCase();
for(const row of document.querySelectorAll("table.sentences tbody tr"))
row.hidden=!row.textContent.toLowerCase().includes(wanted)});
</script></body></html>"""
