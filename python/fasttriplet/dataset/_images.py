"""Encoded images to pixels: parallel decoding of JPEG and PNG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import image_size, one_of, pixel_limit, polars_frame, thread_count
from fasttriplet.dataset._options import MAX_PIXELS, OnError
from fasttriplet.errors import RecordError

if TYPE_CHECKING:
    import polars as pl

Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What :meth:`fasttriplet.Dataset.decode` made of some images.

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


class Places(NamedTuple):
    """Where the records of some images lie, and what they must hold; the arrays have one entry per image.

    Without `files` there is only one file. Lengths, labels and, in the files whose `keys_are_ids`, the keys
    are compared with the records, as far as they are given. An error about a record that differs names the
    file that its row was `kept` in, too.
    """

    keys: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64] | None = None
    files: NDArray[np.uint32] | None = None
    labels: NDArray[np.int64] | None = None  # as the files have them
    keys_are_ids: Sequence[bool] = ()  # for each file
    kept: Sequence[str | None] = ()  # for each file, where its index was read from

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Places:
        """Read the columns of an index."""
        polars_frame("rows", rows)
        if missing := [name for name in ("key", "offset") if name not in rows.columns]:
            raise ValueError(
                f"rows: expected the columns of index_rec, and {' and '.join(missing)} is not there"
            )
        columns: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(rows[name].to_numpy(), np.uint32 if name == "file" else np.int64)
            for name in ("key", "offset", "length", "file")
            if name in rows.columns
        }
        return cls(columns["key"], columns["offset"], columns.get("length"), columns.get("file"))


def decode_records(
    files: Sequence[_core.RecordFile],
    places: Places,
    *,
    max_pixels: int,
    size: tuple[int, int] | None = None,
    layout: Layout = "NHWC",
    threads: int | None = None,
    on_error: OnError = "raise",
) -> tuple[NDArray[Any], list[tuple[int, RecordError]]]:
    """Decode the images of records, in the order in which they are stored.

    The options are those of :meth:`fasttriplet.Dataset.decode`, and the result has the fields of
    :class:`Decoded`. Pixels are (B, H, W, 3) uint8, or (B, 3, H, W) float32 for the layout ``"NCHW"``.
    """
    one_of("on_error", on_error, get_args(OnError))
    one_of("layout", layout, get_args(Layout))
    pixels, kept, failed = _core.decode_rows(
        list(files),
        places,
        size=None if size is None else image_size(size, max_pixels),
        max_pixels=pixel_limit(max_pixels),
        skip=on_error == "skip",
        planes=layout == "NCHW",
        threads=thread_count(threads),
    )
    return pixels[:kept], failed


def size_of_records(
    files: Sequence[_core.RecordFile],
    places: Places,
    *,
    max_pixels: int,
    on_error: OnError,
    threads: int | None,
) -> tuple[int, int] | None:
    """The height and width that :func:`decode_records` takes by default; None if no image can be read."""
    usual, threads = on_error == "skip", thread_count(threads)
    return _core.image_size(list(files), places, max_pixels=max_pixels, usual=usual, threads=threads)


def decode_images(
    encoded: Sequence[bytes],
    *,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
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
    max_pixels : int, default 89,478,485
        The most pixels, height times width, of one image, up to 2**30. A header that says more is an error
        before memory is taken for the image. The default is 256 MiB of RGB.

    Returns
    -------
    (B, H, W, 3) uint8
        RGB. Without images the shape is ``(0, 0, 0, 3)``, or ``(0, H, W, 3)`` when `size` is given.

    Raises
    ------
    RecordError
        If an image is damaged, too large, of another format, or of another size; the message starts with
        its position, ``image [7]: ...``.
    MemoryError
        If there is no memory for the pixels; the message names the first image of the size.
    ValueError
        If `encoded` is not a list of images, or an option is wrong.
    """
    if isinstance(encoded, (bytes, bytearray, memoryview, str)) or (
        isinstance(encoded, np.ndarray) and encoded.dtype != object
    ):
        raise ValueError("encoded: expected a list of encoded images, got a single one; write [image]")
    if not isinstance(encoded, Iterable):
        raise ValueError(f"encoded: expected a list of encoded images, not {encoded!r:.100}")
    listed = [_to_bytes(image, position) for position, image in enumerate(encoded)]
    max_pixels = pixel_limit(max_pixels)
    size = None if size is None else image_size(size, max_pixels)
    threads = thread_count(threads)
    pixels, _, _ = _core.decode_images(listed, size=size, max_pixels=max_pixels, skip=False, threads=threads)
    return pixels


def _to_bytes(image: object, position: int) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return memoryview(image).tobytes()  # type: ignore[arg-type]
    except TypeError:
        kind = type(image).__name__
        raise ValueError(f"encoded: image [{position}] is a {kind}; expected bytes") from None
