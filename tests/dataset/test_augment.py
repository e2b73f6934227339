"""Batches for networks against the definition in plain NumPy, image by image."""

from __future__ import annotations

import io
import math
import random
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from fasttriplet import _core
from tests.reference import GOLDEN, MASK64, mix64
from tests.small_rec import write_rec

Pixels = NDArray[np.uint8]
Batch = NDArray[np.float32]
Wide = NDArray[np.float64]

MIRROR, CUT_Y, CUT_X, BRIGHTNESS, CONTRAST, SATURATION = range(6)
GREY = (0.299, 0.587, 0.114)
COLOURS = ("brightness", "contrast", "saturation")
EVERYTHING = ft.Augment(mirror=True, cutoff=6, brightness=0.5, contrast=0.5, saturation=0.5)


def number(seed: int, identifier: int, choice: int) -> int:
    """The 64 random bits behind one choice for an image."""
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
    """All changes together: of each channel its factors of R, G, B and its offset, as (3, 4) float32."""
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
inner_amounts = st.floats(0.01, 0.99)
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


@settings(max_examples=300, deadline=None)
@given(images(), augments, seeds, st.data())
def test_equals_the_definition_on_every_instruction_set(
    pixels: Pixels, augment: ft.Augment, seed: int, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(pixels) - 1), max_size=5), label="rows")
    ids = data.draw(st.lists(signed_ids, min_size=len(rows), max_size=len(rows)), label="ids")
    expected, before = plain(pixels, rows, augment, ids, seed), pixels.copy()
    with pytest.MonkeyPatch.context() as patch:
        for name in _core.instruction_sets():
            patch.setenv("FASTTRIPLET_ISA", name)
            found = ft.assemble(pixels, rows, augment=augment, ids=ids, seed=seed)
            assert same_bits(found, expected), name
    assert np.array_equal(pixels, before)


@settings(max_examples=100, deadline=None)
@given(images(), augments, seeds)
def test_by_default_all_images_by_row(pixels: Pixels, augment: ft.Augment, seed: int) -> None:
    rows = list(range(len(pixels)))
    assert same_bits(
        ft.assemble(pixels, augment=augment, seed=seed), plain(pixels, rows, augment, rows, seed)
    )
    backwards = rows[::-1]
    found = ft.assemble(pixels, backwards, augment=augment, seed=seed)
    assert same_bits(found, plain(pixels, backwards, augment, backwards, seed))
    for nothing in (None, ft.Augment()):
        unchanged = ft.assemble(pixels, augment=nothing, seed=seed)
        assert same_bits(unchanged, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32))
    assert same_bits(ft.assemble(pixels, augment=augment), plain(pixels, rows, augment, rows, 0))  # seed 0


@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("width", [*range(1, 70), 127, 128, 129])
def test_every_width_around_the_vectors(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, rows = noise(4, height, width), [3, 0, 0, 2, 1]
    ids = [5, -1, 8, 2**62, 5]
    plans = [ft.Augment(), ft.Augment(mirror=True), ft.Augment(mirror=True, cutoff=4), EVERYTHING]
    for augment in plans:
        expected = plain(pixels, rows, augment, ids, 11)
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            assert same_bits(ft.assemble(pixels, rows, augment=augment, ids=ids, seed=11), expected), name


def test_augmentation_is_frozen() -> None:
    """Choices are a promise between versions: these values must not change."""
    pixels = (np.arange(8 * 9 * 3) * 37 % 256).astype(np.uint8).reshape(1, 8, 9, 3)
    rows, ids = [0] * 24, range(-4, 20)
    mirrored = ft.assemble(pixels, rows, augment=ft.Augment(mirror=True), ids=ids, seed=7)
    first = "".join("01"[int(image[0, 0, 0] > 0)] for image in mirrored)
    assert first == "010011011111100100011010"
    batch = ft.assemble(pixels, rows, augment=EVERYTHING, ids=ids, seed=7)
    assert zlib.crc32(batch.tobytes()) == 0x92D37BF3
    assert [number(7, -1, choice) for choice in (MIRROR, SATURATION)] == [
        0x68BEA7BDC5F5ED19,
        0xE0DEABCA76EBBA59,
    ]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.uint64, ">i8", np.int64])
