"""A baseline that needs no model: the picture itself, small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet._checks import whole_number
from fasttriplet.embedders._base import check_images

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

# Images reduced at a time: their float32 copy (9.6 MB at 112 x 112) stays in the cache of a core or near it.
_CHUNK = 64


class PixelEmbedder:
    """A baseline, not a trained network: an embedding is the flattened thumbnail of an image minus its mean.

    The thumbnail is the exact area average over a grid of `size` x `size` equal cells, for images of any
    size. It is computed in whole numbers, so that an image has the same embedding on every machine.
    """

    needs_images = True

    def __init__(self, size: int = 16) -> None:
        self.size = whole_number("size", size, 1)

    @property
    def description(self) -> str:
        """One line for people."""
        return (
            f"pixels: thumbnails of {self.size} x {self.size} as they are; "
            "this is a baseline, not a trained network (give a model for useful triplets)"
        )

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: there is nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Shrink the images and subtract the mean of each thumbnail: (B, 3 * size**2), colours innermost."""
        images = check_images(rows, images)
        count, height, width, _ = images.shape
        if height == 0 or width == 0:
            raise ValueError(f"images of {height} x {width} have no pixels")
        cells = self.size * self.size * 3
        # A sum over a cell is at most 255 * H * W: exact in float32 up to 2^24, in float64 for any image.
        exact: type[np.floating[Any]] = np.float32 if 255 * height * width < 2**24 else np.float64
        down: NDArray[Any] = _overlaps(height, self.size).astype(exact)
        across: NDArray[Any] = _overlaps(width, self.size).astype(exact).T
        embeddings = np.empty((count, cells), dtype=np.float32)
        for start in range(0, count, _CHUNK):
            chunk = images[start : start + _CHUNK].astype(exact)
            rows_summed = down @ chunk.reshape(len(chunk), height, width * 3)
            by_colour = rows_summed.reshape(-1, self.size, width, 3).swapaxes(2, 3)
            sums = (by_colour @ across).swapaxes(2, 3).reshape(len(chunk), cells).astype(np.int64)
            centred = sums * cells - sums.sum(axis=1, keepdims=True)
            embeddings[start : start + _CHUNK] = centred / (cells * height * width)
        return embeddings


def from_spec(_text: str) -> PixelEmbedder:
    """Make the embedder of the spec ``pixels``, which has no text after it."""
    return PixelEmbedder()


def _overlaps(pixels: int, cells: int) -> NDArray[np.int64]:
    """How much of each pixel lies in each cell, (cells, pixels), in units of 1/cells of a pixel.

    Each of the rows sums to `pixels`, each of the columns to `cells`.
    """
    left = np.arange(pixels) * cells
    edge = np.arange(cells)[:, None] * pixels
    overlap: NDArray[np.int64] = np.minimum(left + cells, edge + pixels) - np.maximum(left, edge)
    return overlap.clip(min=0)
