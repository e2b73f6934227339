"""The synthetic identities of the demo: who has which features."""

from __future__ import annotations

import numpy as np

from fasttriplet.demo.clothes import accessories, body
from fasttriplet.demo.faces import Expression, face
from fasttriplet.demo.kinds import HEADS
from fasttriplet.demo.shapes import (
    BLACK,
    WHITE,
    Colour,
    Outline,
    Shape,
    clear,
    hsv,
    mirror,
    mix,
    oval,
    rgb,
    stroke,
)

_GOLDEN = 0.6180339887498949  # hues this far apart stay apart, however many there are

_SKINS = ["f9dcc4", "f2c6a0", "e0a878", "c98a5b", "a87148", "8a5a3c", "6e4a34"]
_HAIRS = [
    "2b2126",
    "4a2f24",
    "7b4a2a",
    "b5713a",
    "e3b04b",
    "f1dca0",
    "c8432e",
    "9aa0a8",
    "3d5a98",
    "d65a94",
    "3f8f7a",
]
_HAIR_STYLES = ["short", "short", "bob", "long", "afro", "spiky", "mohawk", "bun", "tails", "bald", "curly"]
_FURS = {
    "cat": ["f0a04b", "8d99a6", "3a3a44", "f3e5d0", "b98a60", "c9b8d8"],
    "bear": ["8a5a3c", "5c4033", "c79a6b", "f4f1ea", "3b3b3f", "d99a9a"],
    "rabbit": ["f5efe6", "cfc4bd", "b89878", "e8c7d0", "9fb4c9"],
    "dog": ["d8a868", "f0e2cc", "7d5a44", "4b4550", "c97b4a"],
    "fox": ["e5733a", "d1552f", "9fb1bf", "c98f4e"],
    "frog": ["7bc25c", "4fa36b", "a6c84a", "5fb8a8"],
    "robot": ["9fb3c2", "d9dde0", "6f86a6", "e0b35c", "c96a5a", "7fbfb2"],
    "monster": ["8e6bc9", "4fb0c6", "e0608a", "6cc06a", "f08a4b", "5a6fd0"],
    "owl": ["8b6b4f", "b79a7a", "6d7688", "c9a35a", "5b4a5e"],
}
# people are half of the dataset; their hair, skin and clothes vary the most
_KINDS = ["person", "cat", "person", "robot", "person", "bear", "person", "monster", "person"]
_KINDS += ["fox", "person", "rabbit", "person", "frog", "person", "dog", "person", "owl"]