def test_any_integers_and_any_layout_of_them(dtype: Any) -> None:
    pixels = noise(4, 5, 6)
    rows, ids = np.array([3, 1, 1, 0], dtype), np.array([100, 4, 5, 6], dtype)
    expected = plain(pixels, rows.tolist(), EVERYTHING, ids.tolist(), 3)
    assert same_bits(ft.assemble(pixels, rows, augment=EVERYTHING, ids=ids, seed=3), expected)
    apart = np.repeat(rows, 2)[::2], np.repeat(ids[::-1], 2)[::-2]
    assert same_bits(ft.assemble(pixels, apart[0], augment=EVERYTHING, ids=apart[1], seed=3), expected)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    assert same_bits(ft.assemble(frozen, rows, augment=EVERYTHING, ids=ids, seed=np.uint64(3)), expected)  # type: ignore[arg-type]


def test_unsigned_ids_are_the_signed_ones_of_the_same_bits() -> None:
    pixels = noise(2, 9, 9)
    big = np.array([2**64 - 1, 2**63], np.uint64)
    found = ft.assemble(pixels, augment=EVERYTHING, ids=big, seed=2)
    assert same_bits(found, ft.assemble(pixels, augment=EVERYTHING, ids=[-1, -(2**63)], seed=2))
    assert same_bits(found, plain(pixels, [0, 1], EVERYTHING, big.tolist(), 2))


def textbook(image: Wide, changes: list[tuple[str, float]]) -> Wide:
    """One change after another on all pixels, as InsightFace writes them."""
    for kind, alpha in changes:
        grey = (image * np.array(GREY)).sum(axis=2, keepdims=True)
        if kind == "B":
            image = image * alpha
        elif kind == "C":
            image = image * alpha + (1 - alpha) * grey.mean()
        else:
            image = image * alpha + (1 - alpha) * grey
    return image


@settings(max_examples=150, deadline=None)
@given(images(), augments, seeds, signed_ids)
@example(noise(3, 40, 40), ft.Augment(brightness=1, contrast=1, saturation=1), 5, 9)
def test_colours_are_the_textbooks(pixels: Pixels, augment: ft.Augment, seed: int, first: int) -> None:
    colours = {name: getattr(augment, name) for name in COLOURS}
    ids = [(first + i + 2**63) % 2**64 - 2**63 for i in range(len(pixels))]
    found = ft.assemble(pixels, augment=ft.Augment(**colours), ids=ids, seed=seed)
    for image, result, i in zip(pixels, found, ids, strict=True):
        changes = random.Random(i).sample(list(colour_changes(augment, seed, i).items()), 3)  # in any order
        expected = textbook(image.astype(np.float64), changes)
        assert np.allclose(result.transpose(1, 2, 0), expected, rtol=0, atol=1e-3)


def with_amount(augment: ft.Augment, name: str, amount: float) -> ft.Augment:
    options: dict[str, Any] = {name: amount}
    return replace(augment, **options)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(ft.Augment, brightness=inner_amounts, contrast=inner_amounts, saturation=inner_amounts),
    st.sampled_from(COLOURS),
    st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 3, 3])),
    seeds,
    st.integers(0, 2**32),
)
def test_colours_are_composed_as_defined(
    augment: ft.Augment, name: str, entry: tuple[int, int], seed: int, identifier: int
) -> None:
    """On both sides of the amount where one number of the map is rounded the other way.

    It is only there that the order of the float64 operations reaches the float32.
    """
    pixels = noise(1, 7, 13, identifier)
    pixels[0, 0, :3], pixels[0, 1, :3] = np.eye(3) * 255, np.eye(3) * 3
    pixels[0, 2, 0] = 0

    def rounded(amount: float) -> float:
        changes = colour_changes(with_amount(augment, name, amount), seed, identifier)
        return float(colour_map(pixels[0], changes)[entry])

    low = getattr(augment, name)
    high = low + 0.01
    first = rounded(low)
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if rounded(middle) != first else (middle, high)
    for amount in (low, high):
        near = with_amount(augment, name, amount)
        found = ft.assemble(pixels, augment=near, ids=[identifier], seed=seed)
        assert same_bits(found, plain(pixels, [0], near, [identifier], seed))


