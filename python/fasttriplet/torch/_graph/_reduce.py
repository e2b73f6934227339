"""Reductions over axes: sums, means, extremes and norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from fasttriplet.torch._graph._operator import Builder, Operator
from torch import fx, nn


def reduction(function: Callable[..., Any]) -> Builder:
    """A function such as ``torch.sum`` over some axes, or over all of them."""

    def build(op: Operator) -> fx.Node:
        axes, keep = op.attributes.axes("axis"), op.attributes.flag("keepdims", False)
        others = op.attributes.flag("exclude", False)
        return _reduced(op, op.data, function, axes, keep=keep, others=others)

    return build


def _reduced(
    op: Operator,
    data: fx.Node,
    function: Callable[..., Any],
    axes: tuple[int, ...],
    *,
    keep: bool,
    others: bool = False,
) -> fx.Node:
    if axes and keep and not others:
        return op.call(function, data, axes, keepdim=True)
    return op.layer(lambda: Reduce(function, axes, keep=keep, others=others or not axes), data)


def largest(data: torch.Tensor, axes: Sequence[int], keepdim: bool) -> torch.Tensor:
    """``max``."""
    return _reduced_to_one(torch.amax, data, axes, keepdim)


def smallest(data: torch.Tensor, axes: Sequence[int], keepdim: bool) -> torch.Tensor:
    """``min``."""
    return _reduced_to_one(torch.amin, data, axes, keepdim)


def _reduced_to_one(
    function: Callable[..., Any], data: torch.Tensor, axes: Sequence[int], keepdim: bool
) -> torch.Tensor:
    found: torch.Tensor = _Extreme.apply(data, function, tuple(axes))  # type: ignore[no-untyped-call]
    return found if keepdim else found.squeeze(tuple(axes))


class _Extreme(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """An extreme over axes. Each value that equals it has the whole gradient; in PyTorch each has a share."""

    @staticmethod
    def forward(data: torch.Tensor, function: Callable[..., Any], axes: tuple[int, ...]) -> torch.Tensor:
        return function(data, axes, keepdim=True)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        context.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        data, extreme = context.saved_tensors
        return gradient * (data == extreme), None, None


class Reduce(nn.Module):  # type: ignore[misc, unused-ignore]
    """Reduce some axes, or all axes but those. A result without axes gets one of size 1."""

    def __init__(
        self, function: Callable[..., Any], axes: tuple[int, ...], *, keep: bool, others: bool
    ) -> None:
        super().__init__()
        self.function, self.axes, self.keep, self.others = function, axes, keep, others

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Reduce."""
        named = {axis if axis >= 0 else axis + data.ndim for axis in self.axes}
        if not named <= set(range(data.ndim)):
            raise IndexError(f"there are {data.ndim} axes")
        axes = [axis for axis in range(data.ndim) if (axis in named) != self.others]
        if not axes:
            raise ValueError(f"none of {data.ndim} axes is left to reduce")
        result: torch.Tensor = self.function(data, axes, keepdim=self.keep)
        return result if result.ndim else result.reshape(1)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        which = ("all axes but " if self.axes else "all axes") if self.others else "axes "
        return f"{self.function.__name__}, {which}{self.axes or ''}"


def norm(op: Operator) -> fx.Node:
    """``norm``: the 1-norm or 2-norm."""
    order = op.attributes.whole("ord", 2, least=1, most=2)
    op.attributes.choice("out_dtype", ("None",), "None")
    axes, keep = op.attributes.axes("axis"), op.attributes.flag("keepdims", False)
    powers = op.call(torch.abs if order == 1 else torch.square, op.data)
    total = _reduced(op, powers, torch.sum, axes, keep=keep)
    return total if order == 1 else op.call(torch.sqrt, total)
