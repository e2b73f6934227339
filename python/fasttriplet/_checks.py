"""Checks of options that several stages share, and the wording of their errors, which are OptionErrors.

Without NumPy, which takes 0.1 s to import: `fasttriplet mine --help` shows defaults that are checked here.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_THREADS = 256  # a call starts no more
_MOST_SEED = 2**64 - 1
MOST_PIXELS = 2**30  # OpenCV decodes no more


def whole_number(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return the option `name`, from `least` to `most`, as an int; True and 1.0 are not whole numbers."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:  # NumPy's are Integral
        raise OptionError(name, f"must be a whole number >= {least}, not {value!r}")
    if most is not None and value > most:
        raise OptionError(name, f"must be a whole number up to {most}, not {value!r}")
    return int(value)


def number(
    name: str, value: float, least: float, most: float = math.inf, *, allow_infinity: bool = False
) -> float:
    """Return the option `name`, from `least` to `most`, as a float; True and NaN are not numbers."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an int beyond all floats
            as_float = float(value)
            if least <= as_float <= most and (allow_infinity or math.isfinite(as_float)):
                return as_float
    limits = f">= {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
    raise OptionError(name, f"must be a number {limits}, not {value!r}")


def truth_value(name: str, value: bool) -> bool:
    """Return the option `name` as a bool; 1 is not one."""
    if type(value).__name__ not in ("bool", "bool_"):  # Python's and NumPy's
        raise OptionError(name, f"must be True or False, not {value!r}")
    return bool(value)


def one_of(name: str, value: object, known: tuple[Any, ...]) -> None:
    """Check that the option `name` has a value that is known."""
    if not any(isinstance(value, type(choice)) and value == choice for choice in known):
        raise OptionError(name, f"must be one of {', '.join(map(repr, known))}, not {value!r}")


def seed_number(seed: int) -> int:
    """Return the option `seed`, from 0 to 2**64 - 1."""
    return whole_number("seed", seed, 0, _MOST_SEED)


def epoch_number(epoch: int) -> int:
    """Return the option `epoch`, from 0 to 2**64 - 1."""
    return whole_number("epoch", epoch, 0, _MOST_SEED)


def thread_count(threads: int | None) -> int | None:
    """Return the option `threads`, at least 1; None stands for one per core."""
    return None if threads is None else min(whole_number("threads", threads, 1), _MOST_THREADS)


def pixel_limit(max_pixels: int) -> int:
    """Return the option `max_pixels`, from 1 to 2**30."""
    return whole_number("max_pixels", max_pixels, 1, MOST_PIXELS)


def image_size(
    size: tuple[int, int], max_pixels: int | None = None, *, name: str = "size"
) -> tuple[int, int]:
    """Return the option `name`, height and width in pixels, each at least 1, of at most `max_pixels`."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise OptionError(name, f"must be (height, width) in pixels, not {size!r}")
    height = whole_number(f"the height in {name}", size[0], 1)
    width = whole_number(f"the width in {name}", size[1], 1)
    if max_pixels is not None and height * width > max_pixels:
        raise OptionError(
            name,
            f"must be at most {max_pixels:,} pixels, not {height} x {width}; for more, raise max_pixels",
        )
    return height, width


def output_name(output: str | None) -> None:
    """Check the option `output`, which names one of a network's outputs, or counts them as text."""
    if not isinstance(output, (str, type(None))):
        raise OptionError("output", f"must be text, a name or a number such as '0', not {output!r}")


def batch_of_triplets(name: str, images: int, devices: int = 1) -> int:
    """Return the option `name`, a number of images in which each device gets whole triplets."""
    if whole_number(name, images, 3) % (3 * devices):
        each = "" if devices == 1 else f" for each of {devices} devices"
        raise OptionError(
            name, f"must be a multiple of 3 (anchors, positives and negatives){each}, not {images}"
        )
    return int(images)


def polars_frame(name: str, value: object) -> None:
    """Check that the option `name` is a Polars DataFrame; lazy ones and those of other packages are not."""
    polars = sys.modules.get("polars")  # without which there is no such frame
    if polars is None or not isinstance(value, polars.DataFrame):
        kind = type(value)
        package = kind.__module__.partition(".")[0]
        found = kind.__name__ if package == "builtins" else f"{kind.__name__} of {package}"
        raise OptionError(name, f"must be a DataFrame of polars, not a {found}")


def path_or_frame(name: str, value: object) -> None:
    """Check that the option `name` is the path of a table, or a Polars DataFrame."""
    if not isinstance(value, (str, os.PathLike)):
        polars_frame(name, value)


def rows_not_finite(rows: NDArray[np.floating[Any]]) -> list[int]:
    """Positions of the rows of an (N, D) array that hold NaN or infinity."""
    import numpy as np  # noqa: PLC0415

    # One pass without a temporary of the same size: the sum of a row is finite only if each element is.
    # Finite elements may still overflow in the sum, so the rows it suspects are looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(rows.sum(axis=1)))
    return [row for row in suspects.tolist() if not np.isfinite(rows[row]).all()]
