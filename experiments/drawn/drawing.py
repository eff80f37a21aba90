"""A signer drawn by code: who signs, where the hands are in every frame, and the picture.

    signs of a clip  ->  hand tracks (S, 2) with the form of each hand  ->  frames (S, H, W, 3)

While it signs, the middle of a hand stays inside the middle four fifths of the picture, so that a crop of that size
shows it. The dominant hand is the one on the left of the picture. It wears a red glove and the other hand a blue one,
which makes them easy to find; bare hands have the colour of the face, with the same dark rim.
"""

import colorsys
import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from experiments.drawn.signs import (
    HAND_SHAPES,
    MOVEMENT_REACH,
    MOVEMENTS,
    PALM_HEIGHTS,
    PLACES,
    HandForm,
    Point,
    Sign,
    stable_integer,
)

FRAMES_PER_SECOND = 25.0  # as PHOENIX14T
SUPERSAMPLING = 2  # frames are drawn twice as large and then averaged, which smooths every edge

BASE_PLACE: Point = (0.20, 0.76)  # where the other hand stands still while the dominant hand signs beside it
REST_PLACES = np.array([(-0.16, 0.98), (0.16, 0.98)])  # of the dominant and the other hand
REST_FORM = HandForm("fist")
MIRRORED_CLEARANCE = 0.14  # hands that mirror each other keep this far from the middle, or one would hide the other

Color = tuple[int, int, int]


@dataclass(frozen=True)
class SignerLook:
    """What stays the same in every clip of a signer; colours are RGB from 0 to 255."""

    skin: Color
    hair: Color
    hair_length: float  # 0 to 1
    clothes: Color
    sleeves: bool  # whether the forearms are covered
    dominant_glove: Color
    other_glove: Color
    head_size: float
    shoulder_width: float
    hand_radius: float
    speed: float
    reach: float  # how far signs go from the body; 1 is the usual, as for head size and speed


def _hsv(hue: float, saturation: float, value: float) -> Color:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _blend(first: Color, second: Color, share: float) -> Color:
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def look_of_signer(signer: str, seed: int) -> SignerLook:
    """The looks of a signer: drawn from one wide range for all of them, decided by name and seed."""
    rng = np.random.default_rng([seed, stable_integer("signer", signer)])
    hair = [(30, 22, 20), (70, 42, 25), (125, 85, 45), (205, 165, 95), (150, 150, 155), (120, 50, 25)]
    return SignerLook(
        skin=_blend((88, 54, 38), (250, 216, 190), rng.uniform(0, 1)),
        hair=hair[rng.integers(len(hair))],
        hair_length=rng.uniform(0, 1),
        # Clothes and rooms are pale or dull, so that nothing but a glove is bright red or bright blue.
        clothes=_hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.35), rng.uniform(0.2, 0.75)),
        sleeves=bool(rng.integers(4)),
        dominant_glove=_hsv(rng.uniform(-0.05, 0.03), rng.uniform(0.85, 1), rng.uniform(0.9, 1)),
        other_glove=_hsv(rng.uniform(0.53, 0.62), rng.uniform(0.85, 1), rng.uniform(0.9, 1)),
        head_size=rng.uniform(0.92, 1.08),
        shoulder_width=rng.uniform(0.135, 0.165),
        hand_radius=rng.uniform(0.113, 0.127),
        speed=rng.uniform(0.88, 1.14),
        reach=rng.uniform(0.92, 1.1),
    )


