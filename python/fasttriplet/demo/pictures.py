"""Pictures of synthetic identities: each a character of its own, seen in changing pose and light."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fasttriplet.demo.backdrops import backdrop_of
from fasttriplet.demo.characters import Character
from fasttriplet.demo.faces import Expression
from fasttriplet.demo.shapes import Shape

_FINE = 3  # drawn this many times larger, then averaged: smooth edges
_VIEW = 1.58  # half the picture's side, in head radii


def draw_identities(
    identities: int = 60, images: int = 20, size: int = 112, *, seed: int = 0, first: int = 0
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
    first
        Identity to begin with.

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
    limits = (("identities", identities, 0), ("images", images, 0), ("size", size, 8), ("seed", seed, 0))
    for name, value, least in limits:
        if value < least:
            msg = f"{name} must be {least} or more, not {value}"
            raise ValueError(msg)
    return _draw_all(range(first, identities), images, size, seed)


def _draw_all(
    identities: range, images: int, size: int, seed: int
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    for identity in identities:
        who = Character(seed, identity)
        backdrop = backdrop_of(who)
        for image in range(images):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, identity, image)))
            yield identity, image, _draw(who, backdrop, size, rng)


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
    behind = (
        np.array([[np.cos(roll / 2), np.sin(roll / 2)], [-np.sin(roll / 2), np.cos(roll / 2)]]) * scale * 1.06
    )
    _fill(pen, backdrop, np.vstack([behind, [0, 0]]), side / 2 + scale * rng.normal(0, 0.12, 2))
    _fill(pen, who.shapes(now), _pose(rng, roll) * scale, side / 2 + scale * (shift + np.array((0, 0.16))))
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


def _fill(
    pen: ImageDraw.ImageDraw, shapes: list[Shape], pose: NDArray[np.float64], centre: NDArray[np.float64]
) -> None:
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
    cast = np.exp(rng.normal(0, 0.05, 3)) * np.exp(rng.normal(0, 0.11))
    value *= (1 + slope.astype(np.float32))[:, :, None] * cast.astype(np.float32)
    sigma = rng.uniform(0, 0.02)
    value += rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(sigma)
    return np.asarray(np.clip(value * 255 + 0.5, 0, 255).astype(np.uint8))
