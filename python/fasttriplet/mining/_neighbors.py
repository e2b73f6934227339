"""The nearest rows of each row, and the nearest identities of each identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from fasttriplet import _core
from fasttriplet._checks import one_of, thread_count, truth_value, whole_number
from fasttriplet._words import advising, counted
from fasttriplet.errors import OptionError
from fasttriplet.mining._mine import (
    Triplets,
    as_ids,
    as_labels,
    as_rows,
    mine_rows,
    numbered,
    warn_if_collapsed,
)
from fasttriplet.mining._options import Metric, MiningOptions

Of = Literal["rows", "identities"]

# For the nearest negatives of a row, whatever its positive.
NEAREST = MiningOptions(band="any", pick="hardest", pairs="easiest", margin=float("inf"))
# Rows that are searched for at a time: all others are prepared for each call, which takes the time of a few
# hundred rows of the search.
_ROWS = 2**16
_FOUND = 2**22  # neighbors at a time: 170 MB as triplets, as much again while they are sorted
_NUMBERS = 2**22  # of rows that are added to means at a time: 32 MB as float64
_BYTES = 16  # of a neighbor
_BYTES_IN_FRAME = 40  # where labels are integers
_MOST = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """What is nearest to each of N rows or identities.

    Attributes
    ----------
    of : {"rows", "identities"}
        What the positions count.
    labels : (N,) int or str
        The identity of each row; or the identities, in ascending order.
    positions : (N, k) int64
        Of the nearest rows or identities, nearest first; -1 where there are fewer than k.
    distances : (N, k) float64
        To each of them, on the scale of the metric, by default squared L2; ``inf`` where there are fewer.
    """

    of: Of
    labels: NDArray[Any]
    positions: NDArray[np.int64]
    distances: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def to_frame(self) -> pl.DataFrame:
        """One row per neighbor: ``label, neighbor_label, rank, distance``, the nearest with rank 0.

        Of rows also ``row`` and ``neighbor``, their positions, in front. A frame of identities is what
        `neighbors` of :func:`fasttriplet.triplet_seq` takes.

        Raises
        ------
        MemoryError
            If the frame does not fit the memory.
        """
        at, rank = np.nonzero(self.positions >= 0)
        _core.probe_memory(_BYTES_IN_FRAME * len(at), f"a frame of {counted(len(at), 'neighbor')}")
        near = self.positions[at, rank]
        # A list: NumPy has kinds of texts that Polars does not take.
        labels = pl.Series(self.labels if self.labels.dtype.kind in "iu" else self.labels.tolist())
        places = {"row": at, "neighbor": near} if self.of == "rows" else {}
        return pl.DataFrame(
            {
                **places,
                "label": labels.gather(at),
                "neighbor_label": labels.gather(near),
                "rank": rank,
                "distance": self.distances[at, rank],
            }
        )


def neighbors(
    embeddings: ArrayLike,
    labels: ArrayLike,
    k: int = 10,
    *,
    of: Of = "rows",
    other_identities: bool = True,
    metric: Metric = "sqeuclidean",
    normalize: bool = True,
    ids: ArrayLike | None = None,
    threads: int | None = None,
) -> Neighbors:
    """Find the `k` nearest rows of each row, or the `k` nearest identities of each identity, exactly.

    Distances are those of :func:`fasttriplet.mine`: *squared* L2 unless `metric` says otherwise, evaluated
    in float64 on the float32 rows. The nearest come first, and of those equally near the one with the smaller
    id. So the result does not depend on threads, instruction set or the order of the rows.

    Parameters
    ----------
    embeddings : (N, D) float32
        One row per image, finite. Other float types are rounded to float32 first. Must not be changed by
        another thread during the call.
    labels : (N,) int or str
        Identity of each row.
    k : int, default 10
        How many, at least 1.
    of : {"rows", "identities"}, default "rows"
        *rows*: the nearest rows of each row. *identities*: the nearest identities of each identity, by the
        distance of their means: an identity graph.
    other_identities : bool, default True
        Of rows, look at rows of other identities only; else at all but the row itself.
    metric : {"sqeuclidean", "euclidean", "cosine"}, default "sqeuclidean"
        The scale of the distances, see :func:`fasttriplet.mine`.
    normalize : bool, default True
        Divide each row by its L2 norm, evaluated in float64 and rounded to float32. Zero rows stay zero.
    ids : (N,) int, optional
        Unique numbers of the rows, by default their positions. They decide between rows that are equally
        near, and the order in which the rows of an identity are added.
    threads : int, optional
        By default one for each core.

    Returns
    -------
    Neighbors
        Positions and distances. Of identities, positions are those in its `labels`, which ascend; the
        smaller label decides between identities that are equally near.

    Raises
    ------
    ValueError
        For shapes, types and values that cannot be searched; the first offending row is named.
    MemoryError
        If the rows or the neighbors do not fit the memory that is available.

    Warns
    -----
    CollapseWarning
        If the rows of different identities are all but equal, see :class:`fasttriplet.MiningStats`.

    Notes
    -----
    The mean of an identity is the sum of its rows in float64, added one after the other in ascending order of
    their ids, divided by their number and rounded to float32. With `normalize`, the rows are divided by their
    norms before they are added, and the means before they are compared.

    Rows are searched for in blocks of at most 65,536, so that memory is that of the result, of the rows as
    :func:`fasttriplet.mine` prepares them, and of one block. Where more than `k` rows are equally near, a row
    is searched for again with twice as many neighbors, until all that are equally near are known. With
    `other_identities`, all distances within an identity are evaluated, too, which takes long for identities
    of many thousand rows.

    Examples
    --------
    >>> import numpy as np, fasttriplet as ft
    >>> embeddings = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1]], dtype=np.float32)
    >>> found = ft.neighbors(embeddings, ["ann", "ann", "bob", "eve"], 2)
    >>> found.positions
    array([[ 2,  3],
           [ 2,  3],
           [ 1,  0],
           [ 2,  1]])
    """
    count = whole_number("k", k, 1)
    one_of("of", of, get_args(Of))
    if not truth_value("other_identities", other_identities) and of == "identities":
        raise OptionError("other_identities", "must be True for of='identities'")
    options = replace(NEAREST, metric=metric, normalize=normalize)
    most = thread_count(threads)
    rows = as_rows("embeddings", embeddings)
    given = as_labels("labels", labels, len(rows))
    order = None if ids is None else _unique("ids", as_ids("ids", ids, len(rows)))
    search = _Search(options, count, "row" if of == "rows" else "identity", most)
    if of == "identities":
        names, numbers = _in_order(given)
        means = means_of_identities(rows, numbers, order, len(names), normalize=bool(normalize))
        positions, distances = search.through(means, np.arange(len(names)), None)
        return Neighbors(of, names, positions, distances)
    numbers = numbered(given)[0] if other_identities else np.arange(len(rows))
    positions, distances = search.through(rows, numbers, order)
    return Neighbors(of, given, positions, distances)


def nearest_negatives(
    options: MiningOptions,
    of: tuple[NDArray[np.float32], NDArray[np.int64]],
    among: tuple[NDArray[np.float32], NDArray[np.int64]],
    *,
    threads: int | None,
) -> Triplets:
    """Find the nearest rows that have another label, by `NEAREST` with some `negatives_per_pair`.

    Both sets are rows with their labels, and each label of the first must occur in the second: what has no
    positive has no pair. The draw of :func:`fasttriplet.mine` decides between rows that are equally near.
    """
    return mine_rows(options, (*of, None), (*among, None), seed=0, threads=threads)


@dataclass(frozen=True, slots=True)
class _Search:
    options: MiningOptions
    k: int
    noun: str  # of what is searched for, in messages
    threads: int | None

    def through(
        self, rows: NDArray[np.float32], labels: NDArray[np.int64], ids: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The k nearest of each row that have another label: (N, k) positions and distances."""
        count = len(rows)
        what = f"{counted(self.k, 'neighbor')} of {counted(count, self.noun)}"
        _core.probe_memory(min(_BYTES * count * self.k, _MOST), what)
        with advising("lower k"):
            positions = np.full((count, self.k), -1)
            distances = np.full((count, self.k), np.inf)
        if count == 0 or (labels == labels[0]).all():
            return positions, distances
        # One more than asked for tells whether the last one has others as near as it is.
        waiting, wanted = np.arange(count), min(self.k + 1, count - 1)
        first = True
        while len(waiting):
            unsure = []
            for some in _blocks(waiting, wanted):
                found = nearest_negatives(
                    replace(self.options, negatives_per_pair=wanted),
                    (rows[some], labels[some]),
                    (rows, labels),
                    threads=self.threads,
                )
                if first:  # before hours of a search among rows that are all but equal
                    warn_if_collapsed(found.stats, stacklevel=4)
                    first = False
                near, distance = _table(found, len(some), wanted, ids)
                kept = min(self.k, wanted)
                positions[some, :kept], distances[some, :kept] = near[:, :kept], distance[:, :kept]
                if self.k < wanted < count - 1:
                    last = distance[:, -1]
                    unsure.append(some[np.isfinite(last) & (last == distance[:, self.k - 1])])
            waiting = np.concatenate(unsure) if unsure else waiting[:0]
            wanted = min(2 * wanted, count - 1)
        return positions, distances


