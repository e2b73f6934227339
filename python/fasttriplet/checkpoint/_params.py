"""The arrays of a ``.params`` file, in the format of ``mx.nd.save``.

    uint64   0x112 and 0
    uint64   number of arrays, and the arrays
    uint64   number of names, none or one for each array; each is a uint64, its length in bytes, and UTF-8

An array, all numbers little-endian:

    uint32   the version of what follows; without one, in the oldest files, this is the number of dimensions
    int32    storage: 0 dense, 1 row_sparse, 2 csr (from version 2 on)
    shape    int32, the number of dimensions, and their sizes as int64; without a version, as uint32
    int32    context: kind and number of a device; it does not matter
    int32    type of the items
    ...      the items

An array that was never filled ends after its shape, which is unknown: 0 dimensions, or -1 in version 3, where
shapes are those of NumPy and 0 dimensions are a scalar.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasttriplet._contents import describe_wrong_file

_MAGIC = struct.pack("<QQ", 0x112, 0)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_MOST_DIMENSIONS = 32  # NumPy 1 takes no more
_DENSE = 0
_SPARSE = {1: ("row_sparse", 1), 2: ("csr", 2)}  # with the number of arrays of indices
_DEVICES = (1, 2, 3, 5)  # cpu, gpu, pinned, shared
_BFLOAT16 = 12
_TYPES = {
    number: np.dtype(kind)
    for number, kind in enumerate(
        ["<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2", "<u2", "<u4", "<u8"]
    )
} | {_BFLOAT16: np.dtype("<u2")}
_NUMBERS = {_TYPES[number]: number for number in range(8)}  # MXNet 1.9.1 has no other types in Python


class _DamagedError(Exception):
    """What is wrong; the message continues from "the file"."""


@dataclass(frozen=True)
class _Place:
    """Where the items of an array are, and what they are."""

    at: int
    shape: tuple[int, ...]
    type: int
    sparse: str | None = None


def read_arrays(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    """Read the names and the arrays of a file; there are no names if a list was saved.

    Items of bfloat16, which NumPy lacks, become the same numbers in float32. An array that was never filled
    has the shape (0,). A ValueError says where a file is wrong, and in which array: it is something else, it
    is damaged or cut off, or an array is sparse. Nothing is allocated that the file cannot fill.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(describe_wrong_file(path, "a file of MXNet parameters"))
        try:
            names, places = _walk(file, os.fstat(file.fileno()).st_size)
            arrays = []
            for label, place in zip(_labels(names, len(places)), places, strict=True):
                if place.sparse is not None:
                    raise ValueError(
                        f"{path}: array {label} is sparse ({place.sparse}); make it dense with "
                        "tostype('default') and save it again"
                    )
                arrays.append(_items(file, place, label))
            return names, arrays
        except _DamagedError as error:
            raise ValueError(
                f"{path} is damaged or cut off: before byte {file.tell()}, {error}; copy or save it again"
            ) from None


def _labels(names: Sequence[str], count: int) -> list[str]:
    """What messages call the arrays: their names, else their numbers."""
    return [repr(name) for name in names] or [f"{number + 1} of {count}" for number in range(count)]


def _walk(file: BinaryIO, size: int) -> tuple[list[str], list[_Place]]:
    """Find all names and arrays, without reading the items."""
    (count,) = _numbers(file, "<Q")
    places = []
    for number in range(count):
        try:
            places.append(_place(file, size))
        except _DamagedError as error:
            raise _DamagedError(f"in array {number + 1} of {count}, {error}") from None
    (named,) = _numbers(file, "<Q")
    if named not in (0, count):
        raise _DamagedError(f"{named} names are announced for {count} arrays")
    names: dict[str, None] = {}
    for number in range(named):
        try:
            name = _name(file, size)
            if name in names:
                raise _DamagedError(f"{name!r:.100} is the name of an earlier array, too")
        except _DamagedError as error:
            raise _DamagedError(f"in the name of array {number + 1} of {count}, {error}") from None
        names[name] = None
    if file.tell() != size:
        raise _DamagedError(f"the last name ends {size - file.tell()} bytes before the end of the file")
    return list(names), places


