"""The definition of a mined triplet in plain NumPy, float64, one anchor at a time.

Slow and obviously right: the tests compare `fasttriplet.mine` with `mine` below for equality, picks and
distances to the last bit. Nothing here is shared with the package.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Triplet = tuple[int, int, int, float, float]

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


def sum8(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each row in the defined order: 8 lanes filled round robin, then halves added onto halves."""
    count, dim = values.shape
    padded = np.hstack([values, np.zeros((count, -dim % 8))])
    lanes = np.zeros((count, 8))
    for start in range(0, dim, 8):
        lanes = lanes + padded[:, start : start + 8]
    lanes = lanes[:, :4] + lanes[:, 4:]
    lanes = lanes[:, :2] + lanes[:, 2:]
    return lanes[:, 0] + lanes[:, 1]


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row by its L2 norm in float64, round to float32; a zero row stays zero."""
    wide = rows.astype(np.float64)
    norm = np.sqrt(sum8(wide * wide))
    norm[norm == 0] = 1
    unit: NDArray[np.float32] = (wide / norm[:, None]).astype(np.float32)
    return unit


def distances(x: NDArray[np.float32], rows: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """Distance of x to each row, evaluated in float64 on float32 rows."""
    difference = x.astype(np.float64) - rows.astype(np.float64)
    square = sum8(difference * difference)
    return {"sqeuclidean": square, "euclidean": np.sqrt(square), "cosine": square / 2}[metric]


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


@lru_cache(1 << 14)
def code(seed: int, identifier: int) -> int:
    """64 random-looking bits of a row, by its id."""
    return mix64(mix64((identifier + GOLDEN) & MASK64) ^ mix64((seed + 2 * GOLDEN) & MASK64))


@lru_cache(1 << 14)
def pair_code(seed: int, anchor: int, positive: int) -> int:
    return mix64((mix64(code(seed, anchor) ^ GOLDEN) + code(seed, positive)) & MASK64)


def priority(seed: int, anchor: int, positive: int, negative: int) -> tuple[int, int]:
    """Keyed hash of a triplet: among the qualifying negatives of a pair the smallest is picked."""
    spread = mix32((code(seed, negative) ^ mix64(code(seed, anchor) ^ GOLDEN)) & 0xFFFFFFFF) >> 16
    pair = pair_code(seed, anchor, positive)
    draw = (spread ^ (pair & 0xFFFF)) * (pair >> 16 & 0xFFFF | 1) & 0xFFFF
    return draw, mix64(code(seed, negative) ^ pair)


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
    metric: str = "sqeuclidean",
    normalize: bool = True,
    references: NDArray[np.float32] | None = None,
    reference_labels: Any = None,
    ids: Any = None,
    reference_ids: Any = None,
    seed: int = 0,
) -> list[Triplet]:
    """(anchor, positive, negative, d_ap, d_an), ascending in the first three.

    Anchors are the embeddings; positives and negatives are the references, by default the embeddings
    again. The anchor is not its own positive: where it is known that a reference is the anchor, by its id.
    """
    alone = references is None
    if references is None:
        references, reference_labels, reference_ids = embeddings, labels, ids
    same_row = alone or ids is not None  # the same id in both sets means the same row
    labels, other_labels = list(labels), list(reference_labels)
    ids = list(range(len(embeddings))) if ids is None else [int(i) for i in ids]
    other_ids = list(range(len(references))) if reference_ids is None else [int(i) for i in reference_ids]
    rows = normalized(embeddings) if normalize else embeddings
    others = normalized(references) if normalize else references
    triplets = []
    for a in range(len(rows)):
        d = distances(rows[a], others, metric).tolist()
        positives = [
            (d[p], p)
            for p in range(len(others))
            if other_labels[p] == labels[a]
            and not (same_row and other_ids[p] == ids[a])
            and not (alone and pairs == "unordered" and p < a)
        ]
        positives = [(d_ap, p) for d_ap, p in positives if max_ap is None or d_ap <= max_ap]
        if pairs == "hardest" and positives:
            positives = [max(positives, key=lambda dp: (dp[0], -other_ids[dp[1]]))]
        if pairs == "easiest" and positives:
            positives = [min(positives, key=lambda dp: (dp[0], other_ids[dp[1]]))]
        negatives = [n for n in range(len(others)) if other_labels[n] != labels[a]]
        for d_ap, p in positives:
            found = [
                (priority(seed, ids[a], other_ids[p], other_ids[n]), d[n], n)
                for n in negatives
                if qualifies(band, d_ap, d[n], margin)
            ]
            if pick == "random":
                found = sorted(found)[:negatives_per_pair]
            if pick == "hardest":
                found = sorted(found, key=lambda f: (f[1], f[0]))[:negatives_per_pair]
            triplets += [(ids[a], other_ids[p], other_ids[n], d_ap, d_an) for _, d_an, n in found]
    return sorted(triplets)
