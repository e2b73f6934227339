"""What files hold that should hold something else."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs"


def instead_of(path: Path, expected: str) -> str:
    """Say of a file that could not be read that it is not what was `expected`, and what it is if known."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        return f"{path} is a Git LFS pointer (fetch the data with `git lfs pull`), not {expected}"
    return f"{path} is {'' if start else 'empty, '}not {expected}"
