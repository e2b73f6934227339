"""The definition of a mined triplet in plain NumPy, float64, one anchor at a time.

Slow and obviously right: the tests compare `fasttriplet.mine` with `mine` below for equality, picks and
distances to the last bit. Nothing here is shared with the package.
"""

from __future__ import annotations

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


def draws(anchor: Whole, positive: Whole, negatives: Whole) -> tuple[Whole, Whole]:
    """Keyed hash of triplets, from the codes of their rows: a pair picks its smallest draw.

    The second numbers decide between equal draws.
    """
    spread = mix32((negatives ^ mix64(anchor ^ GOLDEN)) & 0xFFFFFFFF) >> 16
    pair = mix64((mix64(anchor ^ GOLDEN) + positive) & MASK64)
    draw = (spread ^ (pair & 0xFFFF)) * (pair >> 16 & 0xFFFF | 1) & 0xFFFF
    return draw, mix64(negatives ^ pair)


def qualify(band: str, d_ap: float, d_an: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    if band == "semihard":
        return (d_ap < d_an) & (d_an < d_ap + margin)
    if band == "violating":
        return d_an < d_ap + margin
    return d_an <= d_ap if band == "hard" else np.ones(len(d_an), dtype=bool)


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
        if pairs == "hardest":
            positives = positives[np.lexsort((other_ids[positives], -d[positives]))[:1]]
        if pairs == "easiest":
            positives = positives[np.lexsort((other_ids[positives], d[positives]))[:1]]
        for p in positives:
            found = np.flatnonzero(~same_label & qualify(band, d[p], d, margin))
            if pick != "all" and len(found) > negatives_per_pair:
                draw, tie = draws(int(anchor_codes[a]), int(other_codes[p]), other_codes[found])
                order = (tie, draw) if pick == "random" else (tie, draw, d[found])
                found = found[np.lexsort(order)[:negatives_per_pair]]
            triplets += [
                (int(anchor_ids[a]), int(other_ids[p]), int(other_ids[n]), float(d[p]), float(d[n]))
                for n in found
            ]
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
