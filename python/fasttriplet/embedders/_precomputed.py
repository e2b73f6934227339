"""Embeddings that were computed before and are stored in a ``.npy`` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet._contents import describe_wrong_file
from fasttriplet._words import counted
from fasttriplet.dataset._ids import image_ids
from fasttriplet.embedders._base import check_finite

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class PrecomputedEmbedder:
    """Looks embeddings up in a ``.npy`` file of shape (images, D): row i belongs to the i-th key in order.

    With several ``.rec`` files the rows of the first file come first, then those of the second, each in key
    order. The file is memory-mapped: only the rows of a bag are read. It may be of float16, float32 or
    float64; embeddings are returned as float32.
    """

    needs_images = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._table = _open(self.path)
        self._ids: NDArray[np.int64] | None = None  # the id of the image that each row belongs to

    @property
    def description(self) -> str:
        """One line for people."""
        count, size = self._table.shape
        return f"precomputed embeddings: {self.path}, {counted(count, 'row')} of {size} {self._table.dtype}"

    def prepare(self, index: pl.DataFrame) -> None:
        """Find out which row of the file belongs to which image; a key twice in the index is a ValueError."""
        count = len(self._table)
        if count != index.height:
            raise ValueError(
                f"{self.path} has {counted(count, 'row')} but the index has "
                f"{counted(index.height, 'image')}; it must hold one row for each image, in key order"
            )
        ids = image_ids(index)
        order = np.argsort(ids)
        ids = ids[order]
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if twice.size:
            key = index["key"][int(order[twice[0]])]
            raise ValueError(f"key {key} is twice in the index: rows of {self.path} cannot be told apart")
        self._ids = ids

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:  # noqa: ARG002
        """Look up the embeddings of some rows of the index that `prepare` was given."""
        if self._ids is None:
            raise ValueError(
                f"{self.path}: call prepare(index) before embed, so that keys can be turned into rows"
            )
        ids = image_ids(rows)
        positions = np.searchsorted(self._ids, ids)
        unknown = np.flatnonzero(np.searchsorted(self._ids, ids, side="right") == positions)
        if unknown.size:
            key = rows["key"][int(unknown[0])]
            raise ValueError(
                f"{self.path} has no row for key {key}: the key was not in the index given to prepare"
            )
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, and is named below
            embeddings = self._table[positions].astype(np.float32, copy=False)
        check_finite(embeddings, rows, str(self.path))
        return embeddings

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_ids": self._ids}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._table = _open(self.path)


def from_spec(path: str) -> PrecomputedEmbedder:
    """Make the embedder of ``npy:PATH``."""
    return PrecomputedEmbedder(path)


def spec_of(path: str) -> str | None:
    """Return the full spec of a ``.npy`` file that exists."""
    return f"npy:{path}" if path.endswith(".npy") and Path(path).is_file() else None


def _open(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file of embeddings at {path}")
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(describe_wrong_file(path, "a .npy file of numbers", magic=b"\x93NUMPY")) from error
    if not isinstance(table, np.ndarray):  # an .npz archive
        table.close()
        raise ValueError(f"{path} is an archive of several arrays, not a .npy file")
    if table.dtype.type not in (np.float16, np.float32, np.float64) or table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(
            f"{path} must hold (images, D) float16, float32 or float64, but holds {table.dtype} {table.shape}"
        )
    return table
