"""The definition of a mined triplet in plain NumPy, float64, one pair at a time.

Slow and obviously right: the tests compare `fasttriplet.mine` with `mine` below for equality, picks and
distances to the last bit. Nothing here is shared with the package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Triplet = tuple[int, int, int, float, float]

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


def sum8(values: NDArray[np.float64]) -> float:
    """Sum in the defined order: 8 lanes filled round robin, then halves added onto halves."""
    lanes = np.zeros(8)
    for row in np.append(values, np.zeros(-len(values) % 8)).reshape(-1, 8):
        lanes = lanes + row
    lanes = lanes[:4] + lanes[4:]
    lanes = lanes[:2] + lanes[2:]
    return float(lanes[0] + lanes[1])


def normalized(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide by the L2 norm in float64, round to float32; a zero row stays zero."""
    wide = row.astype(np.float64)
    norm = np.sqrt(sum8(wide * wide))
    return row if norm == 0 else (wide / norm).astype(np.float32)


def distance(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Squared L2 distance, evaluated in float64 on float32 rows."""
    difference = x.astype(np.float64) - y.astype(np.float64)
    return sum8(difference * difference)


def mix64(z: int) -> int:
    """The finaliser of SplitMix64 (variant 13 of Stafford's 64-bit mixers)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def mix32(z: int) -> int:
    """A 32-bit mixer with two multiplications (Wellons' hash prospector, bias 0.107)."""
    z = ((z ^ (z >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    z = ((z ^ (z >> 15)) * 0xD35A2D97) & 0xFFFFFFFF
    return z ^ (z >> 15)


def code(seed: int, identifier: int) -> int:
    """64 random-looking bits of a row, by its id."""
    return mix64(mix64((identifier + GOLDEN) & MASK64) ^ mix64((seed + 2 * GOLDEN) & MASK64))


def priority(seed: int, anchor: int, positive: int, negative: int) -> int:
    """Keyed hash of a triplet: among the qualifying negatives of a pair the smallest is picked."""
    pair = mix64((mix64(code(seed, anchor) ^ GOLDEN) + code(seed, positive)) & MASK64)
    mixed = code(seed, negative) ^ pair
    return mix32(mixed & 0xFFFFFFFF) << 32 | mix32(mixed >> 32)


def qualifies(band: str, d_ap: float, d_an: float, margin: float) -> bool:
    return {
        "semihard": d_ap < d_an < d_ap + margin,
        "violating": d_an < d_ap + margin,
        "hard": d_an <= d_ap,
        "any": True,
    }[band]


def mine(
    embeddings: NDArray[np.float32],
    labels: Any,
    *,
    margin: float = 0.3,
    band: str = "semihard",
    pick: str = "random",
    negatives_per_pair: int = 1,
    pairs: str = "unordered",
    max_ap: float | None = None,
    normalize: bool = True,
    ids: Any = None,
    seed: int = 0,
) -> list[Triplet]:
    """(anchor, positive, negative, d_ap, d_an), ascending in the first three."""
    rows = [normalized(row) if normalize else row for row in embeddings]
    labels = list(labels)
    ids = list(range(len(rows))) if ids is None else [int(i) for i in ids]
    triplets = []
    for a in range(len(rows)):
        d = [distance(rows[a], row) for row in rows]
        positives = [
            (d[p], p)
            for p in range(len(rows))
            if p != a and labels[p] == labels[a] and (pairs != "unordered" or a < p)
        ]
        positives = [(d_ap, p) for d_ap, p in positives if max_ap is None or d_ap <= max_ap]
        if pairs == "hardest" and positives:
            positives = [max(positives, key=lambda dp: (dp[0], -ids[dp[1]]))]
        if pairs == "easiest" and positives:
            positives = [min(positives, key=lambda dp: (dp[0], ids[dp[1]]))]
        for d_ap, p in positives:
            found = [
                (priority(seed, ids[a], ids[p], ids[n]), d[n], n)
                for n in range(len(rows))
                if labels[n] != labels[a] and qualifies(band, d_ap, d[n], margin)
            ]
            if pick == "random":
                found = sorted(found)[:negatives_per_pair]
            if pick == "hardest":
                found = sorted(found, key=lambda f: (f[1], f[0]))[:negatives_per_pair]
            triplets += [(ids[a], ids[p], ids[n], d_ap, d_an) for _, d_an, n in found]
    return sorted(triplets)
