"""Pictures of synthetic identities: each a character of its own, seen in changing pose and light."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fasttriplet._characters import Character, Expression
from fasttriplet._shapes import WHITE, Colour, Shape, mix, oval

_FINE = 3  # drawn this many times larger, then averaged: smooth edges
_VIEW = 1.58  # half the picture's side, in head radii


def draw_identities(
    identities: int = 60, images: int = 20, size: int = 112, *, seed: int = 0
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """
    Draw a dataset of faces that belong to nobody.

    Parameters
    ----------
    identities
        How many characters: people, animals, robots and monsters, each with a background of its own.
    images
        Per identity. They differ in pose, expression, light, sharpness and noise.
    size
        Side of the pictures in pixels.
    seed
        The same seed gives the same pictures; the first of a larger set are those of a smaller one.

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
    for name, value, least in (("identities", identities, 0), ("images", images, 0), ("size", size, 8), ("seed", seed, 0)):
        if value < least:
            msg = f"{name} must be {least} or more, not {value}"
            raise ValueError(msg)
    return _draw_all(identities, images, size, seed)


def _draw_all(identities: int, images: int, size: int, seed: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    for identity in range(identities):
        who = Character(seed, identity)
        backdrop = _backdrop(who)
        for image in range(images):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, identity, image)))
            yield identity, image, _draw(who, backdrop, size, rng)


def _backdrop(who: Character) -> list[Shape]:
    """Draw the pattern behind an identity, wider than the picture."""
    rng, base = who.rng, who.backdrop
    other = mix(base, WHITE if rng.random() < 0.6 else (40, 40, 90, 255), 0.3)
    far = 2.6
    shapes = [Shape(oval(0, 0, 4, 4), base, 0)]
    kind = str(rng.choice(["stripes", "dots", "rays", "hills", "circle", "checks", "plain"]))
    if kind == "stripes":
        angle = float(rng.uniform(0, np.pi))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for x in np.arange(-far, far, 0.66):
            stripe = np.array([(x, -far), (x + 0.33, -far), (x + 0.33, far), (x, far)])
            shapes.append(Shape(stripe @ turn, other, 0))
    elif kind == "dots":
        for row, y in enumerate(np.arange(-far, far, 0.55)):
            for x in np.arange(-far, far, 0.6):
                shapes.append(Shape(oval(x + 0.3 * (row % 2), y, 0.15, 0.15, points=14), other, 0))
    elif kind == "rays":
        for angle in np.arange(0, 2 * np.pi, np.pi / 8):
            ends = [(4 * np.cos(angle + d), 4 * np.sin(angle + d)) for d in (0, np.pi / 16)]
            shapes.append(Shape(np.array([(0.0, 0.0), *ends]), other, 0))
    elif kind == "hills":
        shapes.append(Shape(oval(1.2, -1.0, 0.34, 0.34), mix(other, (255, 230, 120, 255), 0.6), 0))
        for x, y, part in ((-1.3, 2.4, 0.0), (1.2, 2.6, 0.25)):
            shapes.append(Shape(oval(x, y, 1.9, 1.9, points=48), mix(other, (60, 90, 110, 255), part), 0))
    elif kind == "circle":
        shapes.append(Shape(oval(0, 0, 1.42, 1.42, points=60), other, 0))
    elif kind == "checks":
        for row, y in enumerate(np.arange(-far, far, 0.5)):
            for x in np.arange(-far, far, 1.0):
                left = x + 0.5 * (row % 2)
                shapes.append(Shape(np.array([(left, y), (left + 0.5, y), (left + 0.5, y + 0.5), (left, y + 0.5)]), other, 0))
    return shapes


def _draw(who: Character, backdrop: list[Shape], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    now = Expression(
        gaze_x=float(np.clip(rng.normal(0, 0.6), -1, 1)),
        gaze_y=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        open_eyes=0.0 if rng.random() < 0.07 else float(rng.uniform(0.7, 1)),
        smile=float(np.clip(rng.normal(0.4, 0.5), -1, 1)),
        open_mouth=float(max(rng.normal(0.15, 0.4), 0)) if rng.random() < 0.6 else 0.0,
        brow=float(rng.uniform(-1, 1)),
    )
    side = size * _FINE
    picture = Image.new("RGB", (side, side), who.backdrop[:3])
    pen = ImageDraw.Draw(picture, "RGBA")
    roll, shift = float(rng.normal(0, 0.13)), rng.normal(0, 0.07, 2)
    scale = side / (2 * _VIEW) * float(np.exp(rng.normal(0, 0.06)))
    behind = np.array([[np.cos(roll / 2), np.sin(roll / 2)], [-np.sin(roll / 2), np.cos(roll / 2)]]) * scale * 1.06
    _fill(pen, backdrop, np.vstack([behind, [0, 0]]), side / 2 + scale * rng.normal(0, 0.12, 2))
    _fill(pen, who.shapes(now), _pose(rng, roll) * scale, side / 2 + scale * (shift + [0, 0.16]))
    small = picture.reduce(_FINE)
    if rng.random() < 0.4:
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0)) * size / 112))
    return _light(np.asarray(small), rng)


def _pose(rng: np.random.Generator, roll: float) -> NDArray[np.float64]:
    """Choose how a head is turned: a (3, 2) matrix from head to picture."""
    yaw, pitch, shear = np.clip(rng.normal(0, [0.3, 0.16, 0.05]), -0.65, 0.65)
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    flat = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)], [0, 0]])
    # faces are drawn by their front: the foreshortening of a real turn would be too much
    flatten = np.diag([1 / np.cos(yaw / 2), 1 / np.cos(pitch / 2), 1])
    return np.asarray(flatten @ turn @ nod @ flat @ np.array([[1, 0], [shear, 1]]))


def _fill(pen: ImageDraw.ImageDraw, shapes: list[Shape], pose: NDArray[np.float64], centre: NDArray[np.float64]) -> None:
    lengths = [len(shape.outline) for shape in shapes]
    points = np.concatenate([shape.outline for shape in shapes]) @ pose[:2] + centre
    points += np.repeat([shape.z * 0.6 for shape in shapes], lengths)[:, None] * pose[2]
    start = 0
    for shape, length in zip(shapes, lengths, strict=True):
        pen.polygon(points[start : start + length].ravel().tolist(), fill=shape.fill)
        start += length


def _light(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change gain, contrast, colour and direction of the light, and add a camera's noise."""
    size = len(pixels)
    value = pixels.astype(np.float32) / 255
    value **= np.float32(np.exp(rng.normal(0, 0.22)))
    across = np.linspace(-1, 1, size, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    slope = strength * (np.cos(angle) * across[None, :] + np.sin(angle) * across[:, None])
    cast = np.exp(rng.normal(0, 0.05, 3)) * np.exp(rng.normal(0, 0.13))
    value *= (1 + slope.astype(np.float32))[:, :, None] * cast.astype(np.float32)
    sigma = rng.uniform(0, 0.03)
    value += rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(sigma)
    return np.asarray(np.clip(value * 255 + 0.5, 0, 255).astype(np.uint8))


__all__ = ["Colour", "draw_identities"]
