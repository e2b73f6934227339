"""Small pictures for a folder to pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(5)


def picture(size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    """Noise; the size is (height, width)."""
    return Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    """Save a picture, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def people(root: Path) -> Path:
    """Three identities, in natural order p1, p2, p10, with 2, 1 and 3 JPEGs of 12 x 10."""
    for identity, images in {
        "p10": ("1.jpg", "2.jpg", "10.jpg"),
        "p2": ("a.jpg",),
        "p1": ("x.jpg", "y.jpeg"),
    }.items():
        for image in images:
            save(root / identity / image, quality=95)
    return root


def exif(orientation: int) -> Image.Exif:
    """Metadata that says how a picture is turned."""
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags
