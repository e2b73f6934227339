"""Ids of images: one number per image of a dataset, whatever its files."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttriplet.dataset._ids import ids_of, image_ids, integers, places_among, positions_of


def test_the_id_is_the_key_and_above_it_the_file() -> None:
    rows = pl.DataFrame({"key": [5, 0, 2**48 - 1, 5]})
    assert image_ids(rows).tolist() == [5, 0, 2**48 - 1, 5]
    files = pl.Series("file", [0, 1, 1, 3], dtype=pl.UInt32)
    ids = image_ids(rows.with_columns(files))
    assert ids.tolist() == [5, 2**48, 2**49 - 1, 5 + 3 * 2**48]
    assert image_ids(rows[:0].with_columns(files[:0])).shape == (0,)


def test_any_key_will_do_in_a_single_file() -> None:
    assert image_ids(pl.DataFrame({"key": [-(2**63), 2**63 - 1]})).tolist() == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize("key", [-1, 2**48])
def test_keys_of_several_files_fit_48_bits(key: int) -> None:
    with pytest.raises(ValueError, match=r"of several files, keys must be from 0 to 2\*\*48 - 1"):
        image_ids(pl.DataFrame({"key": [3, key], "file": [0, 1]}))


def test_keys_of_no_image_need_no_bits() -> None:
    assert ids_of(np.array([-5]), np.array([0], np.uint32)).tolist() == [-5]  # of the first file alone
    assert ids_of(np.empty(0, np.int64), np.empty(0, np.uint32)).shape == (0,)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (3, "int64 of shape ()"),
        ([[1]], "int64 of shape (1, 1)"),
        ([0.5], "float64 of shape (1,)"),
        ([True], "bool of shape (1,)"),
    ],
)
def test_what_is_no_list_of_integers(values: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'rows must be a list of integers, not {found}')}$"):
        integers("rows", values)


def test_lists_of_integers_are_contiguous() -> None:
    for values in ([], np.zeros(0), [3, 1], np.array([3, 9, 1], ">i2")[::2], range(3)):
        found = integers("rows", values)  # type: ignore[arg-type]
        assert found.dtype == np.int64
        assert found.flags.carray
        assert found.tolist() == list(values)


@given(st.sets(st.integers(-9, 9)), st.lists(st.integers(-11, 11)))
def test_places_of_ids(known: set[int], ids: list[int]) -> None:
    ascending = sorted(known)
    found = places_among(np.array(ascending, np.int64), np.array(ids, np.int64))
    assert found.tolist() == [ascending.index(one) if one in known else -1 for one in ids]


@given(st.data(), st.lists(st.integers(-99, 99), unique=True, min_size=1))
def test_positions_of_ids(data: st.DataObject, ids: list[int]) -> None:
    wanted = data.draw(st.lists(st.sampled_from(ids)))
    found = positions_of(np.array(ids), np.array(wanted, np.int64))
    assert found.tolist() == [ids.index(one) for one in wanted]