def test_values_are_not_clipped() -> None:
    pixels = noise(200, 6, 6)
    found = ft.assemble(pixels, augment=ft.Augment(brightness=1, contrast=1, saturation=1))
    assert found.min() < -20
    assert found.max() > 400
    assert not np.array_equal(found, np.rint(found))


@settings(max_examples=100, deadline=None)
@given(images(), augments, seeds, st.data())
def test_an_image_depends_on_its_id_and_the_seed_alone(
    pixels: Pixels, augment: ft.Augment, seed: int, data: st.DataObject
) -> None:
    known = st.tuples(st.integers(0, len(pixels) - 1), signed_ids)
    batch = data.draw(st.lists(known, min_size=1, max_size=6), label="rows and ids")
    rows, ids = [row for row, _ in batch], [i for _, i in batch]
    together = ft.assemble(pixels, rows, augment=augment, ids=ids, seed=seed)
    order = data.draw(st.permutations(range(len(batch))), label="order")
    shuffled = ft.assemble(
        pixels, [rows[at] for at in order], augment=augment, ids=[ids[at] for at in order], seed=seed
    )
    assert same_bits(shuffled, together[list(order)])
    for (row, i), image in zip(batch, together, strict=True):
        alone = ft.assemble(pixels[row : row + 1], [0], augment=augment, ids=[i], seed=seed)
        assert same_bits(alone[0], image)
    assert same_bits(ft.assemble(pixels, rows, augment=augment, ids=ids, seed=seed), together)


def ramps(count: int, side: int = 20) -> Pixels:
    """Grey images that are dark on the left and bright on the right."""
    row = np.linspace(40, 200, side).astype(np.uint8)
    return np.broadcast_to(row[None, None, :, None], (count, side, side, 3)).copy()


def is_mirrored(batch: Batch) -> NDArray[np.bool_]:
    """Which of the ramps run down to the right, seen by the pairs of neighbours that are not cut."""
    steps = np.diff(batch[:, 0], axis=2)
    whole = (batch[:, 0, :, 1:] != 127.5) & (batch[:, 0, :, :-1] != 127.5)
    down, up = ((steps < 0) & whole).sum((1, 2)), ((steps > 0) & whole).sum((1, 2))
    assert ((down > 0) ^ (up > 0)).all()
    mirrored: NDArray[np.bool_] = down > 0
    return mirrored


def cut(batch: Batch) -> NDArray[np.bool_]:
    """Which pixels are cut out, in all channels."""
    squares = batch == 127.5
    assert (squares == squares[:, :1]).all()
    everywhere: NDArray[np.bool_] = squares[:, 0]
    return everywhere


@pytest.mark.parametrize(
    "more",
    [
        {"cutoff": 1},
        {"cutoff": 8},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"cutoff": 8, "brightness": 0.125, "contrast": 0.125, "saturation": 0.125},
    ],
)
def test_a_change_leaves_the_others_choices_alone(more: dict[str, Any]) -> None:
    pixels = ramps(100)
    mirrored = is_mirrored(ft.assemble(pixels, augment=ft.Augment(mirror=True), seed=4))
    assert 20 < mirrored.sum() < 80
    both = ft.assemble(pixels, augment=ft.Augment(mirror=True, **more), seed=4)
    assert np.array_equal(is_mirrored(both), mirrored)
    # The mirror moves no square and changes no factor: a ramp and its mirror image have the same colours.
    without = ft.assemble(pixels, augment=ft.Augment(**more), seed=4)
    assert np.array_equal(cut(both), cut(without))
    assert not is_mirrored(without).any()
    turned = both.copy()
    turned[mirrored] = turned[mirrored][..., ::-1]
    intact = ~(cut(turned) | cut(without))[:, None] & np.ones_like(turned, dtype=bool)
    assert np.array_equal(turned[intact], without[intact])


