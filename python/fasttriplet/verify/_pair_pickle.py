"""Pickles of verification pairs, which are read without trusting them.

A pickle is a program. This one is given nothing to run: opcodes that pairs do not need are an error, and the
names by which bytes and NumPy arrays are made stand for plain containers of this module.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

_DTYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"b1"}

# Opcodes by which Python 2 and 3 write lists, tuples, numbers, strings, bytes and calls in the protocols 0 to
# 5. There are none for dicts (a deep tuple as a key overflows the C stack), sets, instances (NEWOBJ, INST,
# OBJ), persistent ids, registered extensions, and buffers outside of the file.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG",
    "FLOAT", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET",
    "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip
_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


class Unfit(Exception):  # noqa: N818  a finding
    """What a pickle is that does not hold pairs; the text continues the name of the file.

    Attributes
    ----------
    position : int or None
        The byte at which that is seen.
    """

    def __init__(self, what: str, position: int | None = None) -> None:
        super().__init__(what if position is None else f"{what} (at byte {position:,})")
        self.position = position


def load(data: bytes) -> object:
    """Read a pickle of pairs: lists, tuples, numbers, texts, bytes, and an `Array` for each array of NumPy.

    Raises
    ------
    Unfit
        If it wants more than pairs need.
    Exception
        Nearly any, if it is damaged.
    """
    _check_opcodes(data)
    return _Unpickler(data).load()


def _check_opcodes(data: bytes) -> None:
    """Go through a pickle without running it, and refuse what the unpickler should not see.

    That is, besides other opcodes, lengths beyond the end of the file and places of the memo that no writer
    uses: the unpickler would reserve memory for them before it looks at the rest of the file.
    """
    file = io.BytesIO(data)
    cut = f"is cut off: it ends after {len(data):,} bytes, in the middle of a pickle"
    operations = 0
    while True:
        position = file.tell()
        code = file.read(1)
        if not code:
            raise Unfit(cut)
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise Unfit("is damaged, or no pickle", position)
        if operation.name not in _OPCODES:
            raise Unfit(
                f"is a pickle of something else than verification pairs: it uses {operation.name}", position
            )
        argument: Any = None
        try:
            if operation.name == "STRING":  # the reader of this one takes only ASCII
                if not file.readline().endswith(b"\n"):
                    raise ValueError
            elif operation.arg is not None:
                argument = operation.arg.reader(file)
        except ValueError:
            # Where the argument would have ended, nothing is left to read.
            at_end = file.tell() == len(data)
            raise (Unfit(cut) if at_end else Unfit("is damaged", position)) from None
        if operation.name == "STOP":
            return
        if operation.name == "FRAME" and argument > len(data) - file.tell():
            raise Unfit(cut)
        operations += 1
        if operation.name in _PUTS and not 0 <= argument <= operations:
            raise Unfit(f"is damaged: it puts an object at place {argument:,} of the memo", position)


class _Unpickler(pickle.Unpickler):
    """Knows the few names that pairs need, and returns a stand-in for each."""

    def __init__(self, data: bytes) -> None:
        # Python 2's str becomes bytes.
        super().__init__(io.BytesIO(data), encoding="bytes")
        # A real file converts each string or buffer once; to do so more often would only fill the memory.
        self._left_to_convert = len(data)

    def find_class(self, module: str, name: str) -> Any:
        makers: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): Array,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy", "ndarray"): _no_call,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode,
            ("builtins", "bytes"): _no_bytes,
            ("__builtin__", "bytes"): _no_bytes,  # the same for Python 2
        }
        maker = makers.get((module.replace("numpy._core.", "numpy.core."), name))  # NumPy 2's name and 1's
        if maker is None:
            raise Unfit(
                f"wants to load {module}.{name}, which verification pairs do not need; nothing of it was "
                "run. Do not open this file with pickle.load"
            )
        return StandIn(name, maker)

    def _encode(self, text: object, encoding: object) -> bytes:
        """Make bytes, as Python 3 writes them in the protocols 0 to 2."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise Unfit(f"is damaged: it encodes {type(text).__name__} as {encoding!r:.40}")
        self._convert(len(text))
        return codecs.latin_1_encode(text)[0]

    def _from_buffer(self, raw: object, dtype: object, shape: object, *_: object) -> Array:
        """Make an array, as NumPy writes it in protocol 5."""
        if isinstance(raw, bytearray):
            self._convert(len(raw))
            raw = bytes(raw)
        array = Array()
        array.fill(shape, dtype, raw)
        return array

    def _convert(self, length: int) -> None:
        self._left_to_convert -= length
        if self._left_to_convert < 0:
            raise Unfit("is damaged: it converts the same bytes again and again")


