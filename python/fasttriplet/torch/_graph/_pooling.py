"""``Pooling`` and ``Pooling_v1``: maxima, means, sums and p-norms of windows, or of whole maps."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from torch.nn import functional

import torch
from fasttriplet.torch._graph._layers import check_layout
from fasttriplet.torch._graph._operator import Operator
from fasttriplet.torch._graph._reduce import largest
from torch import fx, nn

_GLOBAL_MEANS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_MEANS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_MAXIMA = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


def pooling(op: Operator) -> fx.Node:
    """``Pooling``. The stride is 1 by default, and a global pooling has no use for its kernel."""
    whole = op.attributes.flag("global_pool", False)
    kind = op.attributes.choice("pool_type", ("max", "avg", "sum", "lp"), "max")
    kernel, stride, pad, ceil = _windows(op, whole)
    include_pad = op.attributes.choice("count_include_pad", ("True", "False", "1", "0", "None"), "True")
    power = op.attributes.optional("p_value", least=1, most=3) if kind == "lp" else 1
    op.attributes.ignore("p_value")
    check_layout(op, kernel)
    if power is None:
        raise op.attributes.error(
            "pool_type='lp' and p_value is missing or None; expected a number from 1 to 3"
        )
    if whole:
        if kind == "avg" and len(kernel) in _GLOBAL_MEANS:
            return op.layer(lambda: _GLOBAL_MEANS[len(kernel)](1))
        return op.layer(lambda: GlobalPool(kind, power))
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise op.attributes.error(f"pad={pad} is not smaller than kernel={kernel}")
    with_pad = include_pad not in ("False", "0")
    # Where PyTorch's layers differ: they take no more than half a window of padding, and drop windows that
    # begin in the padding at the end.
    differs = any(2 * p > k or (ceil and p + s > k) for k, s, p in zip(kernel, stride, pad, strict=True))
    if kind == "max" and not differs:
        return op.layer(lambda: _MAXIMA[len(kernel)](kernel, stride, pad, ceil_mode=ceil))
    if kind == "avg" and not differs:
        return op.layer(lambda: _MEANS[len(kernel)](kernel, stride, pad, ceil, with_pad))
    return op.layer(lambda: Pool(kind, kernel, stride, pad, ceil=ceil, with_pad=with_pad, power=power))


def pooling_v1(op: Operator) -> fx.Node:
    """``Pooling_v1``: padding is zeros, for maxima too; means are sums divided by the window's size."""
    whole = op.attributes.flag("global_pool", False)
    kind = op.attributes.choice("pool_type", ("max", "avg", "sum"), "max")
    kernel, stride, pad, ceil = _windows(op, whole)
    if whole:
        function = {"max": largest, "avg": torch.mean, "sum": torch.sum}[kind]
        return op.call(function, op.data, (2, 3), keepdim=True)
    if len(kernel) != 2:
        raise op.attributes.error(f"kernel={kernel} cannot be converted; expected 2 sizes")
    data = op.call(functional.pad, op.data, [pad[1], pad[1], pad[0], pad[0]]) if any(pad) else op.data
    found = op.layer(
        lambda: PoolV1("max" if kind == "max" else "sum", kernel, stride, (0, 0), ceil=ceil), data
    )
    return op.call(operator.truediv, found, math.prod(kernel)) if kind == "avg" else found


def _windows(op: Operator, whole: bool) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """Read kernel, stride, padding, and whether a last window may be incomplete; a global one needs none."""
    kernel = op.attributes.sizes("kernel", (), least=0 if whole else 1)
    stride = op.attributes.sizes("stride", (), least=1) or (1,) * len(kernel)
    pad = op.attributes.sizes("pad", (), least=0) or (0,) * len(kernel)
    if not whole and not (0 < len(kernel) <= 3 and len(stride) == len(pad) == len(kernel)):
        raise op.attributes.error(f"kernel={kernel}, stride={stride}, pad={pad}; expected 1 to 3 sizes each")
    return (
        kernel,
        stride,
        pad,
        op.attributes.choice("pooling_convention", ("valid", "full"), "valid") == "full",
    )


