"""Operators that only move values, such as reshape, slice and concatenate."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn

_MOST_PARTS = 999  # of SliceChannel; a hostile graph may ask for millions


def flatten(op: Operator) -> fx.Node:
    """Join all axes after the first into one."""
    return op.call(torch.flatten, op.data, 1)


def reshape(op: Operator) -> fx.Node:
    """``Reshape`` with its special numbers."""
    shape, reverse = op.attributes.sizes("shape", ()), op.attributes.flag("reverse", False)
    op.attributes.choice("target_shape", ("(0,0)", "(0, 0)", "()", "None"), "None")
    op.attributes.choice("keep_highest", ("False", "0"), "False")
    if not _is_legal(shape, splits=not reverse):
        raise op.attributes.error(
            f"shape={shape} cannot be converted; expected sizes, at most one -1, and 0, -2, -3 or (not with "
            "reverse=True) -4 with two sizes after it"
        )
    if not reverse and all(size > 0 or size == -1 for size in shape):
        return op.call(torch.reshape, op.data, shape)
    return op.layer(lambda: Reshape(shape, reverse))


class Reshape(nn.Module):  # type: ignore[misc, unused-ignore]
    """0 keeps an axis, -1 is the size that is left, -2 keeps all axes left, -3 joins two, -4 splits one."""

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


def _is_legal(shape: Sequence[int], *, splits: bool) -> bool:
    """Whether the numbers mean a shape for some input."""
    ahead, unknown = list(shape), 0
    while ahead:
        number = ahead.pop(0)
        if number == -4:
            if not splits or len(ahead) < 2:
                return False
            parts, ahead = ahead[:2], ahead[2:]
            if min(parts) < -1 or 0 in parts or parts == [-1, -1]:
                return False
        elif number < -4:
            return False
        unknown += number == -1
    return bool(shape) and unknown <= 1


def reshaped(old: Sequence[int], numbers: Sequence[int]) -> list[int]:
    """The new shape (MXNet's ``InferReshapeShape``).

    The size for -1 is computed from the axes that others do not keep, so that it is known for 0 images, too.
    """
    new: list[int] = []
    left, given = 1, 1  # products of the sizes that are not kept, and of those that take their place
    taken, ahead = 0, list(numbers)

    def take() -> int:
        nonlocal taken
        taken += 1
        if taken > len(old):
            raise ValueError(f"the shape {tuple(numbers)} has no meaning for the shape {tuple(old)}")
        return old[taken - 1]

    while ahead:
        number = ahead.pop(0)
        if number == -2:
            new += old[taken:]
            taken = len(old)
        elif number == -3:
            new.append(take() * take())
        elif number == -4:
            size, first, second = take(), ahead.pop(0), ahead.pop(0)
            new += [size // second if first == -1 else first, size // first if second == -1 else second]
        elif number == 0:
            new.append(take())
        else:
            new.append(number)
            given *= max(number, 1)
            if taken < len(old):
                left *= take()
    if -1 in new:
        new[new.index(-1)] = math.prod([left, *old[taken:]]) // given
    return new


def transpose(op: Operator) -> fx.Node:
    """Permute the axes; by default, reverse their order."""
    axes = op.attributes.axes("axes")
    return op.call(torch.permute, op.data, axes) if axes else op.call(_reversed_axes, op.data)


def _reversed_axes(data: torch.Tensor) -> torch.Tensor:
    return data.permute(*range(data.ndim - 1, -1, -1))


def swap_axes(op: Operator) -> fx.Node:
    """Swap two axes."""
    return op.call(torch.transpose, op.data, op.attributes.axis("dim1", 0), op.attributes.axis("dim2", 0))


def expand_dims(op: Operator) -> fx.Node:
    """Add an axis of size 1."""
    return op.call(torch.unsqueeze, op.data, op.attributes.axis("axis"))


def squeeze(op: Operator) -> fx.Node:
    """Remove axes of size 1."""
    axes = op.attributes.axes("axis")
    return op.call(torch.squeeze, op.data, axes) if axes else op.call(torch.squeeze, op.data)


def slice_axis(op: Operator) -> fx.Node:
    """Select a range of one axis."""
    axis, begin, end = (
        op.attributes.axis("axis"),
        op.attributes.whole("begin"),
        op.attributes.optional("end"),
    )
    return op.call(_part, op.data, axis, begin, end)


def _part(data: torch.Tensor, axis: int, begin: int, end: int | None) -> torch.Tensor:
    size = data.shape[axis]
    first, last = (at if at >= 0 else at + size for at in (begin, size if end is None else end))
    if not 0 <= first < last <= size:
        raise ValueError(f"axis {axis} has the size {size}, so there are no values from {begin} to {end}")
    return data.narrow(axis, first, last - first)


def slice_(op: Operator) -> fx.Node:
    """Select ranges of the first axes."""
    begin, end, step = (op.attributes.ends(name) for name in ("begin", "end", "step"))
    if any(number is not None and number < 1 for number in step):
        raise op.attributes.error(f"step={step} cannot be converted; expected numbers above 0")
    if len(begin) != len(end) or len(step) not in (0, len(begin)):
        raise op.attributes.error(f"begin={begin}, end={end} and step={step} have different lengths")
    steps = step or (None,) * len(begin)
    return op.call(_sliced, op.data, tuple(map(slice, begin, end, steps)))


def _sliced(data: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """Select ranges. Their ends may lie outside of the data, and their beginnings may not."""
    for axis, (size, part) in enumerate(zip(data.shape, parts, strict=False)):
        if part.stop is None and not part.start:
            continue
        begin, end, _ = part.indices(size)
        if (part.start or 0) < -size or (size and begin >= end):
            raise ValueError(
                f"axis {axis} has the size {size}, so there are no values from {part.start} to {part.stop}"
            )
    return data[tuple(parts)]


def split(op: Operator) -> list[fx.Node]:
    """``SliceChannel``: equal parts of one axis; `squeeze_axis` removes the axis if its parts have size 1."""
    count = op.attributes.whole("num_outputs", least=1, most=_MOST_PARTS)
    axis, squeezed = op.attributes.axis("axis", 1), op.attributes.flag("squeeze_axis", False)
    parts = op.call(_parts, op.data, count, axis, squeezed)
    return [op.call(operator.getitem, parts, number) for number in range(count)]


def _parts(data: torch.Tensor, count: int, axis: int, squeezed: bool) -> Sequence[torch.Tensor]:
    size = data.shape[axis]
    if size % count or (squeezed and size != count):
        raise ValueError(f"axis {axis} has the size {size}, and cannot be split into {count}")
    return data.unbind(axis) if squeezed else data.tensor_split(count, axis)


def concatenate(op: Operator) -> fx.Node:
    """``Concat``."""
    return op.call(torch.cat, op.values(), op.attributes.axis("dim", 1))


def stack(op: Operator) -> fx.Node:
    """Join tensors along a new axis."""
    return op.call(torch.stack, op.values(), op.attributes.axis("axis", 0))


def tile(op: Operator) -> fx.Node:
    """Repeat along each axis."""
    return op.call(torch.tile, op.data, op.attributes.sizes("reps", least=1))


def pad(op: Operator) -> fx.Node:
    """``Pad`` around the maps."""
    modes = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}
    mode = modes[op.attributes.choice("mode", list(modes))]
    widths, value = op.attributes.sizes("pad_width", least=0), op.attributes.number("constant_value", 0.0)
    if len(widths) not in (8, 10) or any(widths[:4]):
        raise op.attributes.error(
            f"pad_width={widths} cannot be converted; expected 8 or 10 numbers, the first 4 of them 0"
        )
    around = [n for at in range(len(widths) - 2, 2, -2) for n in widths[at : at + 2]]
    return op.call(functional.pad, op.data, around, mode, value if mode == "constant" else None)
