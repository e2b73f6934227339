"""BatchNorm, with MXNet's running statistics."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn


class BatchNorm(nn.BatchNorm2d):  # type: ignore[misc, unused-ignore]
    """``nn.BatchNorm2d`` that trains as MXNet's ``BatchNorm`` does, on inputs with any number of axes.

    The running variance takes the variance of a batch of N values as a sum divided by N; PyTorch's layer
    divides it by N - 1. The weight is None where MXNet fixes gamma at 1. As everywhere in PyTorch, `momentum`
    is the share of the new batch.

    Parameters
    ----------
    channels : int
    eps, momentum : float
    weight, bias : bool
        Whether the layer has them.
    fixed_statistics : bool
        Whether the running statistics are used, and stay as they are, in training too.
    """

    def __init__(
        self, channels: int, *, eps: float, momentum: float, weight: bool, bias: bool, fixed_statistics: bool
    ) -> None:
        super().__init__(channels, eps, momentum)
        self.momentum: float = momentum
        self.fixed_statistics = fixed_statistics
        if not weight:
            self.register_parameter("weight", None)
        if not bias:
            self.register_parameter("bias", None)

    def forward(
        self, input: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalise; a weight and a bias that are given take the place of the layer's own."""
        weight = self.weight if weight is None else weight
        bias = self.bias if bias is None else bias
        if weight is None and bias is not None:
            # On CUDA, PyTorch 2.11 fails in the backward pass of a bias without a weight.
            weight = torch.ones_like(bias)
        mean: Any = self.running_mean
        variance: Any = self.running_var
        if self.fixed_statistics or not self.training:
            return functional.batch_norm(input, mean, variance, weight, bias, False, 0.0, self.eps)
        # With a momentum of 1, these become the statistics of the batch.
        batch_mean, batch_variance = torch.zeros_like(mean), torch.ones_like(variance)
        output = functional.batch_norm(input, batch_mean, batch_variance, weight, bias, True, 1.0, self.eps)
        values = input.numel() // input.shape[1]
        with torch.no_grad():
            mean.lerp_(batch_mean, self.momentum)
            variance.lerp_(batch_variance * ((values - 1) / values), self.momentum)
            batches: Any = self.num_batches_tracked
            batches.add_(1)
        return output

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        shown = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        if self.weight is None:
            shown += ", weight=1"
        return f"{shown}, fixed statistics" if self.fixed_statistics else shown


def batch_norm(op: Operator) -> fx.Node:
    """Batch normalisation. The defaults of `eps` (1e-3) and `fix_gamma` (True) are not PyTorch's."""
    eps, momentum = (
        op.attributes.number("eps", 1e-3, least=0),
        op.attributes.number("momentum", 0.9, least=0, most=1),
    )
    fixed_gamma = op.attributes.flag("fix_gamma", True)
    fixed_statistics = op.attributes.flag("use_global_stats", False)
    op.attributes.flag("output_mean_var", False)  # outputs that are used are an error elsewhere
    axis = op.attributes.axis("axis", 1)
    if op.op == "_contrib_SyncBatchNorm":
        op.attributes.ignore("key", "ndev")
    # MXNet keeps the weights of a float16 normalisation in float32.
    dtype = torch.float32 if op.dtype is torch.float16 else op.dtype

    def make() -> nn.Module:
        return BatchNorm(
            op.array(3).size,
            eps=eps,
            momentum=round(1 - momentum, 12),
            weight=op.owns_weights and not fixed_gamma,
            bias=op.owns_weights,
            fixed_statistics=fixed_statistics,
        )

    slots = {"running_mean": 3, "running_var": 4}
    data: list[fx.Node | None] = [op.data if axis == 1 else op.call(torch.movedim, op.data, axis, 1)]
    if op.owns_weights:
        slots |= {"bias": 2} if fixed_gamma else {"weight": 1, "bias": 2}
    else:
        data += [None if fixed_gamma else op.value(1), op.value(2)]
    if fixed_gamma:
        op.skip(1)
    output = op.layer(make, *data, slots=slots, dtype=dtype)
    return output if axis == 1 else op.call(torch.movedim, output, 1, axis)
