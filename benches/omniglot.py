"""Omniglot's two small background sets as `.rec` files: drawn characters, 20 images each.

The training set has 136 characters of five alphabets, the test set the 106 of Japanese, Sanskrit and Tagalog,
which are in no other alphabet.
"""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import fasttriplet as ft

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "omniglot"
_UNSEEN = ("Japanese", "Sanskrit", "Tagalog")
_MIRRORED = Image.Transpose.FLIP_LEFT_RIGHT
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def _characters(part: int) -> dict[str, list[Image.Image]]:
    """The images of each character, black on white."""
    found: dict[str, list[Image.Image]] = {}
    with zipfile.ZipFile(FOLDER / f"images_background_small{part}.zip") as archive:
        for name in sorted(archive.namelist()):
            parts = Path(name).parts
            if not name.endswith(".png") or (part == 2 and not parts[-3].startswith(_UNSEEN)):
                continue
            image = Image.open(io.BytesIO(archive.read(name))).convert("L")
            found.setdefault("-".join(parts[-3:-1]), []).append(image)
    return found


def write_plain(folder: Path, side: int) -> tuple[Path, Path]:
    """Training and test set as they are, in InsightFace's layout of identities."""
    paths = []
    for part, name in ((1, "train"), (2, "unseen")):
        with tempfile.TemporaryDirectory() as drawn:
            for character, images in _characters(part).items():
                (Path(drawn) / character).mkdir()
                for number, image in enumerate(images):
                    image.save(Path(drawn) / character / f"{number:02d}.png")
            (folder / name).mkdir()
            ft.pack(drawn, folder / name / "plain.rec", size=(side, side))
        paths.append(folder / name / "plain.rec")
    return paths[0], paths[1]


def write_varied(folder: Path, side: int, variants: int) -> tuple[Path, Path]:
    """Training and test set with thick strokes on grey.

    In the training set each character, turned by 0, 90, 180 and 270 degrees and mirrored, counts as eight,
    and of each image there are so many variants: turned, stretched, slanted and moved a little.
    """
    rng, train, unseen = np.random.default_rng(0), folder / "varied.rec", folder / "varied_unseen.rec"
    key = 0
    with ft.RecordWriter(train) as writer:
        characters = _characters(1).values()
        eight = [
            (images, mirror, turn) for images in characters for mirror in (False, True) for turn in _TURNS
        ]
        for label, (images, mirror, turn) in enumerate(eight):
            for image in images:
                seen = image.transpose(_MIRRORED) if mirror else image
                seen = seen if turn is None else seen.transpose(turn)
                for variant in range(variants):
                    content = _png(seen if variant == 0 else _varied(seen, rng), side)
                    writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
                    key += 1
    with ft.RecordWriter(unseen) as writer:
        for label, images in enumerate(_characters(2).values()):
            for number, image in enumerate(images):
                key = label * len(images) + number
                writer.write(key, ft.IRHeader(0, float(label), key, 0), _png(image, side))
    return train, unseen


def _varied(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = math.radians(rng.uniform(-15, 15))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    slant = np.array([[1, rng.uniform(-0.2, 0.2)], [0, 1]])
    matrix = turn @ slant @ np.diag(np.exp(rng.uniform(-0.2, 0.2, 2)))
    centre = np.array(image.size) / 2
    offset = centre - matrix @ (centre + rng.uniform(-0.06, 0.06, 2) * image.size)
    (a, b), (d, e) = matrix
    data = (a, b, offset[0], d, e, offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC, fillcolor=255)


def _png(image: Image.Image, side: int) -> bytes:
    thick = image.filter(ImageFilter.MinFilter(3))
    grey = thick.point([127 + (255 - value) * 128 // 255 for value in range(256)])
    encoded = io.BytesIO()
    grey.resize((side, side), Image.Resampling.LANCZOS).save(encoded, "PNG")
    return encoded.getvalue()