@dataclass(frozen=True)
class Signing:
    """One clip: who signs what, how large the picture is, and the numbers its variation comes from."""

    signs: tuple[Sign, ...]
    signer: str
    clip_id: str
    size: int
    seed: int
    gloves: bool = True

    @property
    def num_frames(self) -> int:
        """The number of frames the clip has, known without drawing it."""
        return sum(map(sum, self.timing()))

    def __call__(self) -> np.ndarray:
        """Draw the clip: `np.ndarray` of uint8 RGB, shape `(S, H, W, 3)`."""
        look = look_of_signer(self.signer, self.seed)
        if not self.gloves:
            look = replace(look, dominant_glove=look.skin, other_glove=look.skin)
        rng = self._generator("picture")
        tracks = [_hand_track(self, hand, look, rng) for hand in (0, 1)]
        return _draw_frames(tracks, look, self.size, rng)

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, stable_integer(purpose, self.signer, self.clip_id)])

    def timing(self) -> tuple[list[int], list[int]]:
        """Frames of each sign, and of the way to the first sign, between signs, and back to rest."""
        rng = self._generator("timing")
        speed = look_of_signer(self.signer, self.seed).speed * rng.uniform(0.93, 1.07)
        strokes = [max(10, round(12 / speed * rng.uniform(0.93, 1.07))) for _ in self.signs]
        between = [max(3, round(4.5 / speed * rng.uniform(0.85, 1.15))) for _ in self.signs[1:]]
        return strokes, [round(4 / speed), *between, round(4 / speed)]


# One hand through a clip: positions (S, 2) as fractions of the picture, its forms, and its tilts in degrees.
_HandTrack = tuple[np.ndarray, list[HandForm], np.ndarray]


def _trace(movement: str, num_frames: int, backwards: bool = False) -> np.ndarray:
    """Offsets (num_frames, 2) from the place of a sign, at an even pace, in picture fractions."""
    points = np.array(MOVEMENTS[movement][:: -1 if backwards else 1]) * MOVEMENT_REACH
    when = np.linspace(0, len(points) - 1, num_frames)
    return np.stack([np.interp(when, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], axis=1)


def _stroke(sign: Sign, hand: int, num_frames: int, reach: float) -> tuple[np.ndarray, list[HandForm]]:
    """Positions and forms of one hand (0 dominant, 1 other) while a sign is made."""
    if hand == 1 and sign.hands == "one":
        return np.tile(REST_PLACES[hand], (num_frames, 1)), [REST_FORM] * num_frames
    if hand == 1 and sign.hands == "base":
        return np.tile(BASE_PLACE, (num_frames, 1)), [sign.base_form or REST_FORM] * num_frames

    place = np.array(PLACES[sign.place])
    if sign.hands in ("mirrored", "opposed"):
        place[0] = -max(abs(place[0]), MIRRORED_CLEARANCE)
    positions = place + reach * _trace(sign.movement, num_frames, backwards=hand == 1 and sign.hands == "opposed")
    if hand == 1:
        positions = positions * (-1, 1) + ((0, 0.09) if sign.hands == "opposed" else (0, 0))
    turn = num_frames // 2
    return positions, [sign.form] * turn + [sign.end_form or sign.form] * (num_frames - turn)


def _hand_track(signing: Signing, hand: int, look: SignerLook, rng: np.random.Generator) -> _HandTrack:
    """Join the signs of a clip: from rest to the first, from each to the next, and back to rest."""
    signs, (strokes, transitions) = signing.signs, signing.timing()
    positions, forms, tilts = [], [], []
    place, form, tilt = REST_PLACES[hand], REST_FORM, 0.0
    for index, num_steps in enumerate(transitions):
        if index < len(signs):
            reach = look.reach * rng.uniform(0.95, 1.05)
            stroke, stroke_forms = _stroke(signs[index], hand, strokes[index], reach)
            stroke = stroke + rng.uniform(-0.018, 0.018, 2)
            next_tilt = rng.uniform(-10, 10)
        else:
            stroke, stroke_forms, next_tilt = REST_PLACES[hand][None], [REST_FORM], 0.0
        share = np.arange(1, num_steps + 1) / (num_steps + 1)
        share = share * share * (3 - 2 * share)  # the hand starts and stops softly
        positions.append(place + share[:, None] * (stroke[0] - place))
        forms += [form] * (num_steps // 2) + [stroke_forms[0]] * (num_steps - num_steps // 2)
        tilts.append(tilt + share * (next_tilt - tilt))
        if index < len(signs):
            positions.append(stroke)
            forms += stroke_forms
            tilts.append(np.full(len(stroke), next_tilt))
            place, form, tilt = stroke[-1], stroke_forms[-1], next_tilt
    tremor = rng.normal(0, 0.003, (len(forms), 2))
    return np.concatenate(positions) + tremor, forms, np.concatenate(tilts)


OUTLINE: Color = (28, 22, 32)
PALM: Color = (255, 250, 240)
TILT_STEP = 10  # degrees between the hand pictures that are kept


@dataclass(frozen=True)
class _Camera:
    """Where the signer stands in the picture: from body coordinates to pixels of the supersampled canvas."""

    pixels: int
    scale: float
    middle: float
    drop: float

    def point(self, x: float, y: float) -> Point:
        y = 0.55 + (y - 0.55) * self.scale + self.drop
        return (self.middle + x * self.scale) * self.pixels, y * self.pixels

    def length(self, value: float) -> float:
        return value * self.scale * self.pixels

    def box(self, x: float, y: float, half_width: float, half_height: float) -> list[Point]:
        return [self.point(x - half_width, y - half_height), self.point(x + half_width, y + half_height)]


def _rounded_line(draw: ImageDraw.ImageDraw, points: list[Point], width: float, fill) -> None:
    """A line with round ends and joints."""
    draw.line(points, fill=fill, width=max(1, round(width)))
    radius = width / 2
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_hand(form: HandForm, tilt: float, is_mirrored: bool, radius: float, color: Color) -> Image.Image:
    """A hand on a transparent square whose middle is the hand's."""
    turn = math.radians({"up": 0, "side": 90, "down": 180}[form.direction] + tilt)
    cos, sin, flip = math.cos(turn), math.sin(turn), -1 if is_mirrored else 1
    middle = math.ceil(1.5 * radius)
    image = Image.new("RGBA", (2 * middle, 2 * middle), (*OUTLINE, 0))
    draw = ImageDraw.Draw(image)
    rim = 0.16 * radius
    for extra, fill in ((rim, (*OUTLINE, 255)), (0, (*color, 255))):
        for width, points in HAND_SHAPES[form.shape]:
            turned = [(flip * (cos * x - sin * y), sin * x + cos * y) for x, y in points]
            placed = [(middle + radius * x, middle + radius * y) for x, y in turned]
            _rounded_line(draw, placed, width * radius + extra, fill)
    if form.palm:
        y = PALM_HEIGHTS[form.shape]
        x, y = middle - flip * radius * sin * y, middle + radius * cos * y
        draw.ellipse((x - 0.38 * radius, y - 0.38 * radius, x + 0.38 * radius, y + 0.38 * radius), fill=PALM)
    return image


def _draw_room(pixels: int, rng: np.random.Generator) -> Image.Image:
    """A dull room: a wall that shades into another tone, and sometimes a window, a shelf or a floor."""
    hue, value = rng.uniform(0, 1), rng.uniform(0.35, 0.9)
    top, bottom = (np.array(_hsv(hue, rng.uniform(0, 0.25), v)) for v in (value, value * rng.uniform(0.6, 1)))
    shade = np.linspace(0, 1, pixels)[:, None, None]
    wall = np.broadcast_to(top + shade * (bottom - top), (pixels, pixels, 3)).astype(np.uint8)
    image = Image.fromarray(wall)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 3)):
        x, y, width, height = rng.uniform((0, 0, 0.1, 0.1), (0.9, 0.6, 0.4, 0.4)) * pixels
        draw.rectangle((x, y, x + width, y + height), fill=_hsv(rng.uniform(), 0.2, value * rng.uniform(0.7, 1.1)))
    return image


