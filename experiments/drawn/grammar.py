"""The demo corpus's small language: weather reports as signs in signing order, and the German sentence they mean.

A report is one statement or two, each a time, a place, the weather and what is said of it, in the order of the signs:

    MORGEN  SÜD  WARM  GRAD  ZWANZIG        ->  morgen wird es im süden bei zwanzig grad warm
    NACHT  BERG  NEBEL  STARK  MÖGLICH      ->  in der nacht kann es in den bergen dichten nebel geben

German puts the verb second, the place behind it, the number before its unit, adjectives before their noun and a second
verb last; signs keep their own order. Every sequence of signs has exactly one sentence, and no two have the same.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from experiments.drawn.signs import LANGUAGE

MAX_SIGNS = 6  # the longest report


@dataclass(frozen=True)
class Weather:
    """How German speaks of one kind of weather."""

    finite: str  # the verb in second place
    infinitive: str  # the verb at the end of a sentence of possibility
    strong: str  # after the place, by how strong the weather is
    weak: str
    negated: str
    plain: str = ""
    subject: str = ""  # directly after the verb
    particle: str = ""  # the part of the verb that German moves to the end
    modal: str = "kann"  # the verb of possibility


WEATHER = {gloss: Weather(**words) for gloss, words in LANGUAGE["weather"].items()}
TIMES = {tuple(glosses.split()): words for glosses, words in LANGUAGE["times"].items()}  # from early to late
PLACES = {tuple(glosses.split()): words for glosses, words in LANGUAGE["places"].items()}
STRENGTHS = {"STARK": "stark", "SCHWACH": "schwach"}
DURATIONS = {"LANG": "lange", "MANCHMAL": "zeitweise"}
POLARITIES = {"NICHT": "nicht", "MÖGLICH": "möglich"}
NUMBERS = {"FÜNF": "fünf", "ZEHN": "zehn", "ZWANZIG": "zwanzig", "DREISSIG": "dreißig"}
DEGREES_OF = {"WARM": ("ZEHN", "ZWANZIG", "DREISSIG"), "KALT": ("FÜNF", "ZEHN")}


@dataclass(frozen=True)
class Statement:
    """One statement of a report, by the glosses of its parts; empty parts are not signed."""

    weather: str
    time: tuple[str, ...] = ()
    place: tuple[str, ...] = ()
    number: str = ""
    strength: str = ""
    duration: str = ""
    polarity: str = ""

    def glosses(self) -> tuple[str, ...]:
        """The signs of the statement."""
        degrees = ("GRAD", self.number) if self.number else ()
        modifiers = tuple(gloss for gloss in (self.strength, self.duration, self.polarity) if gloss)
        return (*self.time, *self.place, self.weather, *degrees, *modifiers)

    def sentence(self) -> str:
        """The German main clause of the statement."""
        weather = WEATHER[self.weather]
        time, place = TIMES.get(self.time, ""), PLACES.get(self.place, "")
        # The verb comes second: after the time, or without one the place, or without either the subject.
        first, place = (time, place) if time else (place, "")
        what = {"STARK": weather.strong, "SCHWACH": weather.weak}.get(self.strength, weather.plain)
        if self.polarity == "NICHT":
            what = weather.negated
        degrees = f"bei {NUMBERS[self.number]} grad" if self.number else ""
        verb, end = weather.finite, weather.particle
        if self.polarity == "MÖGLICH":
            verb, end = weather.modal, weather.infinitive
        beginning = [first, verb, weather.subject] if first else [weather.subject or "es", verb]
        words = [*beginning, place, DURATIONS.get(self.duration, ""), degrees, what, end]
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class Report:
    """A sentence of the corpus."""

    glosses: tuple[str, ...]
    sentence: str  # German
    statements: tuple[Statement, ...] = ()  # none of a single sign


# What each sign means on its own.
WORDS = {gloss: Statement(gloss).sentence() for gloss in WEATHER}
WORDS |= {glosses[0]: words for glosses, words in (TIMES | PLACES).items() if len(glosses) == 1}
WORDS |= STRENGTHS | DURATIONS | POLARITIES | NUMBERS | {"GRAD": "grad"}
GLOSSES = tuple(WORDS)


def single_sign_reports() -> list[Report]:
    """Each sign on its own, with the words it stands for: what a learner would look up."""
    return [Report((gloss,), words) for gloss, words in WORDS.items()]


def split_of_sentence(sentence: str) -> str:
    """The one split a sentence of two or more signs may stand in, decided by its letters alone."""
    share = hashlib.sha256(sentence.encode("utf-8")).digest()[0]
    return "dev" if share < 26 else "test" if share < 52 else "train"


def choose(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _sample_statement(rng: np.random.Generator, has_time: float, has_place: float, has_modifier: float) -> Statement:
    weather = choose(rng, tuple(WEATHER))
    time = choose(rng, tuple(TIMES)) if rng.random() < has_time else ()
    place = choose(rng, tuple(PLACES)) if rng.random() < has_place else ()
    number = choose(rng, DEGREES_OF[weather]) if weather in DEGREES_OF and rng.random() < 0.6 else ""
    duration = strength = polarity = ""
    if rng.random() < has_modifier:
        polarity = choose(rng, ("", "", *POLARITIES))
    if rng.random() < has_modifier and not number and polarity != "NICHT":
        strength = choose(rng, ("", *STRENGTHS))
    if rng.random() < has_modifier and not number and polarity != "NICHT" and weather not in ("STURM", "WOLKE"):
        duration = choose(rng, ("", *DURATIONS))
    if polarity == "NICHT":
        number = ""
    return Statement(weather, time, place, number, strength, duration, polarity)


def _follow(first: Statement, second: Statement) -> bool:
    """Whether the second statement adds to the first: other weather, at a later time or in another place."""
    if first.weather == second.weather:
        return False
    if not second.time:
        return first.place != second.place
    times = list(TIMES)
    return times.index(first.time) < times.index(second.time) and first.time[-1] != second.time[-1]


def sample_report(rng: np.random.Generator, num_signs: int) -> Report:
    """Draw a report of `num_signs` signs (2 to `MAX_SIGNS`)."""
    while True:
        statements = [_sample_statement(rng, 0.6, 0.6, 0.5)]
        if num_signs >= 4 and rng.random() < 0.4:
            if rng.random() < 0.6:
                statements = [_sample_statement(rng, 0.4, 1, 0.25), _sample_statement(rng, 0, 1, 0.25)]
            else:
                statements = [_sample_statement(rng, 1, 0.3, 0.25), _sample_statement(rng, 1, 0, 0.25)]
            if not _follow(*statements):
                continue
        glosses = tuple(gloss for statement in statements for gloss in statement.glosses())
        if len(glosses) == num_signs:
            sentence = " und ".join(statement.sentence() for statement in statements)
            return Report(glosses, sentence, tuple(statements))


def sample_reports(rng: np.random.Generator, split: str, count: int, length_shares: dict[int, float]) -> list[Report]:
    """Draw reports of two or more signs that belong to a split, as varied as there are sentences."""
    lengths = np.array(list(length_shares))
    shares = np.array(list(length_shares.values())) / sum(length_shares.values())
    reports, seen = [], set()
    for num_signs in rng.choice(lengths, size=count, p=shares):
        for _ in range(60):
            report = sample_report(rng, int(num_signs))
            while split_of_sentence(report.sentence) != split:
                report = sample_report(rng, int(num_signs))
            if report.sentence not in seen:
                break
        seen.add(report.sentence)
        reports.append(report)
    return reports
