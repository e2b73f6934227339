"""Operators that move values: reshape, slice, concatenate."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn


def flatten(op: Operator) -> fx.Node:
    """All axes after the first become one."""
    return op.call(torch.flatten, op.data, 1)


def reshape(op: Operator) -> fx.Node:
    """``Reshape`` with its special numbers."""
    shape, reverse = op.attributes.sizes("shape", ()), op.attributes.flag("reverse", False)
    op.attributes.choice("target_shape", ("(0,0)", "(0, 0)", "()", "None"), "None")
    op.attributes.choice("keep_highest", ("False", "0"), "False")
    if not shape:
        raise op.attributes.error("shape=() cannot be converted; expected at least one number")
    if not reverse and all(size > 0 or size == -1 for size in shape):
        return op.call(torch.reshape, op.data, shape)
    return op.layer(lambda: Reshape(shape, reverse))


class Reshape(nn.Module):  # type: ignore[misc, unused-ignore]
    """0 keeps an axis, -1 is what is left, -2 keeps the rest, -3 joins two axes, -4 splits one in two."""

    def __init__(self, shape: Sequence[int], reverse: bool) -> None:
        super().__init__()
        self.shape, self.reverse = tuple(shape), reverse

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Reshape."""
        if self.reverse:
            return data.reshape(reshaped(data.shape[::-1], self.shape[::-1])[::-1])
        return data.reshape(reshaped(data.shape, self.shape))

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"{self.shape}, from the right" if self.reverse else str(self.shape)


def reshaped(old: Sequence[int], numbers: Sequence[int]) -> list[int]:
    """The new shape (MXNet's ``InferReshapeShape``); one size may be -1."""
    new: list[int] = []
    taken, ahead = 0, list(numbers)
    while ahead:
        number = ahead.pop(0)
        if number == -2:
            new += old[taken:]
            taken = len(old)
        elif number == -3:
            new.append(old[taken] * old[taken + 1])
            taken += 2
        elif number == -4:
            first, second = ahead.pop(0), ahead.pop(0)
            new += [
                old[taken] // second if first == -1 else first,
                old[taken] // first if second == -1 else second,
            ]
            taken += 1
        else:
            new.append(old[taken] if number == 0 else number)
            taken += 1
    return new


def transpose(op: Operator) -> fx.Node:
    """The axes in another order, by default the opposite one."""
    axes = op.attributes.sizes("axes", ())
    return op.call(torch.permute, op.data, axes) if axes else op.call(_reversed_axes, op.data)


def _reversed_axes(data: torch.Tensor) -> torch.Tensor:
    return data.permute(*range(data.ndim - 1, -1, -1))


def swap_axes(op: Operator) -> fx.Node:
    """Two axes change places."""
    return op.call(torch.transpose, op.data, op.attributes.whole("dim1", 0), op.attributes.whole("dim2", 0))


def expand_dims(op: Operator) -> fx.Node:
    """A new axis of size 1."""
    return op.call(torch.unsqueeze, op.data, op.attributes.whole("axis"))


def squeeze(op: Operator) -> fx.Node:
    """Axes of size 1 go."""
    axes = op.attributes.sizes("axis", ())
    return op.call(torch.squeeze, op.data, axes) if axes else op.call(torch.squeeze, op.data)


def slice_axis(op: Operator) -> fx.Node:
    """A part of one axis."""
    axis, begin, end = (
        op.attributes.whole("axis"),
        op.attributes.whole("begin"),
        op.attributes.optional("end"),
    )
    return op.call(operator.getitem, op.data, _along(axis, slice(begin, end)))


def _along(axis: int, part: slice) -> tuple[object, ...]:
    if axis < 0:
        return (..., part, *[slice(None)] * (-axis - 1))
    return (*[slice(None)] * axis, part)


def slice_(op: Operator) -> fx.Node:
    """A part of the first axes."""
    begin, end, step = (op.attributes.ends(name) for name in ("begin", "end", "step"))
    if any(number is not None and number < 1 for number in step):
        raise op.attributes.error(f"step={step} cannot be converted; expected numbers above 0")
    steps = step or (None,) * len(begin)
    return op.call(operator.getitem, op.data, tuple(map(slice, begin, end, steps)))


def split(op: Operator) -> list[fx.Node]:
    """``SliceChannel``: equal parts along one axis, which may go."""
    count, axis = op.attributes.whole("num_outputs"), op.attributes.whole("axis", 1)
    if op.attributes.flag("squeeze_axis", False):
        parts = op.call(torch.unbind, op.data, axis)
    else:
        parts = op.call(torch.tensor_split, op.data, count, axis)
    return [op.call(operator.getitem, parts, number) for number in range(count)]


def concatenate(op: Operator) -> fx.Node:
    """``Concat``."""
    return op.call(torch.cat, op.values(), op.attributes.whole("dim", 1))


def stack(op: Operator) -> fx.Node:
    """Along a new axis."""
    return op.call(torch.stack, op.values(), op.attributes.whole("axis", 0))


def tile(op: Operator) -> fx.Node:
    """Repeat along each axis."""
    return op.call(torch.tile, op.data, op.attributes.sizes("reps"))


def pad(op: Operator) -> fx.Node:
    """``Pad`` around the maps."""
    modes = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}
    mode = modes[op.attributes.choice("mode", list(modes))]
    widths, value = op.attributes.sizes("pad_width"), op.attributes.number("constant_value", 0.0)
    if any(widths[:4]):
        raise op.attributes.error(
            f"pad_width={widths} cannot be converted; expected zeros for the first two axes"
        )
    around = [n for at in range(len(widths) - 2, 2, -2) for n in widths[at : at + 2]]
    return op.call(functional.pad, op.data, around, mode, value if mode == "constant" else None)
