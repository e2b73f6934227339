"""What the benches measure on: embeddings that are drawn, and real faces, as often as needed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft

SHARED = Path(__file__).parents[2] / "shared" / "data"
FACES = SHARED / "lfw112-a" / "train.rec"
BAG, PER_IDENTITY = 7200, 5  # InsightFace's `triplet` configuration


def random_rows(count: int, dim: int) -> NDArray[np.float32]:
    """Unit rows in all directions: half of the negatives of a pair qualify."""
    return _unit(np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32))


def separated_rows(
    count: int, dim: int, each: int, noise: float = 0.7, *, seed: int = 1
) -> NDArray[np.float32]:
    """Unit rows around the centres of their identities; with the usual noise no negative qualifies."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((-(-count // each), dim), dtype=np.float32)
    rows = rng.standard_normal((count, dim), dtype=np.float32)
    rows *= np.float32(noise)
    rows += centres[identities(count, each)]
    return _unit(rows)


def identities(count: int, each: int) -> NDArray[np.int64]:
    """Labels of rows whose identities follow one another."""
    return np.arange(count) // each


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def write_dataset(source: Path, path: Path, count: int, *, each: int = PER_IDENTITY) -> Path:
    """Write `count` images of a `.rec`, over and over, as identities of `each`; keys start at 0."""
    if not source.is_file():
        raise SystemExit(f"no file {source}; name one with --rec")
    file, index = ft.RecordFile(source), ft.index_rec(source, cache=False)
    contents = [file.read(key)[1] for key in index["key"]]
    with ft.RecordWriter(path) as writer:
        for key in range(count):
            writer.write(key, ft.IRHeader(0, float(key // each), key, 0), contents[key % len(contents)])
    return path


def draw_faces(path: Path, identities: int = 60, images: int = 8) -> Path:
    """Write a `.rec` of the demo's characters, JPEGs of 112 x 112, for machines without real faces (2 s)."""
    from PIL import Image  # noqa: PLC0415  not in the processes that are measured

    from fasttriplet.demo import draw_identities  # noqa: PLC0415

    with ft.RecordWriter(path) as writer:
        for key, (identity, _, pixels) in enumerate(draw_identities(identities, images, 112)):
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
            writer.write(key, ft.IRHeader(0, float(identity), key, 0), encoded.getvalue())
    return path


def decoder(rec: Path) -> Callable[[pl.DataFrame], NDArray[np.uint8]]:
    """A function that decodes rows of a file's index, by a call that every version of the package has."""
    file = ft.RecordFile(rec)
    return lambda rows: file.decode(rows["key"].to_numpy())
