"""Small `.rec` files of coloured noise, and an embedder that is a table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft


@cache
def picture(seed: int, side: int = 24) -> bytes:
    """A JPEG of noise over a colour."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 200, 3) + rng.integers(0, 56, (side, side, 3))
    encoded = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def write_rec(
    path: Path, labels: Mapping[int, int], damaged: frozenset[int] = frozenset(), *, side: int = 24
) -> Path:
    """A flat `.rec`: `labels` by key; the images of the `damaged` keys are cut short to nonsense."""
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label in labels.items():
            content = b"no image at all" if key in damaged else picture(1000 * label + key, side)
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    return path


def write_images(path: Path, images: Sequence[bytes]) -> Path:
    """A `.rec` of encoded images, with the keys 1, 2, ... and the labels 1, 2, 0, 1, ..."""
    with ft.RecordWriter(path) as writer:
        for key, image in enumerate(images, start=1):
            writer.write(key, ft.IRHeader(0, float(key % 3), key, 0), image)
    return path


def kept_beside(rec: Path) -> Path:
    """Where the index of a `.rec` is kept by default."""
    return rec.with_name(f"{rec.name}.index")


def identities(count: int, images: int, first_key: int = 1) -> dict[int, int]:
    """Labels by key: `count` identities of `images` images."""
    return {first_key + i: i // images for i in range(count * images)}


class Table:
    """An embedder that gives row `key` of a matrix, without images."""

    description = "a table"
    needs_images = False

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows

    def prepare(self, index: pl.DataFrame) -> None:
        self.prepared = index

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is None
        chosen: NDArray[np.float32] = self.rows[rows["key"].to_numpy()]
        return chosen


def random_table(keys: int = 100, size: int = 16, seed: int = 0) -> Table:
    """A table of random rows for the keys below `keys`."""
    return Table(np.random.default_rng(seed).standard_normal((keys, size)).astype(np.float32))
