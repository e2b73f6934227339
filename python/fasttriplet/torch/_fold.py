"""Batch normalisations of a network that is not trained become part of the layers before them."""

from __future__ import annotations

import copy
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

import torch
from torch import fx, nn

# Not nn.Linear: its channels are on the last axis, and a normalisation's on axis 1.
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def folded(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it.

    A pass over all values is saved for each. A network that cannot be traced is returned as it is.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode. It stays as it is.

    Returns
    -------
    torch.nn.Module
        It gives the same to float32 rounding: 2e-7 of the norm for a MobileFaceNet.
    """
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    except Exception:  # code that depends on values of tensors; whatever it raises
        return network
    modules = dict(traced.named_modules())
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op in ("call_module", "get_attr"):
            owner = str(node.target) if node.op == "call_module" else str(node.target).rpartition(".")[0]
            calls[owner] = calls.get(owner, 0) + 1
    for node in list(traced.graph.nodes):
        layer: Any = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if (
            node.op == "call_module"
            and isinstance(norm := modules[str(node.target)], _BatchNorm)
            and getattr(layer, "op", None) == "call_module"
            and type(modules[layer.target]) in _LAYERS  # a subclass may compute something else
            and len(layer.users) == calls[layer.target] == 1
            and (joined := _joined(modules[layer.target], norm)) is not None
        ):
            modules[layer.target] = joined
            parent, _, name = layer.target.rpartition(".")
            setattr(traced.get_submodule(parent), name, joined)
            node.replace_all_uses_with(layer)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):  # type: ignore[misc, unused-ignore]
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or bool(super().is_leaf_module(m, module_qualified_name))


def _joined(layer: Any, norm: Any) -> nn.Module | None:
    """The layer and the normalisation as one layer, computed in float64; None if they cannot be one.

    What a normalisation does is asked of itself, so that kinds with rules of their own are right, too.
    """
    hooks = [owner._forward_hooks or owner._forward_pre_hooks for owner in (layer, norm)]
    if norm.running_mean is None or any(hooks):  # statistics of the batch; weights that a hook computes
        return None
    joined: nn.Module = copy.deepcopy(layer)
    exact = copy.deepcopy(norm).double()
    channels, axes = len(layer.weight), (1,) * (layer.weight.ndim - 2)
    with torch.no_grad():
        probe = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
        values = exact(probe.view(3, 1, *axes).expand(3, channels, *axes)).reshape(3, channels)
        shift, scale = values[0], values[1] - values[0]
        if not torch.allclose(values[2], shift - 2 * scale, rtol=1e-9, atol=0):  # more than a normalisation
            return None
        weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        bias = shift if layer.bias is None else shift + layer.bias.double() * scale
        joined.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
        joined.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
    return joined
