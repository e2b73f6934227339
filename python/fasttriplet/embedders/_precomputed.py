"""Embeddings that were computed before and lie in a ``.npy`` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet._contents import describe_wrong_file
from fasttriplet.embedders._base import check_finite

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class PrecomputedEmbedder:
    """Looks embeddings up in a ``.npy`` file of shape (images, D): row i belongs to the i-th key in order.

    With several ``.rec`` files the rows of the first file come first, then those of the second, each in key
    order. The file is memory-mapped: only the rows of a bag are read.

    Parameters
    ----------
    path : path
        The file; float16, float32 or float64. The embeddings are handed on as float32.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a ``.npy`` file of numbers with two dimensions.
    """

    needs_images = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._table = _open(self.path)
        self._keys: dict[int, tuple[int, NDArray[np.int64]]] | None = None

    @property
    def description(self) -> str:
        """One line for people."""
        count, size = self._table.shape
        return f"precomputed embeddings: {self.path}, {count:,} rows of {size} {self._table.dtype}"

    def prepare(self, index: pl.DataFrame) -> None:
        """Find out which row belongs to which image.

        Raises
        ------
        ValueError
            When the index does not have as many images as the file has rows, or has a key twice.
        """
        count = len(self._table)
        if count != index.height:
            raise ValueError(
                f"{self.path} has {count:,} rows but the index has {index.height:,} images; "
                "it must hold one row for each image, in key order"
            )
        keys, first = {}, 0
        for number, of_file in _by_file(index):
            ordered = np.sort(of_file)
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if len(twice):
                raise ValueError(
                    f"key {twice[0]} is twice in the index: rows of {self.path} cannot be told apart"
                )
            keys[number] = (first, ordered)
            first += len(ordered)
        self._keys = keys

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:  # noqa: ARG002
        """Look up the embeddings of some rows of the index.

        Returns
        -------
        (B, D) float32
            As they are in the file.

        Raises
        ------
        ValueError
            When ``prepare`` was not called, a key was not in its index, or an embedding is not finite.
        """
        positions = np.empty(rows.height, dtype=np.int64)
        numbers = rows["file"].to_numpy() if "file" in rows.columns else np.zeros(rows.height, np.int64)
        keys = rows["key"].to_numpy()
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            positions[mine] = self._positions(number, keys[mine])
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, and is named below
            embeddings = self._table[positions].astype(np.float32, copy=False)
        check_finite(embeddings, rows, str(self.path))
        return embeddings

    def _positions(self, number: int, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._keys is None:
            raise ValueError(
                f"{self.path}: call prepare(index) before embed, so that keys can be turned into rows"
            )
        first, known = self._keys.get(number, (0, np.empty(0, np.int64)))
        found = np.searchsorted(known, keys)
        missing = np.ones(len(keys), dtype=bool)
        inside = found < len(known)
        missing[inside] = known[found[inside]] != keys[inside]
        if missing.any():
            key = keys[missing][0]
            raise ValueError(
                f"{self.path} has no row for key {key}: the key was not in the index given to prepare"
            )
        return found + first

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_keys": self._keys}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._table = _open(self.path)


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


def _by_file(index: pl.DataFrame) -> list[tuple[int, NDArray[np.int64]]]:
    keys = index["key"].to_numpy()
    if "file" not in index.columns:
        return [(0, keys)]
    numbers = index["file"].to_numpy()
    return [(number, keys[numbers == number]) for number in np.unique(numbers).tolist()]
