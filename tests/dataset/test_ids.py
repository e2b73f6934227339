"""Ids of images: one number per image of a dataset, whatever its files."""

from __future__ import annotations

import polars as pl
import pytest

from fasttriplet.dataset._ids import image_ids


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
