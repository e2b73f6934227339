"""Files of arrays: they are read as by a plain reader and by MXNet, or there is a ValueError, and soon."""

from __future__ import annotations

import atexit
import math
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.checkpoint._params import read_arrays, writer_of
from fasttriplet.mxnet import import_mxnet

_MARKS = {0xF993FAC8: 1, 0xF993FAC9: 2, 0xF993FACA: 3}
_TYPES = ["f4", "f8", "f2", "u1", "i4", "i1", "i8", "?", "i2", "u2", "u4", "u8", "u2"]
_BFLOAT16 = 12


def check(data: bytes) -> None:
    """`data` is a ``.params`` file."""
    path = _folder() / "a.params"
    path.write_bytes(data)
    try:
        expected: Read | None = Read(data)
    except (struct.error, ValueError, LookupError):
        expected = None
    try:
        names, arrays = read_arrays(path)
    except ValueError as error:
        assert str(path) in str(error)
        assert expected is None, error
        return
    assert expected is not None
    assert names == expected.names
    assert len(arrays) == len(expected.arrays)
    for array, wanted in zip(arrays, expected.arrays, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tobytes() == wanted.tobytes()
    if expected.of_mxnet:
        _check_with_mxnet(path, names, arrays)


def _check_with_mxnet(path: Path, names: list[str], arrays: list[NDArray[Any]]) -> None:
    """MXNet believes the numbers in a file, so it gets only those that were found to be sound."""
    mx = import_mxnet()
    loaded = mx.nd.load(str(path))
    if names:
        assert list(loaded) == names
        loaded = list(loaded.values())
    for array, theirs in zip(arrays, loaded, strict=True):
        assert (array.dtype, array.shape) == (theirs.dtype, theirs.shape)
        assert array.tobytes() == theirs.asnumpy().tobytes()
    if not names:
        return
    again, theirs = path.with_name("b.params"), path.with_name("c.params")
    writer_of(dict(zip(names, arrays, strict=True)))(again)
    mx.nd.save(str(theirs), dict(zip(names, loaded, strict=True)))
    assert again.read_bytes() == theirs.read_bytes()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder


class Read:
    """Names and arrays of a file, or an error if it is not right. `of_mxnet`: MXNet 1.9.1 reads it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self.of_mxnet = data, 0, True
        if self._take("<QQ") != (0x112, 0):
            raise ValueError
        self.arrays = [self._array() for _ in range(self._take("<Q")[0])]
        self.names = [self._content(self._take("<Q")[0]).decode() for _ in range(self._take("<Q")[0])]
        if (
            self._at != len(data)
            or len(self.names) not in (0, len(self.arrays))
            or len(set(self.names)) < len(self.names)
            or any("\0" in name for name in self.names)
        ):
            raise ValueError

    def _take(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._content(struct.calcsize(form)))

    def _content(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise ValueError
        return self._data[self._at - count : self._at]

    def _array(self) -> NDArray[Any]:
        (first,) = self._take("<I")
        version = _MARKS.get(first, 0)
        if version > 1 and self._take("<i") != (0,):
            raise ValueError
        dimensions = self._take("<i")[0] if version else first
        if dimensions == -1 or (dimensions == 0 and version != 3):
            self.of_mxnet = False
            return np.empty(0, "f4")
        if dimensions > 32:
            raise ValueError
        shape = self._take(f"<{dimensions}{'q' if version else 'I'}")
        context, _, kind = self._take("<iii")
        if min(shape, default=0) < 0 or context not in (1, 2, 3, 5) or kind < 0:
            raise ValueError
        array = np.frombuffer(
            self._content(math.prod(shape) * np.dtype(_TYPES[kind]).itemsize), _TYPES[kind]
        ).reshape(shape)
        # Its NumPy lacks bfloat16, its own arrays the later types, and version 3 is for a mode of its own.
        self.of_mxnet &= version < 3 and kind < 8
        return (array.astype("u4") << 16).view("f4") if kind == _BFLOAT16 else array
