"""Layers with weights: Convolution, Deconvolution, FullyConnected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_FUNCTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_TRANSPOSED_LAYERS: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LAYOUTS = {2: "NCHW", 1: "NCW", 3: "NCDHW"}


def convolution(op: Operator) -> fx.Node:
    """A convolution with the channels on axis 1, of 1, 2 or 3 dimensions."""
    bias = not op.attributes.flag("no_bias", False)
    filters, kernel, options = _windows(op)
    _check_weights(op, (filters, None, *kernel), filters if bias else None)
    if op.owns_weights:
        return op.layer(
            lambda: _CONVOLUTIONS[len(kernel)](
                op.array(1).shape[1] * options["groups"], filters, kernel, bias=bias, device="meta", **options
            ),
            slots=_slots(bias),
        )
    return op.call(_FUNCTIONS[len(kernel)], *op.values()[: 2 + bias], **options)


def deconvolution(op: Operator) -> fx.Node:
    """The transpose of a convolution. The weight is (inputs, filters / groups, ...), as in PyTorch."""
    bias = not op.attributes.flag("no_bias", True)
    filters, kernel, options = _windows(op)
    _check_weights(op, (None, filters // options["groups"], *kernel), filters if bias else None)
    adjusted = op.attributes.sizes("adj", (), least=0) or (0,) * len(kernel)
    target = op.attributes.sizes("target_shape", (), least=0)
    for name, sizes in (("adj", adjusted), ("target_shape", target)):
        if len(sizes) not in (0, len(kernel)):
            raise op.attributes.error(f"{name}={sizes} and kernel={kernel} have different lengths")
    if any(target):
        dilated = [d * (k - 1) + 1 for d, k in zip(options["dilation"], kernel, strict=True)]
        fit = _FitTo(target, options["stride"], dilated, options["dilation"], options["groups"])
        return op.layer(lambda: fit, *op.values())
    options["output_padding"] = adjusted
    if op.owns_weights:
        inputs = op.array(1).shape[0]
        return op.layer(
            lambda: _TRANSPOSED_LAYERS[len(kernel)](
                inputs, filters, kernel, bias=bias, device="meta", **options
            ),
            slots=_slots(bias),
        )
    return op.call(_TRANSPOSED[len(kernel)], *op.values()[: 2 + bias], **options)


class _FitTo(nn.Module):  # type: ignore[misc, unused-ignore]
    """A transposed convolution with a given output size; MXNet crops the rest from both sides."""

    def __init__(self, target: Any, stride: Any, kernel: Any, dilation: Any, groups: int) -> None:
        super().__init__()
        self.target, self.stride, self.kernel = target, stride, kernel
        self.dilation, self.groups = dilation, groups

    def forward(self, data: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        """Convolve."""
        extra = [
            stride * (size - 1) + kernel - target
            for stride, size, kernel, target in zip(
                self.stride, data.shape[2:], self.kernel, self.target, strict=True
            )
        ]
        padding, adjusted = [(e + 1) // 2 for e in extra], [e % 2 for e in extra]
        function = _TRANSPOSED[len(extra)]
        return function(data, weight, bias, self.stride, padding, adjusted, self.groups, self.dilation)


def _windows(op: Operator) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """Read what convolutions of both kinds have: the number of filters, the window, and how it moves."""
    filters, groups = op.attributes.whole("num_filter", least=1), op.attributes.whole("num_group", 1, least=1)
    if filters % groups:
        raise op.attributes.error(f"num_filter={filters} cannot be divided by num_group={groups}")
    kernel = op.attributes.sizes("kernel", least=1)
    if len(kernel) not in _LAYOUTS:
        raise op.attributes.error(f"kernel={kernel} cannot be converted; expected 1, 2 or 3 sizes")
    check_layout(op, kernel)
    options: dict[str, Any] = {"groups": groups}
    for theirs, ours, least in (("stride", "stride", 1), ("pad", "padding", 0), ("dilate", "dilation", 1)):
        sizes = op.attributes.sizes(theirs, (), least=least) or (least,) * len(kernel)
        if len(sizes) != len(kernel):
            raise op.attributes.error(f"{theirs}={sizes} and kernel={kernel} have different lengths")
        options[ours] = sizes
    return filters, kernel, options


def fully_connected(op: Operator) -> fx.Node:
    """A matrix product: of all axes after the first as one, or of the last axis with `flatten=False`."""
    outputs, bias = op.attributes.whole("num_hidden", least=1), not op.attributes.flag("no_bias", False)
    _check_weights(op, (outputs, None), outputs if bias else None)
    data = op.call(torch.flatten, op.data, 1) if op.attributes.flag("flatten", True) else op.data
    if op.owns_weights:
        inputs = op.array(1).shape[1]
        return op.layer(
            lambda: nn.Linear(inputs, outputs, bias=bias, device="meta"), data, slots=_slots(bias)
        )
    return op.call(functional.linear, data, *op.values()[1 : 2 + bias])


def check_layout(op: Operator, kernel: Sequence[int]) -> None:
    """Raise a ValueError if the channels are not on axis 1, or the layout is for other windows."""
    layout = op.attributes.choice("layout", (*_LAYOUTS.values(), "None"), "None")
    if layout not in ("None", _LAYOUTS.get(len(kernel), layout)):
        raise op.attributes.error(f"layout={layout!r} does not fit kernel={tuple(kernel)}")


def _check_weights(op: Operator, weight: tuple[int | None, ...], bias: int | None) -> None:
    """Check the shapes of the weight, and of the bias where there is one."""
    op.check_shape(1, *weight)
    if bias is not None:
        op.check_shape(2, bias)


def _slots(bias: bool) -> dict[str, int]:
    return {"weight": 1, "bias": 2} if bias else {"weight": 1}
