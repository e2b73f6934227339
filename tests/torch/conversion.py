"""A network in MXNet and converted, with the same weights: what both compute, and how far apart they are."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet.checkpoint._symbol import parse_symbol
from fasttriplet.mxnet._untrained import _set_running_statistics
from fasttriplet.torch._graph._build import build
from fasttriplet.torch._graph._network import ConvertedNetwork

# Of the norm. A float32 has 6e-8.
BAR = 2e-5
Arrays = dict[str, NDArray[Any]]


@dataclass
class Step:
    """What one training step gives: the output, its gradients, and the running statistics after it.

    Attributes
    ----------
    loss : float
    output : array
    gradients, statistics : dict of str to array
        By MXNet's names; ``data`` is the gradient of the images.
    """

    loss: float
    output: NDArray[Any]
    gradients: Arrays
    statistics: Arrays


def apart(got: NDArray[Any], expected: NDArray[Any], least: float = 0.0) -> float:
    """The norm of the difference, relative to that of what is expected, or to `least` if that is more."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"{got.shape} instead of {expected.shape}"
    norm = max(float(np.linalg.norm(expected)), least)
    difference = float(np.linalg.norm(got - expected))
    return difference / norm if norm else difference


def pictures(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Smooth pictures with values of 0 to 255."""
    rng = np.random.default_rng(seed)
    batch, channels, height, width = shape
    total = np.zeros(shape, dtype=np.float32)
    for patches in (2, 5, 16):
        colours = rng.random((batch, channels, patches, patches), dtype=np.float32)
        down, across = np.arange(height) * patches // height, np.arange(width) * patches // width
        total += colours[:, :, down][:, :, :, across]
    total *= 255 / total.max()
    return total


def random_weights(mx: Any, symbol: Any, images: NDArray[np.float32], seed: int = 0) -> Arrays:
    """Weights as a trained network has them; gammas that count as 1 are anything but.

    The running statistics are near those of the images, but not the same.
    """
    rng = np.random.default_rng(seed)
    arg_shapes, _, aux_shapes = symbol.infer_shape(data=images.shape)
    shapes = dict(zip(symbol.list_arguments(), arg_shapes, strict=True))
    slopes = {
        node["inputs"][1][0]
        for node in json.loads(symbol.tojson())["nodes"]
        if node["op"] == "LeakyReLU" and len(node["inputs"]) > 1
    }
    names = [node["name"] for node in json.loads(symbol.tojson())["nodes"]]
    of_prelu = {names[number] for number in slopes}

    def drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if name in of_prelu or name.endswith("prelu_gamma"):
            return rng.uniform(0.1, 0.4, shape)
        if name.endswith("_gamma"):
            return rng.uniform(0.5, 1.5, shape)
        if name.endswith("_weight"):
            return np.asarray(rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:])))
        return np.asarray(rng.standard_normal(shape) * 0.2)

    args = {n: mx.nd.array(drawn(n, s), dtype="float32") for n, s in shapes.items() if n != "data"}
    auxs = {
        name: mx.nd.array(np.full(shape, float(name.endswith("_var"))))
        for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes, strict=True)
    }
    _set_running_statistics(symbol, args, auxs, images)
    statistics = {
        name: (value.asnumpy() + 1e-2) * rng.uniform(0.8, 1.25, value.shape).astype(np.float32)
        for name, value in auxs.items()
    }
    return {name: value.asnumpy() for name, value in args.items()} | statistics


def converted(symbol: Any, weights: Arrays) -> ConvertedNetwork:
    """The module of a symbol that has no labels."""
    return build(parse_symbol(symbol.tojson()), "data", weights)


def without_dropout(mx: Any, symbol: Any) -> Any:
    """The same network, whose Dropout drops nothing: PyTorch draws other numbers."""
    return _changed(mx, symbol, "Dropout", p="0")


def in_float32(mx: Any, symbol: Any) -> Any:
    """The same network without casts to float16: MXNet 1.9.1 has no products of float16 on the CPU."""
    return _changed(mx, symbol, "Cast", dtype="float32")


def _changed(mx: Any, symbol: Any, op: str, **attributes: str) -> Any:
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if node["op"] == op:
            node["attrs"] |= attributes
    return mx.sym.load_json(json.dumps(graph))


def mxnet_outputs(mx: Any, symbol: Any, weights: Arrays, images: NDArray[Any]) -> list[NDArray[Any]]:
    """What MXNet computes in inference."""
    executor = _bound(mx, symbol, weights, images, gradients=False)
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def torch_outputs(module: torch.nn.Module, images: NDArray[Any]) -> list[NDArray[Any]]:
    """What the module computes in inference."""
    with torch.no_grad():
        found = module.eval()(_tensor(module, images))
    return [output.numpy() for output in (found if isinstance(found, tuple) else (found,))]


def mxnet_step(mx: Any, symbol: Any, weights: Arrays, images: NDArray[Any], factors: NDArray[Any]) -> Step:
    """One step of MXNet; the loss is the sum of the outputs times `factors`."""
    executor = _bound(mx, symbol, weights, images, gradients=True)
    (output,) = executor.forward(is_train=True)
    executor.backward([mx.nd.array(factors, dtype=images.dtype)])
    gradients = {name: value.asnumpy() for name, value in executor.grad_dict.items() if value is not None}
    statistics = {name: value.asnumpy() for name, value in executor.aux_dict.items()}
    found = output.asnumpy()
    return Step(float((found.astype(np.float64) * factors).sum()), found, gradients, statistics)


def torch_step(module: ConvertedNetwork, images: NDArray[Any], factors: NDArray[Any]) -> Step:
    """The same step of the module."""
    module.train()
    data = _tensor(module, images).requires_grad_()
    output = module(data)
    (output * torch.from_numpy(factors).to(output.dtype)).sum().backward()
    gradients, statistics = {"data": data.grad}, {}
    names = {place: name for place, (name, _) in module.origin.places.items()}
    for place, parameter in module.named_parameters():
        gradients[names[place]] = parameter.grad
    for place, buffer in module.named_buffers():
        if place in names:
            statistics[names[place]] = buffer
    found = output.detach().numpy()
    return Step(
        float((found.astype(np.float64) * factors).sum()),
        found,
        {name: gradient.numpy() for name, gradient in gradients.items() if gradient is not None},
        {name: value.detach().numpy() for name, value in statistics.items()},
    )


def _tensor(module: torch.nn.Module, images: NDArray[Any]) -> torch.Tensor:
    kinds = {parameter.dtype for parameter in module.parameters()}
    return torch.from_numpy(images).to(torch.float64 if torch.float64 in kinds else torch.float32)


def _bound(mx: Any, symbol: Any, weights: Arrays, images: NDArray[Any], *, gradients: bool) -> Any:
    arrays = {**weights, "data": images}
    executor = symbol.simple_bind(
        mx.cpu(),
        grad_req="write" if gradients else "null",
        type_dict={"data": images.dtype},
        **{name: arrays[name].shape for name in symbol.list_arguments()},
    )
    for name, array in executor.arg_dict.items():
        array[:] = mx.nd.array(arrays[name].astype(array.dtype), dtype=array.dtype)
    for name, array in executor.aux_dict.items():
        array[:] = mx.nd.array(arrays[name].astype(array.dtype), dtype=array.dtype)
    return executor


def compared(got: Step, expected: Step) -> dict[str, float]:
    """How far apart two steps are: the worst of each kind.

    A gradient that is zero but for rounding, such as that of a bias before a normalisation, is judged by the
    size of the others; a running mean that is near zero by the standard deviation.
    """
    sizes = [np.linalg.norm(value) / np.sqrt(value.size) for value in expected.gradients.values()]
    usual = float(np.median(sizes))
    scale = float(np.abs(expected.output.astype(np.float64)).sum())
    return {
        "loss": abs(got.loss - expected.loss) / scale,  # which may cancel
        "output": apart(got.output, expected.output),
        "gradients": max(
            apart(value, expected.gradients[name], 1e-2 * usual * np.sqrt(value.size))
            for name, value in got.gradients.items()
            if name in expected.gradients  # MXNet has one of zeros for a fixed gamma
        ),
        "statistics": max(
            (
                apart(value, expected.statistics[name], _spread(expected, name))
                for name, value in got.statistics.items()
            ),
            default=0.0,
        ),
    }


def _spread(step: Step, name: str) -> float:
    variance = step.statistics.get(name.replace("_mean", "_var"))
    return 0.0 if variance is None or name.endswith("_var") else float(np.sqrt(variance.sum()))


def without_prelu_operator(mx: Any, symbol: Any) -> Any:
    """The same network with variables of any type, and without the operator for PReLU.

    In MXNet 1.9.1 the operator's gradients of slopes are right alone, and wrong in some networks: those of
    fmobilenet's ``conv_14_relu_gamma`` are off by 0.8 of their size in float32. The same graph of other
    operators agrees with PyTorch.
    """
    graph = json.loads(symbol.tojson())
    nodes: list[dict[str, Any]] = []
    numbers: list[int] = []

    def add(op: str, name: str, inputs: list[int], **attrs: str) -> int:
        nodes.append({"op": op, "name": name, "attrs": attrs, "inputs": [[n, 0, 0] for n in inputs]})
        return len(nodes) - 1

    for node in graph["nodes"]:
        name, inputs = node["name"], [[numbers[entry[0]], *entry[1:]] for entry in node["inputs"]]
        if node["op"] == "LeakyReLU" and node["attrs"]["act_type"] == "prelu":
            data, slope = (entry[0] for entry in inputs)
            slope = add("Reshape", f"{name}_slope", [slope], shape="(1, -1, 1, 1)")
            above = add("relu", f"{name}_above", [data])
            below = add("relu", f"{name}_below", [add("negative", f"{name}_negative", [data])])
            below = add("broadcast_mul", f"{name}_scaled", [below, slope])
            numbers.append(add("elemwise_sub", name, [above, below]))
        else:
            node.get("attrs", {}).pop("__dtype__", None)  # of Gluon's parameters
            nodes.append({**node, "inputs": inputs})
            numbers.append(len(nodes) - 1)
    heads = [[numbers[head[0]], *head[1:]] for head in graph["heads"]]
    arguments = [number for number, node in enumerate(nodes) if node["op"] == "null"]
    changed = {"nodes": nodes, "heads": heads, "arg_nodes": arguments, "attrs": graph["attrs"]}
    return mx.sym.load_json(json.dumps(changed))
