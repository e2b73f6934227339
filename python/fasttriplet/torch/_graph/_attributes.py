"""The attributes of one operator: each is read once, and what nobody reads is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")
_FLAGS = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}
# How MXNet computes, not what: memory for and choice of an algorithm, the calibration for int8.
_NO_EFFECT = (
    "workspace", "cudnn_tune", "cudnn_off", "cudnn_algo_fwd", "cudnn_algo_bwd_data", "cudnn_algo_bwd_filter",
    "cudnn_algo_fwd_prec", "cudnn_algo_bwd_prec", "min_calib_range", "max_calib_range", "num_args", "is_int",
)  # fmt: skip
REQUIRED: Any = object()


class Attributes:
    """The attributes of the node that is being converted.

    Every method takes the name of an attribute and its default in MXNet 1.9.1. A value that cannot be
    converted is a ValueError with the node, its operator, the attribute and the value.
    """

    def __init__(self, node: str, op: str, values: Mapping[str, str]) -> None:
        self._where = f"node {node!r} ({op})"
        self._left = {name: value for name, value in values.items() if name not in _NO_EFFECT}

    def error(self, message: str) -> ValueError:
        """An error about the node."""
        return ValueError(f"{self._where}: {message}")

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        return self._take(name, default, _FLAGS.__getitem__, "True or False")

    def whole(self, name: str, default: int | None = REQUIRED) -> int:
        """A whole number."""
        return self._take(name, default, _whole, "a whole number")

    def number(self, name: str, default: float | None = REQUIRED) -> float:
        """A number."""
        return self._take(name, default, float, "a number")

    def optional(self, name: str) -> int | None:
        """A whole number or None, which is the default."""
        return self._take(
            name, None, lambda text: None if text == "None" else _whole(text), "a number or None"
        )

    def optional_number(self, name: str) -> float | None:
        """A number or None, which is the default."""
        return self._take(
            name, None, lambda text: None if text == "None" else float(text), "a number or None"
        )

    def sizes(self, name: str, default: Sequence[int] = REQUIRED) -> tuple[int, ...]:
        """Whole numbers, such as ``(3, 3)``; a single one may lack its brackets."""
        return self._take(
            name, tuple(default) if default is not REQUIRED else default, _wholes, "whole numbers"
        )

    def ends(self, name: str) -> tuple[int | None, ...]:
        """Whole numbers or None, none by default."""
        return self._take(name, (), _ends, "whole numbers or None")

    def choice(self, name: str, choices: Sequence[str], default: str = REQUIRED) -> str:
        """One of some words."""
        return self._take(name, default, lambda text: choices[choices.index(text)], " or ".join(choices))

    def ignore(self, *names: str) -> None:
        """Pass over attributes that do not change the result."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Raise a ValueError about attributes that were not read."""
        if self._left:
            found = ", ".join(f"{name}={value!r}" for name, value in sorted(self._left.items()))
            raise self.error(f"{found} is not known; what it does to the result cannot be converted")

    def _take(self, name: str, default: Any, read: Callable[[str], _T], expected: str) -> _T:
        text = self._left.pop(name, None)
        if text is None:
            if default is REQUIRED:
                raise self.error(f"the attribute {name!r} is missing")
            return default  # type: ignore[no-any-return]
        try:
            return read(text.strip())
        except (ValueError, KeyError):
            raise self.error(f"{name}={text!r} cannot be converted; expected {expected}") from None


def _whole(text: str) -> int:
    return int(text.removesuffix("L"))  # Python 2 wrote `3L`


def _wholes(text: str) -> tuple[int, ...]:
    return tuple(map(_whole, _items(text)))


def _ends(text: str) -> tuple[int | None, ...]:
    return tuple(None if item == "None" else _whole(item) for item in _items(text))


def _items(text: str) -> list[str]:
    if text == "None":
        return []
    inside = re.fullmatch(r"[(\[]?(.*?),?\s*[)\]]?", text)
    return [item.strip() for item in inside[1].split(",")] if inside and inside[1].strip() else []
