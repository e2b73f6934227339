"""Files of embeddings: a ``.npy`` file with one row per image, and beside it what they are of, as JSON."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from fasttriplet._contents import read_file
from fasttriplet._words import counted, naming_file
from fasttriplet.embedders._base import image_named

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from fasttriplet.dataset._dataset import Dataset

Dtype = Literal["float32", "float16"]
KIND, VERSION = "embeddings", 1

# Images that are embedded again to see whether a file is of this model, and how far their vectors may be from
# those in the file, relative to their norms. Another device or precision gives up to 0.005.
_PROBED = 32
_SAME = 0.01


class Skipped(NamedTuple):
    """An image that has no embedding.

    Attributes
    ----------
    row : int
        Its row in the file.
    key, file : int
        Its key, and the number of its ``.rec`` file from 0.
    reason : str
        What is wrong with it.
    """

    row: int
    key: int
    file: int
    reason: str


def side_file(path: Path) -> Path:
    """The file that says what the embeddings in `path` are of: ``embeddings.npy.json``."""
    return path.with_name(f"{path.name}.json")


def describe(
    dataset: Dataset, *, model: str, size: int, dtype: Dtype, skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """What such a file says: plain data."""
    return {
        "fasttriplet": KIND,
        "version": VERSION,
        "dataset": dataset.fingerprint,
        "rows": fingerprint(dataset.ids, dataset.lengths),
        "files": [str(path) for path in dataset.paths],
        "max_pixels": dataset.options.max_pixels,
        "model": model,
        "images": len(dataset),
        "size": size,
        "dtype": dtype,
        "skipped": [one._asdict() for one in skipped],
    }


def as_text(about: dict[str, Any]) -> str:
    """The content of the file."""
    return json.dumps(about, indent=1) + "\n"


def fingerprint(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> str:
    """Tell which image each row is of, by ids (which ascend) and sizes of the records.

    Unlike :attr:`fasttriplet.Dataset.fingerprint` it does not depend on labels, as embeddings do not.
    """
    digest = hashlib.blake2b(digest_size=8)
    for column in (ids, lengths):
        digest.update(np.ascontiguousarray(column, np.int64).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a file of embeddings from the one beside it.

    Attributes
    ----------
    dataset, rows : str
        Fingerprints of the dataset, and of its images without their labels.
    files : list of str
        The ``.rec`` files, as they were given.
    max_pixels : int
        The most pixels of an image that was decoded.
    model : str
        What computed the embeddings, and where.
    images, size : int
        Rows of the file, and numbers in each.
    dtype : str
        ``"float32"`` or ``"float16"``.
    skipped : list of Skipped
        Images that have no embedding: rows of NaN.
    """

    dataset: str
    rows: str
    files: list[str]
    max_pixels: int
    model: str
    images: int
    size: int
    dtype: Dtype
    skipped: list[Skipped]


def read_about(path: Path) -> About | None:
    """Read what is known of the embeddings in `path`; None where no file of this package is beside it.

    One that is damaged, or of a later version, is a ValueError.
    """
    beside = side_file(path)
    try:
        text = read_file(beside, f"what {path} is of, in JSON")
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"{beside} is not JSON, and should say what {path} is of; remove it if it is something else"
        ) from None
    if not isinstance(found, dict) or found.get("fasttriplet") != KIND:
        return None
    if found.get("version") != VERSION:
        raise ValueError(
            f"{beside} has the version {found.get('version')!r}, and this fasttriplet reads {VERSION}"
        )
    try:
        skipped = [Skipped(**one) for one in found["skipped"]]
        about = About(**{name: found[name] for name in About.__slots__} | {"skipped": skipped})
    except (KeyError, TypeError):
        about = None
    if about is None or not _is_sound(about):
        raise ValueError(f"{beside} is damaged: it does not say what {path} is of")
    return about


def _is_sound(about: About) -> bool:
    """Whether all fields have the types that they are said to have."""
    places = [(one.row, one.key, one.file) for one in about.skipped]
    numbers = [about.images, about.size, about.max_pixels, *chain(*places)]
    texts = [about.dataset, about.rows, about.model, about.dtype, *(one.reason for one in about.skipped)]
    return (
        isinstance(about.files, list)
        and all(type(number) is int for number in numbers)
        and all(isinstance(text, str) for text in (*texts, *about.files))
        and all(0 <= one.row < about.images for one in about.skipped)
    )


def skipped_rows(path: Path) -> NDArray[np.int64]:
    """Rows of a file of embeddings that have none, because their images were skipped: (S,), ascending.

    There are none where no file beside it says so.
    """
    about = read_about(path)
    return np.array(sorted(one.row for one in about.skipped) if about else [], np.int64)


