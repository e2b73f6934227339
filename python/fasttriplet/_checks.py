"""Checks that several stages make of what they are given, and the words of the errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_THREADS = 256  # a call starts no more
_MOST_SEED = 2**64 - 1


def whole_number(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return the option `name` as an int; a ValueError if it is out of range, or 1.5, or True."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be a whole number up to {most}, not {value!r}")
    return int(value)


def thread_count(threads: int | None) -> int | None:
    """Return the option `threads`, at least 1; None stands for one for each core."""
    return None if threads is None else min(whole_number("threads", threads, 1), _MOST_THREADS)


def seed_number(seed: int) -> int:
    """Return the option `seed`, which fits 64 bits."""
    return whole_number("seed", seed, 0, _MOST_SEED)


def image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the option `size`, height and width in pixels, each at least 1."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (height, width) in pixels, not {size!r}")
    height, width = size
    return whole_number("the height in size", height, 1), whole_number("the width in size", width, 1)


def one_of(name: str, value: object, known: tuple[Any, ...]) -> None:
    """Raise a ValueError if the option `name` has a value that is not known."""
    if not any(type(value) is type(choice) and value == choice for choice in known):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


def rows_not_finite(rows: NDArray[np.float32]) -> list[int]:
    """Positions of the rows of an (N, D) array that hold NaN or infinity."""
    # One pass without a temporary of the same size: the sum of a row is finite only if each part is; a sum
    # that overflows by itself is told apart below.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(rows.sum(axis=1)))
    return [row for row in suspects.tolist() if not np.isfinite(rows[row]).all()]
