"""Signs of hand shape, place, movement and handedness: the demo corpus's own, and one for any gloss by its spelling.

Directions are those of the dominant hand, the one on the left of the picture: +x is towards the other hand, +y down.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from training_fla.dictionary.sentences import stable_integer

Point = tuple[float, float]

# A hand of radius 1 with its fingers up: lines of round ends (width, points). All ten silhouettes differ at 8 pixels.
HAND_SHAPES: dict[str, list[tuple[float, list[Point]]]] = {
    "fist": [(1.3, [(0, 0), (0, 0.01)])],
    "flat": [(0.8, [(0, 0.6), (0, -0.75)])],
    "point": [(0.8, [(0, 0.5), (0, 0.51)]), (0.42, [(0, 0.5), (0, -1)])],
    "vee": [(0.7, [(0, 0.6), (0, 0.61)]), (0.38, [(-0.6, -0.85), (0, 0.6), (0.6, -0.85)])],
    "spread": [(0.8, [(0, 0.3), (0, 0.31)])]
    + [(0.28, [(0, 0.3), (1.1 * math.sin(a), 0.3 - 1.25 * math.cos(a))]) for a in (-1.5, -0.75, 0, 0.75, 1.5)],
    "ring": [(0.38, [(0.65 * math.sin(a / 4), 0.65 * math.cos(a / 4)) for a in range(27)])],
    "cee": [(0.42, [(0.7 * math.sin(a / 4), 0.7 * math.cos(a / 4)) for a in range(-9, 10)])],
    "ell": [(0.44, [(-0.4, -0.95), (-0.4, 0.6), (0.85, 0.6)])],
    "horns": [(0.95, [(0, 0), (0, 0.01)]), (0.36, [(-1.05, 0), (1.05, 0)])],
    "wedge": [(0.5, [(-0.6, 0.55), (0.6, 0.55), (0, -0.6), (-0.6, 0.55)]), (0.7, [(0, 0.2), (0, 0.21)])],
}

PALM_HEIGHTS = {"fist": 0.0, "flat": 0.0, "spread": 0.3, "wedge": 0.2}  # shapes with an area, and its middle

# Where the dominant hand signs, in fractions of the picture's side: x from the signer's middle, y down from the top.
PLACES: dict[str, Point] = {
    "crown": (0.0, 0.22),
    "temple": (-0.19, 0.29),
    "chin": (0.0, 0.42),
    "shoulder": (-0.22, 0.48),
    "far_shoulder": (0.18, 0.50),
    "chest": (-0.02, 0.60),
    "side": (-0.25, 0.66),
    "belly": (-0.02, 0.77),
    "hip": (-0.22, 0.81),
}

# One way to trace each movement, in units of `MOVEMENT_REACH`: points the hand passes at an even pace. Every movement
# shows in three samples of a sign, which is what a frame stride of 4 leaves of it; +x is towards the other hand.
MOVEMENTS: dict[str, list[Point]] = {
    "hold": [(0, 0), (0, 0)],
    "up": [(0, 1), (0, -1)],
    "down": [(0, -1), (0, 1)],
    "in": [(-1, 0), (1, 0)],
    "out": [(1, 0), (-1, 0)],
    "rise": [(0.8, 0.8), (-0.8, -0.8)],
    "fall": [(-0.8, -0.8), (0.8, 0.8)],
    "circle": [(math.sin(a * math.pi / 6), -math.cos(a * math.pi / 6)) for a in range(13)],
    "shake": [(-1, 0), (1, 0), (-1, 0)],
    "nod": [(0, -1), (0, 1), (0, -1)],
}
MOVEMENT_REACH = 0.082


@dataclass(frozen=True)
class HandForm:
    """How a hand looks."""

    shape: str  # a key of `HAND_SHAPES`
    direction: str = "up"  # of the fingers; or "side", or "down"
    palm: bool = False  # whether the pale palm shows


# Only what can be told apart: a ring has no direction, and a palm shows only where a shape has an area.
DIRECTIONS = {"fist": ["up"], "flat": ["up", "side"], "ring": ["up"], "horns": ["up", "side"]}
HAND_FORMS: tuple[HandForm, ...] = tuple(
    HandForm(shape, direction, palm)
    for shape in HAND_SHAPES
    for direction in DIRECTIONS.get(shape, ["up", "side", "down"])
    for palm in ([False, True] if shape in PALM_HEIGHTS else [False])
)


@dataclass(frozen=True)
class Sign:
    """A sign: everything that tells it from the other signs, nothing that tells one signer from another."""

    form: HandForm  # as the sign begins
    place: str  # of the dominant hand, a key of `PLACES`
    movement: str  # a key of `MOVEMENTS`
    # "one"; "mirrored": the other hand does the same in the mirror; "opposed": mirrored, lower and backwards in time;
    # "base": the other hand stands still
    hands: str = "one"
    end_form: HandForm | None = None  # in the second half, where the hand changes
    base_form: HandForm | None = None  # of the standing hand


def sign_of_gloss(gloss: str, attempt: int = 0) -> Sign:
    """The sign a gloss has by its spelling alone."""

    def choose(options, name: str):
        return options[stable_integer("sign", gloss, attempt, name) % len(options)]

    form = choose(HAND_FORMS, "form")
    place = choose(tuple(PLACES), "place")
    movement = choose(tuple(MOVEMENTS), "movement")
    # Signs of one hand and one form are few, so fewer glosses get them and clashes are rare.
    hands = choose(("one",) * 4 + ("mirrored",) * 4 + ("opposed",) * 3 + ("base",) * 9, "hands")
    others = tuple(other for other in HAND_FORMS if other.shape != form.shape)
    end_form = choose(others, "end_form") if choose(range(5), "changes") < 3 else None
    base_form = choose(HAND_FORMS, "base_form") if hands == "base" else None
    return Sign(form, place, movement, hands, end_form, base_form)


def signs_of_glosses(glosses) -> dict[str, Sign]:
    """One sign for each distinct gloss of a table, no two alike."""
    glosses_of: dict[Sign, str] = {}
    for gloss in sorted(set(glosses)):
        candidates = (sign_of_gloss(gloss, attempt) for attempt in itertools.count())
        glosses_of[next(sign for sign in candidates if sign not in glosses_of)] = gloss
    return {gloss: sign for sign, gloss in glosses_of.items()}


def _hand_form(words: str) -> HandForm:
    shape, *more = words.split()
    directions = [word for word in more if word != "palm"]
    return HandForm(shape, *directions, palm="palm" in more)


def _sign(cells: dict[str, str]) -> Sign:
    return Sign(**{name: _hand_form(words) if name.endswith("form") else words for name, words in cells.items()})


LANGUAGE = yaml.safe_load(Path(__file__).with_name("language.yaml").read_text(encoding="utf-8"))
DEMO_SIGNS = {gloss: _sign(cells) for gloss, cells in LANGUAGE["signs"].items()}
