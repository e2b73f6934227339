"""A converted network in fewer steps: normalisations are part of other layers, PReLU is one operator."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from typing import Any

from torch.nn import functional

import torch
from fasttriplet.torch._graph._batch_norm import BatchNorm
from fasttriplet.torch._graph._network import ConvertedNetwork
from torch import fx, nn


def folded(network: ConvertedNetwork) -> ConvertedNetwork:
    """Fold each batch normalisation into the convolution or the matrix product before it, and join PReLU.

    A pass over all values is saved for each normalisation. Four are saved for a PReLU of the operators that
    MXNet is fast at, which the built-in MobileFaceNet has; PyTorch is slow at convolutions of one value.
    Layers that are used twice, or whose output something else needs too, stay as they are, and so do
    normalisations that are in training.

    Parameters
    ----------
    network : ConvertedNetwork
        It stays as it is.

    Returns
    -------
    ConvertedNetwork
        It gives the same to float32 rounding. It cannot be written as a checkpoint.
    """
    network = copy.deepcopy(network)
    graph = network.graph
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        before: Any = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if getattr(before, "op", None) != "call_module" or not len(before.users) == calls[before.target] == 1:
            continue
        layer, norm = network.get_submodule(before.target), network.get_submodule(str(node.target))
        if _can_be_joined(before, layer, norm):
            _join(layer, norm)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    for node in list(graph.nodes):
        if (parts := _prelu(network, node)) is not None:
            with graph.inserting_after(node):
                joined = graph.call_function(functional.prelu, parts)
            node.replace_all_uses_with(joined)
    graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _can_be_joined(before: fx.Node, layer: Any, norm: Any) -> bool:
    # Exact types: what a subclass computes is not known here.
    if type(norm) is not BatchNorm or norm.training:
        return False
    if type(layer) is nn.Linear:
        # A matrix product may be along the last of several axes; a normalisation is along axis 1.
        source: Any = before.args[0]
        if source.target is not torch.flatten or source.args[1:] != (1,):
            return False
    elif type(layer) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return False
    # A convolution in float16 rounds its output, and the normalisation after it computes in float32.
    same_type = layer.weight.dtype == norm.running_mean.dtype
    return same_type and len(layer.weight) == norm.num_features


def _join(layer: Any, norm: Any) -> None:
    """Change the layer to the layer with the normalisation after it, computed in float64."""
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale *= norm.weight.double()
        bias = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean
        bias = bias * scale + (0 if norm.bias is None else norm.bias.double())
        weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        dtype = layer.weight.dtype
        layer.weight, layer.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


def _prelu(network: ConvertedNetwork, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The data and the slopes of ``slope * x + (1 - slope) * relu(x)``, if the node is this sum."""
    if node.target is not operator.add:
        return None
    both: list[Any] = [arg for arg in node.args if getattr(arg, "target", None) is functional.conv2d]
    if len(both) != 2:
        return None
    (data, weight), (positive, rest) = (convolution.args[:2] for convolution in both)
    slopes: Any = weight.args[0] if weight.target is torch.reshape else None
    if (
        slopes is None
        or (slopes.op, weight.args[1:]) != ("get_attr", ((-1, 1, 1, 1),))
        or (rest.target, rest.args) != (operator.sub, (1.0, weight))
        or positive.op != "call_module"
        or type(network.get_submodule(positive.target)) is not nn.ReLU
        or positive.args != (data,)
    ):
        return None
    channels = len(network.get_parameter(slopes.target))
    alone = {"groups": channels, "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    if any(len(convolution.args) > 2 or convolution.kwargs != alone for convolution in both):
        return None
    return data, slopes
