"""Who is in the demo's dataset: the traits that an identity has in all of its pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Colour = tuple[int, ...]  # red, green, blue, and perhaps opacity; 0..255


class Kind(NamedTuple):
    """What the characters of one kind have in common.

    Lengths are in head radii, from the middle of the head to the right and down. The last number of head and
    ear says how square they are: 1 is a diamond, 2 an ellipse.
    """

    coats: str  # colours of skin, fur or metal
    head: tuple[float, float, float]  # half the width and height, squareness
    ear: tuple[float, float, float, float, float]  # the right one: x, y, and the same three
    eye: tuple[float, float, float] = (0.37, -0.08, 0.19)  # x, y and radius; 0 for an only eye


KINDS = {
    "person": Kind(
        "fbdcc6 f3c7a2 e2ab7c c68a5c 99633f 68442f", (0.84, 0.98, 2.3), (0.87, 0.05, 0.13, 0.2, 2)
    ),
    "cat": Kind(
        "f0a356 98a4b3 4a4650 f5e6d0", (1, 0.84, 2.2), (0.66, -0.64, 0.4, 0.82, 1.2), (0.43, -0.1, 0.24)
    ),
    "bear": Kind("96643f 64473a cfa374 f6f1e8 47454e", (0.98, 0.92, 2.3), (0.74, -0.78, 0.34, 0.34, 2)),
    "rabbit": Kind("f7f0e8 cfc5c0 b99a7d ecc9d3", (0.88, 0.94, 2.1), (0.4, -1.2, 0.22, 0.66, 2)),
    "dog": Kind("dcae70 e8d3b4 8a6249 5a5360 cd8350", (0.86, 0.96, 2.3), (0.96, -0.15, 0.28, 0.66, 2.2)),
    "fox": Kind("e8763c d25a34 a9b4c0", (1, 0.86, 2), (0.66, -0.6, 0.38, 1, 1.3)),
    "frog": Kind(
        "86c766 58ab74 b2ce56 66bcb4", (1.06, 0.8, 2.2), (0.5, -0.7, 0.38, 0.38, 2), (0.5, -0.74, 0.25)
    ),
    "robot": Kind("a9bcc9 dfe3e4 7f93b0 e2b965 cf7566", (0.9, 0.86, 6), (0.95, 0, 0.15, 0.28, 4)),
    "monster": Kind(
        "9675cf 55b4c8 e3709a ef9550", (0.92, 0.98, 2.6), (0.5, -0.85, 0.24, 0.66, 1.3), (0, -0.14, 0.4)
    ),
}
# People are every second identity: their hair, beards and skin vary the most.
_ORDER = [kind for other in list(KINDS)[1:] for kind in ("person", other)]
_BACKDROPS = "f6c9a0 8cc7b5 e9a09a 6d8fb5 f0d27a b7a3d6 a9cf94 46697f eab2c9 7fbcd8 d8c6ad e08a63 5c5a86"
_CLOTH = "e0563a 2d3a64 f2ac2e 6a9fc0 2b9b8d 8c4074 f3eee0 454a66 86b59c d24f60 1b7a8c"
_HAIRS = "2c2228 4e3227 7d4e2f b8753e e5b556 f3dfa6 c64a32 9fa5ad 43639f d9679b 4a957f"
_IRISES = "5f4028 33729f 438b56 878d97 b27d2b 6d4fa2"


class Character:
    """One identity of the dataset of a seed: its colours, its sizes in head radii, and what it wears."""

    def __init__(self, seed: int, number: int) -> None:
        start = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).integers(10**6)
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number)))
        # 16 and 13 have no common divisor: the same kind before the same backdrop is 208 identities away.
        self.kind = _ORDER[(start + number) % len(_ORDER)]
        self.backdrop = _colour(_BACKDROPS.split()[(start + number) % 13])
        kind, person = KINDS[self.kind], self.kind == "person"
        hexes = map(self._pick, (kind.coats, _CLOTH, _CLOTH, _HAIRS, _IRISES))
        self.coat, self.shirt, self.accent, self.hair, self.iris = map(_colour, hexes)
        sizes = self._rng.uniform(0.9, 1.1, 6) * (*kind.head, kind.eye[2], 0.11, 0.3)
        self.wide, self.high, self.square, self.eye, self.nose, self.mouth = sizes.tolist()
        # narrower below; brows down; lids down, 1 is shut; where hair parts, -1..1, and its height there
        traits = self._rng.uniform((-0.08, -0.08, -0.1, -0.6, -0.1), (0.12, 0.1, 0.3, 0.6, 0.5))
        self.taper, self.frown, self.lid, self.part, self.forehead = traits.tolist()
        self.style = self._pick("short short curly spiky bob long bun tails afro bald") if person else "bald"
        self.marked, self.blush, coin = (self._rng.random(3) < 0.5).tolist()
        self.beads = coin and self.kind in {"bear", "rabbit", "dog"}  # eyes without white
        self.beard = coin and person and self.style in {"short", "curly", "spiky", "bald"}
        self.clothes = self._pick("plain stripes collar scarf bow")
        self.glasses = self._pick("round square dark none none none none") if self.kind != "robot" else "none"
        self.hat = self._pick("beanie crown flower headphones none none none none none")

    def _pick(self, options: str) -> str:
        return str(self._rng.choice(options.split()))


def _colour(code: str) -> Colour:
    return tuple(bytes.fromhex(code))