@pytest.mark.parametrize("name", COLOURS)
def test_each_colour_has_a_factor_of_its_own(name: str) -> None:
    pixels = noise(1, 4, 4)
    choice = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION}[name]
    ids, options = range(-20, 20), dict[str, Any]({name: 0.75})
    found = ft.assemble(pixels, [0] * 40, augment=ft.Augment(**options), ids=ids, seed=8)
    for i, image in zip(ids, found, strict=True):
        kind = name[0].upper()
        expected = textbook(pixels[0].astype(np.float64), [(kind, factor(0.75, 8, i, choice))])
        assert np.allclose(image.transpose(1, 2, 0), expected, rtol=0, atol=1e-3)


def test_an_odd_square_counts_as_the_even_one_below() -> None:
    pixels = noise(50, 12, 15)
    for even in (0, 2, 4, 20):
        plans = [ft.Augment(cutoff=cutoff) for cutoff in (even, even + 1)]
        assert same_bits(ft.assemble(pixels, augment=plans[1]), ft.assemble(pixels, augment=plans[0]))
    assert same_bits(ft.assemble(pixels, augment=ft.Augment(cutoff=1)), ft.assemble(pixels))
    assert (ft.assemble(pixels, augment=ft.Augment(cutoff=30)) == 127.5).all()


def evenly(counts: NDArray[np.integer[Any]]) -> bool:
    """Whether each count lies within five standard errors of their mean."""
    mean = counts.sum() / counts.size
    return bool((np.abs(counts - mean) < 5 * math.sqrt(mean * (1 - 1 / counts.size))).all())


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("step", [1, 2**32, -1])
def test_choices_are_even(seed: int, step: int) -> None:
    """Of 4,000 images whose ids follow each other."""
    count, side = 4000, 8
    rows, ids = np.zeros(count, np.int64), np.arange(count) * step
    mirrored = is_mirrored(
        ft.assemble(ramps(1, side), rows, augment=ft.Augment(mirror=True), ids=ids, seed=seed)
    )
    assert evenly(np.bincount(mirrored, minlength=2))
    squares = cut(ft.assemble(ramps(1, side), rows, augment=ft.Augment(cutoff=2), ids=ids, seed=seed))
    assert (squares.sum((1, 2)) > 0).all()
    # A square of side 2 ends in the row and the column of its centre.
    y, x = (side - 1 - squares.any(axis)[:, ::-1].argmax(1) for axis in (2, 1))
    assert evenly(np.bincount(y * side + x, minlength=side * side))
    plan = ft.Augment(brightness=0.5)
    bright = ft.assemble(np.full((1, 1, 1, 3), 200, np.uint8), rows, augment=plan, ids=ids, seed=seed)
    factors = bright[:, 0, 0, 0] / 200
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() <= 1.5
    assert evenly(np.histogram(factors, bins=10, range=(0.5, 1.5))[0])
    # None tells of another, nor of that of the next image.
    choices = np.array([mirrored, y, x, factors, np.roll(mirrored, 1), np.roll(y, 1), np.roll(factors, 1)])
    between = np.corrcoef(choices) - np.eye(len(choices))
    assert np.abs(between).max() < 5 / math.sqrt(count)


def test_epochs_differ() -> None:
    pixels, rows = ramps(1), np.zeros(1000, np.int64)
    plan = ft.Augment(mirror=True, cutoff=4, brightness=0.25)
    ids = np.arange(1000)
    epochs = [
        ft.assemble(pixels, rows, augment=plan, ids=ids, seed=ft.epoch_seed(0, epoch)) for epoch in range(3)
    ]
    for one in range(3):
        for other in range(one):
            apart = is_mirrored(epochs[one]) != is_mirrored(epochs[other])
            assert evenly(np.bincount(apart, minlength=2))
            same = [np.array_equal(a, b) for a, b in zip(epochs[one], epochs[other], strict=True)]
            assert not any(same)


