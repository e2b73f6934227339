"""The definition of a mined triplet in plain NumPy, float64, one anchor at a time.

Slow and obviously right: the tests compare `fasttriplet.mine` with `mine` below for equality, picks and
distances to the last bit. Nothing here is shared with the package.
"""

from __future__ import annotations

from functools import cache
from types import CodeType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Triplet = tuple[int, int, int, float, float]
Whole = Any  # a number of 64 bits, or an array of them (of uint64, which wraps around by itself)

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio


def sum8(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each row in the defined order: 8 lanes filled round robin, then halves added onto halves."""
    count, dim = values.shape
    padded = np.hstack([values, np.zeros((count, -dim % 8))])
    rounds = padded.reshape(count, padded.shape[1] // 8, 8)
    lanes = np.cumsum(rounds, axis=1)[:, -1]  # one round after the other
    lanes = lanes[:, :4] + lanes[:, 4:]
    lanes = lanes[:, :2] + lanes[:, 2:]
    total: NDArray[np.float64] = lanes[:, 0] + lanes[:, 1]
    return total


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


@overload
def mix64(z: int) -> int: ...
@overload
def mix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]: ...
def mix64(z: Whole) -> Whole:
    """The finaliser of SplitMix64 (variant 13 of Stafford's 64-bit mixers)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def mix32(z: Whole) -> Whole:
    """A 32-bit mixer with two multiplications (Wellons' hash prospector, bias 0.107)."""
    z = ((z ^ (z >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    z = ((z ^ (z >> 15)) * 0xD35A2D97) & 0xFFFFFFFF
    return z ^ (z >> 15)


def code(seed: Whole, identifier: Whole) -> Whole:
    """64 random-looking bits of a row, by its id."""
    return mix64(mix64((identifier + GOLDEN) & MASK64) ^ mix64((seed + (2 * GOLDEN & MASK64)) & MASK64))


def pair_lot(anchor: int, positive: int) -> int:
    """What decides which pairs of an anchor are used: the smallest."""
    return int(mix64((mix64((mix64(anchor ^ GOLDEN) + positive) & MASK64) + GOLDEN) & MASK64))


def draws(anchor: Whole, positive: Whole, negatives: Whole) -> tuple[Whole, Whole]:
    """Keyed hash of triplets, from the codes of their rows: a pair picks its smallest draw.

    The second numbers decide between equal draws.
    """
    spread = mix32((negatives ^ mix64(anchor ^ GOLDEN)) & 0xFFFFFFFF) >> 16
    pair = mix64((mix64(anchor ^ GOLDEN) + positive) & MASK64)
    draw = (spread ^ (pair & 0xFFFF)) * (pair >> 16 & 0xFFFF | 1) & 0xFFFF
    return draw, mix64(negatives ^ pair)


BANDS = {
    "semihard": "d_ap < d_an and d_an < d_ap + margin",
    "violating": "d_an < d_ap + margin",
    "hard": "d_an <= d_ap",
    "easy": "d_an >= d_ap + margin",
    "any": "d_an >= 0",
}


@cache
def compiled(comparison: str) -> CodeType:
    return compile(comparison, "a band", "eval")


def qualify(band: str, d_ap: float, d_an: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Evaluate each comparison as it is written."""
    held = np.ones(len(d_an), dtype=bool)
    for comparison in BANDS.get(band, band).split(" and "):
        held &= eval(compiled(comparison), {"d_ap": d_ap, "d_an": d_an, "margin": margin})
    return held


def ln(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of positive numbers, in a fixed order: ln(m 2^e) = e ln(2) + 2 artanh(t)."""
    m, e = np.frexp(x)
    low = m < np.sqrt(0.5)
    m, e = np.where(low, 2 * m, m), np.where(low, e - 1, e)
    t = (m - 1) / (m + 1)
    series = np.zeros_like(t)
    for k in range(10, -1, -1):
        series = series * (t * t) + 1 / (2 * k + 1)
    logarithm: NDArray[np.float64] = e * np.log(2) + 2 * t * series
    return logarithm


def weighted(draw: Whole, tie: Whole, d: NDArray[np.float64], dim: int, metric: str) -> NDArray[np.float64]:
    """ln(-ln(1 - u) / w): the smallest is picked with a probability in proportion to w.

    w is the inverse of the density of squared distances s on the unit sphere (Wu et al. 2017, section 4),
    with s between 0.25 and 2.
    """
    u = ((draw.astype(np.uint64) << np.uint64(36) | tie >> np.uint64(28)).astype(np.float64) + 0.5) / 2.0**52
    s = np.clip({"sqeuclidean": d, "euclidean": d * d, "cosine": 2 * d}[metric], 0.25, 2)
    ln_w = -(max(0, dim - 2) / 2 * ln(s) + max(0, dim - 3) / 2 * ln(1 - s / 4))
    key: NDArray[np.float64] = ln(-ln(1 - u)) - ln_w
    return key


def mine(
    embeddings: NDArray[np.float32],
    labels: Any,
    *,
    margin: float = 0.3,
    band: str = "semihard",
    ranks: tuple[int, int | None] | None = None,
    pick: str = "random",
    negatives_per_pair: int = 1,
    fallback: str | None = None,
    pairs: str = "unordered",
    positives_per_anchor: int | None = None,
    triplets_per_anchor: int | None = None,
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
    label, others_label = column(labels), column(reference_labels)
    anchor_ids = np.array(range(len(embeddings)) if ids is None else ids, dtype=np.int64)
    other_ids = np.array(range(len(references)) if reference_ids is None else reference_ids, dtype=np.int64)
    anchor_codes, other_codes = (code(seed, those.astype(np.uint64)) for those in (anchor_ids, other_ids))
    rows = normalized(embeddings) if normalize else embeddings
    others = normalized(references) if normalize else references
    triplets = []
    for a in range(len(rows)):
        same_label = others_label == label[a]
        positive = same_label & ~((other_ids == anchor_ids[a]) & same_row)
        if alone and pairs == "unordered":
            positive[:a] = False
        if not positive.any():
            continue
        d = distances(rows[a], others, metric)
        if max_ap is not None:
            positive &= d <= max_ap
        positives = np.flatnonzero(positive)
        if pairs in ("hardest", "easiest"):
            farther_first = -d[positives] if pairs == "hardest" else d[positives]
            positives = positives[np.lexsort((other_ids[positives], farther_first))]
            positives = positives[: positives_per_anchor or 1]
        elif positives_per_anchor is not None:
            lots = np.array([pair_lot(int(anchor_codes[a]), int(other_codes[p])) for p in positives])
            positives = positives[np.argsort(lots)[:positives_per_anchor]]
        of_anchor = []
        for p in positives:
            negatives = np.flatnonzero(~same_label)
            found = negatives[qualify(band, d[p], d[negatives], margin)]
            draw, tie = draws(int(anchor_codes[a]), int(other_codes[p]), other_codes[found])
            if ranks is not None:
                ranked = np.lexsort((tie, draw, d[found]))[slice(*ranks)]
                found, draw, tie = found[ranked], draw[ranked], tie[ranked]
            if pick != "all":
                key = {"random": np.zeros(len(found)), "hardest": d[found]}.get(pick)
                if key is None:
                    key = weighted(draw, tie, d[found], rows.shape[1], metric)
                picked = np.lexsort((tie, draw, key))[:negatives_per_pair]
                found, tie = found[picked], tie[picked]
            if fallback == "farthest" and len(found) == 0 and len(negatives):
                found = negatives[np.lexsort((other_ids[negatives], -d[negatives]))[:1]]
                tie = draws(int(anchor_codes[a]), int(other_codes[p]), other_codes[found])[1]
            lots = mix64((tie.astype(np.uint64) + np.uint64(GOLDEN)) & np.uint64(MASK64))
            of_anchor += [
                (lot, (int(anchor_ids[a]), int(other_ids[p]), int(other_ids[n]), float(d[p]), float(d[n])))
                for lot, n in zip(lots, found, strict=True)
            ]
        triplets += [triplet for _, triplet in sorted(of_anchor)[:triplets_per_anchor]]
    return sorted(triplets)


def column(values: Any) -> NDArray[np.object_]:
    """Labels of any kind as an array of objects."""
    made = np.empty(len(values), dtype=object)
    made[:] = list(values)
    return made


def scatter(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], *, normalize: bool, ids: Any, seed: int
) -> float | None:
    """Median of 2 |x - y|^2 / (|x|^2 + |y|^2): k-th rows, and others that their codes pick."""
    rows = normalized(embeddings) if normalize else embeddings
    order = np.lexsort((ids, labels))
    terms = []
    for row in order[:: max(1, -(-len(rows) // 1024))]:
        others = order[labels[order] != labels[row]]
        if len(others):
            other = others[code(seed, int(ids[row])) % len(others)]
            squared = distances(rows[row], rows[[other]], "sqeuclidean")[0]
            norms = sum8(np.square(rows[[row, other]].astype(np.float64))).sum()
            terms.append(float(2 * squared / norms) if squared else 0.0)
    return sorted(terms)[len(terms) // 2] if terms else None
