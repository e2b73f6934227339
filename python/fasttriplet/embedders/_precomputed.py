"""Embeddings that were computed before and are stored in a ``.npy`` file."""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fasttriplet._contents import describe_wrong_file
from fasttriplet._words import counted
from fasttriplet.dataset._ids import image_ids
from fasttriplet.embedders._base import check_finite, image_named
from fasttriplet.embedders._vectors import About, fingerprint, read_about, side_file

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


_SAMPLED = 64  # rows that tell files apart


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


class Table:
    """The array of a ``.npy`` file, of which rows are read as they are needed.

    They are read and not mapped into memory, where an error of the disk ends the process.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no file of embeddings at {path}")
        self._path = path
        with path.open("rb") as file:
            self.shape, self.dtype, fortran = _header(path, file)
            self._start = file.tell()
            size, needed = os.fstat(file.fileno()).st_size, self._start + len(self) * self.row_size
            if size < needed:
                raise ValueError(f"{path} has {size:,} bytes and should have {needed:,}: it is cut off")
            self._whole: NDArray[Any] | None = None
            if fortran:
                file.seek(0)
                self._whole = np.load(file, allow_pickle=False)
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def __getstate__(self) -> dict[str, object]:
        # Absolute: the process that unpickles may run in another folder.
        return {"path": self._path.absolute(), "sample": self._sample()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        if self._sample() != state["sample"]:
            raise ValueError(f"{self._path} holds other embeddings than it did when it was opened first")

    def _sample(self) -> str:
        """A digest of a few rows, by which another process knows that its file is the same."""
        digest = hashlib.blake2b(f"{self.shape} {self.dtype}".encode(), digest_size=16)
        rows = self.rows(np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(np.int64)))
        digest.update(np.ascontiguousarray(rows).data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * self.dtype.itemsize

    def rows(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Read the rows at these positions."""
        if self._whole is not None:
            return np.asarray(self._whole[positions])
        ascending, places = np.unique(positions, return_inverse=True)
        found = np.empty((len(ascending), self.shape[1]), self.dtype)
        view = found.view(np.uint8).reshape(-1).data
        # Rows that follow one another, as those of an identity, are read at once.
        starts = np.flatnonzero(np.diff(ascending, prepend=-2) != 1).tolist()
        for start, end in zip(starts, [*starts[1:], len(ascending)], strict=False):  # no start without rows
            self._read(view[start * self.row_size : end * self.row_size], int(ascending[start]))
        return found[places]

    def _read(self, into: memoryview, row: int) -> None:
        at = self._start + row * self.row_size
        while into:
            try:
                count = os.preadv(self._file, [into], at)
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}, offset {at}", str(self._path)) from error
            if count == 0:
                size = os.fstat(self._file).st_size
                raise OSError(
                    f"{self._path}, offset {at}: the file was cut short while it was open: it has {size:,} "
                    f"bytes, and its {len(self):,} rows need {self._start + len(self) * self.row_size:,}"
                )
            into, at = into[count:], at + count


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, int], np.dtype[Any], bool]:
    """Read shape, type and order of the array in a file, up to its first number."""
    try:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](file)  # type: ignore[no-untyped-call]
    except (ValueError, EOFError, KeyError) as error:
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":
            raise ValueError(f"{path} is an archive of several arrays, not a .npy file") from error
        raise ValueError(describe_wrong_file(path, "a .npy file of numbers", magic=b"\x93NUMPY")) from error
    if dtype.type not in (np.float16, np.float32, np.float64) or len(shape) != 2 or shape[1] == 0:
        raise ValueError(
            f"{path} must hold (images, D) float16, float32 or float64, but holds {dtype} {tuple(shape)}"
        )
    return shape, dtype, fortran