def _draw_body(camera: _Camera, look: SignerLook) -> Image.Image:
    """Torso, neck and head on a transparent canvas: what the hands move in front of."""
    image = Image.new("RGBA", (camera.pixels, camera.pixels), (*look.clothes, 0))
    draw = ImageDraw.Draw(image)
    width, head = look.shoulder_width, look.head_size
    shadow = _blend(look.skin, (40, 20, 20), 0.25)
    hair, face = (0.103 * head, 0.125 * head), (0.082 * head, 0.105 * head)
    if look.hair_length > 0.5:
        draw.rounded_rectangle(
            camera.box(0, 0.37, hair[0], 0.09 * look.hair_length + 0.02), camera.length(0.04), fill=look.hair
        )
    draw.ellipse(camera.box(0, 0.30, *hair), fill=look.hair)
    draw.rectangle(camera.box(0, 0.44, 0.035, 0.05), fill=shadow)
    torso = [(-width, 0.49), (-0.05, 0.465), (0.05, 0.465), (width, 0.49), (width * 0.85, 1.2), (-width * 0.85, 1.2)]
    draw.polygon([camera.point(x, y) for x, y in torso], fill=look.clothes)
    draw.ellipse(camera.box(0, 0.468, 0.045, 0.022), fill=shadow)
    draw.ellipse(camera.box(0, 0.32, *face), fill=look.skin)
    draw.chord(camera.box(0, 0.295, face[0], face[1] * 0.9), 190, 350, fill=look.hair)
    for side in (-1, 1):
        draw.ellipse(camera.box(side * 0.033 * head, 0.318, 0.013, 0.013), fill=(250, 250, 250))
        draw.ellipse(camera.box(side * 0.033 * head, 0.319, 0.007, 0.009), fill=OUTLINE)
    nose = [camera.point(0, 0.325), camera.point(0.008, 0.35)]
    draw.line(nose, fill=shadow, width=max(1, round(camera.length(0.008))))
    draw.ellipse(camera.box(0, 0.377, 0.025, 0.008), fill=(150, 70, 75))
    return image