def _blocks(rows: NDArray[np.int64], each: int) -> Iterator[NDArray[np.int64]]:
    step = min(_ROWS, max(1, _FOUND // each))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _table(
    found: Triplets, count: int, most: int, ids: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The negatives of each anchor by distance, then id: (count, most)."""
    at = found.anchor
    each = np.bincount(at, minlength=count)
    place = np.arange(len(at)) - np.repeat(np.cumsum(each) - each, each)
    near, distance = np.full((count, most), -1), np.full((count, most), np.inf)
    near[at, place], distance[at, place] = found.negative, found.d_an
    if ids is not None:  # else they are in this order
        by_id = np.argsort(ids[near], axis=1, kind="stable")
        near, distance = (np.take_along_axis(table, by_id, axis=1) for table in (near, distance))
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)


def _unique(name: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    known, first = np.unique(ids, return_index=True)
    if len(known) < len(ids):
        again = np.setdiff1d(np.arange(len(ids)), first)[0]
        raise ValueError(
            f"{name} must be unique, but {ids[again]} is the id of two rows, one of them {again}"
        )
    return ids


def _in_order(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The identities in ascending order, and the number of each row's among them."""
    if labels.dtype.kind in "iubUS":
        names, numbers = np.unique(labels, return_inverse=True)
        return names, numbers.reshape(-1).astype(np.int64)
    (numbers,) = numbered(labels)  # in the order of their first rows
    firsts = np.unique(numbers, return_index=True)[1]
    names = labels[firsts]

    def kind_and_value(number: int) -> tuple[bool, bool, Any]:
        label = names[number]
        return not isinstance(label, Integral), isinstance(label, bytes), label

    order = np.array(sorted(range(len(names)), key=kind_and_value), dtype=np.int64)
    return names[order], np.argsort(order)[numbers] if len(order) else numbers


def means_of_identities(
    rows: NDArray[np.float32],
    numbers: NDArray[np.int64],
    ids: NDArray[np.int64] | None,
    identities: int,
    *,
    normalize: bool,
) -> NDArray[np.float32]:
    """The mean of each identity's rows; see the notes of :func:`neighbors`."""
    order = np.argsort(numbers, kind="stable") if ids is None else np.lexsort((ids, numbers))
    sizes = np.bincount(numbers, minlength=identities)[:, None]
    means = np.empty((identities, rows.shape[1]), np.float32)
    step = max(1, _NUMBERS // rows.shape[1])
    before, carried = -1, np.zeros(rows.shape[1])  # the last identity of the block before, and its sum
    for start in range(0, len(rows), step):
        some = order[start : start + step]
        part, whose = rows[some].astype(np.float64), numbers[some]
        if normalize:
            part = _unit(part)
        begins = np.flatnonzero(np.diff(whose, prepend=-1))
        lengths = np.diff(begins, append=len(whose))
        sums = np.zeros((len(begins), rows.shape[1]))
        if whose[0] == before:
            sums[0] = carried
        for place in range(lengths.max()):  # each addition by itself: NumPy's sums have an order of their own
            longer = np.flatnonzero(lengths > place)
            sums[longer] += part[begins[longer] + place]
        of_block = slice(int(whose[0]), int(whose[-1]) + 1)
        means[of_block] = sums / sizes[of_block]  # the last one again in the next block, if it goes on there
        before, carried = int(whose[-1]), sums[-1]
    return means


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows as `normalize` of the miner rounds them: the sum of ``rust/mining/exact.rs``, lane by lane."""
    lanes = np.zeros((len(rows), 8))
    for column in range(0, rows.shape[1], 8):
        some = rows[:, column : column + 8]
        lanes[:, : some.shape[1]] += some * some
    lanes = lanes[:, :4] + lanes[:, 4:]
    lanes = lanes[:, :2] + lanes[:, 2:]
    norms = np.sqrt(lanes[:, :1] + lanes[:, 1:])
    norms[norms == 0] = 1
    found: NDArray[np.float64] = (rows / norms).astype(np.float32).astype(np.float64)
    return found
