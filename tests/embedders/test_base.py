"""What all embedders share: when embeddings are given, and what is said of wrong images and vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttriplet.embedders._base import (
    check_embeddings,
    check_finite,
    check_images,
    image_named,
    is_embedding,
    one_ahead,
    started,
)
from tests.small_rec import random_table

ROWS = pl.DataFrame({"key": [5, 7, 9]})


class Begun:
    """Embeddings of an item that are done after some looks at them."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def done(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def result(self) -> Any:
        raise AssertionError


def test_embeddings_are_begun_where_that_can_be_done_and_computed_otherwise() -> None:
    table, begun = random_table(), Begun(0)
    here = started(table, ROWS, None)
    assert here.done() is True
    assert np.array_equal(here.result(), table.rows[[5, 7, 9]])
    images = np.zeros((3, 2, 2, 3), np.uint8)

    class Device:
        def start_embedding(self, rows: object, given: object) -> Begun:
            assert rows is ROWS
            assert given is images
            return begun

    device: Any = Device()
    assert started(device, ROWS, images) is begun


@given(st.lists(st.none() | st.sampled_from([0, 1, 99]), max_size=8))
def test_an_item_is_given_when_it_is_done_or_the_next_has_begun(looks: list[int | None]) -> None:
    log: list[tuple[str, int]] = []

    def items() -> Iterator[tuple[int, Begun | None]]:
        for number, count in enumerate(looks):
            log.append(("begin", number))
            yield number, None if count is None else Begun(count)

    for number, _ in one_ahead(items()):
        log.append(("give", number))
    expected: list[tuple[str, int]] = []
    held: list[int] = []  # at most one
    for number, count in enumerate(looks):
        expected.append(("begin", number))
        waits = 0 if count is None else count
        if held:  # this one is looked at after the one before has been given
            expected.append(("give", held.pop()))
        if waits > 0:
            held.append(number)
        else:
            expected.append(("give", number))
    expected += [("give", number) for number in held]
    assert log == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 5), True),
        ((3, 1), True),
        ((3, 5, 1), True),
        ((3, 5, 1, 1), True),
        ((3,), False),
        ((), False),
        ((2, 5), False),
        ((4, 5), False),
        ((3, 0), False),
        ((3, 5, 2), False),
        ((3, 5, 1, 2), False),
        ((3, 5, 0), False),
    ],
)
def test_shapes_of_embeddings(shape: Sequence[int], expected: bool) -> None:
    assert is_embedding(shape, 3) is expected


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (None, "nothing"),
        (np.zeros((3, 4, 4, 3), np.int8), "int8 (3, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.uint8), "uint8 (4, 4, 3)"),
        (np.zeros((3, 4, 4, 3, 1), np.uint8), "uint8 (3, 4, 4, 3, 1)"),
        (np.zeros((3, 4, 4, 4), np.uint8), "uint8 (3, 4, 4, 4)"),
        (np.zeros((3, 3, 4, 4), np.uint8), "uint8 (3, 3, 4, 4)"),
    ],
)
def test_images_that_are_none(images: Any, found: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"images must be (B, H, W, 3) uint8, got {found}")):
        check_images(ROWS, images)


def test_there_is_an_image_for_each_row() -> None:
    images = np.zeros((3, 4, 5, 3), np.uint8)
    assert check_images(ROWS, images) is images
    for count in (2, 4):
        with pytest.raises(ValueError, match=rf"^3 rows of the index but {count} images$"):
            check_images(ROWS, np.zeros((count, 4, 5, 3), np.uint8))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (4, 4), (3, 0), (3, 4, 1)])
def test_vectors_of_another_shape(shape: tuple[int, ...]) -> None:
    expected = f"a net: expected a vector for each of 3 images, (3, D), got an array of the shape {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        check_embeddings(np.zeros(shape), ROWS, "a net", np.float32)


def test_vectors_are_returned_as_floats_of_the_type() -> None:
    vectors = np.arange(3, dtype=np.float32)[:, None]
    assert check_embeddings(vectors, ROWS, "a net", np.float32) is vectors  # no copy
    wide = check_embeddings(vectors.tolist(), ROWS, "a net", np.float64)
    assert wide.dtype == np.float64
    assert wide.tolist() == vectors.tolist()
    with pytest.raises(ValueError, match=r"^a net: embeddings must be floating point, not int64$"):
        check_embeddings(np.zeros((3, 2), np.int64), ROWS, "a net", np.float32)


def test_vectors_that_are_not_finite_are_counted_and_the_first_is_named() -> None:
    vectors = np.zeros((3, 2))
    vectors[1, 1] = 1e300  # beyond float32
    of_one = "a net: the embedding of the image with key 7 holds NaN or infinity"
    with pytest.raises(ValueError, match=f"^{of_one}$"):
        check_embeddings(vectors, ROWS, "a net", np.float32)
    check_embeddings(vectors, ROWS, "a net", np.float64)
    vectors[2, 0] = np.nan
    with pytest.raises(ValueError, match=rf"^{of_one} \(2 of 3 images\)$"):
        check_embeddings(vectors, ROWS, "a net", np.float32)
    many = pl.DataFrame({"key": range(2000)})
    with pytest.raises(ValueError, match=r"key 0 holds NaN or infinity \(2,000 of 2,000 images\)$"):
        check_finite(np.full((2000, 1), np.inf), many, "a net")


def test_an_image_is_named_by_its_key_and_its_file() -> None:
    assert image_named(ROWS, 1) == "the image with key 7"
    assert image_named(ROWS.with_columns(file=pl.Series([0, 4, 0])), 1) == "the image with key 7 of file 4"
