"""The weights of a network that has none yet: their shapes from the images, their values drawn."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.func import functional_call
from torch.fx.node import map_arg

import torch
from fasttriplet.checkpoint._operators import initializers_of
from fasttriplet.checkpoint._symbol import Node, Symbol
from fasttriplet.torch._graph._attributes import Attributes
from fasttriplet.torch._graph._build import build
from fasttriplet.torch._graph._network import OPERATOR, ConvertedNetwork
from torch import fx, nn

Shape = tuple[int, ...]

# By the ending of a name, as MXNet; those of PReLU have an initializer of their own.
_CONSTANTS = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "mean": 0.0, "var": 1.0}


def untrained(
    symbol: Symbol, data: str, image_size: tuple[int, int], seed: int, *, numbers: int | None = None
) -> ConvertedNetwork:
    """Convert a network without weights to a module.

    Weights of convolutions and matrix products are drawn as MXNet's
    ``Xavier(rnd_type="gaussian", factor_type="out", magnitude=2)`` draws them, which InsightFace uses for its
    residual networks: normal, with the variance 2 / (outputs * window). A weight depends on the seed and its
    name alone.

    Parameters
    ----------
    symbol : Symbol
        With only the nodes that its outputs need.
    data : str
        Name of the variable for the images.
    image_size : (int, int)
        Height and width of the images, which decide the shapes of some weights.
    seed : int
    numbers : int, optional
        How many numbers the weights have in a file, from which they will be taken. Nothing is drawn then, and
        a network that has more weights is an error before it fills the memory.

    Raises
    ------
    ValueError
        If the network does not take such images, the shape of a weight cannot be known, there are more
        weights than `numbers`, or an operator cannot be converted.
    MemoryError
        If there is too little memory for the weights.
    """
    weights: dict[str, NDArray[Any]] = {}
    fill = _Fill(symbol, data, image_size, weights, seed=seed, numbers=numbers)
    return build(symbol, data, weights, fill)


class _Fill:
    """Gives each node the weights that it lacks, when all before it is converted."""

    def __init__(
        self,
        symbol: Symbol,
        data: str,
        image_size: tuple[int, int],
        weights: dict[str, NDArray[Any]],
        *,
        seed: int,
        numbers: int | None,
    ) -> None:
        self._nodes, self._data, self._weights = symbol.nodes, data, weights
        self._seed, self._left = seed, numbers
        self._image = torch.zeros(1, 3, *image_size, device="meta")
        self._values: dict[fx.Node, Any] = {}  # shapes and types of what the nodes so far give for one image

    def __call__(self, node: Node, inputs: Sequence[fx.Node | None], root: nn.Module) -> None:
        for place, entry in enumerate(node.inputs):
            variable = self._nodes[entry.node]
            if variable.is_variable and variable.name not in (self._data, *self._weights):
                shape = _declared(variable) or self._needed(node, place, inputs, root)
                try:
                    self._weights[variable.name] = self._filled(variable, node, place, shape)
                except MemoryError:
                    raise MemoryError(
                        f"not enough memory for the weight {variable.name!r} of the shape {shape}"
                    ) from None

    def _needed(self, node: Node, place: int, inputs: Sequence[fx.Node | None], root: nn.Module) -> Shape:
        source = inputs[0] if inputs else None
        shape = None
        if place > 0 and source is not None and node.op in _SHAPES:
            of_data = tuple(self._value(source, root).shape)
            shape = _SHAPES[node.op](Attributes(node.name, node.op, node.attributes), place, of_data)
        if shape is None:
            name = self._nodes[node.inputs[place].node].name
            raise ValueError(
                f"node {node.name!r} ({node.op}) does not say which shape its weight {name!r} has; create "
                "the variable with its shape: mx.sym.Variable(NAME, shape=...)"
            )
        return shape

    def _value(self, wanted: fx.Node, root: nn.Module) -> torch.Tensor:
        """What a node computes for an image: a tensor without numbers."""
        for node in wanted.graph.nodes:
            if node not in self._values:
                self._values[node] = self._computed(node, root)
        value: torch.Tensor = self._values[wanted]
        return value

    def _computed(self, node: fx.Node, root: nn.Module) -> Any:
        if node.op == "placeholder":
            return self._image
        target: Any = node.target
        if node.op == "get_attr":
            return root.get_parameter(target).to("meta")
        function = _without_numbers(root.get_submodule(target)) if node.op == "call_module" else target
        args, kwargs = (map_arg(given, self._values.__getitem__) for given in (node.args, node.kwargs))
        try:
            with torch.no_grad():
                return function(*args, **kwargs)
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            height, width = self._image.shape[2:]
            raise ValueError(
                f"the network does not take images of {height} x {width} (H x W): "
                f"{node.meta.get(OPERATOR, target)}: {error}"
            ) from error

    def _filled(self, variable: Node, node: Node, place: int, shape: Shape) -> NDArray[np.float32]:
        if self._left is not None:
            self._left -= math.prod(shape)
            if self._left < 0:
                raise ValueError(
                    f"its weights are more than the file holds, at {variable.name!r} of the shape {shape}"
                )
        constant, deviation = _filler(variable, initializers_of(node.op).get(place))
        if constant is not None:
            return np.full(shape, constant, dtype=np.float32)
        if len(shape) < 2:
            raise ValueError(
                f"the weight {variable.name!r} has the shape {shape}, for which MXNet draws none"
            )
        if self._left is not None:
            return np.zeros(shape, dtype=np.float32)
        if deviation is None:
            deviation = math.sqrt(2 / (shape[0] * math.prod(shape[2:])))
        rng = np.random.default_rng([self._seed, *variable.name.encode()])
        values = rng.standard_normal(shape, dtype=np.float32)
        values *= deviation
        return values


def _without_numbers(layer: nn.Module) -> Callable[..., Any]:
    """A layer in inference, with shapes for weights."""
    shapes = {
        name: values.to("meta") for name, values in chain(layer.named_parameters(), layer.named_buffers())
    }
    layer.eval()
    return lambda *args, **kwargs: functional_call(layer, shapes, args, kwargs)


def _declared(variable: Node) -> Shape | None:
    """The shape that a variable was created with, if it is complete."""
    try:
        shape = ast.literal_eval(variable.annotations.get("__shape__", "()"))
    except (SyntaxError, ValueError):
        return None
    complete = isinstance(shape, tuple) and all(isinstance(size, int) and size > 0 for size in shape)
    return shape if complete and shape else None


def _filler(variable: Node, of_operator: str | None) -> tuple[float | None, float | None]:
    """The constant that a variable is filled with, or the deviation of its values, where one is given."""
    noted = variable.annotations.get("__init__", of_operator)
    if noted is None:
        return next((value for end, value in _CONSTANTS.items() if variable.name.endswith(end)), None), None
    try:
        name, options = json.loads(noted)
        kind, number = name.lower(), float(options.get("value", options.get("sigma", 0.01)))
        if math.isfinite(number):
            if kind in ("zero", "zeros", "one", "ones"):
                return float(kind.startswith("one")), None
            if kind == "constant":
                return float(options["value"]), None
            if kind == "normal":
                return None, number
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"the weight {variable.name!r} has the initializer {noted:.100}, and only zero, one, constant and "
        "normal are known here; give a checkpoint to begin with (pretrained)"
    )


def _of_convolution(attributes: Attributes, place: int, data: Shape) -> Shape:
    filters, groups = attributes.whole("num_filter", least=1), attributes.whole("num_group", 1, least=1)
    if place > 1:
        return (filters,)
    if data[1] % groups:
        raise attributes.error(f"{data[1]} channels cannot be divided by num_group={groups}")
    return filters, data[1] // groups, *attributes.sizes("kernel", least=1)


def _of_deconvolution(attributes: Attributes, place: int, data: Shape) -> Shape:
    filters, groups = attributes.whole("num_filter", least=1), attributes.whole("num_group", 1, least=1)
    return (filters,) if place > 1 else (data[1], filters // groups, *attributes.sizes("kernel", least=1))


def _of_fully_connected(attributes: Attributes, place: int, data: Shape) -> Shape:
    outputs = attributes.whole("num_hidden", least=1)
    values = math.prod(data[1:]) if attributes.flag("flatten", True) else data[-1]
    return (outputs,) if place > 1 else (outputs, values)


def _along(default: int) -> Callable[[Attributes, int, Shape], Shape]:
    """One number for each place along an axis."""
    return lambda attributes, _, data: (data[attributes.axis("axis", default)],)


def _of_channels(_: Attributes, __: int, data: Shape) -> Shape:
    return (data[1],)


_SHAPES: dict[str, Callable[[Attributes, int, Shape], Shape]] = {
    "BatchNorm": _along(1),
    "BatchNorm_v1": _of_channels,
    "Convolution": _of_convolution,
    "Convolution_v1": _of_convolution,
    "CuDNNBatchNorm": _along(1),
    "Deconvolution": _of_deconvolution,
    "FullyConnected": _of_fully_connected,
    "InstanceNorm": _of_channels,
    "LayerNorm": _along(-1),
    "LeakyReLU": _of_channels,
    "_contrib_SyncBatchNorm": _of_channels,
}