def test_out_is_filled_and_returned() -> None:
    pixels, rows = noise(3, 5, 7), [2, 0, 2, 1]
    for augment in (None, EVERYTHING):
        expected = ft.assemble(pixels, rows, augment=augment, seed=1)
        out = np.full((4, 3, 5, 7), np.nan, np.float32)
        assert ft.assemble(pixels, rows, augment=augment, seed=1, out=out) is out
        assert same_bits(out, expected)
        larger = np.full((8, 3, 5, 7), np.nan, np.float32)
        part = larger[2:6]
        assert ft.assemble(pixels, rows, augment=augment, seed=1, out=part) is part
        assert same_bits(larger[2:6], expected)
        assert np.isnan(larger[:2]).all()
        assert np.isnan(larger[6:]).all()


def read_only() -> Batch:
    out = np.empty((2, 3, 4, 5), np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((2, 3, 4, 5), np.float64), "out must be (2, 3, 4, 5) float32, not float64 of shape"),
        (np.empty((2, 3, 4, 5), np.dtype(np.float32).newbyteorder()), "out must be (2, 3, 4, 5) float32"),
        (np.empty((2, 4, 5, 3), np.float32), "out must be (2, 3, 4, 5) float32, not float32 of shape (2, 4"),
        (np.empty((1, 3, 4, 5), np.float32), "out must be (2, 3, 4, 5) float32"),
        (np.empty((3, 3, 4, 5), np.float32), "out must be (2, 3, 4, 5) float32"),
        (np.empty((2, 60), np.float32), "out must be (2, 3, 4, 5) float32"),
        ([[0.0]], "out must be (2, 3, 4, 5) float32, not list"),
        (np.empty((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2), "out must be C-contiguous"),
        (np.empty((4, 3, 4, 5), np.float32)[::2], "out must be C-contiguous"),
        (read_only(), "out must be C-contiguous, aligned and writeable"),
    ],
)
@pytest.mark.parametrize("augment", [None, EVERYTHING])
def test_a_wrong_out_is_named(out: Any, message: str, augment: ft.Augment | None) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ft.assemble(noise(2, 4, 5), augment=augment, out=out)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 4, 5, 3), np.float32), "pixels must be (N, H, W, 3) uint8, not float32"),
        (np.zeros((2, 4, 5, 3), np.int8), "pixels must be (N, H, W, 3) uint8, not int8"),
        (np.zeros((4, 5, 3), np.uint8), "pixels must be (N, H, W, 3) uint8, not uint8 of shape (4, 5, 3)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "pixels must be (N, H, W, 3) uint8"),
        (np.zeros((2, 4, 5, 4), np.uint8), "pixels must be (N, H, W, 3) uint8"),
        ([[[[1, 2, 3]]]], "pixels must be (N, H, W, 3) uint8, not list"),
        (np.zeros((4, 4, 5, 3), np.uint8)[::2], "pixels must be C-contiguous"),
        (np.zeros((2, 4, 5, 3), np.uint8)[:, :, ::-1], "pixels must be C-contiguous"),
    ],
)
def test_wrong_pixels_are_named(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ft.assemble(pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": [0, 2]}, "rows must be below 2, the number of images"),
        ({"rows": [-1, 0]}, "rows must be below 2"),
        ({"rows": [-(2**63), 2**63 - 1]}, "rows must be below 2"),
        ({"rows": np.array([2**64 - 1], np.uint64)}, "rows must be"),
        ({"rows": [2**64]}, "rows must be"),
        ({"rows": [0.0]}, "rows must be a list of integers, not float64"),
        ({"rows": [True]}, "rows must be a list of integers, not bool"),
        ({"rows": [[0]]}, "rows must be a list of integers"),
        ({"rows": 0}, "rows must be a list of integers"),
        ({"rows": ["0"]}, "rows must be a list of integers"),
        ({"ids": [1]}, "there are 2 images but 1 ids"),
        ({"ids": [1, 2, 3]}, "there are 2 images but 3 ids"),
        ({"ids": []}, "there are 2 images but 0 ids"),
        ({"rows": [0, 1, 1], "ids": [1, 2]}, "there are 3 images but 2 ids"),
        ({"ids": [1.0, 2.0]}, "ids must be a list of integers, not float64"),
        ({"ids": [2**64, 0]}, "ids must be a list of integers"),
        ({"ids": 3}, "ids must be a list of integers"),
        ({"seed": -1}, "seed must be a whole number >= 0, not -1"),
        ({"seed": 2**64}, "seed must be a whole number up to 18446744073709551615"),
        ({"seed": 0.5}, "seed must be a whole number >= 0, not 0.5"),
        ({"seed": True}, "seed must be a whole number >= 0, not True"),
    ],
)
@pytest.mark.parametrize("augment", [None, EVERYTHING])
def test_wrong_rows_ids_and_seeds_are_named(
    options: dict[str, Any], message: str, augment: ft.Augment | None
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ft.assemble(noise(2, 4, 5), augment=augment, **options)
    out = np.full((np.size(options.get("rows", [0, 1])), 3, 4, 5), 7, np.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        ft.assemble(noise(2, 4, 5), augment=augment, out=out, **options)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": -1}, "cutoff must be a whole number >= 0, not -1"),
        ({"cutoff": 1.5}, "cutoff must be a whole number >= 0, not 1.5"),
        ({"cutoff": True}, "cutoff must be a whole number >= 0, not True"),
        ({"cutoff": "4"}, "cutoff must be a whole number >= 0, not '4'"),
        ({"cutoff": None}, "cutoff must be"),
        ({"cutoff": 2**31}, "cutoff must be a whole number up to 2147483647"),
        ({"mirror": 1}, "mirror must be True or False, not 1"),
        ({"mirror": None}, "mirror must be True or False, not None"),
        ({"mirror": "yes"}, "mirror must be True or False, not 'yes'"),
        *(
            ({name: value}, f"{name} must be a number from 0 to 1, not {value!r}")
            for name in COLOURS
            for value in (-0.1, 1.5, math.nan, math.inf, -math.inf, "a", True, None, [0.5], 2)
        ),
    ],
)
def test_wrong_values_of_augment_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ft.Augment(**options)


