"""What the comparisons share: rows on which float32 decides as float64 does, and triplets as sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft

EDGE = 1e-5  # peers compute in float32, whose distances of unit rows are off by up to 1e-6
Triples = set[tuple[int, int, int]]


def triples(roles: Iterable[Any]) -> Triples:
    """Anchors, positives and negatives as a set of triplets, of which none comes twice."""
    each = [tuple(map(int, row)) for row in zip(*roles, strict=True)]
    assert len(set(each)) == len(each)
    return set(each)  # type: ignore[arg-type]


def mined(rows: NDArray[np.float32], labels: NDArray[np.int64], **options: Any) -> Triples:
    return triples(ft.mine(rows, labels, **options))


def on_a_line(count: int, identities: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows on a line, at whole numbers: so are their distances, in float32 too, and many are equal."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, 2), dtype=np.float32)
    rows[:, 0] = rng.integers(0, 30, count)
    return rows, rng.integers(0, identities, count)


def apart(
    count: int, identities: int, seed: int, *, normalize: bool, margins: tuple[float, ...] = (0.0,)
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows whose L2 distances from a row differ by more than `EDGE`, also where a margin is between them."""
    rng = np.random.default_rng(seed)
    while True:
        rows = rng.normal(size=(count, 8)).astype(np.float32)
        labels = np.arange(count) % identities
        if gap(rows, normalize=normalize, margins=margins) > EDGE:
            return rows, labels


def gap(rows: NDArray[np.float32], *, normalize: bool, margins: tuple[float, ...]) -> float:
    """The least ``|d_1 - d_2 - margin|`` of two L2 distances from a row."""
    wide = rows.astype(np.float64)
    if normalize:
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    d = np.linalg.norm(wide[:, None] - wide, axis=2)
    others = ~np.eye(len(d), dtype=bool)
    least = np.inf
    for of_row, of in zip(d, others, strict=True):
        between = of_row[of, None] - of_row[of]
        for margin in margins:
            off = np.abs(between - margin)
            if margin == 0:
                off = off[~np.eye(len(off), dtype=bool)]
            least = min(least, float(off.min()))
    return least
