"""The heads: people, animals, robots and monsters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fasttriplet.demo.clothes import hair_front
from fasttriplet.demo.shapes import BLACK, WHITE, clear, hsv, mix, oval, rgb, smooth, stroke, turned

if TYPE_CHECKING:
    from fasttriplet.demo.characters import Character


def _person(who: Character) -> None:
    ear = oval(who.rx * 1.0, 0.08, 0.16, 0.22)
    who.put(ear, mix(who.skin, rgb("4a2040"), 0.12), -0.05, both=True)
    who.shaded_head()
    who.blush(0.5)
    if who.chance(0.25):
        who.freckles(mix(who.skin, rgb("7a3a20"), 0.5), 4)
    if who.hair_style not in {"long", "bob"} and who.chance(0.35):
        jaw = who.head(1.02, 60)
        low = jaw[jaw[:, 1] > 0.12]
        low = low[np.argsort(low[:, 0])]
        lip = [(0.62, 0.2), (0.42, 0.36), (0, 0.33), (-0.42, 0.36), (-0.62, 0.2)]
        if who.chance(0.6):
            who.put(
                np.concatenate([low, smooth(np.array(lip) * [who.rx, 1], 4, closed=False)]), who.hair, 0.3
            )
            who.mouth_y, who.mouth_w = 0.52, 0.22
        else:
            half = smooth([(0, 0.32), (0.2, 0.28), (0.42, 0.42), (0.14, 0.42)], 4)
            who.put(half, who.hair, 0.92, both=True)
            who.mouth_y = 0.58
    hair_front(who)
    if who.chance(0.25):
        who.put(oval(who.rx * 1.02, 0.34, 0.07, 0.07, points=16), rgb("f2c14a"), 0, both=True)


def _cat(who: Character) -> None:
    ear = smooth([(0.22, -0.62), (0.72, -1.34), (0.95, -0.3)], 1)
    who.put(ear, who.skin, -0.1, both=True)
    who.put((ear - [0.63, -0.75]) * 0.58 + [0.65, -0.76], rgb("f0a5a5"), -0.08, both=True)
    who.shaded_head()
    dark = mix(who.skin, BLACK, 0.35)
    if who.chance(0.6):
        for x in (-0.22, 0, 0.22):
            who.put(stroke([(x, -0.78), (x * 0.8, -0.42)], 0.09), dark, 0.5)
        who.put(stroke([(who.rx * 0.95, 0.1), (who.rx * 0.7, 0.14)], 0.08), dark, 0.4, both=True)
    who.muzzle(mix(who.skin, WHITE, 0.6), 0.4, 0.27)
    for slope in (-0.06, 0.04, 0.14):
        who.put(
            stroke([(0.34, 0.4 + slope * 0.6), (1.12, 0.36 + slope * 1.6)], 0.025),
            clear(WHITE, 0.85),
            0.8,
            both=True,
        )


def _bear(who: Character) -> None:
    who.put(oval(0.74, -0.76, 0.36, 0.36), who.skin, -0.1, both=True)
    who.put(oval(0.74, -0.74, 0.21, 0.21), mix(who.skin, rgb("e8b090"), 0.5), -0.08, both=True)
    who.shaded_head()
    if who.chance(0.4):
        patch = turned(oval(who.eye_x, who.eye_y, 0.3, 0.36), 0.4, (who.eye_x, who.eye_y))
        who.put(patch, mix(who.skin, BLACK, 0.7), 0.65, both=True)
    who.muzzle(mix(who.skin, rgb("ffe9cf"), 0.6), 0.46, 0.34)


def _rabbit(who: Character) -> None:
    lean = who.between(0.05, 0.4)
    for size, fill in ((1.0, who.skin), (0.62, rgb("f2b3b8"))):
        ear = turned(oval(0.4, -1.2, 0.22 * size, 0.62 * size), lean, (0.4, -0.7))
        who.put(ear, fill, -0.1, both=True)
    who.shaded_head()
    who.muzzle(mix(who.skin, WHITE, 0.6), 0.36, 0.24)
    who.put(oval(-0.065, 0.66, 0.065, 0.13, 5), WHITE, 0.72, both=True)
    who.blush(0.7)


def _dog(who: Character) -> None:
    who.shaded_head()
    if who.chance(0.6):
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
    who.put(
        np.concatenate([cheek, smooth([(0.5, 0.22), (0.14, 0.3), (0, 0.12)], 4, closed=False)]),
        WHITE,
        0.3,
        both=True,
    )
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
    dark, glow = mix(who.skin, BLACK, 0.4), hsv(who.between(0, 1), 0.7, 1)
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
    match who.pick(["horns", "stalks", "tuft"]):
        case "horns":
            who.put(horn, rgb("f4e3b8"), -0.05, both=True)
        case "stalks":
            who.put(stroke([(0.3, -0.8), (0.5, -1.3)], 0.08), mix(who.skin, BLACK, 0.25), 0, both=True)
            who.put(oval(0.52, -1.34, 0.15, 0.15), mix(who.skin, WHITE, 0.5), 0, both=True)
        case "tuft":
            for lean in (-0.4, 0, 0.4):
                who.put(turned(oval(0, -1.1, 0.13, 0.36), lean, (0, -0.8)), mix(who.skin, BLACK, 0.3), 0)
    who.shaded_head(0.2)
    spot = mix(who.skin, WHITE if who.chance(0.5) else BLACK, 0.25)
    for _ in range(6):
        x, y = who.between(-0.7, 0.7) * who.rx, who.between(-0.75, 0.7) * who.ry
        who.put(oval(x, y, 0.1, 0.09, points=18), spot, 0.5)
    match who.pick(["one", "two", "three"]):
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
    who.nose_kind, who.brows, who.mouth_y, who.mouth_w = "none", False, 0.62, 0
    who.iris = rgb("f2b632")


HEADS: dict[str, Callable[[Character], None]] = {
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
