"""Signs of hand shape, place, movement and handedness: the demo corpus's own, and one for any gloss by its spelling.

Directions are those of the dominant hand, the one on the left of the picture: +x is towards the other hand, +y down.
"""

import hashlib
import math
from dataclasses import dataclass

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
BASE_PLACE: Point = (0.20, 0.76)  # where the other hand stands still while the dominant hand signs beside it
REST_PLACE: Point = (-0.16, 0.98)
MIRRORED_CLEARANCE = 0.14  # hands that mirror each other keep this far from the middle, or one would hide the other

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
HAND_FORMS: tuple[HandForm, ...] = tuple(
    HandForm(shape, direction, palm)
    for shape, directions, palms in (
        ("fist", ("up",), (False, True)),
        ("flat", ("up", "side"), (False, True)),
        ("point", ("up", "side", "down"), (False,)),
        ("vee", ("up", "side", "down"), (False,)),
        ("spread", ("up", "side", "down"), (False, True)),
        ("ring", ("up",), (False,)),
        ("cee", ("up", "side", "down"), (False,)),
        ("ell", ("up", "side", "down"), (False,)),
        ("horns", ("up", "side"), (False,)),
        ("wedge", ("up", "side", "down"), (False, True)),
    )
    for direction in directions
    for palm in palms
)
REST_FORM = HandForm("fist")


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


def stable_integer(*parts: object) -> int:
    """A number that depends on `parts` alone: not on the process, the platform or the Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


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
    signs: dict[str, Sign] = {}
    taken: set[Sign] = set()
    for gloss in sorted(set(glosses)):
        attempt = 0
        while (sign := sign_of_gloss(gloss, attempt)) in taken:
            attempt += 1
        signs[gloss] = sign
        taken.add(sign)
    return signs


# The signs of the demo corpus, chosen by hand so that they look like what they mean and far apart

_RING = HandForm("ring")
_FLAT_SIDE = HandForm("flat", "side")
_SPREAD_DOWN = HandForm("spread", "down")
_SPREAD_PALM = HandForm("spread", "up", palm=True)

DEMO_SIGNS: dict[str, Sign] = {
    # weather
    "REGEN": Sign(_SPREAD_DOWN, "shoulder", "down", "mirrored"),
    "SCHNEE": Sign(_SPREAD_DOWN, "temple", "shake", "opposed"),
    "SONNE": Sign(HandForm("fist"), "crown", "hold", end_form=_SPREAD_PALM),
    "WIND": Sign(_FLAT_SIDE, "side", "shake", "mirrored"),
    "NEBEL": Sign(_SPREAD_PALM, "chin", "circle", "mirrored"),
    "GEWITTER": Sign(HandForm("point", "down"), "crown", "fall", "opposed"),
    "WOLKE": Sign(HandForm("cee", "up"), "crown", "circle", "mirrored"),
    "FROST": Sign(HandForm("fist"), "chest", "shake", "mirrored"),
    "STURM": Sign(HandForm("spread", "side"), "hip", "circle", "opposed"),
    "WARM": Sign(HandForm("flat", "up", palm=True), "chin", "out"),
    "KALT": Sign(HandForm("fist", palm=True), "belly", "nod", "mirrored"),
    "TROCKEN": Sign(HandForm("wedge", "up"), "chin", "in"),
    # times
    "HEUTE": Sign(HandForm("flat", "side", palm=True), "belly", "down", "mirrored"),
    "MORGEN": Sign(HandForm("point", "up"), "temple", "fall"),
    "NACHT": Sign(HandForm("wedge", "down"), "chin", "down", "mirrored"),
    "ABEND": Sign(_FLAT_SIDE, "chest", "down", "base", base_form=_FLAT_SIDE),
    "WOCHENENDE": Sign(HandForm("horns"), "chest", "out", "base", base_form=_SPREAD_PALM),
    # places
    "NORD": Sign(HandForm("vee", "up"), "crown", "up"),
    "SÜD": Sign(HandForm("vee", "down"), "hip", "down"),
    "OST": Sign(HandForm("ell", "side"), "far_shoulder", "in"),
    "WEST": Sign(HandForm("cee", "side"), "side", "out"),
    "KÜSTE": Sign(HandForm("flat", "side", palm=True), "belly", "shake", "base", base_form=HandForm("cee", "down")),
    "BERG": Sign(HandForm("wedge", "up", palm=True), "shoulder", "up", "mirrored"),
    "TAL": Sign(HandForm("ell", "down"), "belly", "down", "mirrored"),
    # remarks
    "STARK": Sign(HandForm("fist"), "shoulder", "nod"),
    "SCHWACH": Sign(HandForm("horns", "side"), "hip", "shake"),
    "LANG": Sign(HandForm("point", "side"), "chest", "out", "base", base_form=HandForm("point", "up")),
    "MANCHMAL": Sign(HandForm("cee", "up"), "side", "circle"),
    "NICHT": Sign(_SPREAD_PALM, "chest", "shake"),
    "MÖGLICH": Sign(_RING, "side", "nod", "opposed"),
    # numbers: a five, and tens whose nought the other hand holds
    "FÜNF": Sign(_SPREAD_PALM, "shoulder", "hold"),
    "ZEHN": Sign(HandForm("point", "up"), "shoulder", "hold", "base", base_form=_RING),
    "ZWANZIG": Sign(HandForm("ell", "up"), "shoulder", "hold", "base", base_form=_RING),
    "DREISSIG": Sign(HandForm("vee", "up"), "shoulder", "hold", "base", base_form=_RING),
    "GRAD": Sign(_RING, "temple", "circle"),
}
