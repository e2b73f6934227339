"""The semi-hard loss of TensorFlow Addons, by its definition: TensorFlow itself is not needed.

For each anchor and positive, in this order, it takes the nearest negative that is farther than the
positive, or the farthest if there is none. The loss is the mean of ``max(0, margin + d_ap - d_an)``.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft

MARGIN = 1.0
BATCHES = 600  # for each range of numbers

Picks = list[tuple[int, int, float]]


def defined(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, Picks]:
    """The loss, and for each pair its distance to the negative. Whole numbers, so float64 is exact."""
    wide = rows.astype(np.float64)
    d = ((wide[:, None] - wide) ** 2).sum(axis=2)
    picks, losses = [], []
    for a, p in np.argwhere((labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)).tolist():
        negatives = d[a][labels != labels[a]]
        outside = negatives[negatives > d[a, p]]
        d_an = outside.min() if len(outside) else negatives.max()
        picks.append((a, p, float(d_an)))
        losses.append(max(0.0, MARGIN + d[a, p] - d_an))
    return float(np.mean(losses)), picks


@pytest.mark.parametrize("largest", [3, 1000], ids=["many ties", "few ties"])
def test_picks_and_losses_are_those_of_the_definition(largest: int) -> None:
    rng = np.random.default_rng(largest)
    farthest = alone = 0
    for batch in range(BATCHES):
        count = int(rng.integers(6, 20))
        rows = rng.integers(0, largest, (count, 3)).astype(np.float32)
        labels = rng.integers(0, 4, count)
        labels[:3] = 0, 0, 1  # a pair and a negative
        loss, picks = defined(rows, labels)
        triplets = ft.mine(
            rows,
            labels,
            band="d_an > d_ap",
            pick="hardest",
            fallback="farthest",
            pairs="ordered",
            normalize=False,
            threads=1,
        )
        assert list(zip(triplets.anchor, triplets.positive, triplets.d_an, strict=True)) == picks, batch
        assert np.mean(np.maximum(0.0, MARGIN + triplets.d_ap - triplets.d_an)) == loss, batch
        wide = rows.astype(np.float64)
        d_an = ((wide[triplets.anchor] - wide[triplets.negative]) ** 2).sum(axis=1)
        assert (d_an == triplets.d_an).all()
        assert (labels[triplets.anchor] != labels[triplets.negative]).all()
        # Where one negative alone has the distance, this is the same pick, too.
        for a, _, d in picks:
            alone += int((((wide[labels != labels[a]] - wide[a]) ** 2).sum(axis=1) == d).sum() == 1)
        farthest += int((triplets.d_an <= triplets.d_ap).sum())
    assert farthest > BATCHES
    assert alone > 10 * BATCHES
