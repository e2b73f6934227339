"""The definition of augmented batches in plain NumPy, image by image."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from tests.reference import GOLDEN, MASK64, mix64

Pixels = NDArray[np.uint8]
Batch = NDArray[np.float32]
Wide = NDArray[np.float64]
MIRROR, CUT_Y, CUT_X, BRIGHTNESS, CONTRAST, SATURATION = range(6)
GREY = (0.299, 0.587, 0.114)
COLOURS = ("brightness", "contrast", "saturation")
EVERYTHING = ft.Augment(mirror=True, cutoff=6, brightness=0.5, contrast=0.5, saturation=0.5)


def number(seed: int, identifier: int, choice: int) -> int:
    """The 64 random bits that decide one choice for an image."""
    state = mix64(mix64((seed + 3 * GOLDEN) & MASK64) ^ (identifier & MASK64))
    return mix64((state + GOLDEN * (choice + 1)) & MASK64)


def factor(most: float, seed: int, identifier: int, choice: int) -> float:
    return 1 + most * (2 * ((number(seed, identifier, choice) >> 11) / 2**53) - 1)


def colour_changes(augment: ft.Augment, seed: int, identifier: int) -> dict[str, float]:
    """The factors of the changes, by their first letters."""
    return {
        "B": factor(augment.brightness, seed, identifier, BRIGHTNESS),
        "C": factor(augment.contrast, seed, identifier, CONTRAST),
        "S": factor(augment.saturation, seed, identifier, SATURATION),
    }


def colour_map(image: Pixels, changes: dict[str, float]) -> Batch:
    """All changes as one map, (3, 4) float32: the factors of R, G and B and an offset, for each channel."""
    means = [int(image[..., c].sum(dtype=np.int64)) / (image.shape[0] * image.shape[1]) for c in range(3)]
    grey = GREY[0] * means[0] + GREY[1] * means[1] + GREY[2] * means[2]
    b, c, s = changes["B"], changes["C"], changes["S"]
    rows = [
        [b * c * s * (other == own) + b * c * (1 - s) * GREY[other] for other in range(3)]
        + [b * (1 - c) * grey]
        for own in range(3)
    ]
    return np.array(rows, dtype=np.float32)


def plain_colours(image: Pixels, changes: dict[str, float]) -> Batch:
    r, g, b = (image[..., c].astype(np.float32) for c in range(3))
    changed = [
        ((of_r * r + of_g * g) + of_b * b) + offset for of_r, of_g, of_b, offset in colour_map(image, changes)
    ]
    return np.stack(changed, axis=-1)


def plain_image(image: Pixels, augment: ft.Augment, seed: int, identifier: int) -> Batch:
    height, width, _ = image.shape
    if augment.mirror and number(seed, identifier, MIRROR) >> 63:
        image = image[:, ::-1]
    changed = image.astype(np.float32)
    if augment.brightness or augment.contrast or augment.saturation:
        changed = plain_colours(image, colour_changes(augment, seed, identifier))
    if augment.cutoff > 0:
        half = augment.cutoff // 2
        y = (number(seed, identifier, CUT_Y) * height) >> 64
        x = (number(seed, identifier, CUT_X) * width) >> 64
        changed[max(0, y - half) : min(height, y + half), max(0, x - half) : min(width, x + half)] = 127.5
    return changed.transpose(2, 0, 1)


def plain(pixels: Pixels, rows: list[int], augment: ft.Augment, ids: list[int], seed: int) -> Batch:
    images = [plain_image(pixels[row], augment, seed, i) for row, i in zip(rows, ids, strict=True)]
    return np.array(images, dtype=np.float32).reshape(len(rows), 3, *pixels.shape[1:3])


def same_bits(batch: Batch, expected: Batch) -> bool:
    assert batch.dtype == expected.dtype == np.float32
    assert batch.flags.c_contiguous
    return batch.shape == expected.shape and batch.tobytes() == expected.tobytes()


def noise(count: int, height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


sides = st.integers(1, 40)
long_sides = st.sampled_from([255, 256, 257, 258, 511, 512, 513, 600])
sizes = st.tuples(sides, sides) | st.tuples(st.integers(1, 5), long_sides) | st.tuples(long_sides, st.just(2))
seeds = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**64 - GOLDEN])
signed_ids = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
amounts = st.sampled_from([0.0, 0.0, 0.125, 1.0, 5e-324]) | st.floats(0, 1)
augments = st.builds(
    ft.Augment,
    mirror=st.booleans(),
    cutoff=st.sampled_from([0, 0, 1, 2, 3, 2**31 - 1]) | st.integers(0, 90),
    brightness=amounts,
    contrast=amounts,
    saturation=amounts,
)


@st.composite
def images(draw: st.DrawFn) -> Pixels:
    """A few images of one size: noise, dark, bright or of one colour."""
    height, width = draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(["noise", "dark", "bright", "flat"]), min_size=1, max_size=3))
    pixels = rng.integers(0, 256, (len(kinds), height, width, 3), dtype=np.uint8)
    for image, kind in zip(pixels, kinds, strict=True):
        if kind == "flat":
            image[:] = image[0, 0]
        elif kind != "noise":
            image[:] = 255 * (kind == "bright")
    return pixels
