"""Genuine and impostor pairs, drawn from an index."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import seed_number, whole_number
from fasttriplet._splitmix import GOLDEN, mix_array
from fasttriplet.dataset._ids import image_ids
from fasttriplet.dataset._order import check_index, epoch_seed


class DrawnPairs(NamedTuple):
    """Pairs of rows of an index.

    Attributes
    ----------
    first, second : (P,) int64
        Positions of the rows.
    same : (P,) bool
        Whether their labels are the same.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def draw_pairs(index: pl.DataFrame, pairs_per_kind: int = 6000, seed: int = 0) -> DrawnPairs:
    """Draw genuine and impostor pairs of images.

    Genuine pairs are drawn uniformly, without replacement, from all pairs of images with the same label; if
    there are no more than asked for, all are taken. The same number of impostor pairs is drawn from all pairs
    with different labels, or all of them if there are fewer. The two kinds alternate, so that consecutive
    folds hold equal shares of both. A pair is never drawn twice, and no image is paired with itself.

    Parameters
    ----------
    index : pl.DataFrame
        One row per image with at least ``key`` and ``label`` (and ``file`` if there are several files), as
        :func:`index_rec` returns it.
    pairs_per_kind : int, default 6000
        At least 1.
    seed : int, default 0
        The pairs are a pure function of the seed, the keys and the labels. They do not depend on the order of
        the rows, and are the same in every version.

    Returns
    -------
    DrawnPairs

    Raises
    ------
    ValueError
        If a column is missing or not of integers, a number is out of range, or pairs of one kind cannot be
        drawn: no label has two images, or all images have one label.
    """
    check_index(index, "key", "label")
    whole_number("pairs_per_kind", pairs_per_kind, 1)
    seed = seed_number(seed)
    labels = index["label"].to_numpy()
    order = np.lexsort((image_ids(index), labels))
    labels, count = labels[order], len(order)
    row = np.arange(count)
    end = np.searchsorted(labels, labels, side="right")  # of the label's rows
    # A pair is a row and a later row: of the same label up to `end`, of another label from there on.
    same = _Numbered(row + 1, end - row - 1)
    different = _Numbered(end, count - end)
    if count == 0:
        raise ValueError("there are no images to draw pairs from")
    if different.total == 0:
        raise ValueError(
            f"no impostor pair can be drawn, as the label of all images is {labels[0]}; images of at least "
            "two identities are needed"
        )
    if same.total == 0:
        raise ValueError(
            f"no genuine pair can be drawn, as each of the {count:,} identities has one image; at "
            "least one of them needs two"
        )
    drawn = [same.pairs(_sample(same.total, min(pairs_per_kind, same.total), epoch_seed(seed, 0)))]
    impostors = min(len(drawn[0]), different.total)
    drawn.append(different.pairs(_sample(different.total, impostors, epoch_seed(seed, 1))))
    genuine = len(drawn[0])
    # To alternate, pair i of n is put at (2i + 1) / 2n, multiplied by both numbers to stay an integer.
    places = [(2 * np.arange(genuine) + 1) * impostors, (2 * np.arange(impostors) + 1) * genuine]
    mixed = np.argsort(np.concatenate(places), kind="stable")
    pairs = order[np.concatenate(drawn)[mixed]]
    return DrawnPairs(pairs[:, 0].copy(), pairs[:, 1].copy(), mixed < genuine)


class _Numbered:
    """Pairs of each row with `counts` rows from `firsts` on: numbered from 0, but never listed."""

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._firsts = firsts
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self.total = int(self._ends[-1]) if len(counts) else 0

    def pairs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pairs that have these numbers: (P, 2) int64."""
        row = np.searchsorted(self._ends, numbers, side="right")
        return np.stack([row, self._firsts[row] + numbers - self._starts[row]], axis=1)


def _sample(total: int, count: int, state: int) -> NDArray[np.int64]:
    """Draw `count` different integers below `total`, in random order; every set is equally likely."""
    if 2 * count > total:  # it is quicker to draw the ones to leave out
        chosen = np.delete(np.arange(total), _first_draws(total, total - count, state))
    else:
        chosen = _first_draws(total, count, state)
    order = mix_array(chosen.astype(np.uint64) ^ np.uint64(epoch_seed(state, 1)))
    return chosen[np.argsort(order, kind="stable")]  # the mixer maps no two numbers to one


def _first_draws(total: int, count: int, state: int) -> NDArray[np.int64]:
    """Return the first `count` different integers below `total` that SplitMix64 gives, in ascending order."""
    found = np.empty(0, dtype=np.int64)
    start = 0
    fair = 2**64 - 2**64 % total  # draws from here on would favour small numbers
    while len(found) < count:
        many = 2 * (count - len(found)) + 16
        counter = np.arange(start + 1, start + many + 1, dtype=np.uint64)
        draws = mix_array(counter * np.uint64(GOLDEN) + np.uint64(state))
        start += many
        draws = draws[draws <= np.uint64(fair - 1)]
        both = np.concatenate([found, (draws % np.uint64(total)).astype(np.int64)])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return np.sort(found[:count])
