"""The arrays of a ``.params`` file, which ``mx.nd.save`` writes."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_KINDS = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]


def read_params(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by their names, which begin with ``arg:`` or ``aux:``."""
    with path.open("rb") as file:
        file.seek(16)
        arrays = [_array(file) for _ in range(_number(file))]
        names = [file.read(_number(file)).decode() for _ in range(_number(file))]
    return dict(zip(names, arrays, strict=True))


def _array(file: BinaryIO) -> NDArray[Any]:
    file.seek(8, 1)
    (dimensions,) = struct.unpack("<I", file.read(4))
    shape = struct.unpack(f"<{dimensions}q", file.read(8 * dimensions))
    kind = np.dtype(_KINDS[struct.unpack("<8xi", file.read(12))[0]])
    return np.frombuffer(file.read(math.prod(shape) * kind.itemsize), kind).reshape(shape)


def _number(file: BinaryIO) -> int:
    return int(struct.unpack("<Q", file.read(8))[0])
