"""Checks that several stages make of their options, and the words of the errors."""

from __future__ import annotations

import numpy as np


def whole_number(name: str, value: int, least: int) -> int:
    """Return the option `name` as an int; a ValueError if it is less than `least`, or 1.5, or True."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}")
    return int(value)


def thread_count(threads: int | None) -> int | None:
    """Return the option `threads`, at least 1; None stands for one for each core."""
    return None if threads is None else whole_number("threads", threads, 1)


def image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the option `size`, height and width in pixels, each at least 1."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (height, width) in pixels, not {size!r}")
    height, width = size
    return whole_number("the height in size", height, 1), whole_number("the width in size", width, 1)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise a ValueError if the option `name` has a value that is not known."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
