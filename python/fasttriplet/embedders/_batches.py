"""How many images a network is given at a time, and the memory that they need."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fasttriplet._checks import whole_number
from fasttriplet._words import counted
from fasttriplet.errors import OptionError

GPU_BATCH = 128
_MOST = 2**31 - 1  # the frameworks' sizes are of 32 or 64 bits
# What PyTorch, ONNX Runtime, MXNet, CUDA, NumPy and C++ say where memory is short.
_SHORTAGE = re.compile(
    r"out of memory|(can't|cannot|fail(ed|ure)? to) allocate|allocation fail|alloc_failed|bad.alloc"
    r"|array is too big|larger than 2\^31 elements",
    re.IGNORECASE,
)


def images_each(wanted: int | None, usual: int, *, who: str, least: int = 1, most: int | None = None) -> int:
    """The option `batch_size`: how many images each device is given at a time.

    By default that is the `usual` number, or the nearest to it from `least` to `most`, which are the limits
    of the network called `who`. An OptionError if what is wanted is outside of them.
    """
    if wanted is None:
        return max(least, usual if most is None else min(usual, most))
    wanted = whole_number("batch_size", wanted, 1, _MOST)
    if wanted < least or (most is not None and wanted > most):
        limits = f"{least}" if least == most else f"from {least} to {most}" if most else f"at least {least}"
        raise OptionError("batch_size", f"must be {limits} for {who}, not {wanted}")
    return wanted


def at_a_time(each: int, devices: Sequence[str]) -> str:
    """The number of images in a description, such as "128 images at a time on each"."""
    return f"{counted(each, 'image')} at a time{' on each' if len(devices) > 1 else ''}"


def is_shortage(error: BaseException) -> bool:
    """Whether an error of a framework says that memory was short."""
    return isinstance(error, MemoryError) or _SHORTAGE.search(str(error)) is not None


def shortage(who: str, devices: Sequence[str], images: int, size: tuple[int, int]) -> MemoryError:
    """The error of a network that has not enough memory for a batch."""
    batch = f"{counted(images, 'image')} of {size[0]} x {size[1]}"
    advice = "lower batch_size" if images > 1 else "close what else uses it, or take smaller images"
    return MemoryError(f"not enough memory on {', '.join(devices)} for {batch} at a time in {who}; {advice}")
