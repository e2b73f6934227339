"""The three forms of the mixer give what the definition gives."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet import _splitmix
from tests import reference

EDGES = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_ints_arrays_and_columns_agree_with_the_definition(drawn: list[int]) -> None:
    values = EDGES + drawn
    expected = [reference.mix64(value) for value in values]
    assert [_splitmix.mix(value) for value in values] == expected
    array = np.array(values, dtype=np.uint64)
    assert _splitmix.mix_array(array).tolist() == expected
    assert array.tolist() == values
    column = pl.Series("z", values, dtype=pl.UInt64).to_frame().select(_splitmix.mix_column(pl.col("z")))
    assert column["z"].to_list() == expected


def test_constants_are_those_of_splitmix64() -> None:
    """The first numbers of SplitMix64 with seed 1234567, as its authors' program prints them."""
    assert _splitmix.GOLDEN == reference.GOLDEN
    drawn = [_splitmix.mix(1234567 + count * _splitmix.GOLDEN) for count in range(1, 4)]
    assert drawn == [6457827717110365317, 3203168211198807973, 9817491932198370423]
