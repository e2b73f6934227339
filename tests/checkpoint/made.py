"""Files of arrays in every form that MXNet has written, made from their definition."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = struct.pack("<QQ", 0x112, 0)
MARKS = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}  # of versions; before them there was none
TYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]
# MXNet 2 writes these too.
TYPES += ["int16", "uint16", "uint32", "uint64"]


def array_of(array: NDArray[Any] | None, version: int = 2) -> bytes:
    """One array; None is one that was never filled. Version 0 has no mark."""
    shape = () if array is None else array.shape
    head = struct.pack("<I", MARKS[version]) if version else b""
    head += struct.pack("<i", 0) if version > 1 else b""
    head += struct.pack("<i", -1 if array is None and version == 3 else len(shape))
    head += struct.pack(f"<{len(shape)}{'q' if version else 'I'}", *shape)
    if array is None:
        return head
    return head + struct.pack("<iii", 1, 0, TYPES.index(str(array.dtype))) + array.tobytes()


def file_of(arrays: Sequence[bytes], names: Sequence[str | bytes]) -> bytes:
    """A whole file."""
    content = MAGIC + struct.pack("<Q", len(arrays)) + b"".join(arrays) + struct.pack("<Q", len(names))
    for name in names:
        encoded = name if isinstance(name, bytes) else name.encode()
        content += struct.pack("<Q", len(encoded)) + encoded
    return content


def numbers(*shape: int, kind: str = "float32") -> NDArray[Any]:
    """Numbers that differ."""
    return (np.arange(np.prod(shape, dtype=int)) * 1.25 - 2).astype(kind).reshape(shape)
