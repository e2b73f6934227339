"""Elementwise operators."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Builder, Operator
from torch import fx, nn

_Function = Callable[..., Any]
CASTS = ("Cast", "cast")
TYPES = {
    name: getattr(torch, name)
    for name in ("float16", "float32", "float64", "uint8", "int8", "int32", "int64")
}


def same(op: Operator) -> fx.Node:
    """Return the input as it is."""
    return op.data


def unary(function: _Function) -> Builder:
    """A function of one tensor."""
    return lambda op: op.call(function, op.data)


def binary(function: _Function) -> Builder:
    """A function of two tensors, which are broadcast as in NumPy."""
    return lambda op: op.call(function, op.value(0), op.value(1))


def with_scalar(function: _Function) -> Builder:
    """A function of a tensor and a number."""
    return lambda op: op.call(function, op.data, op.attributes.number("scalar"))


def of_scalar(function: _Function) -> Builder:
    """A function of a number and a tensor."""
    return lambda op: op.call(function, op.attributes.number("scalar"), op.data)


def larger(op: Operator) -> fx.Node:
    """The larger of two tensors. Where they are equal, the gradient is that of the first."""
    first, second = op.value(0), op.value(1)
    return op.call(torch.where, op.call(torch.ge, first, second), first, second)


def smaller(op: Operator) -> fx.Node:
    """The smaller of two tensors. Where they are equal, the gradient is that of the first."""
    first, second = op.value(0), op.value(1)
    return op.call(torch.where, op.call(torch.le, first, second), first, second)


def at_least(op: Operator) -> fx.Node:
    """A tensor or a number, whichever is larger."""
    return _at_least(op, op.data, op.attributes.number("scalar"))


def at_most(op: Operator) -> fx.Node:
    """A tensor or a number, whichever is smaller."""
    return _at_most(op, op.data, op.attributes.number("scalar"))


def clip(op: Operator) -> fx.Node:
    """Limit values to a range; the gradient at its ends is that inside of it."""
    low, high = op.attributes.number("a_min"), op.attributes.number("a_max")
    if low > high:
        raise op.attributes.error(f"a_min={low} is above a_max={high}")
    return _at_most(op, _at_least(op, op.data, low), high)


# Values that equal the number have a gradient. Those of torch.clamp have one or not, by its version.
def _at_least(op: Operator, data: fx.Node, low: float) -> fx.Node:
    return op.call(torch.where, op.call(torch.lt, data, low), low, data)


def _at_most(op: Operator, data: fx.Node, high: float) -> fx.Node:
    return op.call(torch.where, op.call(torch.gt, data, high), high, data)


def total(op: Operator) -> fx.Node:
    """The sum of all inputs."""
    return reduce(lambda sum_, value: op.call(operator.add, sum_, value), op.values())


def hard_sigmoid(op: Operator) -> fx.Node:
    """A linear function, limited to 0..1; the gradient is 0 at both ends."""
    alpha, beta = op.attributes.number("alpha", 0.2), op.attributes.number("beta", 0.5)
    line = op.call(operator.add, op.call(operator.mul, op.data, alpha), beta)
    return op.call(functional.hardtanh, line, 0.0, 1.0)


def without_gradient(op: Operator) -> fx.Node:
    """``BlockGrad``."""
    return op.call(torch.detach, op.data)


def cast(op: Operator) -> fx.Node:
    """``Cast``: convert to another type."""
    dtype = TYPES[op.attributes.choice("dtype", list(TYPES))]
    return op.layer(lambda: Cast(dtype))


class Cast(nn.Module):  # type: ignore[misc, unused-ignore]
    """Convert to another type. ``module.float()`` and the like change this type with that of the weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.example: torch.Tensor
        self.register_buffer("example", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Convert."""
        return data.to(self.example.dtype)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return str(self.example.dtype)
