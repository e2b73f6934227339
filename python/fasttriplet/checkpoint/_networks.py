"""The built-in networks as graphs, for every framework: a small one for first runs, and MobileFaceNet."""

from __future__ import annotations

from typing import Literal, get_args

from fasttriplet._checks import image_size as checked_size
from fasttriplet._checks import one_of, whole_number
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol

NETWORKS = ("small", "mobilefacenet")
PReLU = Literal["convolutions", "operator"]

# Epsilons of batch normalisations. MXNet's default, 1e-3, is as large as the variances of the first maps of
# line drawings. The two must differ: MXNet 1.9.1 on a CPU ends the process (SIGSEGV) when it infers a
# normalisation of (B, D) after one of (B, D, 1, 1) with the same epsilon.
_EPSILON, _EPSILON_OF_EMBEDDING = 2e-5, 4e-5
_SMALL_FILTERS = (32, 64, 96, 128)
# The bottlenecks in table 1 of the paper: expansion t, channels c, repetitions n, stride s of the first.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_LAST_FILTERS = 512
_SHRINKS = 16  # factor of MobileFaceNet's sides: four convolutions of stride 2, each rounding up


def network_of(
    name: str, image_size: tuple[int, int], embedding_size: int, *, prelu: PReLU = "operator"
) -> Symbol:
    """Build a network by its name, as :func:`fasttriplet.mxnet.build_network` describes it."""
    one_of("network", name, NETWORKS)
    height, width = checked_size(image_size, name="image_size")
    whole_number("embedding_size", embedding_size, 1)
    one_of("prelu", prelu, get_args(PReLU))
    graph = _Graph(prelu)
    layer = graph.add("_minus_scalar", "_minusscalar0", graph.variable("data"), scalar=127.5)
    layer = graph.add("_mul_scalar", "_mulscalar0", layer, scalar=0.0078125)
    if name == "small":
        layer = _small(graph, layer, embedding_size)
    else:
        layer = _mobilefacenet(graph, layer, (height, width), embedding_size)
    layer = graph.normalised(layer, "fc1", _EPSILON_OF_EMBEDDING, fix_gamma=True)
    return Symbol(tuple(graph.nodes), (layer,))


def _small(graph: _Graph, layer: Entry, embedding_size: int) -> Entry:
    for number, filters in enumerate(_SMALL_FILTERS, start=1):
        layer = graph.convolution(layer, f"block{number}", filters, (3, 3), stride=2)
        layer = graph.add("Activation", f"block{number}_relu", layer, act_type="relu")
    layer = graph.add("Flatten", "flatten0", layer)
    weights = graph.variable("pre_fc1_weight"), graph.variable("pre_fc1_bias")
    return graph.add("FullyConnected", "pre_fc1", layer, *weights, num_hidden=embedding_size)


