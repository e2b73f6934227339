"""Omniglot's small background sets as `.rec` files: characters to train on, and others to verify on.

Every character (identity) was drawn once by each of 20 people. Those of the first set are for training; of the
second, those of the three alphabets that the first has not.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import fasttriplet as ft

OMNIGLOT = Path(__file__).parents[2] / "shared" / "data" / "omniglot"
SIDE = 64  # pixels
TRAINING, OTHERS = "images_background_small1.zip", "images_background_small2.zip"
UNSEEN = ("Japanese_(katakana)", "Sanskrit", "Tagalog")  # Greek and Latin are in both sets

# A turned or mirrored character is another character: the first is as it was drawn.
_TURNS = (
    None,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True, slots=True)
class Variants:
    """What a dataset is made of besides the drawings themselves.

    Attributes
    ----------
    turns : int
        Identities that each character becomes, at most 8: turned by 90, 180 and 270 degrees, then mirrored.
    copies : int
        Images that each drawing becomes: itself, and others moved at random.
    degrees, scale, shear, shift : float
        How far, at most: turned; stretched along each axis, by a factor whose logarithm is uniform; sheared;
        moved, as a share of the side.
    """

    turns: int = 1
    copies: int = 1
    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0


def write_training(folder: Path, rec: Path, variants: Variants | None = None) -> None:
    """Write the 136 characters to train on, or variants of them."""
    _write(rec, list(_characters(folder / TRAINING)), variants or Variants())


def write_unseen(folder: Path, rec: Path) -> None:
    """Write the 106 characters to verify on."""
    _write(rec, list(_characters(folder / OTHERS, UNSEEN)), Variants())


def _characters(path: Path, alphabets: tuple[str, ...] | None = None) -> Iterator[list[Image.Image]]:
    """The drawings of each character, 105 x 105, black on white."""
    drawings: dict[Path, list[Image.Image]] = {}
    with zipfile.ZipFile(path) as file:
        for name in sorted(file.namelist()):
            at = Path(name)  # set/alphabet/character/drawing.png
            if at.suffix == ".png" and at.parts[0] + ".zip" == path.name:
                if alphabets is None or at.parts[1] in alphabets:
                    drawings.setdefault(at.parent, []).append(
                        Image.open(io.BytesIO(file.read(name))).convert("L")
                    )
    yield from drawings.values()


def _write(rec: Path, characters: list[list[Image.Image]], variants: Variants) -> None:
    """Write a `.rec` in InsightFace's identity layout, which its iterator reads."""
    identities = len(characters) * variants.turns
    end = 1 + variants.copies * variants.turns * sum(len(drawings) for drawings in characters)
    with ft.RecordWriter(rec) as writer, ThreadPoolExecutor() as pool:
        writer.write(0, ft.IRHeader(0, [end, end + identities], 0, 0), b"")
        encoded = pool.map(
            lambda number: _identity(characters[number // variants.turns], number, variants),
            range(identities),
        )
        ranges, key = [], 1
        for label, images in enumerate(encoded):
            ranges.append([key, key + len(images)])
            for image in images:
                writer.write(key, ft.IRHeader(0, float(label), key, 0), image)
                key += 1
        for number, keys in enumerate(ranges):
            writer.write(end + number, ft.IRHeader(0, keys, end + number, 0), b"")


def _identity(drawings: list[Image.Image], number: int, variants: Variants) -> list[bytes]:
    """The encoded images of an identity; the same ones each time."""
    rng = np.random.default_rng(number)
    turn = _TURNS[number % variants.turns]
    images = []
    for drawing in drawings:
        upright = drawing if turn is None else drawing.transpose(turn)
        for copy in range(variants.copies):
            moved = _moved(upright, variants, rng) if copy else upright
            buffer = io.BytesIO()
            moved.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=95)
            images.append(buffer.getvalue())
    return images


def _moved(drawing: Image.Image, variants: Variants, rng: np.random.Generator) -> Image.Image:
    """Turn, stretch, shear and shift a drawing at random."""
    angle = math.radians(rng.uniform(-variants.degrees, variants.degrees))
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    sheared = np.array([[1.0, rng.uniform(-variants.shear, variants.shear)], [0.0, 1.0]])
    stretched = np.diag(np.exp(rng.uniform(-variants.scale, variants.scale, 2)))
    matrix = turned @ sheared @ stretched  # from a pixel of the result to one of the drawing
    centre = np.full(2, drawing.width / 2)
    offset = centre - matrix @ (centre + drawing.width * rng.uniform(-variants.shift, variants.shift, 2))
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return drawing.transform(
        drawing.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC, fillcolor=255
    )
