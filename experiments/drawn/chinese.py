"""The demo's reports in Chinese: the same signs, another spoken language.

    MORGEN  SÜD  WARM  GRAD  ZWANZIG        ->  明天南部二十度，暖和
    NACHT  BERG  NEBEL  STARK  MÖGLICH      ->  夜里山区可能有浓雾

Every sequence of signs has exactly one sentence here too, and no two have the same.
"""

from experiments.drawn.grammar import Report, Statement
from experiments.drawn.signs import LANGUAGE

WORDS = LANGUAGE["chinese"]
FORMS = {"STARK": "strong", "SCHWACH": "weak"}


def chinese_sentence(report: Report) -> str:
    """The sentence of a report."""
    if report.statements:
        return "；".join(map(_clause, report.statements))
    (gloss,) = report.glosses
    if gloss in WORDS["weather"]:
        return WORDS["weather"][gloss]["plain"]
    kinds = ("times", "places", "durations", "numbers", "others")
    return next(WORDS[kind][gloss] for kind in kinds if gloss in WORDS[kind])


def _clause(statement: Statement) -> str:
    time, place = (WORDS[kind].get(" ".join(glosses), "") for kind, glosses in (
        ("times", statement.time), ("places", statement.place)))  # fmt: skip
    form = "negated" if statement.polarity == "NICHT" else FORMS.get(statement.strength, "plain")
    possible = WORDS["others"]["MÖGLICH"] if statement.polarity == "MÖGLICH" else ""
    degrees = f"{WORDS['numbers'][statement.number]}度，" if statement.number else ""
    duration = WORDS["durations"].get(statement.duration, "")
    return f"{time}{place}{degrees}{possible}{duration}{WORDS['weather'][statement.weather][form]}"
