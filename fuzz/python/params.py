"""Files of MXNet parameters: what is loaded is what a plain reader finds; else a ValueError, and soon."""

from __future__ import annotations

import atexit
import math
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from fasttriplet.mxnet import import_mxnet
from fasttriplet.mxnet._checkpoint import load_checkpoint

Arrays = dict[str, tuple[tuple[int, ...], bytes]]


def check(data: bytes) -> None:
    """`data` is a ``.params`` file."""
    prefix = _prefix()
    Path(f"{prefix}-0000.params").write_bytes(data)
    try:
        checkpoint = load_checkpoint(prefix, 0)
    except ValueError:
        return
    loaded = {f"arg:{name}": value for name, value in checkpoint.arg_params.items()}
    loaded |= {f"aux:{name}": value for name, value in checkpoint.aux_params.items()}
    expected = read(data)
    assert loaded.keys() == expected.keys()
    for name, (shape, content) in expected.items():
        if shape:  # MXNet has no values of an array that was never filled
            assert loaded[name].shape == shape, name
            assert loaded[name].asnumpy().tobytes() == content, name


@cache
def _prefix() -> str:
    mx = import_mxnet()
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    prefix = f"{folder}/net"
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    Path(f"{prefix}-symbol.json").write_text(symbol.tojson())
    return prefix


def read(data: bytes) -> Arrays:
    """The arrays of a file that is right: shapes and bytes by name."""
    at = 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return values

    def content(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    arrays = []
    for _ in range(take("<QQQ")[2]):
        (first,) = take("<I")
        if first == 0xF993FAC9:
            take("<i")
        wide = first in (0xF993FAC8, 0xF993FAC9)
        (dimensions,) = take("<I") if wide else (first,)
        shape = take(f"<{dimensions}{'q' if wide else 'I'}")
        kind = take("<iii")[2] if dimensions else 0
        item = np.dtype(["f4", "f8", "f2", "u1", "i4", "i1", "i8"][kind]).itemsize
        arrays.append((shape, content(item * math.prod(shape) if dimensions else 0)))
    # MXNet hands names over as C strings, which end at a zero.
    names = [content(take("<Q")[0]).split(b"\0")[0].decode() for _ in range(take("<Q")[0])]
    return dict(zip(names, arrays, strict=True))
