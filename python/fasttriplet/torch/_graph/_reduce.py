"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fasttriplet.torch._graph._operator import Builder, Operator
from torch import fx, nn


def reduction(function: Callable[..., Any]) -> Builder:
    """A function such as ``torch.sum`` over some axes, or over all of them."""

    def build(op: Operator) -> fx.Node:
        axes, keep = op.attributes.sizes("axis", ()), op.attributes.flag("keepdims", False)
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


class Reduce(nn.Module):  # type: ignore[misc, unused-ignore]
    """A function over some axes, or over all others. If no axis is left, the result has one of size 1."""

    def __init__(
        self, function: Callable[..., Any], axes: tuple[int, ...], *, keep: bool, others: bool
    ) -> None:
        super().__init__()
        self.function, self.axes, self.keep, self.others = function, axes, keep, others

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Reduce."""
        named = {axis % data.ndim for axis in self.axes}
        axes = [axis for axis in range(data.ndim) if (axis in named) != self.others]
        result: torch.Tensor = self.function(data, axes, keepdim=self.keep)
        return result if result.ndim else result.reshape(1)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        which = ("all axes but " if self.axes else "all axes") if self.others else "axes "
        return f"{self.function.__name__}, {which}{self.axes or ''}"


def norm(op: Operator) -> fx.Node:
    """``norm``: the 1-norm or 2-norm."""
    order = op.attributes.whole("ord", 2)
    op.attributes.choice("out_dtype", ("None",), "None")
    if order not in (1, 2):
        raise op.attributes.error(f"ord={order} cannot be converted; expected 1 or 2")
    axes, keep = op.attributes.sizes("axis", ()), op.attributes.flag("keepdims", False)
    powers = op.call(torch.abs if order == 1 else torch.square, op.data)
    total = _reduced(op, powers, torch.sum, axes, keep=keep)
    return total if order == 1 else op.call(torch.sqrt, total)