# Whether embeddings are of a model


def read_rows(path: Path, shape: tuple[int, int], dtype: Dtype, at: NDArray[np.int64]) -> NDArray[Any]:
    """Read some rows of a file that is, or will be, one of this shape: (B, D)."""
    row = shape[1] * np.dtype(dtype).itemsize
    start = len(header(*shape, dtype))
    with naming_file(path), path.open("rb") as file:
        found = b"".join(os.pread(file.fileno(), row, start + one * row) for one in at.tolist())
    return np.frombuffer(found, np.dtype(dtype).newbyteorder("<")).reshape(len(at), shape[1])


def probed(done: int) -> NDArray[np.int64]:
    """Rows to compare with what a model says now, among the first `done`."""
    return np.unique(np.linspace(0, done - 1, _PROBED).astype(np.int64)) if done else np.empty(0, np.int64)


def why_of_another_model(
    model: str, stored: NDArray[np.floating[Any]], again: NDArray[np.float32]
) -> str | None:
    """Say that these vectors were not computed by the model that computed them again, or return None."""
    if again.shape[1] != stored.shape[1]:
        return f"it is of another model ({model})"
    far = np.linalg.norm(again - stored.astype(np.float32), axis=1)
    if (far > _SAME * np.linalg.norm(again, axis=1)).any():
        return f"it is of another model ({model}), or of the same one with other weights"
    return None


# Writing


def header(count: int, size: int, dtype: Dtype) -> bytes:
    """The bytes before the first row of a ``.npy`` file."""
    file = io.BytesIO()
    fields = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": (count, size)}
    np.lib.format.write_array_header_1_0(file, fields)  # type: ignore[no-untyped-call]
    return file.getvalue()


def file_size(shape: tuple[int, int], dtype: Dtype) -> int:
    """How many bytes a file of this shape has."""
    return len(header(*shape, dtype)) + shape[0] * shape[1] * np.dtype(dtype).itemsize


class Writer:
    """Writes a ``.npy`` file row by row; it is written and not mapped, so that a full disk is an error.

    Parameters
    ----------
    file : binary file
        Empty, or after the rows that are written.
    count : int
        Rows of the whole file.
    model : str
        What embeds, for errors.
    dtype : str
        Of the numbers in the file.
    size, done : int
        Numbers per row, 0 if that is unknown, and how many rows are written. Without a size these are
        of images without a vector.
    """

    def __init__(
        self,
        file: BinaryIO,
        count: int,
        model: str,
        *,
        dtype: Dtype = "float32",
        size: int = 0,
        done: int = 0,
    ) -> None:
        self._file, self._count, self._model = file, count, model
        self._dtype: Dtype = dtype
        self._blank = done  # of a table without a size: rows before the first vector says how long they are
        self.size = size

    def append(
        self, rows: pl.DataFrame, kept: NDArray[np.int64], vectors: NDArray[np.float32] | None
    ) -> None:
        """Write the next rows: that of the image ``kept[i]`` is ``vectors[i]``; the rest are NaN."""
        if vectors is None and not self.size:
            self._blank += rows.height
            return
        if vectors is not None and not self.size:
            self._begin(vectors.shape[1])
        found = np.full((rows.height, self.size), np.nan, self._dtype)
        if vectors is not None:
            if vectors.shape[1] != self.size:
                raise ValueError(
                    f"{self._model}: vectors of {counted(vectors.shape[1], 'number')}, after some of "
                    f"{self.size:,}"
                )
            with np.errstate(over="ignore"):  # which is found below
                found[kept] = vectors
            if self._dtype == "float16":
                self._check_range(rows, kept, vectors, found[kept])
        self._file.write(found.data)

    def _check_range(
        self,
        rows: pl.DataFrame,
        kept: NDArray[np.int64],
        vectors: NDArray[np.float32],
        found: NDArray[np.float16],
    ) -> None:
        beyond = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if beyond.size:
            value = vectors[beyond[0]][~np.isfinite(found[beyond[0]])][0]
            raise ValueError(
                f"{self._model}: the embedding of {image_named(rows, int(kept[beyond[0]]))} has {value:g}, "
                "and float16 holds numbers up to 65,504; take dtype='float32'"
            )

    def _begin(self, size: int) -> None:
        self.size = size
        self._file.write(header(self._count, size, self._dtype))
        blank = np.full((1, size), np.nan, self._dtype)
        for _ in range(self._blank):
            self._file.write(blank.data)
