"""Augmented batches equal the definition to the last bit, and the textbook's colours."""

from __future__ import annotations

import math
import random
import re
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet import _core
from tests.dataset.plain_augment import (
    BRIGHTNESS,
    COLOURS,
    CONTRAST,
    EVERYTHING,
    GREY,
    MIRROR,
    SATURATION,
    Pixels,
    Wide,
    augments,
    colour_changes,
    colour_map,
    factor,
    images,
    noise,
    number,
    plain,
    same_bits,
    seeds,
    signed_ids,
)


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


inner_amounts = st.floats(0.01, 0.99)


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
    """Amounts on both sides of the one where a number of the map is rounded the other way.

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


def test_the_least_and_the_most_of_each() -> None:
    for cutoff, share in ((0, 0), (2**31 - 1, 1), (1, 1.0)):
        plan = ft.Augment(cutoff=cutoff, brightness=share, contrast=share, saturation=share)
        assert (plan.cutoff, plan.saturation) == (cutoff, share)


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
