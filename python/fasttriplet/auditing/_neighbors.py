"""Rows of a dataset in a defined order, their cosines, and the nearest rows, all exact.

Each row is divided by its norm and rounded to whole multiples of 2**-24, as fine as float32. Sums of products
of such numbers fit the 53 bits of float64: they have no rounding, whatever order a library adds them in. So
cosines do not depend on threads, instruction set, or what else is in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.mining._mine import mine_rows
from fasttriplet.mining._neighbors import NEAREST

Rows = NDArray[np.float32]  # whole numbers, multiples of 2**-24 of unit rows
SCALE = 2.0**24
_PART = 2**16  # rows
_BLOCK = 2**22  # numbers that are worked on at a time: 32 MB as float64


@dataclass(frozen=True, eq=False)
class Images:
    """The images that have an embedding, sorted by label, file and key.

    Attributes
    ----------
    embeddings : (M, D) float32
        As they were given, in any order, perhaps mapped.
    rows : (N,) int64
        Where each image's embedding is.
    labels, keys : (N,) int64
    files : (N,) uint32
        Of each image.
    starts : (K + 1,) int64
        Where each identity begins, and N.
    """

    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    keys: NDArray[np.int64]
    files: NDArray[np.uint32]
    starts: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        embeddings: NDArray[np.float32],
        labels: NDArray[np.int64],
        keys: NDArray[np.int64],
        files: NDArray[np.uint32] | None,
        leave_out: NDArray[np.bool_] | None,
    ) -> Images:
        """Sort them; images to leave out and rows that are not finite, or all zeros, are none of them."""
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or embeddings.shape[1] == 0:
            raise ValueError(
                f"embeddings must be (images, numbers) float32, not {embeddings.dtype} of the shape "
                f"{embeddings.shape}"
            )
        files = np.zeros(len(keys), np.uint32) if files is None else files
        for name, column in (("labels", labels), ("keys", keys), ("files", files), ("leave_out", leave_out)):
            if column is not None and column.shape != (len(embeddings),):
                raise ValueError(
                    f"{name} must have the shape ({len(embeddings)},), one per embedding, not {column.shape}"
                )
        usable = np.empty(len(embeddings), bool)
        for some in blocks(len(embeddings), embeddings.shape[1]):
            with np.errstate(invalid="ignore"):
                norms = np.abs(embeddings[some]).max(axis=1)
            usable[some] = np.isfinite(norms) & (norms > 0)
        if leave_out is not None:
            usable &= ~leave_out
        rows = np.flatnonzero(usable)
        if len(rows) == 0:
            raise ValueError(
                f"none of the {counted(len(embeddings), 'image')} has an embedding: each is left out, all "
                "zeros, or not finite"
            )
        rows = rows[np.lexsort((keys[rows], files[rows], labels[rows]))]
        sorted_labels = labels[rows].astype(np.int64)
        starts = np.flatnonzero(
            np.diff(sorted_labels, prepend=sorted_labels[0] - 1, append=sorted_labels[-1] + 1)
        )
        return cls(embeddings, rows, sorted_labels, keys[rows], files[rows], starts)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def identities(self) -> int:
        """How many there are."""
        return len(self.starts) - 1

    @property
    def identity(self) -> NDArray[np.int64]:
        """The number of each image's identity, from 0 in the order of the labels."""
        return np.repeat(np.arange(self.identities), np.diff(self.starts))

    def unit(self, at: NDArray[np.int64] | slice) -> Rows:
        """Embeddings of some images as unit rows."""
        return unit(self.embeddings[self.rows[at]])

    def of_identity(self, number: int) -> slice:
        """The images of an identity."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


def blocks(count: int, width: int) -> Iterator[slice]:
    """Cut `count` rows of `width` numbers into parts that fit the caches and the memory."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def parts(count: int) -> Iterator[slice]:
    """Cut `count` rows into parts for :func:`nearest_other`, which prepares all other rows for each call."""
    return (slice(start, min(start + _PART, count)) for start in range(0, count, _PART))


def lengths(rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The norm of each row, which has to be below 1e154."""
    # Added row by row of the transpose: on all machines in the same order.
    columns = np.ascontiguousarray(rows.T, dtype=np.float64)
    found: NDArray[np.float64] = np.sqrt(np.add.reduce(columns * columns, axis=0))
    return found


def unit(rows: NDArray[np.floating[Any]]) -> Rows:
    """Divide rows by their norms and round them; a row of zeros stays one."""
    found = np.empty(rows.shape, np.float32)
    for some in blocks(*rows.shape):
        part = rows[some].astype(np.float64)
        norms = lengths(part)[:, None]
        found[some] = np.rint(np.divide(part * SCALE, norms, out=np.zeros_like(part), where=norms > 0))
    return found


def cosines(rows: Rows, others: Rows) -> NDArray[np.float64]:
    """Each row with each other one: (N, D) and (M, D) give (N, M)."""
    found: NDArray[np.float64] = np.empty((len(rows), len(others)))
    across = others.astype(np.float64).T
    for some in blocks(*rows.shape):
        np.matmul(rows[some].astype(np.float64), across, out=found[some])
    found /= SCALE**2
    return found


def cosines_with(rows: Rows, others: Rows) -> NDArray[np.float64]:
    """Each row with the other one of the same position."""
    found: NDArray[np.float64] = np.einsum("nd,nd->n", rows, others, dtype=np.float64)
    return found / SCALE**2


def total(rows: Rows) -> NDArray[np.float64]:
    """The sum of rows, without rounding for up to 2**29 of them."""
    found: NDArray[np.float64] = np.add.reduce(rows, axis=0, dtype=np.float64)
    return found


def nearest_other(
    of: tuple[Rows, NDArray[np.int64]], among: tuple[Rows, NDArray[np.int64]], count: int, threads: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Find the `count` nearest rows that have another label: positions of both, and their cosines.

    Both sets are rows with their labels, and each label of the first must occur in the second: what has no
    positive has no pair. The draw of :func:`fasttriplet.mine` decides between rows that are equally near.
    """
    options = replace(NEAREST, negatives_per_pair=count)
    found = mine_rows(options, (*of, None), (*among, None), seed=0, threads=threads)
    return found.anchor, found.negative, 1 - found.d_an / 2


def nearest_in(images: Images, rows: Rows, members: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """For each row its `count` nearest members, nearest first, then in the order of the images."""
    found, theirs = np.empty((len(rows), min(count, len(members))), np.int64), images.unit(members)
    for some in blocks(len(rows), len(members)):
        order = np.argsort(-cosines(rows[some], theirs), axis=1, kind="stable")
        found[some] = members[order[:, :count]]
    return found


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Up to `most` positions from 0 to `count`, evenly apart."""
    return np.arange(count) if count <= most else np.arange(most) * count // most
