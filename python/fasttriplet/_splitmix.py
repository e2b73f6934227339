"""The finaliser of SplitMix64 (variant 13 of Stafford's 64-bit mixers), for ints, arrays and columns.

It maps 64 bits to 64 bits one to one, so that different inputs stay different. Orders and draws that are
promised to be the same in every version are made with it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of SplitMix64

_FACTOR_1, _FACTOR_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SHIFT_1, _SHIFT_2, _SHIFT_3 = 30, 27, 31
_MASK = (1 << 64) - 1


def mix(z: int) -> int:
    """Mix the low 64 bits of an int."""
    z &= _MASK
    z = ((z ^ (z >> _SHIFT_1)) * _FACTOR_1) & _MASK
    z = ((z ^ (z >> _SHIFT_2)) * _FACTOR_2) & _MASK
    return z ^ (z >> _SHIFT_3)


def mix_array(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix each element of an array."""
    z = (z ^ (z >> np.uint64(_SHIFT_1))) * np.uint64(_FACTOR_1)
    z = (z ^ (z >> np.uint64(_SHIFT_2))) * np.uint64(_FACTOR_2)
    return z ^ (z >> np.uint64(_SHIFT_3))


def mix_column(z: pl.Expr) -> pl.Expr:
    """Mix each row of a UInt64 column."""
    # Polars has no shift, so it divides by powers of two. Products wrap around.
    z = (z ^ (z // unsigned(1 << _SHIFT_1))) * unsigned(_FACTOR_1)
    z = (z ^ (z // unsigned(1 << _SHIFT_2))) * unsigned(_FACTOR_2)
    return z ^ (z // unsigned(1 << _SHIFT_3))


def unsigned(value: int) -> pl.Expr:
    """A literal of the type that :func:`mix_column` takes."""
    return pl.lit(value, dtype=pl.UInt64)
