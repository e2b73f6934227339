"""The nearest rows of each row, and the nearest identities of each identity."""

from __future__ import annotations

import os
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
from fasttriplet.mining._blocks import Rows, Vectors, most_rows
from fasttriplet.mining._mine import (
    as_ids,
    as_labels,
    as_rows,
    core_options,
    mine_rows,
    numbered,
    warn_if_collapsed,
)
from fasttriplet.mining._options import Metric, MiningOptions
from fasttriplet.mining._stored import stored

Of = Literal["rows", "identities"]

# For the nearest negatives of a row, whatever its positive.
NEAREST = MiningOptions(band="any", pick="hardest", pairs="easiest", margin=float("inf"))
# Rows that are searched for at a time: all others of a block are prepared for each call, which takes the time
# of a few hundred rows of the search.
_ROWS = 2**16
_FOUND = 2**22  # neighbors at a time: 170 MB as triplets, as much again while they are sorted
_NUMBERS = 2**20  # of rows that are read through, or added to means, at a time: 8 MB as float64
_SAMPLE = 2**11  # rows that show whether the embeddings have collapsed
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
        ValueError
            If some labels are integers and others strings.
        """
        at, rank = np.nonzero(self.positions >= 0)
        _core.probe_memory(_BYTES_IN_FRAME * len(at), f"a frame of {counted(len(at), 'neighbor')}")
        near = self.positions[at, rank]
        # A list: NumPy has kinds of texts that Polars does not take.
        try:
            labels = pl.Series(self.labels if self.labels.dtype.kind in "iu" else self.labels.tolist())
        except TypeError as error:
            raise ValueError(f"labels are of several types, and those of a frame have one: {error}") from None
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
    embeddings: ArrayLike | str | os.PathLike[str],
    labels: ArrayLike,
    k: int = 10,
    *,
    of: Of = "rows",
    other_identities: bool = True,
    metric: Metric = "sqeuclidean",
    normalize: bool = True,
    ids: ArrayLike | None = None,
    memory: int | None = None,
    threads: int | None = None,
) -> Neighbors:
    """Find the `k` nearest rows of each row, or the `k` nearest identities of each identity, exactly.

    Distances are those of :func:`fasttriplet.mine`: *squared* L2 unless `metric` says otherwise, evaluated
    in float64 on the float32 rows. The nearest come first, and of those equally near the one with the smaller
    id. So the result does not depend on threads, memory, instruction set or the order of the rows.

    Parameters
    ----------
    embeddings : (N, D) float32, or path
        One row per image, finite. Other float types are rounded to float32 first. A path is that of a
        ``.npy`` file of float16, float32 or float64. It is read in blocks, and so is an array that is mapped
        into memory (``numpy.load(..., mmap_mode="r")``); files in Fortran order are read as a whole. Must
        not be changed during the call.
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
    memory : int, optional
        Most bytes for the rows of two blocks. By default an array is one block; of a file, or of an array
        that is mapped, it is 2 bytes for each number, but at least 256 MB.
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
    OSError
        If a file cannot be read, or is cut short during the call.
    MemoryError
        If the rows or the neighbors do not fit the memory that is available.

    Warns
    -----
    CollapseWarning
        If the rows of different identities are nearly equal, see :class:`fasttriplet.MiningStats`.

    Notes
    -----
    The mean of an identity is the sum of its rows in float64, added one after the other in ascending order of
    their ids, divided by their number and rounded to float32. With `normalize`, the rows are divided by their
    norms before they are added, and the means before they are compared.

    Each block is compared with each other one. Beside their rows, the result and the neighbors of the 65,536
    rows that are searched for at a time are in memory, and of identities 12 bytes for each number of their
    means. A file is read through once, and for rows once more for each block.

    Where more than `k` rows are equally near, a row is searched for again with twice as many neighbors, until
    all that are equally near are known.

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
    if memory is not None:
        memory = whole_number("memory", memory, 1)
    options = replace(NEAREST, metric=metric, normalize=normalize)
    threads = thread_count(threads)
    kept = stored("embeddings", embeddings)
    rows: Vectors = as_rows("embeddings", embeddings) if kept is None else kept  # type: ignore[arg-type]
    given = as_labels("labels", labels, rows.shape[0])
    order = None if ids is None else _unique("ids", as_ids("ids", ids, len(given)))
    most = len(given) if kept is None and memory is None else most_rows(rows.shape, memory)
    search = _Search(options, count, "row" if of == "rows" else "identity", most, threads)
    if of == "identities":
        names, numbers = _in_order(given)
        means = means_of_identities(rows, numbers, order, len(names), normalize=bool(normalize))
        positions, distances = search.through(means, np.arange(len(names)), None)
        return Neighbors(of, names, positions, distances)
    if kept is not None:
        for some in _slices(len(given), rows.shape[1]):  # an error of a number that is not finite comes first
            kept[some]
    numbers = numbered(given)[0] if other_identities else np.arange(len(given))
    positions, distances = search.through(rows, numbers, order)
    return Neighbors(of, given, positions, distances)


