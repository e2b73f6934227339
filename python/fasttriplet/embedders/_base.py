"""The protocol of an embedder, and the checks that all embedders share."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from fasttriplet._checks import rows_not_finite
from fasttriplet._words import counted

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

T = TypeVar("T")
_Float = TypeVar("_Float", np.float32, np.float64)


class Embedder(Protocol):
    """Turns the images of a bag into vectors. Any object with these four members is an embedder.

    One for a device that works beside the caller, such as a GPU, may have a method
    ``start_embedding(rows, images)``, too: it queues what :meth:`embed` does and returns an object
    whose ``done()`` says whether the embeddings are here, and whose ``result()`` waits for them. So the
    device has the next images before it is done with these.

    One whose network is trained by several processes may have a method ``together(group)``. It returns a
    context manager, which each process of the :class:`fasttriplet.Group` is in while it embeds its share of a
    bag, and which makes the networks of all processes equal.
    """

    @property
    def description(self) -> str:
        """One line for people that says what computes the vectors, and where."""

    @property
    def needs_images(self) -> bool:
        """Whether :meth:`embed` needs decoded images; if not, nothing is decoded."""

    def prepare(self, index: pl.DataFrame) -> None:
        """Take the whole index, as :func:`fasttriplet.index_rec` returns it, once, before the first bag."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Embed the images of some rows of the index.

        Parameters
        ----------
        rows : pl.DataFrame
            B rows of the index.
        images : (B, H, W, 3) uint8, or None
            RGB; image i belongs to row i and must not be changed. None if `needs_images` is false.

        Returns
        -------
        (B, D) float32
            Finite numbers; embedding i belongs to row i. They are copied, so the array may be used again.
        """


# For errors about objects that are no embedders.
EMBEDDER_HAS = (
    "it must have description (a str), needs_images (a bool), prepare(index) and embed(rows, images)"
)


def faults_of(found: object) -> list[str]:
    """Say what keeps an object from being an embedder."""
    names = ("description", "needs_images", "prepare", "embed")
    if missing := [name for name in names if not hasattr(found, name)]:
        return [f"has no {', no '.join(missing)}"]
    faults = [f"has no method {name}" for name in ("prepare", "embed") if not callable(getattr(found, name))]
    if not isinstance(description := found.description, str):  # type: ignore[attr-defined]
        faults.append(f"has the description {description!r}")
    if not isinstance(needs_images := found.needs_images, bool):  # type: ignore[attr-defined]
        faults.append(f"has needs_images={needs_images!r}")
    return faults


class Started(Protocol):
    """Embeddings that a device may still compute."""

    def done(self) -> bool:
        """Whether they are here."""

    def result(self) -> NDArray[np.float32]:
        """Wait for them: what :meth:`Embedder.embed` returns."""


class _Here:
    """What an embedder returned: a copy, as the embedder may write its next vectors into the same array."""

    def __init__(self, found: object) -> None:
        self._found = np.array(found)

    def done(self) -> bool:
        return True

    def result(self) -> NDArray[Any]:
        return self._found


def started(embedder: Embedder, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> Started:
    """Begin to embed the images of some rows; embedders that cannot do so embed them now."""
    begin: Callable[..., Started] | None = getattr(embedder, "start_embedding", None)
    return _Here(embedder.embed(rows, images)) if begin is None else begin(rows, images)


def one_ahead(begun: Iterable[tuple[T, Started | None]]) -> Iterator[tuple[T, Started | None]]:
    """Take items whose embedding has begun, and give each when it is done, or when the next has begun, too.

    So a device that works beside this thread gets its next images before it is done with some. An item that
    has no embedding is done.
    """
    waiting: deque[tuple[T, Started | None]] = deque()
    for item in begun:
        waiting.append(item)
        del item  # not to be held with the one that is given
        while waiting and (len(waiting) > 1 or waiting[0][1] is None or waiting[0][1].done()):
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def is_embedding(shape: Sequence[int], images: int) -> bool:
    """Whether an output of this shape has a vector for each of the images; (B, D, 1, 1) counts as (B, D)."""
    return len(shape) > 1 and shape[0] == images and shape[1] > 0 and math.prod(shape[2:]) == 1


def check_images(rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return the images; a ValueError if they are missing, or dtype, shape or number is wrong."""
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        found = "nothing" if images is None else f"{images.dtype} {images.shape}"
        raise ValueError(f"images must be (B, H, W, 3) uint8, got {found}")
    if len(images) != rows.height:
        raise ValueError(f"{counted(rows.height, 'row')} of the index but {counted(len(images), 'image')}")
    return images


def check_embeddings(found: object, rows: pl.DataFrame, source: str, dtype: type[_Float]) -> NDArray[_Float]:
    """Return what an embedder gave; a ValueError if it is not one finite vector of floats for each image."""
    given = np.asarray(found)
    if given.ndim != 2 or len(given) != rows.height or given.shape[1] == 0:
        raise ValueError(
            f"{source}: expected a vector for each of {counted(rows.height, 'image')}, ({rows.height}, D), "
            f"got an array of the shape {given.shape}"
        )
    if given.dtype.kind != "f":
        raise ValueError(f"{source}: embeddings must be floating point, not {given.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, and is named below
        embeddings = given.astype(dtype, copy=False)
    check_finite(embeddings, rows, source)
    return embeddings


def check_finite(embeddings: NDArray[np.floating[Any]], rows: pl.DataFrame, source: str) -> None:
    """Raise a ValueError, which names the first such image, if an embedding holds NaN or infinity."""
    bad = rows_not_finite(embeddings)
    if bad:
        image = image_named(rows, bad[0])
        count = "" if len(bad) == 1 else f" ({len(bad):,} of {counted(rows.height, 'image')})"
        raise ValueError(f"{source}: the embedding of {image} holds NaN or infinity{count}")


def image_named(rows: pl.DataFrame, at: int) -> str:
    """Name the image of a row, such as "the image with key 7 of file 1"."""
    where = f" of file {rows['file'][at]}" if "file" in rows.columns else ""
    return f"the image with key {rows['key'][at]}{where}"
