"""Normalisations without running statistics, and Dropout."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn


def l2_normalization(op: Operator) -> fx.Node:
    """``L2Normalization``: scale to unit length."""
    mode = op.attributes.choice("mode", ("instance", "channel", "spatial"), "instance")
    eps = op.attributes.number("eps", 1e-10, least=0)
    return op.layer(lambda: L2Normalize(mode, eps))


class L2Normalize(nn.Module):  # type: ignore[misc, unused-ignore]
    """Divide by the L2 norm of each image, of the channels at each place, or of each map."""

    def __init__(self, mode: str, eps: float) -> None:
        super().__init__()
        self.mode, self.eps = mode, eps

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        first, last = {"instance": (1, data.ndim), "channel": (1, 2), "spatial": (2, data.ndim)}[self.mode]
        squares = data.square().sum(tuple(range(first, last)), keepdim=True)
        return data / (squares + self.eps).sqrt()

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"{self.mode}, eps={self.eps}"


def instance_norm(op: Operator) -> fx.Node:
    """``InstanceNorm``."""
    eps = op.attributes.number("eps", 1e-3, least=0)
    return op.call(_instance_norm, op.data, op.value(1), op.value(2), eps)


def _instance_norm(data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    # functional.instance_norm, which is the same, fails for 0 images.
    return functional.group_norm(data, data.shape[1], weight, bias, eps)


def layer_norm(op: Operator) -> fx.Node:
    """``LayerNorm`` over one axis."""
    axis, eps = op.attributes.axis("axis", -1), op.attributes.number("eps", 1e-5, least=0)
    op.attributes.flag("output_mean_var", False)  # outputs that are used are an error elsewhere
    data = op.data if axis == -1 else op.call(torch.movedim, op.data, axis, -1)
    size = op.array(1).shape
    op.check_shape(1, None)
    op.check_shape(2, *size)
    output = op.call(functional.layer_norm, data, size, op.value(1), op.value(2), eps)
    return output if axis == -1 else op.call(torch.movedim, output, -1, axis)


def dropout(op: Operator) -> fx.Node:
    """``Dropout``."""
    p, axes = op.attributes.number("p", 0.5, least=0, most=1), op.attributes.axes("axes")
    always = op.attributes.choice("mode", ("training", "always"), "training") == "always"
    if axes or always:
        return op.layer(lambda: Dropout(p, axes, always=always))
    return op.layer(lambda: nn.Dropout(p))


class Dropout(nn.Module):  # type: ignore[misc, unused-ignore]
    """Dropout that drops along whole axes, or in inference too."""

    def __init__(self, p: float, axes: Sequence[int], *, always: bool) -> None:
        super().__init__()
        self.p, self.axes, self.always = p, tuple(axes), always

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Drop."""
        shape = [1 if axis in self.axes else size for axis, size in enumerate(data.shape)]
        return data * functional.dropout(data.new_ones(shape), self.p, self.training or self.always)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"p={self.p}, axes={self.axes}{', always' if self.always else ''}"
