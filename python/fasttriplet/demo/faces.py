"""The part of a character that moves: eyes, brows, nose and mouth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fasttriplet.demo.shapes import BLACK, WHITE, Shape, mirror, mix, oval, rgb, smooth, stroke

if TYPE_CHECKING:
    from fasttriplet.demo.characters import Character


@dataclass(frozen=True)
class Expression:
    """What a face does in one image.

    Attributes
    ----------
    gaze_x, gaze_y : float
        Where the eyes look, -1..1.
    open_eyes : float
        0 for closed eyes, 1 for open ones.
    smile : float
        -1..1.
    open_mouth : float
        0..1.
    brow : float
        How far the brows are up, -1..1.
    """

    gaze_x: float = 0
    gaze_y: float = 0
    open_eyes: float = 1
    smile: float = 0.4
    open_mouth: float = 0
    brow: float = 0


def face(who: Character, now: Expression) -> list[Shape]:
    """List the shapes of a face, from the farthest to the nearest."""
    return [*_nose(who), *_mouth(who, now), *_eyes(who, now), *_brows(who, now)]


def _nose(who: Character) -> list[Shape]:
    shade = mix(who.skin, rgb("6a2030"), 0.28)
    match who.nose_kind:
        case "button":
            return [Shape(oval(0, 0.2, 0.11, 0.09), shade, 0.95)]
        case "long":
            return [
                Shape(
                    stroke(smooth([(0.03, -0.05), (0.1, 0.22), (-0.06, 0.25)], 5, closed=False), 0.05),
                    shade,
                    0.95,
                )
            ]
        case "round":
            return [Shape(oval(0, 0.19, 0.13, 0.12), mix(who.skin, rgb("6a2030"), 0.18), 0.9)]
        case "shadow":
            return [Shape(np.array([(-0.02, -0.02), (0.14, 0.24), (-0.04, 0.27)]), shade, 0.95)]
    return []


def _mouth(who: Character, now: Expression) -> list[Shape]:
    if who.mouth_w == 0:
        return []
    wide = who.mouth_w * (1 + 0.12 * now.smile - 0.2 * now.open_mouth)
    x = np.linspace(-1, 1, 15)
    bend = 1 - x**2
    upper = np.stack([x * wide, who.mouth_y + now.smile * 0.16 * (bend - 0.5)], axis=1)
    ink = who.lip if who.lips else mix(mix(who.skin, rgb("7a1f2b"), 0.55), BLACK, 0.35)
    if now.open_mouth < 0.12:
        return [Shape(stroke(upper, 0.075 if who.lips else 0.055), ink, 0.85)]
    gape = 0.34 * now.open_mouth
    lower = upper + np.stack([np.zeros_like(x), gape * np.sqrt(bend)], axis=1)
    shapes = [Shape(np.concatenate([upper, lower[::-1]]), rgb("5e1a26"), 0.8)]
    tongue = lower[3:-3]
    top = tongue + np.stack([np.zeros(9), -gape * 0.4 * np.sqrt(1 - np.linspace(-1, 1, 9) ** 2)], axis=1)
    shapes.append(Shape(np.concatenate([tongue, top[::-1]]), rgb("e06a75"), 0.81))
    row = upper[2:-2]
    match who.tooth:
        case "row":
            teeth = row + np.stack([np.zeros(11), gape * 0.32 * np.sqrt(bend[2:-2])], axis=1)
            shapes.append(Shape(np.concatenate([row, teeth[::-1]]), WHITE, 0.83))
        case "gap":
            for left in (-0.09, 0.02):
                y = who.mouth_y + now.smile * 0.08
                shapes.append(Shape(oval(left + 0.035, y + gape * 0.2, 0.05, gape * 0.3, 6), WHITE, 0.83))
        case "fangs":
            for at in (4, 10):
                px, py = upper[at]
                fang = np.array([(px - 0.06, py), (px + 0.06, py), (px, py + gape * 0.7)])
                shapes.append(Shape(fang, WHITE, 0.83))
    shapes.append(Shape(stroke(np.concatenate([upper, lower[::-1]]), 0.06 if who.lips else 0.04), ink, 0.85))
    return shapes


def _eyes(who: Character, now: Expression) -> list[Shape]:
    shapes: list[Shape] = []
    r, wide = who.eye_r, now.open_eyes
    for x, y in who.eyes:
        z = 0.75
        if wide < 0.3:
            lid = np.stack([np.linspace(-r, r, 9), 0.35 * r * (1 - np.linspace(-1, 1, 9) ** 2)], axis=1)
            ink = who.iris if who.kind == "robot" else mix(who.skin, BLACK, 0.75)
            shapes.append(Shape(stroke(lid + np.array((x, y)), 0.06), ink, z))
            continue
        if who.eye_kind == "dot":
            shapes.append(Shape(oval(x, y, r, r * 1.15 * wide), BLACK, z))
            shapes.append(
                Shape(oval(x - r * 0.3, y - r * 0.4 * wide, r * 0.3, r * 0.3 * wide), WHITE, z + 0.01)
            )
            continue
        high = r * wide * {"almond": 0.68, "sleepy": 0.9, "big": 1.2}.get(who.eye_kind, 1)
        shapes.append(Shape(oval(x, y, r * 1.1, high * 1.12), mix(who.skin, BLACK, 0.55), z - 0.01))
        shapes.append(Shape(oval(x, y + 0.01, r, high), WHITE, z))
        iris = r * {"big": 0.74, "almond": 0.52}.get(who.eye_kind, 0.6)
        px = x + now.gaze_x * (r - iris) * 0.8
        py = y + now.gaze_y * max(high - iris, 0) * 0.8
        tall = min(iris, high * 0.96)
        shapes.append(Shape(oval(px, py, iris, tall, points=28), who.iris, z + 0.01))
        shapes.append(
            Shape(oval(px, py, iris * 0.58, min(iris * 0.58, tall * 0.8), points=20), BLACK, z + 0.02)
        )
        shapes.append(
            Shape(
                oval(px - iris * 0.3, py - tall * 0.4, iris * 0.26, iris * 0.26, points=14), WHITE, z + 0.03
            )
        )
        if who.eye_kind == "sleepy":
            half = oval(x, y, r * 1.12, high * 1.15, points=28)
            half = half[half[:, 1] <= y + 1e-9]
            lid = np.concatenate(
                [
                    half[np.argsort(half[:, 0])],
                    [[x + r * 1.12, y - high * 0.2], [x - r * 1.12, y - high * 0.2]],
                ]
            )
            shapes.append(Shape(lid, mix(who.skin, rgb("4a2040"), 0.22), z + 0.04))
    return shapes


def _brows(who: Character, now: Expression) -> list[Shape]:
    if not who.brows:
        return []
    y = who.eye_y - who.eye_r * 1.25 - 0.1 - 0.08 * now.brow
    inner, outer = who.eye_x - 0.17, who.eye_x + 0.2
    lift = {"thin": (0, 0.05), "thick": (0.02, 0.03), "angry": (0.1, -0.05), "round": (0.03, 0.1)}[
        who.brow_kind
    ]
    line = smooth([(inner, y + lift[0]), (who.eye_x, y - 0.05), (outer, y + lift[1])], 5, closed=False)
    brow = stroke(line, 0.12 if who.brow_kind == "thick" else 0.065)
    ink = mix(who.hair, BLACK, 0.35)
    return [Shape(brow, ink, 0.7), Shape(mirror(brow), ink, 0.7)]
