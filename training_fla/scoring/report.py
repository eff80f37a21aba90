"""Where a system fails: every sentence beside its reference, worst first, as a table and as one HTML page."""

import dataclasses
import html
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from training_fla.files import atomic_file
from training_fla.scoring.conventions import MAX_NGRAM_ORDER, SCORE_NAMES, SentenceStatistics, TextForm, bleu_scores
from training_fla.scoring.predictions import PredictionFile
from training_fla.scoring.rouge import lcs_rows
from training_fla.tables import write_table

COLUMNS = (
    "id",
    "rouge_l",
    "bleu4",
    "prediction_length",
    "reference_length",
    "missed",
    "inserted",
    "foreign_script",
    "prediction",
    "reference",
)
LENGTH_BINS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None))
FREQUENT = 25  # tokens in the lists of what is most often missed and inserted


@dataclasses.dataclass
class ScoredSentence:
    """One sentence of a file with its scores and its alignment.

    Args:
        id (`str`): its id.
        prediction (`str`): as in the file.
        reference (`str`): as in the file.
        rouge_l (`float`): 0 to 100.
        bleu4 (`float`): sentence BLEU-4 (smoothed, over the orders that the sentence is long enough for), 0 to 100.
        alignment (`list[tuple[str, str]]`): tokens in reading order, each `"same"`, `"missed"` or `"inserted"`.
        foreign_script (`str`): predicted characters of a script that no reference uses.
    """

    id: str
    prediction: str
    reference: str
    rouge_l: float
    bleu4: float
    alignment: list[tuple[str, str]]
    foreign_script: str

    def tokens(self, kind: str) -> list[str]:
        """The tokens of one kind in the alignment.

        Args:
            kind (`str`): `"same"`, `"missed"` or `"inserted"`.

        Returns:
            `list[str]`: in order.
        """
        return [token for kind_of, token in self.alignment if kind_of == kind]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of prediction and reference."""
        same = len(self.tokens("same"))
        return same + len(self.tokens("inserted")), same + len(self.tokens("missed"))


def scored_sentences(table: PredictionFile, sentences: SentenceStatistics, form: TextForm) -> list[ScoredSentence]:
    """Every sentence with its scores, worst first: lowest ROUGE-L, then lowest BLEU-4, then file order.

    Args:
        table ([`PredictionFile`]): the file.
        sentences ([`SentenceStatistics`]): its statistics in file order.
        form ([`TextForm`]): the text form of the convention, whose tokens are aligned.

    Returns:
        `list[ScoredSentence]`
    """
    scripts = {_script(character) for reference in table.references for character in reference}
    scored = []
    for index, (prediction, reference) in enumerate(zip(table.predictions, table.references, strict=True)):
        foreign = dict.fromkeys(c for c in form.normalize(prediction) if _script(c) not in scripts)
        bleu4 = bleu_scores(sentences.bleu[index], effective_order=True)[MAX_NGRAM_ORDER - 1]
        scored.append(
            ScoredSentence(
                id=table.ids[index],
                prediction=prediction,
                reference=reference,
                rouge_l=float(sentences.rouge_l[index]),
                bleu4=bleu4,
                alignment=align(form.tokens(prediction), form.tokens(reference)),
                foreign_script="".join(foreign),
            )
        )
    return sorted(scored, key=lambda sentence: (sentence.rouge_l, sentence.bleu4))


def align(prediction: Sequence[str], reference: Sequence[str]) -> list[tuple[str, str]]:
    """Lay prediction and reference beside each other along a longest common subsequence.

    Args:
        prediction (`Sequence[str]`): tokens.
        reference (`Sequence[str]`): tokens.

    Returns:
        `list[tuple[str, str]]`: `("same" | "missed" | "inserted", token)` in reading order.

    Example:
        ```python
        >>> align("der wind weht".split(), "der regen weht".split())
        [('same', 'der'), ('missed', 'regen'), ('inserted', 'wind'), ('same', 'weht')]

        ```
    """
    # Rows of the reversed sequences speak of what is still to come.
    rows = lcs_rows(prediction[::-1], reference[::-1])[::-1]
    i = j = 0
    alignment = []
    while i < len(prediction) or j < len(reference):
        if i < len(prediction) and j < len(reference) and prediction[i] == reference[j]:
            alignment.append(("same", prediction[i]))
            i, j = i + 1, j + 1
        elif j < len(reference) and (i == len(prediction) or rows[i] >> (len(reference) - 1 - j) & 1):
            # nothing is lost without reference[j]
            alignment.append(("missed", reference[j]))
            j += 1
        else:
            alignment.append(("inserted", prediction[i]))
            i += 1
    return alignment


def write_sentence_table(scored: Iterable[ScoredSentence], path: Path, overwrite: bool = False) -> None:
    """Write the sentences as a tab-separated table with the columns `COLUMNS`.

    Args:
        scored (`Iterable[ScoredSentence]`): in the order to write.
        path (`Path`): the file to make.
        overwrite (`bool`, *optional*, defaults to `False`): whether a file there may be replaced.

    Raises:
        InputError: if `path` exists and `overwrite` is false.
    """
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
    """Write one page that needs no other file: scores, what is missed and inserted most, lengths, every sentence.

    Args:
        scored (`Sequence[ScoredSentence]`): worst first.
        summary (`dict`): what `fla score --json` prints, with `title`.
        path (`Path`): the file to make.
        overwrite (`bool`, *optional*, defaults to `False`): whether a file there may be replaced.

    Raises:
        InputError: if `path` exists and `overwrite` is false.
    """
    title = html.escape(summary["title"])
    sections = (
        _scores_section(summary),
        _tokens_section(scored),
        _lengths_section(scored),
        _script_section(scored),
        _sentences_section(scored),
    )
    page = (
        '<!doctype html>\n<html><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(sections)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )
    with atomic_file(path, overwrite) as file:
        file.write_text(page, encoding="utf-8")


def _script(character: str) -> str:
    """The script of a letter (`"LATIN"`, `"CJK"`, ...), and one name for everything that is no letter."""
    return unicodedata.name(character, "?").split(" ", 1)[0] if character.isalpha() else "no letter"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], name: str = "") -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<table class="{name}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'


def _scores_section(summary: dict) -> str:
    rows = []
    for name in SCORE_NAMES:
        low, high = summary.get("confidence_intervals", {}).get(name, ("", ""))
        interval = f"{low:.2f} to {high:.2f}" if low != "" else ""
        rows.append((name, f"{summary[name]:.2f}", interval))
    note = f"{summary['num_sentences']} sentences. Signature: <code>{html.escape(summary['signature'])}</code>"
    return f"<h2>Scores</h2><p>{note}</p>" + _table(("score", "value", "95 % interval"), rows)


def _tokens_section(scored: Sequence[ScoredSentence]) -> str:
    lists = []
    for kind, heading in (("missed", "Most often missed"), ("inserted", "Most often inserted")):
        counts = Counter(token for sentence in scored for token in sentence.tokens(kind))
        rows = [
            (f'<span class="{kind}">{html.escape(token)}</span>', str(n)) for token, n in counts.most_common(FREQUENT)
        ]
        lists.append(f"<div><h3>{heading}</h3>{_table(('token', 'times'), rows)}</div>")
    return f'<h2>Missed and inserted</h2><div class="beside">{"".join(lists)}</div>'


def _lengths_section(scored: Sequence[ScoredSentence]) -> str:
    rows = []
    for low, high in LENGTH_BINS:
        inside = [s for s in scored if s.lengths[1] >= low and (high is None or s.lengths[1] <= high)]
        if inside:
            ratio = sum(s.lengths[0] for s in inside) / sum(s.lengths[1] for s in inside)
            rouge_l, bleu4 = (statistics.fmean(getattr(s, name) for s in inside) for name in ("rouge_l", "bleu4"))
            label = f"{low} to {high}" if high else f"{low} and more"
            rows.append((label, str(len(inside)), f"{ratio:.2f}", f"{rouge_l:.1f}", f"{bleu4:.1f}"))
    header = ("tokens of the reference", "sentences", "predicted / reference length", "ROUGE-L", "sentence BLEU-4")
    return f"<h2>By length</h2>{_table(header, rows)}"


def _script_section(scored: Sequence[ScoredSentence]) -> str:
    foreign = Counter(character for sentence in scored for character in sentence.foreign_script)
    empty = sum(not sentence.prediction.strip() for sentence in scored)
    lines = [f"{empty} predictions are empty."]
    if foreign:
        shown = " ".join(html.escape(c) for c, _ in foreign.most_common(FREQUENT))
        number = sum(bool(sentence.foreign_script) for sentence in scored)
        lines.append(f"{number} predictions have letters of a script that no reference uses: {shown}")
    else:
        lines.append("No prediction has letters of a script that no reference uses.")
    return f"<h2>Script and empty predictions</h2><p>{'<br>'.join(lines)}</p>"


def _sentences_section(scored: Sequence[ScoredSentence]) -> str:
    joint = "" if all(len(token) == 1 for s in scored for _, token in s.alignment) else " "  # characters or words
    rows = []
    for s in scored:
        marked = joint.join(
            f'<span class="{kind}">{html.escape(token)}</span>' if kind != "same" else html.escape(token)
            for kind, token in s.alignment
        )
        texts = f"<div>{marked}</div><small>{html.escape(s.prediction)}<br>{html.escape(s.reference)}</small>"
        predicted, expected = s.lengths
        rows.append((html.escape(s.id), f"{s.rouge_l:.1f}", f"{s.bleu4:.1f}", f"{predicted} / {expected}", texts))
    legend = (
        '<p><span class="missed">missed</span>: only in the reference. <span class="inserted">inserted</span>: only '
        "in the prediction. Below each: the prediction, then the reference, as in the file.</p>"
        '<p><input id="find" placeholder="show only sentences with ..."></p>'
    )
    header = ("id", "ROUGE-L", "BLEU-4", "length", "prediction against reference")
    return f"<h2>Sentences, worst first</h2>{legend}{_table(header, rows, name='sentences')}"


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.25em .7em;text-align:left;vertical-align:top;
border-bottom:1px solid #ddd}th{background:#f4f4f4}small{color:#666}code{word-break:break-all}
.missed{background:#fdd;text-decoration:line-through}.inserted{background:#dfd}
.beside{display:flex;gap:3em;flex-wrap:wrap}.sentences td:first-child{word-break:break-all;max-width:12em}
"""
SCRIPT = """
document.getElementById("find").addEventListener("input",function(){const wanted=this.value.toLowerCase();
for(const row of document.querySelectorAll("table.sentences tbody tr"))
row.hidden=!row.textContent.toLowerCase().includes(wanted)});
"""
