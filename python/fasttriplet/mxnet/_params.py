"""The structure of a ``.params`` file, checked before MXNet reads it.

MXNet believes the numbers in the file: from a damaged one of 240 bytes it may read, or allocate, for minutes.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

from fasttriplet._contents import describe_wrong_file

_MAGIC = struct.pack("<QQ", 0x112, 0)
_V1, _V2 = 0xF993FAC8, 0xF993FAC9  # before an array; without one, the first number is that of dimensions
_MOST_DIMENSIONS = 32
_CONTEXTS = (1, 2, 3, 5)  # cpu, gpu, pinned, shared
_ITEM_BYTES = {
    0: 4,
    1: 8,
    2: 2,
    3: 1,
    4: 4,
    5: 1,
    6: 8,
}  # float32, float64, float16, uint8, int32, int8, int64


class _DamagedError(Exception):
    """What is wrong; the message goes on from "the file"."""


def check_params(path: Path) -> None:
    """Raise a ValueError unless each array and each name of the file ends where the next one starts."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(describe_wrong_file(path, "a file of MXNet parameters"))
        try:
            _check(file, os.fstat(file.fileno()).st_size)
        except _DamagedError as error:
            raise ValueError(
                f"{path} is damaged or cut off: before byte {file.tell()}, {error}; copy or save it again"
            ) from None


def _check(file: BinaryIO, size: int) -> None:
    (count,) = _numbers(file, "<Q")
    for array in range(count):
        try:
            _skip(file, _data_bytes(file), size)
        except _DamagedError as error:
            raise _DamagedError(f"in array {array + 1} of {count}, {error}") from None
    (names,) = _numbers(file, "<Q")
    if names not in (0, count):
        raise _DamagedError(f"{names} names are announced for {count} arrays")
    for _ in range(names):
        _skip(file, _numbers(file, "<Q")[0], size)
    if file.tell() != size:
        raise _DamagedError(f"the last name ends, {size - file.tell()} bytes before the end of the file")


def _data_bytes(file: BinaryIO) -> int:
    """Read the head of an array: the bytes that follow."""
    (first,) = _numbers(file, "<I")
    if first == _V2:
        (storage,) = _numbers(file, "<i")
        if storage != 0:
            raise _DamagedError(f"the storage is {storage}; expected 0, a dense array")
    (dimensions,) = _numbers(file, "<I") if first in (_V1, _V2) else (first,)
    if dimensions > _MOST_DIMENSIONS:
        raise _DamagedError(f"{dimensions} dimensions are announced; expected at most {_MOST_DIMENSIONS}")
    if dimensions == 0:
        return 0  # an array that was never filled
    shape = _numbers(file, f"<{dimensions}{'q' if first in (_V1, _V2) else 'I'}")
    context, _, kind = _numbers(file, "<iii")
    if min(shape) < 0 or context not in _CONTEXTS or kind not in _ITEM_BYTES:
        raise _DamagedError(f"shape {shape}, context {context} and type {kind} are announced")
    return math.prod(shape) * _ITEM_BYTES[kind]


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise _DamagedError("the file ends where numbers are expected")
    return struct.unpack(form, content)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    left = size - file.tell()
    if count > left:
        raise _DamagedError(f"{count} bytes are announced and {left} left")
    file.seek(count, os.SEEK_CUR)
