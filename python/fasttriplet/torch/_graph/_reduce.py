"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from fasttriplet.torch._graph._operator import Builder, Operator
from torch import fx


def reduction(function: Callable[..., Any]) -> Builder:
    """A function such as ``torch.sum`` over some axes, or over all of them, which leaves one of size 1."""

    def build(op: Operator) -> fx.Node:
        axes, keep = op.attributes.sizes("axis", ()), op.attributes.flag("keepdims", False)
        if op.attributes.flag("exclude", False):
            return op.call(_over_others, function, op.data, axes, keep)
        if axes:
            return op.call(function, op.data, axes, keepdim=keep)
        return op.call(_over_all, function, op.data, keep)

    return build


def norm(op: Operator) -> fx.Node:
    """``norm``: the 1-norm or 2-norm."""
    order = op.attributes.whole("ord", 2)
    axes, keep = op.attributes.sizes("axis", ()), op.attributes.flag("keepdims", False)
    op.attributes.choice("out_dtype", ("None",), "None")
    if order not in (1, 2):
        raise op.attributes.error(f"ord={order} cannot be converted; expected 1 or 2")
    power = op.call(torch.abs, op.data) if order == 1 else op.call(torch.square, op.data)
    if axes:
        total = op.call(torch.sum, power, axes, keepdim=keep)
    else:
        total = op.call(_over_all, torch.sum, power, keep)
    return total if order == 1 else op.call(torch.sqrt, total)


def _over_all(function: Callable[..., Any], data: torch.Tensor, keep: bool) -> torch.Tensor:
    return function(data, tuple(range(data.ndim)), keepdim=True).reshape([1] * (data.ndim if keep else 1))


def _over_others(
    function: Callable[..., Any], data: torch.Tensor, axes: Sequence[int], keep: bool
) -> torch.Tensor:
    excluded = {axis % data.ndim for axis in axes}
    return function(data, tuple(axis for axis in range(data.ndim) if axis not in excluded), keepdim=keep)
