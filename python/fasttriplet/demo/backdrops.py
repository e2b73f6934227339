"""The patterns behind the characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fasttriplet.demo.shapes import WHITE, Outline, Shape, mix, oval, rgb, turned

if TYPE_CHECKING:
    from fasttriplet.demo.characters import Character

_FAR = 2.6  # head radii: beyond the picture's corners, whatever the pose


def backdrop_of(who: Character) -> list[Shape]:
    """Draw the pattern behind an identity, larger than the picture, around (0, 0)."""
    other = mix(who.backdrop, WHITE if who.chance(0.6) else rgb("28285a"), 0.3)
    shapes = [Shape(oval(0, 0, 4, 4), who.backdrop, 0)]
    match who.pick(["stripes", "dots", "rays", "hills", "circle", "checks", "plain"]):
        case "stripes":
            angle = who.between(0, np.pi)
            shapes += [Shape(turned(stripe, angle, (0, 0)), other, 0) for stripe in _stripes()]
        case "dots":
            shapes += [Shape(oval(x, y, 0.15, 0.15, points=14), other, 0) for x, y in _grid(0.6, 0.55)]
        case "rays":
            shapes += [Shape(ray, other, 0) for ray in _rays()]
        case "hills":
            shapes.append(Shape(oval(1.2, -1.0, 0.34, 0.34), mix(other, rgb("ffe678"), 0.6), 0))
            shapes.append(Shape(oval(-1.3, 2.4, 1.9, 1.9, points=48), other, 0))
            shapes.append(Shape(oval(1.2, 2.6, 1.9, 1.9, points=48), mix(other, rgb("3c5a6e"), 0.25), 0))
        case "circle":
            shapes.append(Shape(oval(0, 0, 1.42, 1.42, points=60), other, 0))
        case "checks":
            square = np.array([(0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)])
            shapes += [Shape(square + np.array((x, y)), other, 0) for x, y in _grid(1.0, 0.5)]
    return shapes


def _grid(across: float, down: float) -> Iterator[tuple[float, float]]:
    """Places in rows, every second row half a step to the right."""
    for row, y in enumerate(np.arange(-_FAR, _FAR, down)):
        for x in np.arange(-_FAR, _FAR, across):
            yield float(x) + across / 2 * (row % 2), float(y)


def _stripes() -> Iterator[Outline]:
    for x in np.arange(-_FAR, _FAR, 0.66):
        yield np.array([(x, -_FAR), (x + 0.33, -_FAR), (x + 0.33, _FAR), (x, _FAR)])


def _rays() -> Iterator[Outline]:
    for angle in np.arange(0, 2 * np.pi, np.pi / 8):
        ends = [(4 * np.cos(angle + wide), 4 * np.sin(angle + wide)) for wide in (0, np.pi / 16)]
        yield np.array([(0.0, 0.0), *ends])
