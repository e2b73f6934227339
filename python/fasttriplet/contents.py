"""What files and arrays hold that should hold something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LFS = b"version https://git-lfs"


def instead_of(path: Path, expected: str) -> str:
    """Say of a file that could not be read that it is not what was `expected`, and what it is if known."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        return f"{path} is a Git LFS pointer (fetch the data with `git lfs pull`), not {expected}"
    return f"{path} is {'' if start else 'empty, '}not {expected}"


def rows_not_finite(rows: NDArray[np.float32]) -> list[int]:
    """Positions of the rows of an (N, D) array that hold NaN or infinity."""
    # One pass without a temporary of the same size: the sum of a row is finite only if each part is; a sum
    # that overflows by itself is told apart below.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(rows.sum(axis=1)))
    return [row for row in suspects.tolist() if not np.isfinite(rows[row]).all()]
