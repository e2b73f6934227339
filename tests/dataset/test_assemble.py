"""Arguments that `assemble` takes and refuses: pixels, rows, ids, seeds, and `out`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.dataset.plain_augment import (
    EVERYTHING,
    Batch,
    noise,
    plain,
    same_bits,
)


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


@pytest.mark.parametrize("size", [(5, 7), (3, 1), (1, 1), (4, 300)])
def test_out_may_have_its_channels_last(size: tuple[int, int]) -> None:
    pixels, rows = noise(3, *size), [2, 0, 2, 1]
    for augment in (None, ft.Augment(mirror=True), EVERYTHING):
        expected = ft.assemble(pixels, rows, augment=augment, seed=1)
        larger = np.full((8, *size, 3), np.nan, np.float32)
        part = larger[2:6].transpose(0, 3, 1, 2)
        assert ft.assemble(pixels, rows, augment=augment, seed=1, out=part) is part
        assert same_bits(np.ascontiguousarray(part), expected)
        assert np.isnan(larger[:2]).all()
        assert np.isnan(larger[6:]).all()


def test_out_is_not_what_the_batch_is_made_of() -> None:
    memory = np.zeros(2 * 4 * 5 * 3 * 4, np.uint8)
    out = memory.view(np.float32).reshape(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"^out must not share memory with what it is made of$"):
        ft.assemble(memory[-120:].reshape(2, 4, 5, 3), out=out)
    rows = memory[-16:].view(np.int64)
    with pytest.raises(ValueError, match=r"^out must not share memory with what it is made of$"):
        ft.assemble(noise(2, 4, 5), rows, out=out)


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
        (np.empty((2, 3, 5, 4), np.float32).transpose(0, 1, 3, 2), "out must be C-contiguous"),
        (np.empty((4, 4, 5, 3), np.float32)[::2].transpose(0, 3, 1, 2), "out must be C-contiguous"),
        (np.empty((4, 3, 4, 5), np.float32)[::2], "out must be C-contiguous"),
        (read_only(), "and transposed; aligned and writeable"),
        (np.zeros(481, np.uint8)[1:].view(np.float32).reshape(2, 3, 4, 5), "aligned and writeable"),
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
        ({"ids": [1]}, "there are 2 images but 1 id"),
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
        with pytest.raises(ValueError, match="there are 0 images but 1 id"):
            ft.assemble(pixels, [], augment=augment, ids=[1])
    assert ft.assemble(np.zeros((0, 4, 5, 3), np.uint8), augment=augment).shape == (0, 3, 4, 5)
    assert ft.assemble(np.zeros((2, 0, 5, 3), np.uint8), augment=augment).shape == (2, 3, 0, 5)
    assert ft.assemble(np.zeros((2, 4, 0, 3), np.uint8), [1], augment=augment).shape == (1, 3, 4, 0)
    with pytest.raises(ValueError, match="rows must be"):
        ft.assemble(np.zeros((0, 4, 5, 3), np.uint8), [0], augment=augment)
