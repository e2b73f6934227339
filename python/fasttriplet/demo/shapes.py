"""Outlines and colours that the demo's characters are made of.

Lengths are in head radii; x grows to the right, y downwards, z towards the viewer. Outlines are (n, 2)
float64.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Colour = tuple[int, int, int, int]  # red, green, blue, opacity; 0..255

BLACK: Colour = (38, 30, 36, 255)
WHITE: Colour = (255, 253, 248, 255)


class Shape(NamedTuple):
    """A filled polygon in front of or behind the plane through the middle of the head.

    Attributes
    ----------
    outline : (n, 2) float64
    fill : (red, green, blue, opacity)
    z : float
    """

    outline: Outline
    fill: Colour
    z: float


def rgb(code: str) -> Colour:
    """Read ``RRGGBB``."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16), 255


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Make a colour from a hue (turns) and a saturation and value in 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255), 255


def mix(first: Colour, second: Colour, part: float) -> Colour:
    """Blend two colours: `part` of the second, opaque."""
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(first[:3], second[:3], strict=True))
    return red, green, blue, 255


def clear(colour: Colour, opacity: float) -> Colour:
    """Make a colour see-through."""
    return (*colour[:3], round(255 * opacity))


def oval(  # noqa: PLR0917 - a pen's stroke, called 150 times
    x: float, y: float, rx: float, ry: float, power: float = 2, taper: float = 0, points: int = 36
) -> Outline:
    """Draw a superellipse; `taper` > 0 makes it narrower below."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    across, down = np.cos(angle), np.sin(angle)
    across = np.sign(across) * np.abs(across) ** (2 / power)
    down = np.sign(down) * np.abs(down) ** (2 / power)
    return np.stack([x + rx * across * (1 - taper * down), y + ry * down], axis=1)


def smooth(
    corners: Sequence[tuple[float, float]] | Outline, steps: int = 6, *, closed: bool = True
) -> Outline:
    """Run a Catmull-Rom spline through corners."""
    here = np.asarray(corners, dtype=np.float64)
    if not closed:
        here = np.concatenate([here[:1], here, here[-1:]])
    before, after, last = (np.roll(here, shift, axis=0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (before, here, after, last))
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    if closed:
        return np.asarray(curve.reshape(-1, 2))
    return np.concatenate([curve[1:-2].reshape(-1, 2), here[-1:]])


def stroke(line: Sequence[tuple[float, float]] | Outline, width: float) -> Outline:
    """Thicken a line, with round ends."""
    path = np.asarray(line, dtype=np.float64)
    along = np.gradient(path, axis=0)
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    along = along / length
    along *= width / 2
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    turn = np.linspace(0, np.pi, 8)[1:-1, None]
    end = path[-1] + np.cos(turn) * side[-1] + np.sin(turn) * along[-1]
    start = path[0] - np.cos(turn) * side[0] - np.sin(turn) * along[0]
    return np.concatenate([path + side, end, (path - side)[::-1], start])


def mirror(outline: Outline) -> Outline:
    """Reflect left and right."""
    return np.asarray(outline * np.array([-1.0, 1.0]))


def turned(outline: Outline, angle: float, about: tuple[float, float]) -> Outline:
    """Rotate by an angle in radians around a point."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray((outline - about) @ np.array([[cos, sin], [-sin, cos]]) + about)
