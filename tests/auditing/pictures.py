"""Pictures that look different from one another, and datasets of them with known faults."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft

SIDE = 48
Pixels = NDArray[np.uint8]


def scene(seed: int, side: int = SIDE) -> Pixels:
    """Coloured noise of all frequencies, as photographs have: (side, side, 3)."""
    rng = np.random.default_rng(seed)
    found = np.zeros((side, side, 3))
    for cells, weight in ((4, 60), (8, 40), (16, 25), (side, 10)):
        small = rng.normal(0, weight, (cells, cells, 3))
        at = np.arange(side) * cells // side
        found += small[at][:, at]
    return (found + 120).clip(0, 255).astype(np.uint8)


def shifted(pixels: Pixels, down: int, right: int) -> Pixels:
    """Moved, with the border repeated."""
    rows = np.clip(np.arange(len(pixels)) - down, 0, len(pixels) - 1)
    columns = np.clip(np.arange(pixels.shape[1]) - right, 0, pixels.shape[1] - 1)
    return pixels[rows][:, columns]


def jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def write(path: Path, images: Mapping[int, tuple[int, bytes]]) -> Path:
    """A `.rec` of encoded images: label and content by key."""
    with ft.RecordWriter(path) as writer:
        for key, (label, content) in images.items():
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    return path


def plain(identities: int, images: int) -> dict[int, tuple[int, bytes]]:
    """Different pictures: keys from 0, `images` for each label."""
    return {key: (key // images, jpeg(scene(key))) for key in range(identities * images)}


class People:
    """An embedder that knows who is on the picture of a key: a direction each, with some noise."""

    description = "people"

    def __init__(
        self, who: Mapping[int, int], *, size: int = 32, needs_images: bool = True, seed: int = 0
    ) -> None:
        self.who, self.size, self.needs_images, self.seed = dict(who), size, needs_images, seed
        self.asked: list[int] = []

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert (images is not None) == self.needs_images
        keys = rows["key"].to_list()
        self.asked += keys
        found = np.empty((len(keys), self.size), np.float32)
        for at, key in enumerate(keys):
            person = np.random.default_rng(10_000 + self.who[key] + self.seed).normal(size=self.size)
            found[at] = person + np.random.default_rng(key).normal(0, 0.3, self.size)
        return found