@pytest.mark.parametrize("name", COLOURS)
def test_whole_numbers_beyond_floats_are_out_of_range(name: str) -> None:
    options: dict[str, Any] = {name: 10**400}
    with pytest.raises(ValueError, match=f"{name} must be a number from 0 to 1, not 1000"):
        ft.Augment(**options)


def test_augment_takes_numpys_scalars() -> None:
    scalars: dict[str, Any] = {
        "mirror": np.bool_(True),
        "cutoff": np.int16(6),
        "brightness": np.float32(0.5),
        "contrast": np.float64(0.5),
        "saturation": 1,
    }
    plan = ft.Augment(**scalars)
    plain_values = ft.Augment(mirror=True, cutoff=6, brightness=0.5, contrast=0.5, saturation=1.0)
    assert plan == plain_values
    pixels = noise(9, 10, 11)
    assert same_bits(ft.assemble(pixels, augment=plan), ft.assemble(pixels, augment=plain_values))


@pytest.mark.parametrize("augment", [None, EVERYTHING])
def test_empty_batches(augment: ft.Augment | None) -> None:
    for count in (0, 2):
        pixels = np.zeros((count, 4, 5, 3), np.uint8)
        nothing: tuple[Any, ...] = ([], (), np.zeros(0, np.int64), np.zeros(0))
        for rows in nothing:
            batch = ft.assemble(pixels, rows, augment=augment)
            assert batch.shape == (0, 3, 4, 5)
            assert batch.dtype == np.float32
        out = np.empty((0, 3, 4, 5), np.float32)
        assert ft.assemble(pixels, [], augment=augment, ids=[], out=out) is out
        with pytest.raises(ValueError, match="there are 0 images but 1 ids"):
            ft.assemble(pixels, [], augment=augment, ids=[1])
    assert ft.assemble(np.zeros((0, 4, 5, 3), np.uint8), augment=augment).shape == (0, 3, 4, 5)
    assert ft.assemble(np.zeros((2, 0, 5, 3), np.uint8), augment=augment).shape == (2, 3, 0, 5)
    assert ft.assemble(np.zeros((2, 4, 0, 3), np.uint8), [1], augment=augment).shape == (1, 3, 4, 0)
    with pytest.raises(ValueError, match="rows must be"):
        ft.assemble(np.zeros((0, 4, 5, 3), np.uint8), [0], augment=augment)


