"""What a network expects of its input: the order of the colours, mean, standard deviation and size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from fasttriplet._checks import image_size, one_of
from fasttriplet.errors import OptionError

Color = Literal["rgb", "bgr"]
OPTIONS = ("color", "mean", "std", "size")
# Sizes (H, W) that a message may name as the network's own, the usual ones first.
USUAL_SIZES = (
    (112, 112), (112, 96), (96, 96), (128, 128), (160, 160), (224, 224), (299, 299),
    (256, 128), (384, 128), (128, 64), (28, 28), (32, 32), (64, 64),
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """How pixels become the input of a network: ``(pixel - mean) / std``, in this order of the colours.

    Parameters
    ----------
    color : {"rgb", "bgr"}, default "rgb"
        The order of the channels.
    mean, std : (float, float, float), default 127.5 and 128
        For each channel, in the order of `color`, in units of pixels (0 to 255).
    size : (int, int), optional
        Height and width of the images that the network takes. By default any, or what the model says.
    """

    color: Color = "rgb"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        one_of("color", self.color, get_args(Color))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise OptionError(name, f"must be three finite numbers, not {values!r}")
        if min(self.std) <= 0:
            raise OptionError("std", f"must be above 0, not {self.std!r}")
        if self.size is not None:
            object.__setattr__(self, "size", image_size(self.size))  # a tuple, to be compared

    @property
    def as_decoded(self) -> bool:
        """Whether pixels stay as they are, 0 to 255, since the network normalises them itself."""
        return self.mean == (0, 0, 0) and self.std == (1, 1, 1)

    def __str__(self) -> str:
        size = "any size" if self.size is None else "{} x {} (H x W)".format(*self.size)
        if self.as_decoded:
            return f"{self.color.upper()} 0..255, {size}"
        return f"{self.color.upper()}, (pixel - {_shown(self.mean)}) / {_shown(self.std)}, {size}"


def given(texts: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `Inputs` that the options of a spec give, by name."""
    return {name: _READ[name](name, texts[name]) for name in OPTIONS if name in texts}


AS_DECODED = Inputs(mean=(0, 0, 0), std=(1, 1, 1))  # networks that normalise their input themselves
# Entry of the metadata of an ONNX file by which its network is one of these.
SAYS_AS_DECODED = ("fasttriplet.input", "RGB 0..255")


def wrong_size(who: str, size: tuple[int, ...], taken: tuple[int, ...] | None = None) -> str:
    """Say that a network does not take images of a size (H, W), and which it takes, if that is known."""
    found = f"{who}: the network does not take images of {size[0]} x {size[1]} (H x W)"
    return found if taken is None else f"{found}; it takes {taken[0]} x {taken[1]}"


def three(name: str, values: float | Sequence[float]) -> tuple[float, float, float]:
    """Take what a call gives as `mean` or `std`: three numbers, or one for all channels."""
    numbers = (values,) * 3 if isinstance(values, (int, float, Real)) else tuple(values)
    if len(numbers) != 3 or not all(isinstance(number, Real) for number in numbers):
        raise OptionError(name, f"must be a number, or three, one for each channel, not {values!r}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _shown(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"({', '.join(f'{value:g}' for value in values)})"


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(map(float, text.split("/")))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise OptionError(name, f"must be a number, or one for each channel as in 104/117/123, not {text!r}")
    return values * 3 if len(values) == 1 else values


def _size(name: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise OptionError(name, f"must be HEIGHTxWIDTH, as in 112x112, not {text!r}")
    return int(match[1]), int(match[2])


def _text(_: str, text: str) -> str:
    return text


_READ: dict[str, Callable[[str, str], Any]] = {
    "color": _text,
    "mean": _numbers,
    "std": _numbers,
    "size": _size,
}
