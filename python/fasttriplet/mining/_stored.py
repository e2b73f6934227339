"""Rows that stay on the disk, and are read where they are used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasttriplet._npy import Table
from fasttriplet.mining._mine import as_finite, as_table


class Stored:
    """Rows of a ``.npy`` file, or of an array that is mapped into memory; see :class:`Vectors`.

    All that is read is rounded to float32; a ValueError names the first number of it that is not finite.

    Parameters
    ----------
    name : str
        Of the rows, in messages.
    source : Table or (N, D) memory-mapped array
    """

    def __init__(self, name: str, source: Table | NDArray[np.floating[Any]]) -> None:
        self._name, self._source = name, source

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        count, width = self._source.shape
        return count, width

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        at = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else rows
        if isinstance(self._source, Table):
            return as_finite(self._name, self._source.rows(at), at)
        # A copy, read from the first to the last row: the miner would read the mapped file in another order.
        return as_finite(self._name, np.array(self._source[rows]), at)


def stored(name: str, values: ArrayLike | str | os.PathLike[str]) -> Stored | None:
    """Rows that are given as a path, or as an array that NumPy has mapped; None if they are in memory."""
    if isinstance(values, (str, os.PathLike)):
        return Stored(name, Table(Path(values)))
    if isinstance(values, np.memmap):
        return Stored(name, as_table(name, values))
    return None
