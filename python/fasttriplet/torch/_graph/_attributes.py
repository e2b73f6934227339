"""The attributes of one operator. Each is read once, and one that is not read is an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")
_FLAGS = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}
# These say how MXNet computes, not what: memory, the choice of an algorithm, calibration for int8.
_NO_EFFECT = (
    "workspace", "cudnn_tune", "cudnn_off", "cudnn_algo_fwd", "cudnn_algo_bwd_data", "cudnn_algo_bwd_filter",
    "cudnn_algo_fwd_prec", "cudnn_algo_bwd_prec", "min_calib_range", "max_calib_range", "num_args", "is_int",
)  # fmt: skip
REQUIRED: Any = object()
_LARGEST = 2**31 - 1
_DIMENSIONS = 32  # that MXNet and NumPy allow


class Attributes:
    """The attributes of the node that is being converted.

    Every method takes the name of an attribute and its default in MXNet 1.9.1, and the least and the largest
    value that make sense. Any other value is a ValueError with the node, its operator, the attribute and the
    value.
    """

    def __init__(self, node: str, op: str, values: Mapping[str, str]) -> None:
        self._where = f"node {node!r:.200} ({_plain(op)})"
        self._values = {name: value for name, value in values.items() if name not in _NO_EFFECT}
        self._left = dict(self._values)

    def described(self) -> str:
        """The node with all its attributes, for errors of the forward pass."""
        return f"{self._where} with {_shown(self._values)}" if self._values else self._where

    def error(self, message: str) -> ValueError:
        """An error about the node."""
        return ValueError(f"{self._where}: {message}")

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        return self._take(name, default, _FLAGS.__getitem__, "True or False")

    def whole(
        self, name: str, default: int | None = REQUIRED, *, least: int = -_LARGEST, most: int = _LARGEST
    ) -> int:
        """A whole number."""
        return self._take(name, default, _within(_whole, least, most), _range("a whole number", least, most))

    def axis(self, name: str, default: int | None = REQUIRED) -> int:
        """The number of an axis; negative numbers count from the last."""
        return self.whole(name, default, least=-_DIMENSIONS, most=_DIMENSIONS - 1)

    def number(
        self,
        name: str,
        default: float | None = REQUIRED,
        *,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> float:
        """A number, which may be infinite."""
        return self._take(name, default, _within(float, least, most), _range("a number", least, most))

    def optional(self, name: str, *, least: int = -_LARGEST, most: int = _LARGEST) -> int | None:
        """A whole number or None, which is the default."""
        expected = _range("a whole number", least, most)
        return self._take(name, None, _or_none(_within(_whole, least, most)), f"None or {expected}")

    def optional_number(self, name: str) -> float | None:
        """A number or None, which is the default."""
        return self._take(name, None, _or_none(_within(float, -math.inf, math.inf)), "None or a number")

    def sizes(
        self,
        name: str,
        default: Sequence[int] = REQUIRED,
        *,
        least: int = -_LARGEST,
        most: int = _LARGEST,
    ) -> tuple[int, ...]:
        """Whole numbers, such as ``(3, 3)``; a single one may lack its brackets."""
        default = tuple(default) if default is not REQUIRED else default
        return self._take(
            name, default, _all(_within(_whole, least, most)), _range("whole numbers", least, most)
        )

    def axes(self, name: str) -> tuple[int, ...]:
        """Numbers of axes, none by default."""
        return self.sizes(name, (), least=-_DIMENSIONS, most=_DIMENSIONS - 1)

    def ends(self, name: str) -> tuple[int | None, ...]:
        """Whole numbers or None, none by default."""
        read = _all(_or_none(_within(_whole, -_LARGEST, _LARGEST)))
        return self._take(name, (), read, "whole numbers or None")

    def choice(self, name: str, choices: Sequence[str], default: str = REQUIRED) -> str:
        """One of several words."""
        return self._take(name, default, lambda text: choices[choices.index(text)], " or ".join(choices))

    def ignore(self, *names: str) -> None:
        """Ignore attributes that do not change the result."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Raise a ValueError about attributes that were not read."""
        if self._left:
            raise self.error(
                f"{_shown(self._left)} is not known and may change the result, so it cannot be converted"
            )

    def _take(self, name: str, default: Any, read: Callable[[str], _T], expected: str) -> _T:
        text = self._left.pop(name, None)
        if text is None:
            if default is REQUIRED:
                raise self.error(f"the attribute {name!r} is missing")
            return default  # type: ignore[no-any-return]
        try:
            return read(text.strip())
        except (ValueError, KeyError):
            raise self.error(f"{name}={text!r:.100} cannot be converted; expected {expected}") from None


def _shown(values: Mapping[str, str]) -> str:
    return ", ".join(f"{_plain(name)}={value!r:.100}" for name, value in sorted(values.items()))


def _plain(name: str) -> str:
    """A name as it is; one that would spoil a message in quotes."""
    return f"{name:.100}" if name.isidentifier() else f"{name!r:.100}"


def _whole(text: str) -> int:
    return int(text.removesuffix("L"))  # Python 2 wrote `3L`


def _within(read: Callable[[str], Any], least: float, most: float) -> Callable[[str], Any]:
    """Read a number, and refuse it outside of a range; NaN is in none."""

    def checked(text: str) -> Any:
        value = read(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return checked


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "None" else read(text)


def _all(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Read a list; None is an empty one."""

    def every(text: str) -> tuple[Any, ...]:
        if text == "None":
            return ()
        inside = text[text.startswith(("(", "[")) : len(text) - text.endswith((")", "]"))].strip()
        items = inside.removesuffix(",").split(",", _DIMENSIONS) if inside else []
        return tuple(read(item.strip()) for item in items)

    return every


def _range(what: str, least: float, most: float) -> str:
    low, high = abs(least) not in (_LARGEST, math.inf), abs(most) not in (_LARGEST, math.inf)
    if low and high:
        return f"{what} from {least} to {most}"
    return f"{what} of at least {least}" if low else what
