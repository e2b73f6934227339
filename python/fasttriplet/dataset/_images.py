"""Encoded images to pixels: parallel decoding of JPEG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import image_size, one_of, thread_count
from fasttriplet.dataset._recordio import RecordFile
from fasttriplet.errors import RecordError

OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What :func:`decode_rows` made of the rows of an index.

    Attributes
    ----------
    pixels : (B, H, W, 3) uint8
        The images that could be decoded, in the order of their rows, RGB.
    failed : list of (int, RecordError)
        Position of each row that could not, and why. Empty unless ``on_error="skip"``.
    """

    pixels: NDArray[np.uint8]
    failed: list[tuple[int, RecordError]]

    @property
    def kept(self) -> NDArray[np.int64]:
        """Positions of the rows in `pixels`: (B,) int64."""
        bad = [position for position, _ in self.failed]
        return np.delete(np.arange(len(self.pixels) + len(bad)), bad)


def decode_images(
    encoded: Sequence[bytes],
    *,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Decode JPEG and PNG images of one size.

    The pixels equal those of ``mx.image.imdecode`` with its defaults for every valid file: gray, palette
    and CMYK become RGB, of 16 bits the high byte is kept, alpha is dropped and not blended, and an EXIF
    orientation is applied where MXNet does (not in files that start with a JFIF header). A damaged file is
    an error, also where MXNet returns a picture that is partly grey.

    Parameters
    ----------
    encoded : (B,) bytes
        The encoded images; anything with a buffer of bytes will do.
    size : (int, int), optional
        Height and width that all must have. By default those of the first image.
    threads : int, optional
        By default one for each core.

    Returns
    -------
    (B, H, W, 3) uint8
        RGB. Without images the shape is ``(0, 0, 0, 3)``, or ``(0, H, W, 3)`` when `size` is given.

    Raises
    ------
    RecordError
        If an image is damaged, of another format, or of another size; the message starts with its
        position, ``image [7]: ...``.
    ValueError
        If `encoded` is not a list of images, or an option is wrong.
    """
    if isinstance(encoded, (bytes, bytearray, memoryview, str)):
        raise ValueError("encoded: expected a list of encoded images, got a single one; write [image]")
    listed = [_to_bytes(image, position) for position, image in enumerate(encoded)]
    size = None if size is None else image_size(size)
    threads = thread_count(threads)
    pixels, _, _ = _core.decode_images(listed, size=size, skip=False, threads=threads)
    return pixels


def decode_rows(
    files: Sequence[RecordFile],
    rows: pl.DataFrame,
    *,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    on_error: OnError = "raise",
) -> Decoded:
    """Decode the images that the rows of an index stand for.

    Parameters
    ----------
    files : sequence of RecordFile
        The files that the index was made of, in that order.
    rows : DataFrame
        Rows of :func:`fasttriplet.index_rec`, in any order: the columns ``key``, ``offset``, for several
        files ``file``, and ``length``, without which less can be read ahead. The images are read in the
        order in which they are stored.
    size : (int, int), optional
        Height and width that all images must have. By default those of the first one; with
        ``on_error="skip"`` those that most of the images have.
    threads : int, optional
        By default one for each core.
    on_error : {"raise", "skip"}
        What to do about an image that is damaged, of another format or of another size: raise for the
        first of them, or leave it out and list it in the result.

    Returns
    -------
    Decoded
        Pixels as :func:`decode_images` makes them, and what was left out.

    Raises
    ------
    RecordError
        If an image cannot be decoded and ``on_error="raise"``; the message names the file, the record's
        key and its byte offset.
    ValueError
        If a column is missing or an option is wrong.
    """
    one_of("on_error", on_error, get_args(OnError))
    missing = [name for name in ("key", "offset") if name not in rows.columns]
    if missing:
        raise ValueError(f"rows: expected the columns of index_rec, and {' and '.join(missing)} is not there")
    if "file" not in rows.columns and len(files) != 1:
        raise ValueError(
            f"rows: {len(files)} files were given, and no column 'file' says in which of them a row lies"
        )
    size = None if size is None else image_size(size)
    threads = thread_count(threads)
    pixels, kept, failed = _core.decode_rows(
        [file._file for file in files],  # the handle itself is private to users, not to us
        _places(rows),
        size=size,
        skip=on_error == "skip",
        planes=False,
        threads=threads,
    )
    return Decoded(pixels[:kept], failed)


def size_of_images(
    files: Sequence[RecordFile], rows: pl.DataFrame, *, on_error: OnError, threads: int | None
) -> tuple[int, int] | None:
    """The height and width that :func:`decode_rows` takes by default; None if no image can be read."""
    usual = on_error == "skip"
    return _core.image_size([file._file for file in files], _places(rows), usual=usual, threads=threads)


def _places(
    rows: pl.DataFrame,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.uint32] | None]:
    """Where the images lie."""

    def column(name: str, dtype: type[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(rows[name].to_numpy(), dtype=dtype)

    return (
        column("key", np.int64),
        column("offset", np.int64),
        column("length", np.int64) if "length" in rows.columns else None,
        column("file", np.uint32) if "file" in rows.columns else None,
    )


def _to_bytes(image: object, position: int) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return memoryview(image).tobytes()  # type: ignore[arg-type]
    except TypeError:
        kind = type(image).__name__
        raise ValueError(f"encoded: image [{position}] is a {kind}; expected bytes") from None
