"""Labels as records hold them, in float32: what does not fit, and what they may mean besides identities."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._words import counted

# Up to here, float32 can hold every integer. 2^24 + 1 is rounded to 2^24.
EXACT = 2**24


def to_float32(key: int, label: object) -> tuple[float, list[float]]:
    """Return a header's label as a number, if it is one, and as a list otherwise.

    Raises
    ------
    ValueError
        If float32 would change a label beyond 2^24. Up to there integers are exact; fractions are rounded.
    """
    if label is None or isinstance(label, (str, bytes, complex)):
        raise ValueError(f"key {key}: label must be a number, or several, not {label!r}")
    try:
        if isinstance(label, numbers.Number):
            one = float(label)  # type: ignore[arg-type]
            return (one if abs(one) < EXACT else _rounded(key, np.array([one]), [label])[0]), []
        # As objects, too: NumPy itself makes float64 of a list of integers some of which only uint64 holds.
        return 0.0, _rounded(key, np.asarray(label).ravel(), np.asarray(label, object).ravel().tolist())
    except OverflowError:  # integers of more than 64 bits
        raise ValueError(f"key {key}: label {label} does not fit a float32") from None


def _rounded(key: int, values: NDArray[Any], labels: Sequence[Any]) -> list[float]:
    with np.errstate(over="ignore"):  # gives infinity, which is found below
        rounded: list[float] = values.astype(np.float32).tolist()
    for label, nearest in zip(labels, rounded, strict=True):
        # Python compares integers of any size with floats exactly.
        if abs(nearest) >= EXACT and label != nearest:
            raise ValueError(f"key {key}: {_why_not(label, nearest)}")
    return rounded


def _why_not(label: Any, nearest: float) -> str:
    if np.isinf(nearest):
        return f"label {label} does not fit a float32"
    away = np.float32(np.inf if label > nearest else -np.inf)
    low, high = sorted([int(nearest), int(np.nextafter(np.float32(nearest), away))])
    return (
        f"label {label} would become another one: records hold labels as float32, and the nearest are {low} "
        f"and {high}. Number the identities from 0"
    )


def problems(path: Path, scan: _core.Scan) -> list[str]:
    """Say why labels of images may not name identities; one line per reason."""
    found = []
    images = counted(scan.keys.size, "image")
    if 2 * scan.objects > scan.keys.size:
        found.append(
            f"{path}: the labels are those of object detection (im2rec's [2, 5, ...]; {scan.objects:,} of "
            f"{images}). The first is the length of their header and not an identity: triplets of these "
            "images mean nothing"
        )
    large = np.abs(scan.labels) >= EXACT
    if large.any():
        at = large.argmax()
        found.append(
            f"{path}: labels reach {EXACT:,} and more, where float32 skips integers "
            f"({np.count_nonzero(large):,} of {images}; key {scan.keys[at]} has {scan.labels[at]}). "
            "Identities may have become one when the file was written; number them from 0 and write it again"
        )
    return found
