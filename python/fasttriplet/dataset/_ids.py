"""Numbers of images: lists of keys or rows, and ids, of which no two images of a dataset have the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Integers: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]

_KEY_BITS = 48  # with several files, the bits above these hold the number of the file


def integers(name: str, values: Integers) -> NDArray[np.int64]:
    """Return a list of integers as a contiguous array."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a list of integers, not {array.dtype} of shape {array.shape}")
    return np.require(array, np.int64, ["C", "A"])


def image_ids(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Number the images of some rows of an index: (B,) int64, as :func:`ids_of` does."""
    files = rows["file"].to_numpy() if "file" in rows.columns else None
    return ids_of(rows["key"].to_numpy(), files)


def ids_of(keys: NDArray[np.int64], files: NDArray[np.uint32] | None) -> NDArray[np.int64]:
    """Number images by their keys, or with several files by ``key + file * 2**48``: (B,) int64.

    Ids ascend by file, then key.
    """
    if files is None or not files.any():
        return keys
    if keys.size and not 0 <= keys.min() <= keys.max() < 1 << _KEY_BITS:
        raise ValueError(f"of several files, keys must be from 0 to 2**{_KEY_BITS} - 1")
    return np.asarray(keys + (files.astype(np.int64) << _KEY_BITS))


def places_among(known: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each id stands among those that are known, which ascend; -1 where it is not among them."""
    if not known.size:
        return np.full(len(ids), -1)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, at, -1)


def positions_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the `wanted` ids stands among `ids`, which holds all of them."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]
