"""Mining what is too much for one call: anchors and negatives in blocks, and parts that are merged.

The result of :func:`fasttriplet.mine` on all rows is, to the last bit, ::

    finish(merge([collect(rows, anchors, block, options, seed=seed) for block in blocks]))

for each block of anchors, whatever the blocks are, in whatever order and nesting they are merged, and on
however many machines. :func:`fasttriplet.mine` is the same functions of ``rust/mining/`` with a single block.

Two blocks of whole identities are each other's anchors and negatives. :func:`collect_between` multiplies
their rows once for both.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import thread_count
from fasttriplet._files import placing
from fasttriplet._metadata import as_parquet, as_text, read_metadata
from fasttriplet.mining._mine import MiningStats, Triplets, core_options
from fasttriplet.mining._options import MiningOptions

Rows = tuple[int, int]  # from the first to the one after the last
Columns = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]
]
Counts = tuple[int | None, int | None, int | None, int, int]
_COLUMNS = ("anchor", "positive", "negative", "d_ap", "d_an")
_KIND = "a part of triplets"
# Bytes of a block's row for each of its numbers: as it was read, as the miner keeps it, and its codes in 16
# bits, once in rows and once in panels; and what a row takes besides.
_PER_NUMBER, _PER_ROW = 12, 200
# Bytes for the rows of two blocks, unless a user says otherwise: for each number of all rows, which may be
# larger than the memory, but at least as many as let few rows be one block.
_SHARE, _AT_LEAST = 2.0, 2**28


class Vectors(Protocol):
    """Rows of numbers: an array, or a file that they are read from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __getitem__(self, rows: NDArray[np.int64] | slice, /) -> NDArray[np.float32]:
        """Some rows, in this order."""


