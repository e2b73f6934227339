"""Omniglot's two small background sets as `.rec` files, and a network that learns from one of them.

Drawn characters, 20 images each. The training set has 136 characters of five alphabets, the test set the 106
of Japanese, Sanskrit and Tagalog, which are in no other alphabet.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

import fasttriplet as ft

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "omniglot"
BATCHES = 3400  # of a training
_TRAINING = """
    --framework torch --network torch:omniglot_network:strided,mean=255,std=255
    --batch-size 360 --bag-size 4800 --images-per-identity 5 --pairs hardest --margin 0.1
    --learning-rate 0.25 --lr-schedule linear --no-mirror
"""
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


def write_varied(folder: Path, side: int, variants: int) -> Path:
    """A training set in which each character, turned by 0, 90, 180 and 270 degrees and mirrored, is eight.

    Of each image there are this many variants, of which all but the first are turned, stretched, slanted and
    moved a little.
    """
    path = folder / "varied.rec"
    eight = [
        (label, images, mirror, turn, side, variants)
        for label, (images, mirror, turn) in enumerate(
            (images, mirror, turn)
            for images in _characters(1).values()
            for mirror in (False, True)
            for turn in _TURNS
        )
    ]
    key = 0
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool, ft.RecordWriter(path) as writer:
        for label, pictures in enumerate(pool.map(_variants, eight, chunksize=16)):
            for content in pictures:
                writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
                key += 1
    return path


def trained(rec: Path, out: Path, batches: int, seed: int, *more: object) -> tuple[str, float]:
    """Train a network by the command, on what :func:`write_varied` writes; its spec and the seconds.

    The flags `more` come last, so that they count.
    """
    words = [sys.executable, "-m", "fasttriplet", "train", "--rec", rec, "--out", out, *_TRAINING.split()]
    words += ["--batches", batches, "--seed", seed, *more]
    began = time.perf_counter()
    subprocess.run(list(map(str, words)), check=True, cwd=Path(__file__).parent, capture_output=True)
    return f"torch:{out}", time.perf_counter() - began


def _variants(of: tuple[int, list[Image.Image], bool, Image.Transpose | None, int, int]) -> list[bytes]:
    label, images, mirror, turn, side, variants = of
    rng, found = np.random.default_rng(label), []
    for image in images:
        seen = image.transpose(_MIRRORED) if mirror else image
        seen = seen if turn is None else seen.transpose(turn)
        found += [_png(seen if number == 0 else _varied(seen, rng), side) for number in range(variants)]
    return found


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
    encoded = io.BytesIO()
    image.resize((side, side), Image.Resampling.LANCZOS).save(encoded, "PNG")
    return encoded.getvalue()