class Character:
    """One identity; the same arguments give the same one.

    Parameters
    ----------
    seed
        Of the dataset.
    number
        Of the identity.
    """

    def __init__(self, seed: int, number: int) -> None:
        shared = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        start, turn = int(shared.integers(len(_KINDS))), float(shared.random())
        self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number)))
        self.kind = _KINDS[(start + number) % len(_KINDS)]
        self.hue = turn + number * _GOLDEN
        self.backdrop = hsv(self.hue, self.between(0.22, 0.5), self.between(0.78, 0.97))
        self.shirt = hsv(self.hue + self.between(0.3, 0.7), self.between(0.45, 0.8), self.between(0.45, 0.9))
        self.skin = rgb(self.pick(_SKINS if self.kind == "person" else _FURS[self.kind]))
        self.hair = rgb(self.pick(_HAIRS)) if self.kind == "person" else mix(self.skin, BLACK, 0.35)
        self.iris = rgb(self.pick(["5a3b22", "2f6f9f", "3f8a52", "8a8f98", "b07a24", "6a4aa0"]))
        self.hair_style = self.pick(_HAIR_STYLES) if self.kind == "person" else "none"
        self._shape_head()
        self._place_features()
        self.behind: list[Shape] = []
        self.front: list[Shape] = []
        body(self)
        HEADS[self.kind](self)
        accessories(self)

    def between(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def pick(self, options: list[str]) -> str:
        """Draw one of several options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, part: float) -> bool:
        """Toss a coin that says yes in `part` of all cases."""
        return bool(self.rng.random() < part)

    def _shape_head(self) -> None:
        wide = {"cat": 1.0, "fox": 1.0, "frog": 1.08, "bear": 1.0, "robot": 0.92, "owl": 0.98}.get(
            self.kind, 0.86
        )
        self.rx = wide * self.between(0.9, 1.06)
        self.ry = self.between(0.92, 1.08) * {"frog": 0.8, "cat": 0.84, "fox": 0.84, "dog": 0.98}.get(
            self.kind, 0.96
        )
        self.power = {"robot": self.between(3.5, 8)}.get(self.kind, self.between(1.9, 2.8))
        self.taper = {"person": self.between(0.0, 0.2), "fox": 0.3, "rabbit": -0.08, "robot": 0}.get(
            self.kind, self.between(-0.15, 0.1)
        )

    def _place_features(self) -> None:
        self.eye_kind = self.pick(["dot", "round", "almond", "sleepy", "big"])
        if self.kind in {"frog", "owl", "robot"}:
            self.eye_kind = "round"
        self.eye_x = self.rx * self.between(0.36, 0.48)
        self.eye_y = self.between(-0.16, 0.02)
        size = {"dot": 0.11, "round": 0.2, "almond": 0.21, "sleepy": 0.2, "big": 0.27}
        self.eye_r = size[self.eye_kind] * self.between(0.9, 1.15)
        self.eyes = [(-self.eye_x, self.eye_y), (self.eye_x, self.eye_y)]
        self.brow_kind = self.pick(["thin", "thick", "angry", "round"])
        self.brows = self.kind == "person" or self.chance(0.2)
        self.mouth_y = self.between(0.46, 0.58)
        self.mouth_w = self.between(0.2, 0.4)
        self.lips = self.kind == "person" and self.chance(0.35)
        self.lip = mix(self.skin, rgb(self.pick(["b0404e", "b8506a", "96404e", "c06a60"])), 0.5)
        self.tooth = self.pick(["row", "row", "gap", "fangs", "none"])
        self.nose_kind = self.pick(["button", "long", "round", "shadow"])

    def head(self, scale: float = 1, points: int = 44) -> Outline:
        """Draw the outline of the head."""
        return oval(0, 0, self.rx * scale, self.ry * scale, self.power, self.taper, points)

    def shapes(self, expression: Expression) -> list[Shape]:
        """List what to draw, from the farthest to the nearest."""
        return [*self.behind, *face(self, expression), *self.front]

    # What is the same in every image

    def put(self, outline: Outline, fill: Colour, z: float, *, both: bool = False) -> None:
        """Add a shape, or a pair of them, to what lies behind the eyes and mouth."""
        self.behind.append(Shape(outline, fill, z))
        if both:
            self.behind.append(Shape(mirror(outline), fill, z))

    def top(self, outline: Outline, fill: Colour, z: float, *, both: bool = False) -> None:
        """Add a shape, or a pair of them, to what lies in front of the eyes and mouth."""
        self.front.append(Shape(outline, fill, z))
        if both:
            self.front.append(Shape(mirror(outline), fill, z))

    def shaded_head(self, rim: float = 0.12) -> None:
        """Draw the head, darker along one side."""
        self.put(self.head(), mix(self.skin, rgb("4a2040"), rim), 0)
        self.put(self.head(0.96) - (0.03, 0.035), self.skin, 0.02)

    def blush(self, part: float) -> None:
        """Perhaps redden the cheeks."""
        if self.chance(part):
            cheek = oval(self.rx * 0.58, 0.3, 0.17, 0.11)
            self.put(cheek, clear(rgb("f0506a"), 0.2), 0.6, both=True)

    def muzzle(self, colour: Colour, wide: float, high: float) -> None:
        """Draw a muzzle with a nose."""
        self.put(oval(0, 0.42, wide, high, 2.2), colour, 0.7)
        nose = BLACK if self.chance(0.6) else rgb("c96a7a")
        self.put(oval(0, 0.22, 0.15, 0.1, 2.2, 0.3), nose, 0.95)
        self.put(oval(-0.04, 0.19, 0.05, 0.025), clear(WHITE, 0.5), 0.96)
        self.put(stroke([(0, 0.3), (0, 0.42)], 0.035), mix(nose, BLACK, 0.3), 0.93)
        self.mouth_y, self.nose_kind, self.lips = 0.5, "none", False
        self.mouth_w = min(self.mouth_w, wide * 0.6)

    def freckles(self, colour: Colour, count: int) -> None:
        """Sprinkle spots over the cheeks."""
        for _ in range(count):
            x, y = self.between(0.2, 0.62) * self.rx, self.between(0.14, 0.38)
            self.put(oval(x, y, 0.03, 0.03, points=10), colour, 0.7, both=True)