def _power(data: torch.Tensor, power: int) -> torch.Tensor:
    return data if power == 1 else data.pow(power)


def _root(total: torch.Tensor, power: int) -> torch.Tensor:
    """The root, with the sign of the sum: MXNet takes powers of the values, not of their magnitudes."""
    return total if power == 1 else total.sign() * total.abs().pow(1 / power)


def _first_maximum(data: torch.Tensor, axes: int) -> torch.Tensor:
    """Reduce the last axes. Where several values are equal, the gradient is that of the first."""
    return data.flatten(-axes).max(-1).values


class GlobalPool(nn.Module):  # type: ignore[misc, unused-ignore]
    """Reduce each map to one number; its axes stay, with size 1."""

    def __init__(self, kind: str, power: int) -> None:
        super().__init__()
        self.kind, self.power = kind, power

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Pool."""
        axes = tuple(range(2, data.ndim))
        if self.kind == "max":
            return _first_maximum(data, len(axes)).reshape(*data.shape[:2], *[1] * len(axes))
        if self.kind == "avg":
            return data.mean(axes, keepdim=True)
        return _root(_power(data, self.power).sum(axes, keepdim=True), self.power)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return self.kind


class Pool(nn.Module):  # type: ignore[misc, unused-ignore]
    """Pooling for which PyTorch has no layer: it pads the maps, then reduces windows of them."""

    def __init__(
        self,
        kind: str,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int],
        *,
        ceil: bool,
        with_pad: bool = True,
        power: int = 1,
    ) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.pad = kind, tuple(kernel), tuple(stride), tuple(pad)
        self.ceil, self.with_pad, self.power = ceil, with_pad, power

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Pool."""
        sides = data.shape[2:]
        counts = [self._windows(axis, size) for axis, size in enumerate(sides)]
        if min(counts) < 1:
            raise ValueError(f"a window of {self.kernel} does not fit maps of {tuple(sides)}")
        # The last window may reach beyond the padding; that part is filled, too.
        ends = [
            max((count - 1) * stride + kernel - size - pad, pad)
            for count, stride, kernel, size, pad in zip(
                counts, self.stride, self.kernel, sides, self.pad, strict=True
            )
        ]
        around = [n for pad, end in zip(reversed(self.pad), reversed(ends), strict=True) for n in (pad, end)]
        data = functional.pad(
            _power(data, self.power), around, value=float("-inf") if self.kind == "max" else 0.0
        )
        windows = data
        for axis, (count, kernel, stride) in enumerate(zip(counts, self.kernel, self.stride, strict=True)):
            windows = windows.unfold(2 + axis, kernel, stride).narrow(2 + axis, 0, count)
        axes = tuple(range(-len(sides), 0))
        if self.kind == "max":
            return self._maxima(windows, axes)
        total = _root(windows.sum(axes), self.power)
        if self.kind == "avg":
            for axis, (count, size) in enumerate(zip(counts, sides, strict=True)):
                shape = [-1, *[1] * (len(sides) - 1 - axis)]
                total = total / total.new_tensor(self._lengths(axis, count, size)).reshape(shape)
        return total

    def _maxima(self, windows: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        return _first_maximum(windows, len(axes))

    def _windows(self, axis: int, size: int) -> int:
        room = size + 2 * self.pad[axis] - self.kernel[axis]
        return (-(-room // self.stride[axis]) if self.ceil else room // self.stride[axis]) + 1

    def _lengths(self, axis: int, count: int, size: int) -> list[int]:
        """Count the values that each window has along one axis, with the padding or without it."""
        pad, kernel, stride = self.pad[axis], self.kernel[axis], self.stride[axis]
        first, last = (-pad, size + pad) if self.with_pad else (0, size)
        starts = [number * stride - pad for number in range(count)]
        return [min(start + kernel, last) - max(start, first) for start in starts]

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        full = ", full" if self.ceil else ""
        return f"{self.kind}, kernel={self.kernel}, stride={self.stride}, padding={self.pad}{full}"


class PoolV1(Pool):
    """``Pooling_v1``: equal maxima all have the gradient; the maximum of an empty window is -infinity."""

    def _maxima(self, windows: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        return largest(windows, axes, keepdim=False)
