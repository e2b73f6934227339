"""InsightFace's ``.bin`` files of verification pairs: pickles, which are read without trusting them."""

from __future__ import annotations

import codecs
import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasttriplet._contents import describe_wrong_file, kind_of, read_file
from fasttriplet._files import replacing
from fasttriplet._words import counted

_KIND = "a .bin file of verification pairs"
_PICKLE_STARTS = (b"\x80", b"(", b"]")  # protocols 2 to 5; protocols 0 and 1, which may be all text
_TEXT = frozenset(b"\t\n\r") | frozenset(range(32, 127))
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


def read_pairs(path: str | os.PathLike[str]) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Read a ``.bin`` file of verification pairs, the format of InsightFace.

    Such a file is a pickle of ``(images, same)``: 2N encoded images, of which 2i and 2i + 1 are pair i, and N
    truth values. Images may be bytes or uint8 arrays of shape (n,) or (n, 1), written by Python 2 or 3 with
    NumPy 1 or 2.

    A pickle is a program. This one is given nothing to run: opcodes that pairs do not need are an error, and
    the names by which bytes and NumPy arrays are made stand for plain containers of this module, so that
    neither NumPy nor anything else is called with what the file says.

    Parameters
    ----------
    path : path
        The file, which is read into memory as a whole.

    Returns
    -------
    images : list of bytes
        2N encoded images.
    same : (N,) bool
        Whether the two images of a pair show one identity.

    Raises
    ------
    ValueError
        If the file is of another kind, cut off or damaged, if it wants to load something that pairs do not
        need, or if an image or truth value is not as described above; names the pair, counted from 0.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    data = read_file(path, _KIND)
    if not data or (kind_of(data) is not None and not data.startswith(_PICKLE_STARTS)):
        raise ValueError(_wrong_file(path, data))
    try:
        _check_opcodes(data)
        loaded = _Unpickler(data).load()
    except _Unfit as error:
        unknown = error.position == 0 or _is_other_text(data)
        raise ValueError(_wrong_file(path, data) if unknown else f"{path} {error}") from None
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        what = f"{path} is damaged: {type(error).__name__}: {error}"
        raise ValueError(_wrong_file(path, data) if _is_other_text(data) else what) from None
    return _pairs(path, loaded)


def write_pairs(
    path: str | os.PathLike[str],
    images: Sequence[bytes | NDArray[np.uint8]],
    same: ArrayLike,
    *,
    overwrite: bool = False,
) -> None:
    """Write a ``.bin`` file of verification pairs, which InsightFace's tools can read, too.

    The encoded images are written unchanged, as bytes, in pickle's protocol 2, which Python 2 can read.

    Parameters
    ----------
    path : path
        The file. It appears when it is complete.
    images : sequence of bytes or (n,) or (n, 1) uint8
        2N encoded images (JPEG or PNG); 2i and 2i + 1 are pair i.
    same : (N,) bool
        Whether the two images of a pair show one identity.
    overwrite : bool, default False
        Whether a file that is there may be replaced.

    Raises
    ------
    FileExistsError
        If a file is there and `overwrite` is not set, or another run is writing it.
    ValueError
        If there is not one truth value for two images, or one of them is of another type.
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    encoded, truth = _checked(str(path), list(images), same)
    with replacing(path, overwrite=overwrite) as unfinished, unfinished.open("wb") as file:
        pickle.dump((encoded, truth.tolist()), file, protocol=2)


class _Unfit(Exception):  # noqa: N818  a finding; its text continues the name of the file
    def __init__(self, what: str, position: int | None = None) -> None:
        super().__init__(what if position is None else f"{what} (at byte {position:,})")
        self.position = position


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
            raise _Unfit(cut)
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise _Unfit("is damaged, or no pickle", position)
        if operation.name not in _OPCODES:
            raise _Unfit(
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
            raise (_Unfit(cut) if at_end else _Unfit("is damaged", position)) from None
        if operation.name == "STOP":
            return
        if operation.name == "FRAME" and argument > len(data) - file.tell():
            raise _Unfit(cut)
        operations += 1
        if operation.name in _PUTS and not 0 <= argument <= operations:
            raise _Unfit(f"is damaged: it puts an object at place {argument:,} of the memo", position)


class _Unpickler(pickle.Unpickler):
    """Knows the few names that pairs need, and returns a stand-in for each."""

    def __init__(self, data: bytes) -> None:
        # Python 2's str becomes bytes.
        super().__init__(io.BytesIO(data), encoding="bytes")
        # A real file converts each string or buffer once; to do so more often would only fill the memory.
        self._left_to_convert = len(data)

    def find_class(self, module: str, name: str) -> Any:
        makers: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
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
            raise _Unfit(
                f"wants to load {module}.{name}, which verification pairs do not need; nothing of it was "
                "run. Do not open this file with pickle.load"
            )
        return _StandIn(name, maker)

    def _encode(self, text: object, encoding: object) -> bytes:
        """Make bytes, as Python 3 writes them in the protocols 0 to 2."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _Unfit(f"is damaged: it encodes {type(text).__name__} as {encoding!r:.40}")
        self._convert(len(text))
        return codecs.latin_1_encode(text)[0]

    def _from_buffer(self, raw: object, dtype: object, shape: object, *_: object) -> _Array:
        """Make an array, as NumPy writes it in protocol 5."""
        if isinstance(raw, bytearray):
            self._convert(len(raw))
            raw = bytes(raw)
        array = _Array()
        array.fill(shape, dtype, raw)
        return array

    def _convert(self, length: int) -> None:
        self._left_to_convert -= length
        if self._left_to_convert < 0:
            raise _Unfit("is damaged: it converts the same bytes again and again")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _Unfit(f"refers to an object outside of it ({pid!r:.40})")