class StandIn:
    """What a pickle gets for a name: an object that can be called but not changed."""

    __slots__ = ("_maker", "name")

    def __init__(self, name: str, maker: Callable[..., Any]) -> None:
        self.name, self._maker = name, maker

    def __call__(self, *arguments: object) -> Any:
        return self._maker(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise Unfit(f"is damaged: it changes {self.name}")


class _Dtype:
    """A dtype of integers or truth values; any other is an error."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:  # align and copy mean nothing here
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        text = {"bool": "b1", "uint8": "u1"}.get(text, text) if isinstance(text, str) else None
        if text not in _DTYPES:
            raise Unfit(
                f"holds an array of dtype {code!r:.40}; images are uint8, and truth values bool or integer"
            )
        self.code, self.order = text, "|" if text[1] == "1" else "<"

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags). In NumPy's own dtype the
        # flags decide how memory is read, so they must be 0 and are not kept.
        if not isinstance(state, tuple) or len(state) < 8 or any(state[2:5]) or state[7] != 0:
            raise Unfit(f"holds an array of a dtype of several parts ({self.code})")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">"):
            raise Unfit(f"is damaged: an array has the byte order {order!r:.40}")
        self.order = order

    def read(self, raw: bytes) -> NDArray[Any]:
        return np.frombuffer(raw, dtype=np.dtype(self.order + self.code))


class Array:
    """The dtype, shape and bytes of an array."""

    __slots__ = ("dtype", "raw", "shape")

    def __init__(self, *_: object) -> None:  # shape and dtype follow as a state
        self.dtype: _Dtype | None = None
        self.shape: tuple[int, ...] = ()
        self.raw = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:  # (version, shape, dtype, Fortran order, bytes)
            raise Unfit("is damaged: an array is not described as NumPy does")
        self.fill(state[1], state[2], state[4])

    def fill(self, shape: object, dtype: object, raw: object) -> None:
        """Take shape, dtype and bytes from the file, if they fit each other."""
        if isinstance(shape, int):
            shape = (shape,)
        whole = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
        if not whole or not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise Unfit("is damaged: an array is not described as NumPy does")
        assert isinstance(shape, tuple)
        if len(shape) > 2:
            raise Unfit(f"holds an array of {len(shape)} dimensions; encoded images have one")
        size = int(dtype.code[1]) * math.prod(shape)
        if size != len(raw):
            raise Unfit(
                f"is damaged: an array of shape {shape!r:.80} would have {size:,} bytes, and "
                f"{len(raw):,} are there"
            )
        self.shape, self.dtype, self.raw = shape, dtype, raw

    @property
    def code(self) -> str | None:
        return None if self.dtype is None else self.dtype.code

    def described(self) -> str:
        return f"{self.code} of shape {self.shape}" if self.code else "an empty array"


def _scalar(dtype: object, raw: object = None) -> int:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != int(dtype.code[1]):
        raise Unfit("is damaged: a number is not described as NumPy does")
    return int(dtype.read(raw)[0])


def _no_bytes(*arguments: object) -> bytes:
    """Make ``b""``, which Python 3 writes as a call without arguments in the protocols 0 to 2."""
    if arguments:
        raise Unfit("is damaged: it calls bytes with an argument, and no writer of pairs does")
    return b""


def _no_call(*_: object) -> NoReturn:
    raise Unfit("is damaged: it makes an array otherwise than NumPy's files do")
