"""The precision that a network computes in: the names of the option."""

from __future__ import annotations

from typing import Any, Literal, get_args

from fasttriplet._checks import one_of

Precision = Literal["float32", "tf32", "bfloat16"]


def precision_named(name: Any) -> Precision:
    """Return the option `precision`; ``"bf16"`` is short for ``"bfloat16"``."""
    if isinstance(name, str) and name == "bf16":
        return "bfloat16"
    one_of("precision", name, get_args(Precision))
    precision: Precision = name
    return precision