def test_decoded_planes_are_the_images_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", {3: 0, 10: 1, 4: 2, 7: 0, 1: 5, 2**40: 1}))
    orders: list[list[int]] = [[3, 10, 4, 7, 1, 2**40], [2**40, 1, 7, 4, 10, 3], [7, 7, 3, 4, 7], [1]]
    for keys in orders:
        images = file.decode(keys)
        assert images.shape == (len(keys), 24, 24, 3)
        assert images.dtype == np.uint8
        assert np.array_equal(images, np.concatenate([file.decode([key]) for key in keys]))
        expected = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            for threads in (1, 3, None):
                assert same_bits(file.decode(keys, layout="NCHW", threads=threads), expected)
                assert np.array_equal(file.decode(keys, layout="NHWC", threads=threads), images)
        assert same_bits(ft.assemble(images), expected)
        assert same_bits(file.decode(np.array(keys), layout="NCHW"), expected)
    assert len({image.tobytes() for image in file.decode(orders[0])}) == 6
    empty = file.decode([], layout="NCHW")
    assert empty.shape == file.decode([]).transpose(0, 3, 1, 2).shape
    assert empty.dtype == np.float32


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9), (3, 257), (33, 65)])
def test_decoded_planes_of_any_size_and_kind(size: tuple[int, int], tmp_path: Path) -> None:
    pictures = [Image.fromarray(image) for image in noise(3, *size, seed=5)]
    contents = [
        encoded(pictures[0], "PNG"),
        encoded(pictures[1], "JPEG"),
        encoded(pictures[2].convert("L"), "JPEG"),
        encoded(pictures[2].convert("L"), "PNG"),
    ]
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key, content in enumerate(contents):
            writer.write(key, ft.IRHeader(0, 0.0, key, 0), content)
    file, keys = ft.RecordFile(tmp_path / "a.rec"), [2, 0, 3, 1, 1]
    expected = np.ascontiguousarray(file.decode(keys).transpose(0, 3, 1, 2), dtype=np.float32)
    assert same_bits(file.decode(keys, layout="NCHW"), expected)
    assert np.array_equal(expected[1].transpose(1, 2, 0), np.asarray(pictures[0]))


@pytest.mark.parametrize("threads", [1, 2, None])
def test_what_cannot_be_decoded_is_named(tmp_path: Path, threads: int | None) -> None:
    labels = {key: key % 3 for key in range(1, 9)}
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", labels, frozenset({4, 6})))
    for keys, first in (([1, 2, 4, 5], 4), ([6], 6), ([8, 6, 4], 6), ([4, 1], 4)):
        with pytest.raises(ft.RecordError, match=rf"key {first}, ") as error:
            file.decode(keys, layout="NCHW", threads=threads)
        assert error.value.key == first
        with pytest.raises(ft.RecordError, match=re.escape(str(error.value))):
            file.decode(keys, threads=threads)
    with pytest.raises(KeyError, match="no record with key 99"):
        file.decode([1, 99], layout="NCHW", threads=threads)
    assert file.decode([1, 2, 3, 5, 7, 8], layout="NCHW", threads=threads).shape == (6, 3, 24, 24)


@pytest.mark.parametrize("layout", ["nchw", "CHW", "", None, 0, "NHCW"])
def test_unknown_layouts_are_named(tmp_path: Path, layout: Any) -> None:
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", {1: 0}))
    with pytest.raises(ValueError, match="layout must be one of 'NHWC', 'NCHW', not"):
        file.decode([1], layout=layout)
