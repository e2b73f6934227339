"""InsightFace's ``.bin`` files of verification pairs: pickles, which are read without trusting them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence, Sized
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasttriplet._contents import describe_wrong_file, kind_of, read_file
from fasttriplet._files import replacing
from fasttriplet._words import counted
from fasttriplet.verify._pair_pickle import Array, StandIn, Unfit, load

_KIND = "a .bin file of verification pairs"
_PICKLE_STARTS = (b"\x80", b"(", b"]")  # protocols 2 to 5; protocols 0 and 1, which may be all text
_TEXT = frozenset(b"\t\n\r") | frozenset(range(32, 127))


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
        loaded = load(data)
    except Unfit as error:
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
    if isinstance(same, Array):
        if same.dtype is None:
            raise ValueError(f"{path} is damaged: the array of truth values has no content")
        same = same.dtype.read(same.raw)
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
    elif isinstance(image, Array) and image.code == "u1" and _is_column(image.shape):
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
    if isinstance(thing, Array):
        return f"array, {thing.described()}"
    if isinstance(thing, StandIn):
        return f"the function {thing.name}"
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype} array of shape {thing.shape}"
    if isinstance(thing, (bool, int, float, np.generic)):
        return f"{thing!r:.40}"
    return type(thing).__name__
