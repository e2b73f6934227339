"""The rows of a ``.npy`` file, read as they are needed."""

from __future__ import annotations

import hashlib
import os
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fasttriplet._contents import describe_wrong_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


_SAMPLED = 64  # rows that another process compares
_PIECE = 2**26  # the most bytes that are read at once


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What one pass over a file found."""

    digest: str
    not_finite: NDArray[np.int64]  # rows


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

    def read_through(self) -> Read:
        """Read the file from its first to its last row."""
        digest, bad = hashlib.blake2b(digest_size=16), []
        step = max(1, _PIECE // self.row_size)
        for first in range(0, len(self), step):
            rows = self.rows(np.arange(first, min(first + step, len(self))))
            digest.update(np.ascontiguousarray(rows).data)
            with np.errstate(over="ignore"):
                finite = np.isfinite(rows.astype(np.float32, copy=False)).all(axis=1)
            bad.append(first + np.flatnonzero(~finite))
        digest.update(f"{self.shape} {self.dtype}".encode())
        return Read(digest.hexdigest(), np.concatenate(bad) if bad else np.empty(0, np.int64))

    def digest(self) -> str:
        """Tells these embeddings from all others."""
        return self.read_through().digest

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
        return found if np.array_equal(ascending, positions) else found[places]

    def _read(self, into: memoryview, row: int) -> None:
        at = self._start + row * self.row_size
        while into:
            try:
                count = os.preadv(self._file, [into[:_PIECE]], at)  # macOS refuses 2 GiB
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
    except OSError:
        raise
    except Exception as error:  # a header is read as Python: errors of its tokenizer and parser come, too
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":
            raise ValueError(f"{path} is an archive of several arrays, not a .npy file") from error
        raise ValueError(describe_wrong_file(path, "a .npy file of numbers", magic=b"\x93NUMPY")) from error
    known = dtype.type in (np.float16, np.float32, np.float64)
    # Whole numbers that may be negative, or, as no file is that long, beyond the largest of NumPy.
    if not known or len(shape) != 2 or shape[0] < 0 or shape[1] <= 0 or max(shape) > sys.maxsize:
        raise ValueError(
            f"{path} must hold (images, D) float16, float32 or float64, but holds {dtype} {tuple(shape)}"
        )
    return shape, dtype, fortran