class _StandIn:
    """What a pickle gets for a name: an object that can be called but not changed."""

    __slots__ = ("_maker", "name")

    def __init__(self, name: str, maker: Callable[..., Any]) -> None:
        self.name, self._maker = name, maker

    def __call__(self, *arguments: object) -> Any:
        return self._maker(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise _Unfit(f"is damaged: it changes {self.name}")


class _Dtype:
    """A dtype of integers or truth values; any other is an error."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:  # align and copy mean nothing here
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        text = {"bool": "b1", "uint8": "u1"}.get(text, text) if isinstance(text, str) else None
        if text not in _DTYPES:
            raise _Unfit(
                f"holds an array of dtype {code!r:.40}; images are uint8, and truth values bool or integer"
            )
        self.code, self.order = text, "|" if text[1] == "1" else "<"

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags). In NumPy's own dtype the
        # flags decide how memory is read, so they must be 0 and are not kept.
        if not isinstance(state, tuple) or len(state) < 8 or any(state[2:5]) or state[7] != 0:
            raise _Unfit(f"holds an array of a dtype of several parts ({self.code})")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">"):
            raise _Unfit(f"is damaged: an array has the byte order {order!r:.40}")
        self.order = order

    def read(self, raw: bytes) -> NDArray[Any]:
        return np.frombuffer(raw, dtype=np.dtype(self.order + self.code))


class _Array:
    """An array's dtype, shape and bytes."""

    __slots__ = ("dtype", "raw", "shape")

    def __init__(self, *_: object) -> None:  # shape and dtype follow as a state
        self.dtype: _Dtype | None = None
        self.shape: tuple[int, ...] = ()
        self.raw = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:  # (version, shape, dtype, Fortran order, bytes)
            raise _Unfit("is damaged: an array is not described as NumPy does")
        self.fill(state[1], state[2], state[4])

    def fill(self, shape: object, dtype: object, raw: object) -> None:
        """Take shape, dtype and bytes from the file, if they fit each other."""
        if isinstance(shape, int):
            shape = (shape,)
        whole = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
        if not whole or not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise _Unfit("is damaged: an array is not described as NumPy does")
        assert isinstance(shape, tuple)
        if len(shape) > 2:
            raise _Unfit(f"holds an array of {len(shape)} dimensions; encoded images have one")
        size = int(dtype.code[1]) * math.prod(shape)
        if size != len(raw):
            raise _Unfit(
                f"is damaged: an array of shape {shape!r:.80} would have {size:,} bytes, and "
                f"{len(raw):,} are there"
            )
        self.shape, self.dtype, self.raw = shape, dtype, raw

    @property
    def code(self) -> str | None:
        return None if self.dtype is None else self.dtype.code

    def flat(self) -> NDArray[Any]:
        if self.dtype is None:
            raise _Unfit("is damaged: an array has no content")
        return self.dtype.read(self.raw)

    def described(self) -> str:
        return f"{self.code} of shape {self.shape}" if self.code else "an empty array"


def _scalar(dtype: object, raw: object = None) -> int:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != int(dtype.code[1]):
        raise _Unfit("is damaged: a number is not described as NumPy does")
    return int(dtype.read(raw)[0])


def _no_bytes(*arguments: object) -> bytes:
    """Make ``b""``, which Python 3 writes as a call without arguments in the protocols 0 to 2."""
    if arguments:
        raise _Unfit("is damaged: it calls bytes with an argument, and no writer of pairs does")
    return b""


def _no_call(*_: object) -> NoReturn:
    raise _Unfit("is damaged: it makes an array otherwise than NumPy's files do")


def _wrong_file(path: Path, data: bytes) -> str:
    if data and kind_of(data) is None and _is_other_text(data):
        return f"{path} is text (it starts with {data[:24]!r}), not {_KIND}"
    return describe_wrong_file(path, _KIND)


def _is_other_text(data: bytes) -> bool:
    return not data.startswith(_PICKLE_STARTS) and _TEXT.issuperset(data[:512])


def _pairs(path: Path, loaded: object) -> tuple[list[bytes], NDArray[np.bool_]]:
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        count = f" of {len(loaded)}" if isinstance(loaded, Sized) else None
        found = f"{type(loaded).__name__}{count}" if count else _describe(loaded)
        raise ValueError(
            f"{path} is a pickle of a {found}; expected (images, same), the pairs of a .bin file"
        )
    images, same = loaded
    if not isinstance(images, (list, tuple)):
        raise ValueError(f"{path}: the images are a {_describe(images)}; expected a list of encoded images")
    if isinstance(same, _Array):
        same = same.flat()
    elif not isinstance(same, (list, tuple)):
        raise ValueError(
            f"{path}: the truth values are a {_describe(same)}; expected a list of True and False"
        )
    return _checked(str(path), images, same)


def _checked(name: str, images: Sequence[object], same: ArrayLike) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Return the images as bytes, and one truth value for two images; an error names the pair."""
    truth = list(same) if isinstance(same, (list, tuple, np.ndarray)) else list(np.atleast_1d(same))
    if len(images) % 2:
        raise ValueError(f"{name}: {counted(len(images), 'image')} cannot be pairs: the number is odd")
    if len(images) != 2 * len(truth):
        raise ValueError(
            f"{name}: {len(images):,} images need {counted(len(images) // 2, 'truth value')}, one for each "
            f"pair, and the file has {len(truth):,}"
        )
    for pair, value in enumerate(truth):
        # Not `in (0, 1)`: arrays and 1.0 would pass, or raise.
        if not isinstance(value, (bool, np.bool_, int, np.integer)) or not 0 <= value <= 1:
            raise ValueError(
                f"{name}: pair {pair} (counted from 0): expected True or False, got {_describe(value)}"
            )
    encoded = [_encoded(name, position, image) for position, image in enumerate(images)]
    return encoded, np.array([bool(value) for value in truth], dtype=np.bool_)


def _encoded(name: str, position: int, image: object) -> bytes:
    content = image if isinstance(image, bytes) else None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and _is_column(image.shape):
        content = image.tobytes()
    elif isinstance(image, _Array) and image.code == "u1" and _is_column(image.shape):
        content = image.raw
    if content:
        return content
    found = "empty (0 bytes)" if content is not None else _describe(image)
    raise ValueError(
        f"{name}: {image_of_pair(position)} is {found}; expected an encoded image, as bytes or as uint8 of "
        "shape (n,) or (n, 1)"
    )


def _is_column(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def image_of_pair(position: int) -> str:
    """Name the image at a position of a ``.bin`` file."""
    return f"pair {position // 2} (counted from 0), {('first', 'second')[position % 2]} image,"


def _describe(thing: object) -> str:
    if isinstance(thing, _Array):
        return f"array, {thing.described()}"
    if isinstance(thing, _StandIn):
        return f"the function {thing.name}"
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype} array of shape {thing.shape}"
    if isinstance(thing, (bool, int, float, np.generic)):
        return f"{thing!r:.40}"
    return type(thing).__name__