@dataclass(frozen=True, slots=True)
class _Block:
    first: int
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class _Search:
    options: MiningOptions
    k: int
    noun: str  # of what is searched for, in messages
    most: int  # rows of a block
    threads: int | None

    def through(
        self, rows: Vectors, labels: NDArray[np.int64], ids: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The k nearest of each row that have another label: (N, k) positions and distances."""
        count = len(labels)
        what = f"{counted(self.k, 'neighbor')} of {counted(count, self.noun)}"
        _core.probe_memory(min(_BYTES * count * self.k, _MOST), what)
        with advising("lower k"):
            positions = np.full((count, self.k), -1)
            distances = np.full((count, self.k), np.inf)
        if count == 0 or (labels == labels[0]).all():
            return positions, distances
        sample = np.unique(np.linspace(0, count - 1, min(_SAMPLE, self.most)).astype(np.int64))
        some = (rows[sample], labels[sample], None)
        one = (some[0][:1], some[1][:1], None)
        stats = mine_rows(self.options, one, some, seed=0, threads=self.threads).stats
        warn_if_collapsed(stats, stacklevel=4)

        blocks = _equal(count, self.most)
        for first, end in blocks:
            nearest = positions[first:end], distances[first:end]
            here = _Block(first, rows[first:end], labels[first:end])
            for first_there, end_there in blocks:
                there = here
                if first_there != first:
                    there = _Block(first_there, rows[first_there:end_there], labels[first_there:end_there])
                self._compare(here, there, ids, nearest)
        return positions, distances

    def _compare(
        self,
        of: _Block,
        among: _Block,
        ids: NDArray[np.int64] | None,
        nearest: tuple[NDArray[np.int64], NDArray[np.float64]],
    ) -> None:
        """Put what is found in a block among the `nearest` of all blocks before."""
        positions, distances = nearest
        most = len(among) - (of is among)
        # One more than asked for tells whether the last one has others as near as it is.
        waiting, wanted = np.arange(len(of) if most else 0), min(self.k + 1, most)
        while len(waiting):
            unsure = [waiting[:0]]
            for some in _pieces(waiting, wanted):
                near, distance = self._found(of, some, among, wanted)
                last = distance.max(axis=1)  # all that was not found is at least as far
                if among.first:
                    near = np.hstack([positions[some], near])
                    distance = np.hstack([distances[some], distance])
                order = _order(near, distance, ids)
                near, distance = np.take_along_axis(near, order, 1), np.take_along_axis(distance, order, 1)
                sure = np.ones(len(some), bool)
                if wanted < most:
                    sure = np.isinf(last) | (distance[:, self.k - 1] < last)
                done, kept = some[sure], min(self.k, near.shape[1])
                positions[done, :kept], distances[done, :kept] = near[sure, :kept], distance[sure, :kept]
                unsure.append(some[~sure])
            waiting, wanted = np.concatenate(unsure), min(2 * wanted, most)

    def _found(
        self, of: _Block, some: NDArray[np.int64], among: _Block, wanted: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Some of the nearest of each row, by position; -1 at an infinite distance where there are fewer."""
        in_turn = int(some[-1]) - int(some[0]) == len(some) - 1
        taken = slice(int(some[0]), int(some[-1]) + 1) if in_turn else some  # a slice is no copy
        rows, labels = of.rows[taken], of.labels[taken]
        # A row needs a positive, whichever. Sets without ids share no rows, so that it may be the row itself.
        one_each = np.unique(labels, return_index=True)[1]
        options = core_options(replace(self.options, negatives_per_pair=wanted), seed=0)
        at, _, negative, _, d_an, _ = _core.collect(
            (rows, labels, None),
            None,
            (rows[one_each], labels[one_each], None),
            (among.rows, among.labels, None),
            None,
            options,
            self.threads,
        )
        each = np.bincount(at, minlength=len(some))
        place = np.arange(len(at)) - np.repeat(np.cumsum(each) - each, each)
        near, distance = np.full((len(some), wanted), -1), np.full((len(some), wanted), np.inf)
        near[at, place], distance[at, place] = among.first + negative, d_an
        return near, distance


def _equal(count: int, most: int) -> list[Rows]:
    """Blocks of at most `most` rows, about equally large, and as few as there can be."""
    each = -(-count // -(-count // most))
    return [(first, min(first + each, count)) for first in range(0, count, each)]


def _slices(count: int, width: int) -> Iterator[slice]:
    """Rows of a piece that is read at a time."""
    step = max(1, _NUMBERS // width)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _pieces(rows: NDArray[np.int64], each: int) -> Iterator[NDArray[np.int64]]:
    step = min(_ROWS, max(1, _FOUND // each))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _order(
    near: NDArray[np.int64], distance: NDArray[np.float64], ids: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The columns of each row in the order of distances, then ids."""
    # Without ids, those of the same distance are in the order of their positions.
    keys = (distance,) if ids is None else (ids[near], distance)
    found: NDArray[np.int64] = np.lexsort(keys)
    return found


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
    rows: Vectors,
    numbers: NDArray[np.int64],
    ids: NDArray[np.int64] | None,
    identities: int,
    *,
    normalize: bool,
) -> NDArray[np.float32]:
    """The mean of each identity's rows; see the notes of :func:`neighbors`.

    Rows are read in the order of their ids, which is that of a file where none are given.
    """
    count, width = rows.shape
    order = None if ids is None else np.argsort(ids)
    sums = np.zeros((identities, width))
    for turn in _slices(count, width):
        some = turn if order is None else order[turn]
        part, whose = rows[some].astype(np.float64), numbers[some]
        if normalize:
            part = _unit(part)
        by_identity = np.argsort(whose, kind="stable")
        begins = np.flatnonzero(np.diff(whose[by_identity], prepend=-1))
        lengths = np.diff(begins, append=len(whose))
        for place in range(lengths.max()):  # each addition by itself: NumPy's sums have an order of their own
            added = by_identity[begins[lengths > place] + place]
            sums[whose[added]] += part[added]
    sums /= np.bincount(numbers, minlength=identities)[:, None]
    return sums.astype(np.float32)


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