@dataclass(frozen=True, eq=False)
class AllRows:
    """All rows of a dataset, of which blocks are taken.

    Attributes
    ----------
    embeddings : (N, D) float32
        An array, or what else gives rows by their numbers: a block is read where it is used.
    labels : (N,) int64
        Identity of each row.
    ids : (N,) int64
        Unique numbers, in the parts and in the result.
    name : str
        Which rows they are, such as the fingerprint of a dataset and of a model: parts of rows with different
        names are not merged.
    """

    embeddings: Vectors
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def taken(self, rows: NDArray[np.int64] | slice) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Some rows, as Rust takes them."""
        return (
            np.ascontiguousarray(self.embeddings[rows]),
            np.ascontiguousarray(self.labels[rows]),
            np.ascontiguousarray(self.ids[rows]),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """What may be picked for the pairs of some anchors from some blocks of negatives.

    It holds negatives that are picked so far, no candidates: about as much as the result of these anchors.
    With `ranks` it is as many more as these leave out, or up to their end.

    Attributes
    ----------
    of : dict
        Of what it is a part, as plain data: name and number of the rows, columns, options and seed.
    anchors : (int, int)
        Its anchors: the rows from the first to before the second number.
    blocks : tuple of (int, int)
        The rows that negatives were looked for among, as ranges in ascending order that do not touch.
    columns : tuple of arrays
        Anchors, positives, negatives, ``d_ap`` and ``d_an``, in the order of the ids.
    counts : tuple of int
        As in :class:`fasttriplet.MiningStats`; pairs without a negative are those that none can be chosen for
        from the blocks so far. The first three are None in parts of :func:`collect_between`, until they are
        merged with one of :func:`collect`.
    """

    of: dict[str, Any]
    anchors: Rows
    blocks: tuple[Rows, ...]
    columns: Columns
    counts: Counts

    def __len__(self) -> int:
        return len(self.columns[0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a Parquet file, which is there whole or not at all."""
        about = {
            "kind": _KIND,
            "of": self.of,
            "anchors": self.anchors,
            "blocks": self.blocks,
            "counts": self.counts,
        }
        frame = pl.DataFrame(dict(zip(_COLUMNS, self.columns, strict=True)))
        with placing(Path(path)) as file:
            frame.write_parquet(file, metadata=as_parquet(about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Part:
        """Read what :meth:`save` wrote; a ValueError names a file that is something else."""
        about = read_metadata(path)
        if about.get("kind") != _KIND:
            raise ValueError(f"{os.fspath(path)} is {about.get('kind', 'a table')}, not {_KIND}")
        try:
            frame = pl.read_parquet(Path(path), glob=False)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{os.fspath(path)} is a damaged Parquet file: {error}") from None
        columns: Any = tuple(frame[name].to_numpy() for name in _COLUMNS)
        first, end = about["anchors"]
        blocks = tuple((first, end) for first, end in about["blocks"])
        counts: Any = tuple(about["counts"])
        return cls(about["of"], (first, end), blocks, columns, counts)


def usual_memory(shape: tuple[int, ...]) -> int:
    """How many bytes two blocks of (N, D) rows take, unless a user says otherwise."""
    count, columns = shape
    return max(_AT_LEAST, int(_SHARE * count * columns))


def bytes_of_row(columns: int) -> int:
    """How many bytes a row takes in each of two blocks, together."""
    return 2 * (_PER_NUMBER * columns + _PER_ROW)


def most_rows(shape: tuple[int, ...], memory: int | None) -> int:
    """How many rows a block of (N, D) rows may have, so that two blocks take so many bytes."""
    return max(2, (usual_memory(shape) if memory is None else memory) // bytes_of_row(shape[1]))


def collect(
    rows: AllRows,
    anchors: Rows,
    block: Rows,
    options: MiningOptions,
    *,
    seed: int,
    threads: int | None = None,
) -> Part:
    """Find what may be picked for the pairs of some anchors from one block of negatives.

    The positives of the anchors are taken from all rows. Time is that of the products of anchors and block;
    memory is that of these two, and of the identities of the anchors.
    """
    for name, (first, end) in (("anchors", anchors), ("block", block)):
        if not 0 <= first < end <= len(rows):
            raise ValueError(f"{name} from row {first} to {end} are not rows of {len(rows)}")
    of_identities = np.flatnonzero(np.isin(rows.labels, rows.labels[slice(*anchors)]))
    only = (of_identities >= anchors[0]) & (of_identities < anchors[1])
    # Anchors that are all the candidates share their products.
    are_one = anchors == block and bool(only.all())
    found = _core.collect(
        rows.taken(slice(*anchors) if are_one else of_identities),
        None if are_one else only,
        None,
        None if are_one else rows.taken(slice(*block)),
        None,
        core_options(options, seed),
        thread_count(threads),
    )
    return Part(_of(rows, options, seed), anchors, (block,), found[:5], found[5])


def collect_between(
    rows: AllRows,
    one: Rows,
    other: Rows,
    options: MiningOptions,
    *,
    seed: int,
    threads: int | None = None,
) -> tuple[Part, Part]:
    """Find what may be picked for each of two blocks from the other: the parts of both.

    It takes half of the time that two calls of :func:`collect` take, as the distance of two rows is looked at
    once for both. Time is that of the products of both, memory is that of their rows.

    Raises
    ------
    ValueError
        If the blocks are not of whole identities, in the order of their labels.
    """
    labels = rows.labels
    for first, end in (one, other):
        if not 0 <= first < end <= len(rows):
            raise ValueError(f"a block from row {first} to {end} is not of {len(rows)} rows")
        for edge in (first, end):
            if 0 < edge < len(rows) and labels[edge - 1] >= labels[edge]:
                raise ValueError(f"blocks must hold whole identities, and row {edge} is within one")
    if not labels[one[1] - 1] < labels[other[0]]:
        raise ValueError(f"the block {_range(one)} must have smaller labels than the block {_range(other)}")
    both = np.concatenate([np.arange(*one), np.arange(*other)])
    if (np.diff(labels[both]) < 0).any():
        raise ValueError("rows must be in the order of their labels")
    split = int(labels[other[0]])
    columns: Any
    *columns, counts = _core.collect(
        rows.taken(both), None, None, None, split, core_options(options, seed), thread_count(threads)
    )
    is_one = np.isin(columns[0], rows.ids[slice(*one)])
    of, (_, _, _, screened, exact) = _of(rows, options, seed), counts
    parts = []
    for taken, anchors, block, work in (
        (is_one, one, other, (screened, exact)),
        (~is_one, other, one, (0, 0)),
    ):
        some: Any = tuple(column[taken] for column in columns)
        parts.append(Part(of, anchors, (block,), some, (None, None, None, *work)))
    return parts[0], parts[1]


def _of(rows: AllRows, options: MiningOptions, seed: int) -> dict[str, Any]:
    of = {
        "rows": rows.name,
        "count": len(rows),
        "columns": rows.embeddings.shape[1],
        "options": {field.name: getattr(options, field.name) for field in fields(MiningOptions)},
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(as_text(of))  # as it is read from a file
    return plain


def merge(parts: Sequence[Part], *, threads: int | None = None) -> Part:
    """Merge parts of the same anchors, each of other blocks, into the part of all these blocks.

    Raises
    ------
    ValueError
        If the parts are not of the same rows, options and anchors, or if their blocks overlap.
    """
    if not parts:
        raise ValueError("there are no parts to merge")
    first, *others = parts
    for other in others:
        for name, value in first.of.items():
            if other.of.get(name) != value:
                raise ValueError(
                    f"parts of different {name} cannot be merged: {value} and {other.of.get(name)}"
                )
        if other.anchors != first.anchors:
            raise ValueError(
                f"parts of the anchors {_range(first.anchors)} and {_range(other.anchors)} cannot be merged: "
                "finish each, and join the triplets"
            )
    blocks = _joined(sorted(block for part in parts for block in part.blocks))
    known = next((part.counts[:3] for part in parts if part.counts[0] is not None), None)
    of_pairs = [(known or (0, 0, 0)) if part.counts[0] is None else part.counts[:3] for part in parts]
    given: Any = [
        (*part.columns, (*pairs, *part.counts[3:])) for part, pairs in zip(parts, of_pairs, strict=True)
    ]
    *merged, of_all = _core.merge(given, *_how(first), thread_count(threads))
    columns: Any = tuple(merged)
    counts: Counts = of_all if known is not None else (None, None, None, *of_all[3:])
    return Part(first.of, first.anchors, blocks, columns, counts)


def finish(part: Part, *, threads: int | None = None) -> Triplets:
    """Choose among what was collected from all blocks.

    Raises
    ------
    ValueError
        If there are rows that negatives were not looked for among.
    """
    every = part.of["count"]
    if part.blocks != ((0, every),):
        known = ", ".join(map(_range, part.blocks))
        raise ValueError(f"the part is of the rows {known} of {every}: collect the others, and merge them")
    if part.counts[0] is None:
        raise ValueError(
            "the part was collected between blocks alone: merge it with that of the anchors' own"
        )
    started = time.perf_counter()
    given: Any = (*part.columns, part.counts)
    anchor, positive, negative, d_ap, d_an, counts = _core.finish(given, *_how(part), thread_count(threads))
    stats = MiningStats(*counts, scatter=None, seconds=time.perf_counter() - started)
    return Triplets(anchor, positive, negative, d_ap, d_an, stats)


def _how(part: Part) -> tuple[_core.Options, int]:
    return core_options(MiningOptions(**part.of["options"]), part.of["seed"]), part.of["columns"]


def _joined(blocks: list[Rows]) -> tuple[Rows, ...]:
    """Ranges in ascending order; those that touch become one."""
    joined: list[Rows] = []
    for first, end in blocks:
        if joined and first < joined[-1][1]:
            raise ValueError(f"parts of overlapping blocks cannot be merged: both have the row {first}")
        if joined and first == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return tuple(joined)


def _range(rows: Rows) -> str:
    return f"{rows[0]} to {rows[1] - 1}"
