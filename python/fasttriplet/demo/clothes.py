"""What a character wears: clothes, hair, glasses, hats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fasttriplet.demo.shapes import (
    BLACK,
    WHITE,
    Colour,
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

if TYPE_CHECKING:
    from fasttriplet.demo.characters import Character


def body(who: Character) -> None:
    """Draw the hair that hangs down behind, shoulders, clothes and neck."""
    if who.kind == "person":
        _hair_behind(who)
    wide = who.between(0.95, 1.35)
    who.put(oval(0, 2.15, wide, 1.12, 2.6), who.shirt, -0.3)
    light = mix(who.shirt, WHITE, 0.55)
    match who.pick(["plain", "stripes", "collar", "bow", "scarf", "buttons", "hood"]):
        case "stripes":
            for y in (1.32, 1.6):
                who.put(smooth([(-wide, y), (wide, y), (wide, y + 0.14), (-wide, y + 0.14)], 1), light, -0.29)
        case "collar":
            who.put(smooth([(-0.5, 1.0), (0, 1.4), (-0.28, 1.5)], 1), light, -0.2, both=True)
        case "bow":
            knot = rgb(who.pick(["c0392b", "2c3e70", "e0a030", "2f7a5a"]))
            who.put(smooth([(0, 1.25), (-0.36, 1.05), (-0.36, 1.45)], 2), knot, 0.1, both=True)
            who.put(oval(0, 1.25, 0.1, 0.1), mix(knot, BLACK, 0.3), 0.12)
        case "scarf":
            who.put(oval(0, 1.06, 0.74, 0.26, 3), light, -0.1)
            who.put(smooth([(0.2, 1.1), (0.5, 1.1), (0.56, 1.8), (0.26, 1.8)], 2), mix(light, BLACK, 0.1), 0)
        case "buttons":
            for y in (1.3, 1.52):
                who.put(oval(0, y, 0.07, 0.07), light, -0.1)
        case "hood":
            who.put(oval(0, 1.12, 0.92, 0.42, 2.4), mix(who.shirt, BLACK, 0.2), -0.25)
            who.put(stroke([(-0.2, 1.4), (-0.22, 1.75)], 0.06), light, -0.1, both=True)
    if who.kind == "person":
        who.put(oval(0, 0.95, 0.36, 0.5, 3), mix(who.skin, rgb("5a2a3a"), 0.25), -0.2)


def _hair_behind(who: Character) -> None:
    dark = mix(who.hair, BLACK, 0.3)
    match who.hair_style:
        case "bob":
            who.put(oval(0, 0.05, who.rx * 1.22, 1.05, 2.6, -0.1), dark, -0.3)
        case "long":
            who.put(oval(0, 0.5, who.rx * 1.22, 1.55, 2.6, -0.12), dark, -0.35)
        case "afro":
            for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
                x, y = np.cos(angle) * who.rx * 1.08, np.sin(angle) * 0.78 - 0.3
                who.put(oval(x, y, 0.42, 0.42, points=20), dark, -0.3)
            who.put(oval(0, -0.3, who.rx * 1.25, 1.0), dark, -0.3)
        case "tails":
            who.put(
                turned(oval(who.rx * 1.3, 0.72, 0.24, 0.5, 2, -0.2), -0.3, (who.rx * 1.1, 0.3)),
                dark,
                -0.4,
                both=True,
            )
        case "bun":
            who.put(oval(0, -who.ry * 1.16, 0.38, 0.34), dark, -0.2)
            who.put(oval(-0.05, -who.ry * 1.2, 0.28, 0.24), who.hair, -0.19)


def hair_front(who: Character) -> None:
    """Draw the hair above the forehead."""
    if who.hair_style == "bald":
        return
    outline = who.head(1.07, 60)
    if who.hair_style == "mohawk":
        crest = [
            (-0.2, -0.55),
            (-0.26, -1.2),
            (-0.12, -1.5),
            (0, -1.3),
            (0.1, -1.55),
            (0.26, -1.2),
            (0.2, -0.55),
        ]
        who.put(smooth(crest, 4), who.hair, 0.1)
        return
    line = who.between(-0.55, -0.38)
    over = outline[outline[:, 1] < line + 0.22]
    over = over[np.argsort(over[:, 0])]
    fringes = {
        "straight": [(0.75, line + 0.05), (0.3, line + 0.1), (-0.3, line + 0.1), (-0.75, line + 0.05)],
        "side": [(0.8, line + 0.2), (0.5, line - 0.1), (-0.25, line - 0.3), (-0.6, line + 0.1)],
        "middle": [
            (0.8, line + 0.2),
            (0.4, line - 0.12),
            (0, line - 0.36),
            (-0.4, line - 0.12),
            (-0.8, line + 0.2),
        ],
        "zigzag": [(0.7 - 0.2 * i, line + (0.14 if i % 2 else -0.08)) for i in range(8)],
        "wave": [
            (0.7, line + 0.16),
            (0.3, line - 0.08),
            (0.05, line + 0.12),
            (-0.35, line - 0.1),
            (-0.7, line + 0.16),
        ],
    }
    kind = who.pick(sorted(fringes))
    edge = np.array(fringes[kind]) * [who.rx, 1]
    fringe = edge if kind == "zigzag" else smooth(edge, 5, closed=False)
    if who.chance(0.5):
        fringe = mirror(fringe)[::-1]
    if who.hair_style == "spiky":
        spikes = [
            (x * (1.05 + 0.12 * (i % 2)), y * (1.0 + 0.26 * (i % 2))) for i, (x, y) in enumerate(over[::2])
        ]
        over = np.concatenate([over[:1], np.array(spikes), over[-1:]])
    turned_away = over[over[:, 1] < line - 0.05]
    if who.hair_style != "spiky":
        who.put(turned_away, who.hair, 0.03)
    who.put(np.concatenate([over, fringe]), who.hair, 0.3)
    if who.hair_style == "curly":
        for x, y in over[2::4]:
            who.put(oval(x, y, 0.26, 0.24, points=18), who.hair, 0.2)
        for x, y in fringe[2:-1:4]:
            who.put(oval(x, y - 0.04, 0.16, 0.14, points=16), who.hair, 0.32)
    elif who.hair_style not in {"spiky", "afro"}:
        shine = [(-0.45, -0.62), (-0.25, -0.78), (0.05, -0.84)]
        who.put(
            stroke(smooth(np.array(shine) * [who.rx, who.ry], 4, closed=False), 0.06), clear(WHITE, 0.28), 0.4
        )


def accessories(who: Character) -> None:
    """Perhaps give them glasses, perhaps a hat."""
    if who.chance(0.3) and who.kind != "owl":
        _glasses(who)
    if who.chance(0.42) and who.kind != "frog" and who.hair_style != "mohawk":
        _hat(who, hsv(who.hue + who.between(0.2, 0.8), 0.75, who.between(0.55, 0.95)))


def _glasses(who: Character) -> None:
    frame = rgb(who.pick(["2b2b33", "a8322a", "2f4f8f", "c9a24a", "f2f2f2"]))
    around = max(who.eye_r * 1.35, 0.24)
    power = who.between(2, 5)
    style = who.pick(["clear", "clear", "dark", "patch"])
    if style == "patch":
        who.top(stroke([(-who.rx, who.eye_y + 0.16), (who.rx * 0.8, -0.62 * who.ry)], 0.05), BLACK, 0.6)
        who.top(oval(*who.eyes[0], max(0.26, who.eye_r * 1.25), max(0.24, who.eye_r * 1.3), 2.6), BLACK, 0.9)
    else:
        for x, y in who.eyes:
            rings = oval(x, y, around, around * 0.9, power)
            inside = oval(x, y, around - 0.055, around * 0.9 - 0.055, power)
            who.top(np.concatenate([rings, rings[:1], inside[:1], inside[::-1]]), frame, 0.9)
            tint = clear(rgb("20242e"), 0.86) if style == "dark" else clear(rgb("cfe8ff"), 0.22)
            who.top(inside, tint, 0.9)
            who.top(turned(oval(x - 0.07, y - 0.05, 0.03, 0.1), 0.6, (x, y)), clear(WHITE, 0.55), 0.91)
        inner = who.eye_x - around
        who.top(stroke([(-inner, who.eye_y), (0, who.eye_y - 0.04), (inner, who.eye_y)], 0.06), frame, 0.92)
        who.top(
            stroke([(who.eye_x + around, who.eye_y), (who.rx, who.eye_y - 0.06)], 0.06),
            frame,
            0.6,
            both=True,
        )


def _hat(who: Character, colour: Colour) -> None:
    small = ["bow", "flower", "crown", "party"]
    hats = small if who.kind not in {"person", "bear", "monster", "owl"} else [*small, "beanie", "cap", "top"]
    dark, light, brim = mix(colour, BLACK, 0.28), mix(colour, WHITE, 0.5), -who.ry * 0.55
    match who.pick(hats):
        case "bow":
            x, y = who.rx * 0.5, -who.ry * 0.86
            for side in (-1, 1):
                wing = [(x, y), (x + side * 0.4, y - 0.24), (x + side * 0.4, y + 0.24)]
                who.top(smooth(wing, 3), colour, 0.35)
            who.top(oval(x, y, 0.11, 0.12), dark, 0.37)
        case "flower":
            x, y = -who.rx * 0.62, -who.ry * 0.7
            for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False):
                who.top(
                    oval(x + np.cos(angle) * 0.17, y + np.sin(angle) * 0.17, 0.13, 0.13, points=16),
                    light,
                    0.4,
                )
            who.top(oval(x, y, 0.12, 0.12, points=16), rgb("f4b63f"), 0.42)
        case "crown":
            y, gold = -who.ry * 0.9, rgb("f2c14a")
            points = [(-0.5, y + 0.12), (-0.56, y - 0.4), (-0.26, y - 0.14), (0, y - 0.5), (0.26, y - 0.14)]
            who.top(np.array([*points, (0.56, y - 0.4), (0.5, y + 0.12)]), gold, 0.15)
            for x in (-0.28, 0, 0.28):
                who.top(oval(x, y, 0.07, 0.07, points=14), colour, 0.2)
        case "party":
            y = -who.ry * 0.84
            who.top(np.array([(-0.38, y + 0.04), (0.02, y - 0.78), (0.4, y)]), colour, 0.1)
            who.top(
                np.array([(-0.25, y - 0.24), (0.29, y - 0.22), (0.2, y - 0.4), (-0.16, y - 0.43)]),
                light,
                0.12,
            )
            who.top(oval(0.02, y - 0.78, 0.13, 0.13, points=16), WHITE, 0.12)
        case "beanie":
            over = who.head(1.12, 60)
            over = over[over[:, 1] < brim]
            who.top(over[np.argsort(over[:, 0])], colour, 0.2)
            who.top(oval(0, brim, who.rx * 1.06, 0.17, 4), dark, 0.35)
            who.top(oval(0, -who.ry * 1.2, 0.2, 0.18), light, 0.1)
        case "cap":
            over = who.head(1.1, 60)
            over = over[over[:, 1] < brim]
            who.top(over[np.argsort(over[:, 0])], colour, 0.2)
            who.top(oval(0.12, brim + 0.02, who.rx * 1.02, 0.15, 2.4), dark, 0.85)
            who.top(oval(0, brim - 0.26, 0.16, 0.13), light, 0.7)
        case "top":
            y = -who.ry * 0.78
            who.top(smooth([(-0.56, y), (-0.6, y - 0.72), (0.6, y - 0.72), (0.56, y)], 1), BLACK, 0.1)
            who.top(smooth([(-0.57, y), (-0.58, y - 0.2), (0.58, y - 0.2), (0.57, y)], 1), colour, 0.12)
            who.top(oval(0, y, 0.98, 0.13, 3), mix(BLACK, WHITE, 0.08), 0.3)