def _mobilefacenet(graph: _Graph, layer: Entry, image_size: tuple[int, int], embedding_size: int) -> Entry:
    layer = graph.activated(layer, "conv1", 64, (3, 3), stride=2)
    layer = graph.activated(layer, "conv2", 64, (3, 3), groups=64)
    channels, number = 64, 0
    for expansion, filters, repetitions, first_stride in _BOTTLENECKS:
        for stride in (first_stride, *[1] * (repetitions - 1)):
            number += 1
            name, inside = f"bottleneck{number}", channels * expansion
            inner = graph.activated(layer, f"{name}_expand", inside, (1, 1))
            inner = graph.activated(inner, f"{name}_depthwise", inside, (3, 3), stride=stride, groups=inside)
            inner = graph.convolution(inner, f"{name}_project", filters, (1, 1))
            residual = stride == 1 and channels == filters
            layer = graph.add("elemwise_add", f"{name}_add", inner, layer) if residual else inner
            channels = filters
    layer = graph.activated(layer, "conv3", _LAST_FILTERS, (1, 1))
    last_map = -(-image_size[0] // _SHRINKS), -(-image_size[1] // _SHRINKS)
    layer = graph.convolution(layer, "gdc", _LAST_FILTERS, last_map, groups=_LAST_FILTERS, padded=False)
    layer = graph.add("Flatten", "flatten0", layer)
    # The shape is given so that images of another size are an error instead of a wider layer.
    weight = graph.variable("pre_fc1_weight", shape=(embedding_size, _LAST_FILTERS))
    return graph.add("FullyConnected", "pre_fc1", layer, weight, num_hidden=embedding_size, no_bias=True)


class _Graph:
    """Collects nodes, with the names that MXNet's symbols get by default."""

    def __init__(self, prelu: PReLU) -> None:
        self.nodes: list[Node] = []
        self._prelu, self._prelus = prelu, 0

    def _append(self, node: Node) -> Entry:
        self.nodes.append(node)
        return Entry(len(self.nodes) - 1, 0)

    def variable(self, name: str, **annotations: object) -> Entry:
        noted = {f"__{key}__": str(value) for key, value in annotations.items()}
        return self._append(Node("null", name, {}, (), noted))

    def add(self, op: str, name: str, *inputs: Entry, **attributes: object) -> Entry:
        return self._append(Node(op, name, {key: str(value) for key, value in attributes.items()}, inputs))

    def normalised(self, layer: Entry, name: str, epsilon: float, *, fix_gamma: bool) -> Entry:
        weights = self.variable(f"{name}_gamma"), self.variable(f"{name}_beta")
        states = (
            self.variable(f"{name}_moving_mean", init='["zero", {}]'),
            self.variable(f"{name}_moving_var", init='["one", {}]'),
        )
        options = {"fix_gamma": fix_gamma, "eps": epsilon, "momentum": 0.9}
        return self.add("BatchNorm", name, layer, *weights, *states, **options)

    def convolution(
        self,
        layer: Entry,
        name: str,
        filters: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        padded: bool = True,
    ) -> Entry:
        """Add a convolution and a batch normalisation."""
        options = {
            "num_filter": filters,
            "kernel": kernel,
            "stride": (stride, stride),
            "pad": (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0),
            "num_group": groups,
            "no_bias": True,
        }
        weight = self.variable(f"{name}_conv_weight")
        layer = self.add("Convolution", f"{name}_conv", layer, weight, **options)
        return self.normalised(layer, f"{name}_bn", _EPSILON, fix_gamma=False)

    def activated(
        self,
        layer: Entry,
        name: str,
        filters: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> Entry:
        """Add a convolution and a PReLU."""
        layer = self.convolution(layer, name, filters, kernel, stride=stride, groups=groups)
        return self.prelu(layer, f"{name}_prelu", filters)

    def prelu(self, layer: Entry, name: str, channels: int) -> Entry:
        """Add ``max(x, 0) + slope * min(x, 0)`` with a learned slope for each channel, at first 0.25.

        He et al., "Delving Deep into Rectifiers", 2015.
        """
        slopes = self.variable(f"{name}_gamma", shape=(channels,), init='["constant", {"value": 0.25}]')
        if self._prelu == "operator":
            return self.add("LeakyReLU", name, layer, slopes, act_type="prelu")
        # slope * x + (1 - slope) * max(x, 0) has only operators of oneDNN, so MXNet copies no map to another
        # layout.
        weight = self.add("Reshape", f"{name}_weight", slopes, shape=(-1, 1, 1, 1))
        options = {"num_filter": channels, "num_group": channels, "kernel": (1, 1), "no_bias": True}
        of_all = self.add("Convolution", f"{name}_all", layer, weight, **options)
        positive = self.add("Activation", f"{name}_relu", layer, act_type="relu")
        rest = self.add("_rminus_scalar", f"_rminusscalar{self._prelus}", weight, scalar=1)
        self._prelus += 1
        of_positive = self.add("Convolution", f"{name}_positive", positive, rest, **options)
        return self.add("elemwise_add", name, of_all, of_positive)
