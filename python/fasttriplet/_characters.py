"""The synthetic identities of the demo: who has which face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fasttriplet._shapes import (
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
    smooth,
    stroke,
    turned,
)

_GOLDEN = 0.6180339887498949  # hues this far apart stay apart, however many there are

_SKINS = ["f9dcc4", "f2c6a0", "e0a878", "c98a5b", "a0673f", "7a4a2b", "5c3a26"]
_HAIRS = ["2b2126", "4a2f24", "7b4a2a", "b5713a", "e3b04b", "f1dca0", "c8432e", "9aa0a8", "3d5a98", "d65a94", "3f8f7a"]
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
        self.backdrop = hsv(self.hue, self._between(0.22, 0.5), self._between(0.78, 0.97))
        self.shirt = hsv(self.hue + self._between(0.3, 0.7), self._between(0.45, 0.8), self._between(0.45, 0.9))
        self.skin = rgb(self._pick(_SKINS if self.kind == "person" else _FURS[self.kind]))
        self.hair = rgb(self._pick(_HAIRS)) if self.kind == "person" else mix(self.skin, BLACK, 0.35)
        self.iris = rgb(self._pick(["5a3b22", "2f6f9f", "3f8a52", "8a8f98", "b07a24", "6a4aa0"]))
        self._shape_head()
        self._place_features()
        self.behind: list[Shape] = []
        self.front: list[Shape] = []
        self._body()
        _HEADS[self.kind](self)
        self._accessories()

    def _between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _pick(self, options: list[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def _shape_head(self) -> None:
        wide = {"cat": 1.0, "fox": 1.0, "frog": 1.08, "bear": 1.0, "robot": 0.92, "owl": 0.98}.get(self.kind, 0.86)
        self.rx = wide * self._between(0.9, 1.06)
        self.ry = self._between(0.92, 1.08) * {"frog": 0.8, "cat": 0.84, "fox": 0.84, "dog": 0.98}.get(self.kind, 0.96)
        self.power = {"robot": self._between(3.5, 8)}.get(self.kind, self._between(1.9, 2.8))
        self.taper = {"person": self._between(0.0, 0.2), "fox": 0.3, "rabbit": -0.08, "robot": 0}.get(
            self.kind, self._between(-0.15, 0.1)
        )

    def _place_features(self) -> None:
        self.eye_kind = self._pick(["dot", "round", "almond", "sleepy", "big"])
        if self.kind in {"frog", "owl", "robot"}:
            self.eye_kind = "round"
        self.eye_x = self.rx * self._between(0.36, 0.48)
        self.eye_y = self._between(-0.16, 0.02)
        size = {"dot": 0.11, "round": 0.2, "almond": 0.21, "sleepy": 0.2, "big": 0.27}
        self.eye_r = size[self.eye_kind] * self._between(0.9, 1.15)
        self.eyes = [(-self.eye_x, self.eye_y), (self.eye_x, self.eye_y)]
        self.brow_kind = self._pick(["thin", "thick", "angry", "round"])
        self.brows = self.kind == "person" or self._chance(0.2)
        self.mouth_y = self._between(0.46, 0.58)
        self.mouth_w = self._between(0.2, 0.4)
        self.lips = self.kind == "person" and self._chance(0.35)
        self.lip = rgb(self._pick(["c0392b", "d9657b", "a94064", "e08a7a"]))
        self.tooth = self._pick(["row", "row", "gap", "fangs", "none"])
        self.nose_kind = self._pick(["button", "long", "wide", "shadow"])

    def head(self, scale: float = 1, points: int = 44) -> Outline:
        """Draw the outline of the head."""
        return oval(0, 0, self.rx * scale, self.ry * scale, self.power, self.taper, points)

    def shapes(self, expression: Expression) -> list[Shape]:
        """List what to draw, from the farthest to the nearest."""
        return [*self.behind, *self._face(expression), *self.front]

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

    def _body(self) -> None:
        if self.kind == "person":
            self.hair_style = self._pick(
                ["short", "short", "bob", "long", "afro", "spiky", "mohawk", "bun", "tails", "bald", "curly"]
            )
            self._hair_behind()
        wide = self._between(0.95, 1.35)
        self.put(oval(0, 2.15, wide, 1.12, 2.6), self.shirt, -0.3)
        light = mix(self.shirt, WHITE, 0.55)
        match self._pick(["plain", "stripes", "collar", "bow", "scarf", "buttons", "hood"]):
            case "stripes":
                for y in (1.32, 1.6):
                    self.put(smooth([(-wide, y), (wide, y), (wide, y + 0.14), (-wide, y + 0.14)], 1), light, -0.29)
            case "collar":
                self.put(smooth([(-0.5, 1.0), (0, 1.4), (-0.28, 1.5)], 1), light, -0.2, both=True)
            case "bow":
                knot = rgb(self._pick(["c0392b", "2c3e70", "e0a030", "2f7a5a"]))
                self.put(smooth([(0, 1.25), (-0.36, 1.05), (-0.36, 1.45)], 2), knot, 0.1, both=True)
                self.put(oval(0, 1.25, 0.1, 0.1), mix(knot, BLACK, 0.3), 0.12)
            case "scarf":
                self.put(oval(0, 1.06, 0.74, 0.26, 3), light, -0.1)
                self.put(smooth([(0.2, 1.1), (0.5, 1.1), (0.56, 1.8), (0.26, 1.8)], 2), mix(light, BLACK, 0.1), 0)
            case "buttons":
                for y in (1.3, 1.52):
                    self.put(oval(0, y, 0.07, 0.07), light, -0.1)
            case "hood":
                self.put(oval(0, 1.12, 0.92, 0.42, 2.4), mix(self.shirt, BLACK, 0.2), -0.25)
                self.put(stroke([(-0.2, 1.4), (-0.22, 1.75)], 0.06), light, -0.1, both=True)
        if self.kind == "person":
            self.put(oval(0, 0.95, 0.36, 0.5, 3), mix(self.skin, rgb("5a2a3a"), 0.25), -0.2)

    def shaded_head(self, rim: float = 0.12) -> None:
        """Draw the head, darker along one side."""
        self.put(self.head(), mix(self.skin, rgb("4a2040"), rim), 0)
        self.put(self.head(0.96) + [-0.03, -0.035], self.skin, 0.02)

    def blush(self, part: float) -> None:
        """Perhaps redden the cheeks."""
        if self._chance(part):
            cheek = oval(self.rx * 0.58, 0.3, 0.17, 0.11)
            self.put(cheek, clear(rgb("ff5a5a"), 0.3), 0.6, both=True)

    def muzzle(self, colour: Colour, wide: float, high: float) -> None:
        """Draw a muzzle with a nose."""
        self.put(oval(0, 0.42, wide, high, 2.2), colour, 0.7)
        nose = BLACK if self._chance(0.6) else rgb("c96a7a")
        self.put(oval(0, 0.22, 0.15, 0.1, 2.2, 0.3), nose, 0.95)
        self.put(oval(-0.04, 0.19, 0.05, 0.025), clear(WHITE, 0.5), 0.96)
        self.put(stroke([(0, 0.3), (0, 0.42)], 0.035), mix(nose, BLACK, 0.3), 0.93)
        self.mouth_y, self.nose_kind, self.lips = 0.5, "none", False
        self.mouth_w = min(self.mouth_w, wide * 0.6)

    def freckles(self, colour: Colour, count: int) -> None:
        """Sprinkle spots over the cheeks."""
        for _ in range(count):
            x, y = self._between(0.2, 0.62) * self.rx, self._between(0.14, 0.38)
            self.put(oval(x, y, 0.03, 0.03, points=10), colour, 0.7, both=True)

    def _hair_behind(self) -> None:
        dark = mix(self.hair, BLACK, 0.3)
        match self.hair_style:
            case "bob":
                self.put(oval(0, 0.05, self.rx * 1.22, 1.05, 2.6, -0.1), dark, -0.3)
            case "long":
                self.put(oval(0, 0.5, self.rx * 1.22, 1.55, 2.6, -0.12), dark, -0.35)
            case "afro":
                for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
                    x, y = np.cos(angle) * self.rx * 1.08, np.sin(angle) * 0.78 - 0.3
                    self.put(oval(x, y, 0.42, 0.42, points=20), dark, -0.3)
                self.put(oval(0, -0.3, self.rx * 1.25, 1.0), dark, -0.3)
            case "tails":
                self.put(oval(self.rx * 1.22, -0.05, 0.34, 0.55), dark, -0.4, both=True)
            case "bun":
                self.put(oval(0, -self.ry * 1.16, 0.38, 0.34), dark, -0.2)
                self.put(oval(-0.05, -self.ry * 1.2, 0.28, 0.24), self.hair, -0.19)

    def hair_front(self) -> None:
        """Draw the hair above the forehead."""
        if self.hair_style == "bald":
            return
        outline = self.head(1.07, 60)
        if self.hair_style == "mohawk":
            crest = [(-0.2, -0.55), (-0.26, -1.2), (-0.12, -1.5), (0, -1.3), (0.1, -1.55), (0.26, -1.2), (0.2, -0.55)]
            self.put(smooth(crest, 4), self.hair, 0.1)
            return
        line = self._between(-0.55, -0.38)
        over = outline[outline[:, 1] < line + 0.22]
        over = over[np.argsort(over[:, 0])]
        fringes = {
            "straight": [(0.75, line + 0.05), (0.3, line + 0.1), (-0.3, line + 0.1), (-0.75, line + 0.05)],
            "side": [(0.8, line + 0.2), (0.5, line - 0.1), (-0.25, line - 0.3), (-0.6, line + 0.1)],
            "middle": [(0.8, line + 0.2), (0.4, line - 0.12), (0, line - 0.36), (-0.4, line - 0.12), (-0.8, line + 0.2)],
            "zigzag": [(0.7 - 0.2 * i, line + (0.14 if i % 2 else -0.08)) for i in range(8)],
            "wave": [(0.7, line + 0.16), (0.3, line - 0.08), (0.05, line + 0.12), (-0.35, line - 0.1), (-0.7, line + 0.16)],
        }
        kind = self._pick(sorted(fringes))
        edge = np.array(fringes[kind]) * [self.rx, 1]
        fringe = edge if kind == "zigzag" else smooth(edge, 5, closed=False)
        if self._chance(0.5):
            fringe = mirror(fringe)[::-1]
        if self.hair_style == "spiky":
            spikes = [(x * (1.05 + 0.12 * (i % 2)), y * (1.0 + 0.26 * (i % 2))) for i, (x, y) in enumerate(over[::2])]
            over = np.concatenate([over[:1], np.array(spikes), over[-1:]])
        self.put(np.concatenate([over, fringe]), self.hair, 0.3)
        if self.hair_style == "curly":
            for x, y in over[2::4]:
                self.put(oval(x, y, 0.26, 0.24, points=18), self.hair, 0.2)
            for x, y in fringe[2:-1:4]:
                self.put(oval(x, y - 0.04, 0.16, 0.14, points=16), self.hair, 0.32)
        elif self.hair_style not in {"spiky", "afro"}:
            shine = [(-0.45, -0.62), (-0.25, -0.78), (0.05, -0.84)]
            self.put(stroke(smooth(np.array(shine) * [self.rx, self.ry], 4, closed=False), 0.06), clear(WHITE, 0.28), 0.4)

    def _accessories(self) -> None:
        glass = 0.3
        if self._chance(glass if self.kind != "owl" else 0):
            frame = rgb(self._pick(["2b2b33", "a8322a", "2f4f8f", "c9a24a", "f2f2f2"]))
            around = max(self.eye_r * 1.35, 0.24)
            power = self._between(2, 5)
            style = self._pick(["clear", "clear", "dark", "patch"])
            if style == "patch":
                self.top(stroke([(-self.rx, -0.45), (self.rx, 0.2)], 0.06), BLACK, 0.8)
                self.top(oval(*self.eyes[0], 0.27, 0.24, 2.6), BLACK, 0.9)
            else:
                for x, y in self.eyes:
                    rings = oval(x, y, around, around * 0.9, power)
                    inside = oval(x, y, around - 0.055, around * 0.9 - 0.055, power)
                    self.top(np.concatenate([rings, rings[:1], inside[:1], inside[::-1]]), frame, 0.9)
                    tint = clear(rgb("20242e"), 0.86) if style == "dark" else clear(rgb("cfe8ff"), 0.22)
                    self.top(inside, tint, 0.9)
                    self.top(turned(oval(x - 0.07, y - 0.05, 0.03, 0.1), 0.6, (x, y)), clear(WHITE, 0.55), 0.91)
                inner = self.eye_x - around
                self.top(stroke([(-inner, self.eye_y), (0, self.eye_y - 0.04), (inner, self.eye_y)], 0.06), frame, 0.92)
                self.top(stroke([(self.eye_x + around, self.eye_y), (self.rx, self.eye_y - 0.06)], 0.06), frame, 0.6, both=True)
        if self._chance(0.42):
            self._hat(hsv(self.hue + self._between(0.2, 0.8), 0.75, self._between(0.55, 0.95)))

    def _hat(self, colour: Colour) -> None:
        small = ["bow", "flower", "crown", "party"]
        hats = small if self.kind not in {"person", "bear", "monster", "owl"} else [*small, "beanie", "cap", "top"]
        dark, light, brim = mix(colour, BLACK, 0.28), mix(colour, WHITE, 0.5), -self.ry * 0.55
        match self._pick(hats):
            case "bow":
                x, y = self.rx * 0.5, -self.ry * 0.86
                for side in (-1, 1):
                    wing = [(x, y), (x + side * 0.4, y - 0.24), (x + side * 0.4, y + 0.24)]
                    self.top(smooth(wing, 3), colour, 0.35)
                self.top(oval(x, y, 0.11, 0.12), dark, 0.37)
            case "flower":
                x, y = -self.rx * 0.62, -self.ry * 0.7
                for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False):
                    self.top(oval(x + np.cos(angle) * 0.17, y + np.sin(angle) * 0.17, 0.13, 0.13, points=16), light, 0.4)
                self.top(oval(x, y, 0.12, 0.12, points=16), rgb("f4b63f"), 0.42)
            case "crown":
                y, gold = -self.ry * 0.9, rgb("f2c14a")
                points = [(-0.5, y + 0.12), (-0.56, y - 0.4), (-0.26, y - 0.14), (0, y - 0.5), (0.26, y - 0.14)]
                self.top(np.array([*points, (0.56, y - 0.4), (0.5, y + 0.12)]), gold, 0.15)
                for x in (-0.28, 0, 0.28):
                    self.top(oval(x, y, 0.07, 0.07, points=14), colour, 0.2)
            case "party":
                y = -self.ry * 0.84
                self.top(np.array([(-0.38, y + 0.04), (0.02, y - 0.78), (0.4, y)]), colour, 0.1)
                self.top(np.array([(-0.25, y - 0.24), (0.29, y - 0.22), (0.2, y - 0.4), (-0.16, y - 0.43)]), light, 0.12)
                self.top(oval(0.02, y - 0.78, 0.13, 0.13, points=16), WHITE, 0.12)
            case "beanie":
                over = self.head(1.12, 60)
                over = over[over[:, 1] < brim]
                self.top(over[np.argsort(over[:, 0])], colour, 0.2)
                self.top(oval(0, brim, self.rx * 1.06, 0.17, 4), dark, 0.35)
                self.top(oval(0, -self.ry * 1.2, 0.2, 0.18), light, 0.1)
            case "cap":
                over = self.head(1.1, 60)
                over = over[over[:, 1] < brim]
                self.top(over[np.argsort(over[:, 0])], colour, 0.2)
                self.top(oval(0.12, brim + 0.02, self.rx * 1.02, 0.15, 2.4), dark, 0.85)
                self.top(oval(0, brim - 0.26, 0.16, 0.13), light, 0.7)
            case "top":
                y = -self.ry * 0.78
                self.top(smooth([(-0.56, y), (-0.6, y - 0.72), (0.6, y - 0.72), (0.56, y)], 1), BLACK, 0.1)
                self.top(smooth([(-0.57, y), (-0.58, y - 0.2), (0.58, y - 0.2), (0.57, y)], 1), colour, 0.12)
                self.top(oval(0, y, 0.98, 0.13, 3), mix(BLACK, WHITE, 0.08), 0.3)

    # What changes from image to image

    def _face(self, now: Expression) -> list[Shape]:
        return [*self._nose(), *self._mouth(now), *self._eyes(now), *self._brows(now)]

    def _nose(self) -> list[Shape]:
        shade = mix(self.skin, rgb("6a2030"), 0.28)
        match self.nose_kind:
            case "button":
                return [Shape(oval(0, 0.2, 0.11, 0.09), shade, 0.95)]
            case "long":
                return [Shape(stroke(smooth([(0.03, -0.05), (0.1, 0.22), (-0.06, 0.25)], 5, closed=False), 0.05), shade, 0.95)]
            case "wide":
                nose = [Shape(oval(0, 0.2, 0.17, 0.1, 2.4, -0.2), shade, 0.9)]
                return [*nose, *(Shape(oval(x, 0.22, 0.035, 0.03), mix(shade, BLACK, 0.4), 0.96) for x in (-0.08, 0.08))]
            case "shadow":
                return [Shape(np.array([(-0.02, -0.02), (0.14, 0.24), (-0.04, 0.27)]), shade, 0.95)]
        return []

    def _mouth(self, now: Expression) -> list[Shape]:
        wide = self.mouth_w * (1 + 0.12 * now.smile - 0.2 * now.open_mouth)
        x = np.linspace(-1, 1, 15)
        bend = 1 - x**2
        upper = np.stack([x * wide, self.mouth_y + now.smile * 0.16 * (bend - 0.5)], axis=1)
        ink = self.lip if self.lips else mix(mix(self.skin, rgb("7a1f2b"), 0.55), BLACK, 0.35)
        if now.open_mouth < 0.12:
            return [Shape(stroke(upper, 0.1 if self.lips else 0.055), ink, 0.85)]
        gape = 0.34 * now.open_mouth
        lower = upper + np.stack([np.zeros_like(x), gape * np.sqrt(bend)], axis=1)
        shapes = [Shape(np.concatenate([upper, lower[::-1]]), rgb("5e1a26"), 0.8)]
        tongue = lower[3:-3] - [0, 0.0]
        top = tongue + np.stack([np.zeros(9), -gape * 0.4 * np.sqrt(1 - np.linspace(-1, 1, 9) ** 2)], axis=1)
        shapes.append(Shape(np.concatenate([tongue, top[::-1]]), rgb("e06a75"), 0.81))
        row = upper[2:-2]
        match self.tooth:
            case "row":
                teeth = row + np.stack([np.zeros(11), gape * 0.32 * np.sqrt(bend[2:-2])], axis=1)
                shapes.append(Shape(np.concatenate([row, teeth[::-1]]), WHITE, 0.83))
            case "gap":
                for left in (-0.09, 0.02):
                    y = self.mouth_y + now.smile * 0.08
                    shapes.append(Shape(oval(left + 0.035, y + gape * 0.2, 0.05, gape * 0.3, 6), WHITE, 0.83))
            case "fangs":
                for at in (4, 10):
                    px, py = upper[at]
                    fang = np.array([(px - 0.06, py), (px + 0.06, py), (px, py + gape * 0.7)])
                    shapes.append(Shape(fang, WHITE, 0.83))
        shapes.append(Shape(stroke(np.concatenate([upper, lower[::-1]]), 0.09 if self.lips else 0.04), ink, 0.85))
        return shapes

    def _eyes(self, now: Expression) -> list[Shape]:
        shapes: list[Shape] = []
        r, wide = self.eye_r, now.open_eyes
        for x, y in self.eyes:
            z = 0.75
            if wide < 0.3:
                lid = np.stack([np.linspace(-r, r, 9), 0.35 * r * (1 - np.linspace(-1, 1, 9) ** 2)], axis=1)
                shapes.append(Shape(stroke(lid + [x, y], 0.06), mix(self.skin, BLACK, 0.75), z))
                continue
            if self.eye_kind == "dot":
                shapes.append(Shape(oval(x, y, r, r * 1.15 * wide), BLACK, z))
                shapes.append(Shape(oval(x - r * 0.3, y - r * 0.4 * wide, r * 0.3, r * 0.3 * wide), WHITE, z + 0.01))
                continue
            high = r * wide * {"almond": 0.68, "sleepy": 0.9, "big": 1.2}.get(self.eye_kind, 1)
            shapes.append(Shape(oval(x, y, r * 1.1, high * 1.12), mix(self.skin, BLACK, 0.55), z - 0.01))
            shapes.append(Shape(oval(x, y + 0.01, r, high), WHITE, z))
            iris = r * {"big": 0.74, "almond": 0.52}.get(self.eye_kind, 0.6)
            px = x + now.gaze_x * (r - iris) * 0.8
            py = y + now.gaze_y * max(high - iris, 0) * 0.8
            tall = min(iris, high * 0.96)
            shapes.append(Shape(oval(px, py, iris, tall, points=28), self.iris, z + 0.01))
            shapes.append(Shape(oval(px, py, iris * 0.58, min(iris * 0.58, tall * 0.8), points=20), BLACK, z + 0.02))
            shapes.append(Shape(oval(px - iris * 0.3, py - tall * 0.4, iris * 0.26, iris * 0.26, points=14), WHITE, z + 0.03))
            if self.eye_kind == "sleepy":
                half = oval(x, y, r * 1.12, high * 1.15, points=28)
                half = half[half[:, 1] <= y + 1e-9]
                lid = np.concatenate([half[np.argsort(half[:, 0])], [[x + r * 1.12, y - high * 0.2], [x - r * 1.12, y - high * 0.2]]])
                shapes.append(Shape(lid, mix(self.skin, rgb("4a2040"), 0.22), z + 0.04))
        return shapes

    def _brows(self, now: Expression) -> list[Shape]:
        if not self.brows:
            return []
        y = self.eye_y - self.eye_r * 1.25 - 0.1 - 0.08 * now.brow
        inner, outer = self.eye_x - 0.17, self.eye_x + 0.2
        lift = {"thin": (0, 0.05), "thick": (0.02, 0.03), "angry": (0.1, -0.05), "round": (0.03, 0.1)}[self.brow_kind]
        line = smooth([(inner, y + lift[0]), (self.eye_x, y - 0.05), (outer, y + lift[1])], 5, closed=False)
        brow = stroke(line, 0.12 if self.brow_kind == "thick" else 0.065)
        ink = mix(self.hair, BLACK, 0.35)
        return [Shape(brow, ink, 0.7), Shape(mirror(brow), ink, 0.7)]


def _person(who: Character) -> None:
    ear = oval(who.rx * 1.0, 0.08, 0.16, 0.22)
    who.put(ear, mix(who.skin, rgb("4a2040"), 0.12), -0.05, both=True)
    who.shaded_head()
    who.blush(0.5)
    if who._chance(0.25):
        who.freckles(mix(who.skin, rgb("7a3a20"), 0.5), 4)
    if who.hair_style not in {"long", "bob"} and who._chance(0.35):
        jaw = who.head(1.02, 60)
        low = jaw[jaw[:, 1] > 0.12]
        low = low[np.argsort(low[:, 0])]
        lip = [(0.62, 0.2), (0.42, 0.36), (0, 0.33), (-0.42, 0.36), (-0.62, 0.2)]
        if who._chance(0.6):
            who.put(np.concatenate([low, smooth(np.array(lip) * [who.rx, 1], 4, closed=False)]), who.hair, 0.3)
            who.mouth_y, who.mouth_w = 0.52, 0.22
        else:
            half = smooth([(0, 0.32), (0.2, 0.28), (0.42, 0.42), (0.14, 0.42)], 4)
            who.put(half, who.hair, 0.92, both=True)
            who.mouth_y = 0.58
    who.hair_front()
    if who._chance(0.25):
        who.put(oval(who.rx * 1.02, 0.34, 0.07, 0.07, points=16), rgb("f2c14a"), 0, both=True)


def _cat(who: Character) -> None:
    ear = smooth([(0.22, -0.62), (0.72, -1.34), (0.95, -0.3)], 1)
    who.put(ear, who.skin, -0.1, both=True)
    who.put((ear - [0.63, -0.75]) * 0.58 + [0.65, -0.76], rgb("f0a5a5"), -0.08, both=True)
    who.shaded_head()
    dark = mix(who.skin, BLACK, 0.35)
    if who._chance(0.6):
        for x in (-0.22, 0, 0.22):
            who.put(stroke([(x, -0.78), (x * 0.8, -0.42)], 0.09), dark, 0.5)
        who.put(stroke([(who.rx * 0.95, 0.1), (who.rx * 0.7, 0.14)], 0.08), dark, 0.4, both=True)
    who.muzzle(mix(who.skin, WHITE, 0.6), 0.4, 0.27)
    for slope in (-0.06, 0.04, 0.14):
        who.put(stroke([(0.34, 0.4 + slope * 0.6), (1.12, 0.36 + slope * 1.6)], 0.025), clear(WHITE, 0.85), 0.8, both=True)


def _bear(who: Character) -> None:
    who.put(oval(0.74, -0.76, 0.36, 0.36), who.skin, -0.1, both=True)
    who.put(oval(0.74, -0.74, 0.21, 0.21), mix(who.skin, rgb("e8b090"), 0.5), -0.08, both=True)
    who.shaded_head()
    if who._chance(0.4):
        patch = turned(oval(who.eye_x, who.eye_y, 0.3, 0.36), 0.4, (who.eye_x, who.eye_y))
        who.put(patch, mix(who.skin, BLACK, 0.7), 0.65, both=True)
    who.muzzle(mix(who.skin, rgb("ffe9cf"), 0.6), 0.46, 0.34)


def _rabbit(who: Character) -> None:
    lean = who._between(0.05, 0.4)
    for size, fill in ((1.0, who.skin), (0.62, rgb("f2b3b8"))):
        ear = turned(oval(0.4, -1.2, 0.22 * size, 0.62 * size), lean, (0.4, -0.7))
        who.put(ear, fill, -0.1, both=True)
    who.shaded_head()
    who.muzzle(mix(who.skin, WHITE, 0.6), 0.36, 0.24)
    who.put(oval(-0.065, 0.66, 0.065, 0.13, 5), WHITE, 0.72, both=True)
    who.blush(0.7)


def _dog(who: Character) -> None:
    who.shaded_head()
    if who._chance(0.6):
        patch = turned(oval(who.eye_x, who.eye_y, 0.34, 0.42), 0.3, (who.eye_x, who.eye_y))
        who.put(patch, mix(who.skin, rgb("5a3a2a"), 0.6), 0.6)
    who.muzzle(mix(who.skin, WHITE, 0.65), 0.44, 0.36)
    ear = smooth([(0.5, -0.85), (1.05, -0.7), (1.18, 0.1), (0.98, 0.42), (0.8, 0.0), (0.66, -0.45)], 5)
    who.put(ear * [who.rx / 0.86, 1], mix(who.skin, rgb("4a2a1a"), 0.45), 0.15, both=True)


def _fox(who: Character) -> None:
    ear = smooth([(0.2, -0.62), (0.84, -1.42), (0.96, -0.28)], 1)
    who.put(ear, who.skin, -0.1, both=True)
    who.put((ear - [0.67, -0.77]) * 0.55 + [0.69, -0.8], mix(who.skin, BLACK, 0.65), -0.08, both=True)
    who.shaded_head()
    cheek = who.head(0.99, 60)
    cheek = cheek[(cheek[:, 1] > 0.0) & (cheek[:, 0] > -0.01)]
    cheek = cheek[np.argsort(-cheek[:, 1])]
    who.put(np.concatenate([cheek, smooth([(0.5, 0.22), (0.14, 0.3), (0, 0.12)], 4, closed=False)]), WHITE, 0.3, both=True)
    who.muzzle(WHITE, 0.26, 0.2)


def _frog(who: Character) -> None:
    who.eyes = [(-0.52, -0.74), (0.52, -0.74)]
    who.eye_x, who.eye_y, who.eye_r = 0.52, -0.74, 0.24
    who.shaded_head()
    who.put(oval(0.52, -0.72, 0.37, 0.37), mix(who.skin, rgb("4a2040"), 0.1), 0.3, both=True)
    who.put(oval(0.51, -0.74, 0.34, 0.34), who.skin, 0.32, both=True)
    who.put(oval(0, 0.5, who.rx * 0.72, 0.28, 2.4), mix(who.skin, rgb("fff3b0"), 0.5), 0.5)
    who.put(oval(0.07, 0.06, 0.03, 0.025, points=12), mix(who.skin, BLACK, 0.5), 0.9, both=True)
    who.nose_kind, who.brows, who.mouth_y, who.mouth_w = "none", False, 0.36, 0.55
    who.tooth = "none"
    who.blush(0.6)


def _robot(who: Character) -> None:
    dark, glow = mix(who.skin, BLACK, 0.4), hsv(who._between(0, 1), 0.7, 1)
    who.put(stroke([(0, -0.8), (0, -1.28)], 0.08), dark, 0)
    who.put(oval(0, -1.34, 0.14, 0.14), glow, 0)
    who.put(oval(who.rx * 1.06, 0.02, 0.15, 0.3, 4), dark, -0.1, both=True)
    who.shaded_head(0.25)
    who.put(oval(0, -0.06, who.rx * 0.8, 0.36, 5), rgb("232a38"), 0.5)
    who.put(oval(0, 0.52, who.rx * 0.55, 0.2, 5), mix(who.skin, BLACK, 0.25), 0.5)
    for x in (-0.75, 0.75):
        who.put(oval(x * who.rx, -0.72 * who.ry, 0.06, 0.06, points=14), dark, 0.3)
        who.put(oval(x * who.rx, 0.8 * who.ry, 0.06, 0.06, points=14), dark, 0.3)
    who.iris, who.nose_kind, who.brows, who.mouth_y = glow, "none", False, 0.48
    who.mouth_w, who.tooth, who.lips = 0.3, "row", False
    who.eye_y = -0.06
    who.eyes = [(-who.eye_x, -0.06), (who.eye_x, -0.06)]


def _monster(who: Character) -> None:
    horn = smooth([(0.3, -0.7), (0.52, -1.22), (0.86, -1.44), (0.8, -1.05), (0.66, -0.6)], 4)
    match who._pick(["horns", "stalks", "tuft"]):
        case "horns":
            who.put(horn, rgb("f4e3b8"), -0.05, both=True)
        case "stalks":
            who.put(stroke([(0.3, -0.8), (0.5, -1.3)], 0.08), mix(who.skin, BLACK, 0.25), 0, both=True)
            who.put(oval(0.52, -1.34, 0.15, 0.15), mix(who.skin, WHITE, 0.5), 0, both=True)
        case "tuft":
            for lean in (-0.4, 0, 0.4):
                who.put(turned(oval(0, -1.1, 0.13, 0.36), lean, (0, -0.8)), mix(who.skin, BLACK, 0.3), 0)
    who.shaded_head(0.2)
    spot = mix(who.skin, WHITE if who._chance(0.5) else BLACK, 0.25)
    for _ in range(6):
        x, y = who._between(-0.7, 0.7) * who.rx, who._between(-0.75, 0.7) * who.ry
        who.put(oval(x, y, 0.1, 0.09, points=18), spot, 0.5)
    match who._pick(["one", "two", "three"]):
        case "one":
            who.eyes, who.eye_x, who.eye_r, who.eye_kind = [(0, -0.12)], 0.2, 0.38, "round"
            who.brows = False
        case "three":
            who.eyes, who.eye_r, who.eye_kind = [(-0.46, -0.05), (0, -0.3), (0.46, -0.05)], 0.2, "round"
            who.brows = False
    who.nose_kind, who.tooth, who.mouth_w, who.lips = "none", "fangs", 0.42, False


def _owl(who: Character) -> None:
    tuft = smooth([(0.3, -0.8), (0.86, -1.24), (0.9, -0.4)], 2)
    who.put(tuft, mix(who.skin, BLACK, 0.3), -0.05, both=True)
    who.shaded_head()
    pale = mix(who.skin, rgb("fff0d8"), 0.65)
    who.eye_x, who.eye_r, who.eye_y = 0.38, 0.27, -0.1
    who.eyes = [(-0.38, -0.1), (0.38, -0.1)]
    who.put(oval(0.38, -0.08, 0.44, 0.46), pale, 0.55, both=True)
    for x in (-0.4, 0, 0.4):
        who.put(smooth([(x - 0.14, 0.62), (x + 0.14, 0.62), (x, 0.82)], 4), mix(who.skin, BLACK, 0.25), 0.5)
    who.put(smooth([(-0.15, 0.14), (0.15, 0.14), (0, 0.48)], 4), rgb("f2a93b"), 1.0)
    who.nose_kind, who.brows, who.mouth_y, who.mouth_w = "none", False, 0.62, 0.12
    who.iris = rgb("f2b632")


_HEADS: dict[str, Callable[[Character], None]] = {
    "person": _person,
    "cat": _cat,
    "bear": _bear,
    "rabbit": _rabbit,
    "dog": _dog,
    "fox": _fox,
    "frog": _frog,
    "robot": _robot,
    "monster": _monster,
    "owl": _owl,
}
