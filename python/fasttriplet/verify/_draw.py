"""Genuine and impostor pairs, drawn from an index."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import seed_number, whole_number
from fasttriplet._splitmix import GOLDEN, mix_array
from fasttriplet.dataset._ids import image_ids
from fasttriplet.dataset._order import epoch_seed


class DrawnPairs(NamedTuple):
    """Pairs of rows of an index.

    Attributes
    ----------
    first, second : (P,) int64
        Positions of rows.
    same : (P,) bool
        Whether their labels are the same.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def draw_pairs(index: pl.DataFrame, pairs_per_kind: int = 6000, seed: int = 0) -> DrawnPairs:
    """Draw genuine and impostor pairs of images.

    Genuine pairs are drawn uniformly from all pairs of one label, without replacement (all of them if there
    are no more than asked for), and as many impostor pairs from all pairs of two labels, so far as there are.
    They alternate, so that consecutive folds hold both kinds alike. A pair is never drawn twice, and no
    image is paired with itself.

    Parameters
    ----------
    index : pl.DataFrame
        One row per image with at least ``key`` and ``label`` (and ``file``, where there are several), as
        :func:`index_rec` returns it.
    pairs_per_kind : int, default 6000
        At least 1.
    seed : int, default 0
        The pairs are a pure function of it and of keys and labels, whatever the order of the rows, and the
        same in every version.

    Returns
    -------
    DrawnPairs

    Raises
    ------
    ValueError
        If a column is missing, a number is out of range, or no label has two images.
    """
    missing = [name for name in ("key", "label") if name not in index.columns]
    if missing:
        raise ValueError(f"the index needs the columns key and label; {' and '.join(missing)} not found")
    whole_number("pairs_per_kind", pairs_per_kind, 1)
    seed = seed_number(seed)
    labels = index["label"].to_numpy()
    order = np.lexsort((image_ids(index), labels))
    labels, count = labels[order], len(order)
    row = np.arange(count)
    end = np.searchsorted(labels, labels, side="right")  # of the label's rows
    # Row by row, the pairs with later rows are numbered; kinds differ in which later rows these are.
    same = _Numbered(row + 1, end - row - 1)
    different = _Numbered(end, count - end)
    if same.total == 0:
        raise ValueError(
            f"none of the {count:,} labels has two images, so there are no genuine pairs"
            if count
            else "there are no images to draw pairs from"
        )
    drawn = [same.pairs(_sample(same.total, min(pairs_per_kind, same.total), epoch_seed(seed, 0)))]
    impostors = min(len(drawn[0]), different.total)
    drawn.append(different.pairs(_sample(different.total, impostors, epoch_seed(seed, 1))))
    genuine = len(drawn[0])
    # Pair i of n stands at (2i + 1) / 2n; multiplied out, so that it stays in whole numbers.
    places = [(2 * np.arange(genuine) + 1) * max(impostors, 1), (2 * np.arange(impostors) + 1) * genuine]
    mixed = np.argsort(np.concatenate(places), kind="stable")
    pairs = order[np.concatenate(drawn)[mixed]]
    return DrawnPairs(pairs[:, 0].copy(), pairs[:, 1].copy(), mixed < genuine)


class _Numbered:
    """Pairs of a row with the `counts` rows from `firsts` on, numbered from 0 without listing them."""

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._firsts = firsts
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self.total = int(self._ends[-1]) if len(counts) else 0

    def pairs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs of these numbers: (P, 2) int64."""
        row = np.searchsorted(self._ends, numbers, side="right")
        return np.stack([row, self._firsts[row] + numbers - self._starts[row]], axis=1)


def _sample(total: int, count: int, state: int) -> NDArray[np.int64]:
    """Draw `count` different whole numbers below `total`; every set is equally likely, in random order."""
    if 2 * count > total:  # it is quicker to draw those that are left out
        chosen = np.delete(np.arange(total), _first_draws(total, total - count, state))
    else:
        chosen = _first_draws(total, count, state)
    order = mix_array(chosen.astype(np.uint64) ^ np.uint64(epoch_seed(state, 1)))
    return chosen[np.argsort(order, kind="stable")]  # the mixer maps no two numbers to one


def _first_draws(total: int, count: int, state: int) -> NDArray[np.int64]:
    """The first `count` different numbers below `total` that SplitMix64 gives; ascending."""
    found = np.empty(0, dtype=np.int64)
    start = 0
    fair = 2**64 - 2**64 % max(total, 1)  # draws from here on would favour small numbers
    while len(found) < count:
        many = 2 * (count - len(found)) + 16
        counter = np.arange(start + 1, start + many + 1, dtype=np.uint64)
        draws = mix_array(counter * np.uint64(GOLDEN) + np.uint64(state))
        start += many
        draws = draws[draws <= np.uint64(fair - 1)]
        both = np.concatenate([found, (draws % np.uint64(total)).astype(np.int64)])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return np.sort(found[:count])
