"""Pictures of the demo's characters: polygons with a depth each, seen in changing pose, mood and light.

Lengths are in head radii; x grows to the right, y downwards, z towards the viewer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fasttriplet._checks import whole_number
from fasttriplet.demo._characters import KINDS, Character, Colour

Outline = NDArray[np.float64]  # (n, 2)
Shape = tuple[Outline, Colour, float]  # what is filled, with what, and its z
Pixels = NDArray[np.uint8]  # (size, size, 3), RGB

_FINE = 3  # pictures are drawn this many times larger, then averaged: smooth edges
_VIEW = 1.62  # half the picture's side
_INK, _WHITE, _ROSE, _GOLD = (42, 33, 44), (255, 253, 247), (224, 92, 104), (245, 196, 80)
_SHADE = (74, 28, 66)  # what shadows and lines on a coat are mixed with


def draw_identities(
    identities: int = 60, images: int = 20, size: int = 112, *, seed: int = 0, first: int = 0
) -> Iterator[tuple[int, int, Pixels]]:
    """
    Draw a dataset of faces that belong to nobody.

    Parameters
    ----------
    identities, images
        How many characters (people, animals, robots and monsters), and how many pictures of each. They differ
        in pose, expression, light, backdrop, sharpness and noise.
    size
        Side of the pictures in pixels.
    seed
        The same seed gives the same pictures; the first of a larger set are those of a smaller one.
    first
        Identity to begin with; the characters before it are counted in `identities`.

    Yields
    ------
    identity, image : int
        From 0, image after image of one identity.
    pixels : (size, size, 3) uint8
        RGB.

    Raises
    ------
    ValueError
        When a number is out of range.
    """
    whole_number("size", size, 8)
    for name, value in (("identities", identities), ("images", images), ("seed", seed), ("first", first)):
        whole_number(name, value, 0)
    return _draw_all(range(first, identities), images, size, seed)


def _draw_all(identities: range, images: int, size: int, seed: int) -> Iterator[tuple[int, int, Pixels]]:
    for identity in identities:
        who = Character(seed, identity)
        behind, worn = [*_body(who), *_head(who)], [*_worn(who)]
        for image in range(images):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, identity, image)))
            yield identity, image, _photograph([*behind, *_face(who, rng), *worn], who.backdrop, size, rng)


# Outlines and colours

_CIRCLE = np.stack([turn(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for turn in (np.cos, np.sin)], axis=1)


def _oval(x: float, y: float, rx: float, ry: float = 0, square: float = 2, *, taper: float = 0) -> Outline:
    """A superellipse, as high as wide without `ry`; `taper` > 0 makes it narrower below."""
    unit = _CIRCLE if square == 2 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / square)
    across, down = unit.T
    return np.stack([x + rx * across * (1 - taper * down), y + (ry or rx) * down], axis=1)


def _lens(x: float, y: float, wide: float, bend: float, gape: float, *, tilt: float = 0) -> Outline:
    """A mouth or a brow: a line that is bent down and opens in the middle."""
    across, arch = _CIRCLE[:25].T
    upper = y + bend * arch**2 - tilt * across
    line = np.stack([x + wide * across, upper, upper + gape * arch], axis=1)
    return np.concatenate([line[:, :2], line[::-1, ::2]])


def _waved(outline: Outline, count: int, depth: float) -> Outline:
    """Curls (`depth` > 0) or spikes (`depth` < 0) along an outline."""
    wave = np.abs(np.sin(np.linspace(0, np.pi * count, len(outline), endpoint=False)))[:, None]
    return np.asarray(outline + depth * wave * (outline - outline.mean(axis=0)))


def _band(outline: Outline, top: float | Outline = -9, bottom: float | Outline = 9) -> Outline:
    """The part of a convex outline between two heights; they may be given for each point."""
    return np.stack([outline[:, 0], np.clip(outline[:, 1], top, bottom)], axis=1)


def _both(outline: Outline, fill: Colour, z: float) -> tuple[Shape, Shape]:
    """A shape and its mirror image."""
    return (outline, fill, z), (outline * (-1, 1), fill, z)


def _mix(first: Colour, second: Colour, part: float) -> Colour:
    """Two colours blended, with `part` of the second."""
    return tuple(round(a + (b - a) * part) for a, b in zip(first, second, strict=True))


# What there is to see

_STEPS = np.arange(-2.7, 2.8, 0.6)
_PATTERNS = [
    [],
    [_oval(0, 0, 1.42)],
    [_oval(1, -0.9, 0.4), _oval(-1.4, 2.4, 2.1), _oval(1.5, 2.8, 2)],
    [_oval(x, y, 0.14) for x in _STEPS for y in _STEPS],
    [_oval(x, 0, 0.15, 4, 50) for x in _STEPS],
    [np.array([(0, 0), *(5 * _CIRCLE[turn : turn + 2])]) for turn in range(0, 48, 3)],
]
_HAIR: dict[str, list[tuple[float, float, float, float]]] = {  # ovals behind the head
    "curly": [(0, -0.2, 1.08, 1.04)],
    "spiky": [(0, -0.2, 1.04, 1.02)],
    "bob": [(0, 0.06, 1.1, 1.08)],
    "long": [(0, 0.55, 1.1, 1.6)],
    "bun": [(0, -1.2, 0.38, 0.34)],
    "tails": [(-1.12, 0.5, 0.27, 0.66), (1.12, 0.5, 0.27, 0.66)],
    "afro": [(0, -0.32, 1.34, 1.24)],
}
_WAVES = {"curly": (16, 0.1), "spiky": (12, -0.22), "afro": (16, 0.08)}  # how many along them, and how deep


def _body(who: Character) -> Iterator[Shape]:
    """Hair that hangs down, shoulders, clothes and neck."""
    for oval in _HAIR.get(who.style, []):
        yield _waved(_oval(*oval), *_WAVES.get(who.style, (0, 0))), _mix(who.hair, _SHADE, 0.25), -0.15
    body, light = _oval(0, 2.2, 1.2, 1.14, 2.8), _mix(who.shirt, _WHITE, 0.6)
    yield body, who.shirt, -0.18
    yield _oval(0, 0.9, 0.34, 0.46, 3), _mix(who.coat, _SHADE, 0.25), -0.12
    match who.clothes:
        case "stripes":
            yield from ((_band(body, y, y + 0.15), light, -0.17) for y in (1.4, 1.72))
        case "collar":
            yield from _both(np.array([(0, 1.5), (0.1, 1.1), (0.5, 1.02), (0.36, 1.62)]), light, -0.05)
        case "scarf":
            yield _oval(0.42, 1.5, 0.18, 0.4, 4), _mix(who.accent, _SHADE, 0.3), -0.06
            yield _oval(0, 1.14, 0.72, 0.22, 3), who.accent, -0.05
        case "bow":
            yield from _both(np.array([(0, 1.3), (0.4, 1.1), (0.36, 1.3), (0.4, 1.5)]), who.accent, 0.05)
            yield _oval(0, 1.3, 0.1), _mix(who.accent, _SHADE, 0.4), 0.07


def _head(who: Character) -> Iterator[Shape]:
    """What does not move: the head with ears, markings, muzzle, hair and beard."""
    kind, dark, pale = who.kind, _mix(who.coat, _SHADE, 0.3), _mix(who.coat, _WHITE, 0.5)
    lining = {"person": dark, "dog": dark, "frog": who.coat, "robot": _GOLD, "monster": _GOLD}
    ear = _oval(*KINDS[kind].ear)
    yield from _both(ear, dark if kind == "dog" else who.coat, -0.06)
    inner = 0.6 * ear + 0.4 * ear.mean(axis=0)
    yield from _both(inner, lining.get(kind, _mix(who.coat, _ROSE, 0.4)), -0.05)
    head = _oval(0, 0, who.wide, who.high, who.square, taper=who.taper)
    across = head[:, 0] / who.wide
    yield head, dark, 0
    yield head * 0.96 - 0.025, who.coat, 0.01
    match kind:
        case "cat" if who.marked:
            yield from ((_oval(x, -0.6, 0.05, 0.17), dark, 0.3) for x in (-0.2, 0, 0.2))
        case "dog" | "bear" if who.marked:
            yield _oval(0.4, -0.1, 0.3, 0.36), dark, 0.3
        case "fox":
            yield _band(head * 0.96, 0.1 + 0.35 * np.abs(np.sin(3 * across))), _WHITE, 0.02
        case "robot":
            yield _oval(0, -1.1, 0.04, 0.24), dark, 0
            yield _oval(0, -1.34, 0.13), who.accent, 0
            yield _oval(0, -0.1, 0.74, 0.34, 5), (38, 44, 60), 0.3
        case "monster":
            spots = ((-0.55, -0.55), (0.5, 0.5), (0.68, 0.2), (-0.62, 0.45), (0.4, -0.72))
            yield from ((_oval(x, y, 0.1), pale, 0.3) for x, y in spots)
    if kind in {"cat", "bear", "rabbit", "dog", "fox"}:
        yield _oval(0, 0.44, 0.42, 0.3), pale, 0.4
        yield _oval(0, 0.24, 0.15, 0.1, 2.2, taper=0.3), _INK, 0.56
    if who.blush and kind != "robot":
        yield from _both(_oval(who.wide * 0.62, 0.3, 0.17, 0.11), (*_ROSE, 70), 0.36)
    if who.beard:
        yield _band(head * 1.04, 0.42 - 0.5 * across**2), who.hair, 0.1
    if kind == "person" and who.style != "bald":
        count, depth = _WAVES.get(who.style, (0, 0))
        parting = who.forehead * np.maximum(0, 1 - 1.2 * np.abs(across - who.part))
        hair = _band(_waved(head * 1.07, count, depth / 2), bottom=0.4 * across**6 - 0.45 - parting)
        yield hair, who.hair, 0.15
        yield _oval(-0.3 * who.wide, -0.86 * who.high, 0.16, 0.05), (*_WHITE, 80), 0.2


def _face(who: Character, rng: np.random.Generator) -> Iterator[Shape]:
    """What moves: mouth, eyes and brows."""
    gaze, smile = np.clip(rng.normal(0, 0.5, 2), -1, 1), float(np.clip(rng.normal(0.35, 0.5), -1, 1))
    gape, shut, lift = rng.uniform(-0.3, 0.36), rng.random() < 0.07, rng.uniform(0.04, 0.17)
    line, shade = _mix(who.coat, _SHADE, 0.5), _mix(who.coat, _SHADE, 0.14)
    mouth = 0, 0.56 - 0.07 * smile, who.mouth + 0.05 * smile, 0.15 * smile
    if gape < 0.1:
        yield _lens(*mouth, 0.06), line, 0.5
    else:
        yield _lens(*mouth, gape), (104, 30, 46), 0.5
        yield _lens(*mouth, 0.28 * gape), _WHITE, 0.5
        yield _oval(0, mouth[1] + mouth[3] + 0.76 * gape, 0.13, 0.22 * gape), (235, 120, 126), 0.5
    (x, y, _), r = KINDS[who.kind].eye, who.eye
    ball, iris, part = (_INK, _INK, 0.9) if who.beads else (_WHITE, who.iris, 0.62)
    for middle in {-x, x}:
        yield _oval(middle, y, r * 1.14), line, 0.44
        if not shut:
            at_x, at_y = gaze * r * (1 - part) + (middle, y)
            yield _oval(middle, y, r), ball, 0.45
            yield _oval(at_x, at_y, r * part), iris, 0.46
            yield _oval(at_x, at_y, r * part * 0.58), _INK, 0.46
            yield _oval(at_x - 0.25 * r, at_y - 0.25 * r, r * 0.22), _WHITE, 0.47
        edge = 9 if shut else y + r * (2.2 * who.lid - 1.1)
        yield _band(_oval(middle, y - 0.06 * shut, r * 1.14), bottom=edge), shade, 0.47
    if who.kind == "person":
        yield _oval(0, 0.18, who.nose, 0.1), _mix(who.coat, _ROSE, 0.25), 0.57
        brow = _lens(x, y - r - lift, 0.22, -0.09, 0.07, tilt=who.frown)
        yield from _both(brow, _mix(who.hair, _INK, 0.5), 0.42)


def _worn(who: Character) -> Iterator[Shape]:
    """Glasses and hat."""
    colour, wide, top = who.accent, who.wide, -who.high
    light, dark = _mix(colour, _WHITE, 0.5), _mix(colour, _SHADE, 0.3)
    if who.glasses != "none":
        (x, y, _), r = KINDS[who.kind].eye, max(0.26, who.eye * 1.3)
        square = 4 if who.glasses == "square" else 2.2
        tint = (32, 36, 48, 225) if who.glasses == "dark" else (214, 236, 255, 50)
        for middle in {-x, x}:
            outer, inner = (_oval(middle, y, r + w, r + w, square) for w in (0.03, -0.03))
            yield inner, tint, 0.55
            yield np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), colour, 0.55
            yield _oval(middle - 0.08, y - 0.08, 0.05), (*_WHITE, 150), 0.56
        yield _oval(0, y - 0.03, max(x - r, 0), 0.03), colour, 0.55
        yield from _both(_oval((x + r + wide) / 2, y, (wide - x - r) / 2, 0.03), colour, 0.4)
    match who.hat:
        case "beanie":
            yield _band(_oval(0, 0, wide * 1.1, -top * 1.14, who.square), bottom=top * 0.6), colour, 0.1
            yield _oval(0, top * 0.6, wide * 1.02, 0.15, 5), dark, 0.22
            yield _waved(_oval(0, top * 1.18, 0.2), 9, 0.12), light, 0.1
        case "crown":
            half = [(0, -0.44), (0.28, -0.06), (0.58, -0.34), (0.5, 0.18), (0, 0.18)]
            yield from _both(np.array([(x, top + y) for x, y in half]), _GOLD, 0.1)
            yield from ((_oval(x, top * 0.95, 0.07), colour, 0.14) for x in (-0.26, 0, 0.26))
        case "flower":
            yield _waved(_oval(-0.55, top * 0.72, 0.24), 6, 0.35), light, 0.25
            yield _oval(-0.55, top * 0.72, 0.12), _GOLD, 0.27
        case "headphones":
            arcs = [_oval(0, 0, wide * grow, who.high * grow)[24:] for grow in (1.18, 1.08)]
            yield np.concatenate([arcs[0], arcs[1][::-1]]), dark, 0
            yield from _both(_oval(wide * 1.06, 0, 0.17, 0.3, 3), colour, 0.05)


# How it is seen: differently enough that a trained network still finds semi-hard triplets. With a quarter
# less shift, zoom and change of light, the demo's training ended at batch 335 because none were left.


def _photograph(figure: list[Shape], backdrop: Colour, size: int, rng: np.random.Generator) -> Pixels:
    picture = Image.new("RGB", (size * _FINE, size * _FINE), backdrop)
    scale, roll = picture.width / (2 * _VIEW) * np.exp(rng.normal(0, 0.08)), rng.normal(0, 0.13)
    yaw, pitch = np.clip(rng.normal(0, (0.3, 0.15)), -0.6, 0.6)
    flat = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) * scale
    # Half the angles: a face is drawn by its front, and a real turn would narrow it too much.
    pose = np.array([[np.cos(yaw / 2), 0], [0, np.cos(pitch / 2)], [np.sin(yaw), np.sin(pitch)]]) @ flat
    light = _mix(backdrop, _WHITE, 0.28)
    pattern = [(outline, light, 0.0) for outline in _PATTERNS[rng.integers(len(_PATTERNS))]]
    _fill(picture, pattern, np.vstack([flat, (0, 0)]), rng.normal(0, 0.12, 2) * scale)
    _fill(picture, figure, pose, rng.normal((0, 0.16), 0.09) * scale)
    small = picture.reduce(_FINE)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9) * size / 112))
    return _lit(np.asarray(small), rng)


def _fill(picture: Image.Image, shapes: list[Shape], pose: Outline, shift: Outline) -> None:
    pens = {3: ImageDraw.Draw(picture), 4: ImageDraw.Draw(picture, "RGBA")}
    for outline, fill, z in shapes:
        points = outline @ pose[:2] + (z * pose[2] + shift + picture.width / 2)
        pens[len(fill)].polygon(points.ravel().tolist(), fill)


def _lit(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Change gain, contrast, colour and direction of the light, and add a camera's noise."""
    across = np.linspace(-1, 1, len(pixels))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    light = 1 + slope * (np.cos(angle) * across[None, :, None] + np.sin(angle) * across[:, None, None])
    gain = np.exp(rng.normal(0, 0.06, 3) + rng.normal(-0.05, 0.11))
    curve = (np.arange(256) / 255) ** np.exp(rng.normal(0.05, 0.22)) * 255
    value = curve.astype(np.float32)[pixels] * (light * gain).astype(np.float32)
    value += rng.standard_normal(value.shape, dtype=np.float32) * np.float32(rng.uniform(0, 4))
    return np.asarray(np.clip(value + 0.5, 0, 255).astype(np.uint8))