def _elbow(shoulder: np.ndarray, wrist: np.ndarray, outwards: int) -> np.ndarray:
    """The elbow of two equally long halves of an arm, bent down and away from the body."""
    way = wrist - shoulder
    distance = max(float(np.hypot(*way)), 1e-6)
    bend = math.sqrt(max(0.0, 0.2**2 - distance**2 / 4))
    across = np.array([-way[1], way[0]]) / distance
    if across[0] * outwards + 0.8 * across[1] < 0:
        across = -across
    return shoulder + way / 2 + bend * across


def _draw_arm(draw: ImageDraw.ImageDraw, camera: _Camera, look: SignerLook, hand: int, position: np.ndarray) -> None:
    side = -1 if hand == 0 else 1
    shoulder = np.array([side * (look.shoulder_width - 0.02), 0.51])
    elbow = _elbow(shoulder, position, side)
    joints = [camera.point(*joint) for joint in (shoulder, elbow, position)]
    sleeve = _blend(look.clothes, OUTLINE, 0.22)  # darker than the torso, or an arm before it would vanish
    _rounded_line(draw, joints[1:], camera.length(0.055), sleeve if look.sleeves else look.skin)
    _rounded_line(draw, joints[:2], camera.length(0.075), sleeve)


def _draw_frames(tracks: list[_HandTrack], look: SignerLook, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every frame of a clip, uint8 (S, H, W, 3)."""
    pixels = SUPERSAMPLING * size
    camera = _Camera(pixels, rng.uniform(0.89, 0.98), 0.5 + rng.uniform(-0.03, 0.03), rng.uniform(-0.02, 0.02))
    room, body = _draw_room(pixels, rng), _draw_body(camera, look)
    light = rng.uniform(0.88, 1.08)
    brightness = np.array([min(255, round(level * light)) for level in range(256)], np.uint8)
    sway_phase, num_frames = rng.uniform(0, 2 * math.pi), len(tracks[0][0])

    @functools.cache
    def signer_without_arms(sway: int) -> Image.Image:
        picture = room.copy()
        picture.paste(body, (sway, 0), body)
        return picture

    @functools.cache
    def hand_picture(form: HandForm, tilt: int, hand: int) -> Image.Image:
        color = (look.dominant_glove, look.other_glove)[hand]
        return _draw_hand(form, tilt, hand == 1, camera.length(look.hand_radius), color)

    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for index in range(num_frames):
        canvas = signer_without_arms(round(0.008 * pixels * math.sin(sway_phase + 0.15 * index))).copy()
        draw = ImageDraw.Draw(canvas)
        for hand in (1, 0):
            positions, forms, tilts = tracks[hand]
            _draw_arm(draw, camera, look, hand, positions[index])
            picture = hand_picture(forms[index], TILT_STEP * round(tilts[index] / TILT_STEP), hand)
            x, y = camera.point(*positions[index])
            canvas.paste(picture, (round(x - picture.width / 2), round(y - picture.height / 2)), picture)
        frames[index] = brightness[np.asarray(canvas.reduce(SUPERSAMPLING))]
    return frames