def _place(file: BinaryIO, size: int) -> _Place:
    (version,) = _numbers(file, "<I")
    storage = _numbers(file, "<i")[0] if version in (_V2, _V3) else _DENSE
    if storage != _DENSE and storage not in _SPARSE:
        raise _DamagedError(f"the storage is {storage}; expected 0, a dense array")
    kind, indices = _SPARSE.get(storage, (None, 0))
    stored = _shape(file) if indices else None
    shape = _shape(file) if version in (_V1, _V2, _V3) else _sizes(file, version, "I")
    if shape is None or (not shape and version != _V3):
        return _Place(file.tell(), (0,), 0)
    device, _, number = _numbers(file, "<iii")
    if device not in _DEVICES or number not in _TYPES:
        raise _DamagedError(f"shape {shape}, context {device} and type {number} are announced")
    sizes = [math.prod(shape if stored is None else stored) * _TYPES[number].itemsize]
    for _ in range(indices):
        (number_of_indices,) = _numbers(file, "<i")
        if number_of_indices not in _TYPES:
            raise _DamagedError(f"indices of type {number_of_indices} are announced")
        sizes.append(math.prod(_shape(file) or ()) * _TYPES[number_of_indices].itemsize)
    at = file.tell()
    for count in sizes:
        _skip(file, count, size)
    return _Place(at, shape, number, kind)


def _shape(file: BinaryIO) -> tuple[int, ...] | None:
    """Read a shape with sizes of 8 bytes; None is unknown."""
    (dimensions,) = _numbers(file, "<i")
    return None if dimensions == -1 else _sizes(file, dimensions, "q")


def _sizes(file: BinaryIO, dimensions: int, form: str) -> tuple[int, ...]:
    if not 0 <= dimensions <= _MOST_DIMENSIONS:
        raise _DamagedError(f"{dimensions} dimensions are announced; expected at most {_MOST_DIMENSIONS}")
    shape = _numbers(file, f"<{dimensions}{form}")
    if any(size < 0 for size in shape):
        raise _DamagedError(f"the shape {shape} is announced")
    return shape


def _name(file: BinaryIO, size: int) -> str:
    (length,) = _numbers(file, "<Q")
    _check_left(file, length, size)
    content = file.read(length)
    try:
        name = content.decode()
    except UnicodeDecodeError:
        raise _DamagedError(f"{content!r:.100} is not UTF-8") from None
    if "\0" in name:
        raise _DamagedError(f"{name!r:.100} holds a zero byte")
    return name


def _items(file: BinaryIO, place: _Place, label: str) -> NDArray[Any]:
    file.seek(place.at)
    try:
        items = np.empty(place.shape, _TYPES[place.type])
    except ValueError:  # nothing is in it, but NumPy multiplies the other sizes
        raise _DamagedError(f"in array {label}, the shape {place.shape} is announced") from None
    if file.readinto(items.reshape(-1).view(np.uint8)) != items.nbytes:  # type: ignore[attr-defined]
        raise _DamagedError(f"in array {label}, the file ends; it was longer when it was opened")
    return (items.astype("<u4") << 16).view("<f4") if place.type == _BFLOAT16 else items


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise _DamagedError("the file ends where numbers are expected")
    return struct.unpack(form, content)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    _check_left(file, count, size)
    file.seek(count, os.SEEK_CUR)


def _check_left(file: BinaryIO, count: int, size: int) -> None:
    left = size - file.tell()
    if count > left:
        raise _DamagedError(f"{count} bytes are announced and {left} left")


def writer_of(params: Mapping[str, NDArray[Any]]) -> Callable[[Path], None]:
    """Check arrays and their names; what is returned writes them to a path, in the bytes of ``mx.nd.save``.

    A ValueError names an array that MXNet 1.9.1 cannot hold: of another type, or without dimensions.
    """
    heads = [_head(array, repr(name)) for name, array in params.items()]
    names = [_encoded(name) for name in params]

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(_MAGIC + struct.pack("<Q", len(params)))
            for head, array in zip(heads, params.values(), strict=True):
                file.write(head)
                items = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                file.write(items.reshape(-1).view(np.uint8).data)
            file.write(struct.pack("<Q", len(params)))
            for name in names:
                file.write(struct.pack("<Q", len(name)) + name)

    return write


def _encoded(name: str) -> bytes:
    try:
        if "\0" not in name:
            return name.encode()
    except UnicodeEncodeError:
        pass
    raise ValueError(
        f"{name!r:.100} cannot be the name of an array: it is not text in UTF-8 without a zero byte"
    )


def _head(array: NDArray[Any], name: str) -> bytes:
    number = _NUMBERS.get(array.dtype.newbyteorder("<"))
    if number is None:
        raise ValueError(f"array {name} is {array.dtype}, a type that MXNet 1.9.1 does not have")
    if not 1 <= array.ndim <= _MOST_DIMENSIONS:
        raise ValueError(
            f"array {name} has no dimensions, and MXNet 1.9.1 cannot hold such an array; reshape it to (1,)"
        )
    shape = struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
    return struct.pack("<Ii", _V2, _DENSE) + shape + struct.pack("<iii", 1, 0, number)
