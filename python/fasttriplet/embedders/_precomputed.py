"""Embeddings that were computed before and are stored in a ``.npy`` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fasttriplet._npy import Table
from fasttriplet._words import counted
from fasttriplet.dataset._ids import image_ids
from fasttriplet.embedders._base import check_finite, image_named
from fasttriplet.embedders._vectors import About, fingerprint, read_about, side_file

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class PrecomputedEmbedder:
    """Looks embeddings up in a ``.npy`` file of shape (images, D): row i belongs to the i-th key in order.

    With several ``.rec`` files the rows of the first file come first, then those of the second, each in key
    order. Only the rows of a bag are read, unless the file is in Fortran order, in which rows are not
    contiguous. It may be of float16, float32 or float64; embeddings are returned as float32.

    Where a file beside it says what it is of, as :func:`fasttriplet.embed_rec` writes it, a dataset with
    other images is an error, and so is an image that was skipped when the file was made.

    The file may be replaced by another one while it is open. If it is cut short or cannot be read, that is an
    OSError that names it.
    """

    needs_images = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.table = Table(self.path)
        self._ids: NDArray[np.int64] | None = None  # the id of the image that each row belongs to
        self.why_skipped: dict[int, str] = {}  # by row of the file, as it was made

    @property
    def description(self) -> str:
        """One line for people."""
        count, size = self.table.shape
        return f"precomputed embeddings: {self.path}, {counted(count, 'row')} of {size} {self.table.dtype}"

    def prepare(self, index: pl.DataFrame) -> None:
        """Find out which row of the file belongs to which image; a key twice in the index is a ValueError.

        So is a file that says that it is of other images.
        """
        count = len(self.table)
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
        about = read_about(self.path)
        if about is not None:
            self._check(about, ids, index["length"].to_numpy()[order] if "length" in index.columns else None)
            self.why_skipped = {one.row: one.reason for one in about.skipped}
        self._ids = ids

    def _check(self, about: About, ids: NDArray[np.int64], lengths: NDArray[np.int64] | None) -> None:
        """Raise a ValueError if what is beside the file is not of it, or not of the images of an index."""
        (count, size), dtype = self.table.shape, self.table.dtype
        if (count, size, dtype.name) != (about.images, about.size, about.dtype):
            raise ValueError(
                f"{self.path} has {counted(count, 'row')} of {size} {dtype}, and {side_file(self.path)} is "
                f"about {about.images:,} of {about.size} {about.dtype}: it belongs to another file; remove it"
            )
        if lengths is not None and fingerprint(ids, lengths) != about.rows:
            raise ValueError(
                f"{self.path} is of another dataset ({', '.join(about.files)}), or of one that has changed: "
                "keys or sizes of images differ; compute embeddings of this dataset (fasttriplet embed)"
            )

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
            embeddings = self.table.rows(positions).astype(np.float32, copy=False)
        skipped = np.flatnonzero(np.isin(positions, list(self.why_skipped)))
        if skipped.size:
            first = int(skipped[0])
            raise ValueError(
                f"{self.path} has no embedding of {image_named(rows, first)}, which was skipped when the "
                f"file was made: {self.why_skipped[int(positions[first])]}"
            )
        check_finite(embeddings, rows, str(self.path))
        return embeddings


def from_spec(path: str) -> PrecomputedEmbedder:
    """Make the embedder of ``npy:PATH``."""
    return PrecomputedEmbedder(path)
