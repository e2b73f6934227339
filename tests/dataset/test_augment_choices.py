"""Random choices for an image depend on its id and the seed alone, and are even and independent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from tests.dataset.plain_augment import (
    Batch,
    Pixels,
    augments,
    images,
    same_bits,
    seeds,
    signed_ids,
)


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
    """Which of the ramps run down to the right, judged by neighbouring pixels that are not cut."""
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


def evenly(counts: NDArray[np.integer[Any]]) -> bool:
    """Whether each count lies within five standard errors of their mean."""
    mean = counts.sum() / counts.size
    return bool((np.abs(counts - mean) < 5 * math.sqrt(mean * (1 - 1 / counts.size))).all())


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("step", [1, 2**32, -1])
def test_choices_are_even(seed: int, step: int) -> None:
    """For 4,000 images with ids in a row."""
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
    # No choice predicts another one, nor that of the next image.
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
