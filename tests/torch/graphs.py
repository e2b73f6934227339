"""Checkpoints that are written without MXNet: small networks of our own, with what is special in others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.checkpoint._checkpoint import write_checkpoint
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol

Arrays = dict[str, NDArray[Any]]
SIZE = (3, 16, 16)  # of an image
FILTERS, NUMBERS = 8, 6


class Graph:
    """A network that is built node by node, with random weights of the shapes that are given."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[Node] = []
        self.args: Arrays = {}
        self.auxs: Arrays = {}
        self._rng = np.random.default_rng(seed)
        self._numbers: dict[str, int] = {}

    def add(self, op: str, name: str, *inputs: str | tuple[str, int], **attributes: Any) -> str:
        """Add a node; an input is a name, or a name and the number of its output."""
        entries = [(given, 0) if isinstance(given, str) else given for given in inputs]
        wired = tuple(Entry(self._numbers[source], output) for source, output in entries)
        self._numbers[name] = len(self.nodes)
        self.nodes.append(Node(op, name, {key: str(value) for key, value in attributes.items()}, wired))
        return name

    def variable(self, name: str) -> str:
        return self.add("null", name)

    def weight(self, name: str, *shape: int) -> str:
        """A weight between -1 and 1, smaller for larger shapes."""
        size = 1 / math.sqrt(math.prod(shape[1:]))
        self.args[name] = self._rng.uniform(-size, size, shape).astype(np.float32)
        return self.variable(name)

    def factor(self, name: str, *shape: int) -> str:
        """A weight between 0.5 and 1.5."""
        self.args[name] = self._rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return self.variable(name)

    def convolution(
        self, name: str, data: str, inputs: int, filters: int, kernel: int = 3, **options: Any
    ) -> str:
        weight = self.weight(f"{name}_weight", filters, inputs, kernel, kernel)
        options |= {"num_filter": filters, "kernel": (kernel, kernel), "no_bias": True}
        return self.add("Convolution", name, data, weight, **options)

    def batch_norm(self, name: str, data: str, channels: int, **options: Any) -> str:
        for kind, low in (("moving_mean", -0.5), ("moving_var", 0.5)):
            self.auxs[f"{name}_{kind}"] = self._rng.uniform(low, low + 1, channels).astype(np.float32)
        inputs = [self.factor(f"{name}_gamma", channels), self.weight(f"{name}_beta", channels)]
        inputs += [self.variable(f"{name}_moving_mean"), self.variable(f"{name}_moving_var")]
        return self.add("BatchNorm", name, data, *inputs, **options)

    def symbol(self, *heads: str) -> Symbol:
        return Symbol(tuple(self.nodes), tuple(Entry(self._numbers[head], 0) for head in heads))

    def save(self, prefix: Path, *heads: str) -> Path:
        write_checkpoint(prefix, 0, self.symbol(*heads), self.args, self.auxs)
        return prefix


def network(seed: int = 0) -> Graph:
    """A residual network with the layers of InsightFace's, weights that are shared, and computed ones.

    Its embedding is ``fc1``; ``softmax`` is the loss that it was trained with.
    """
    g = Graph(seed)
    g.variable("data")
    g.add("_minus_scalar", "_minusscalar0", "data", scalar=127.5)
    g.add("_mul_scalar", "_mulscalar0", "_minusscalar0", scalar=0.0078125)
    g.convolution("conv0", "_mulscalar0", 3, FILTERS, stride=(2, 2), pad=(1, 1))
    g.batch_norm("bn0", "conv0", FILTERS, fix_gamma=False)
    g.add("LeakyReLU", "relu0", "bn0", g.factor("relu0_gamma", FILTERS), act_type="prelu")
    # One convolution, used twice, as Gluon's blocks are.
    shared = g.weight("shared_weight", FILTERS, FILTERS, 3, 3)
    options = {"num_filter": FILTERS, "kernel": (3, 3), "pad": (1, 1), "no_bias": True}
    g.add("Convolution", "first", "relu0", shared, **options)
    g.add("Convolution", "second", "first", shared, **options)
    # A PReLU of two depthwise convolutions, as in our MobileFaceNet.
    g.add("Reshape", "prelu_weight", g.factor("prelu_gamma", FILTERS), shape=(-1, 1, 1, 1))
    g.add("_rminus_scalar", "_rminusscalar0", "prelu_weight", scalar=1)
    options = {"num_filter": FILTERS, "num_group": FILTERS, "kernel": (1, 1), "no_bias": True}
    g.add("Activation", "prelu_relu", "second", act_type="relu")
    g.add("Convolution", "prelu_all", "second", "prelu_weight", **options)
    g.add("Convolution", "prelu_positive", "prelu_relu", "_rminusscalar0", **options)
    g.add("elemwise_add", "prelu", "prelu_all", "prelu_positive")
    g.add("elemwise_add", "_plus0", "prelu", "relu0")
    g.batch_norm("bn1", "_plus0", FILTERS, fix_gamma=False, eps=2e-5)
    g.add("Dropout", "dropout0", "bn1", p=0.4)
    side = SIZE[1] // 2
    weight, bias = (
        g.weight("pre_fc1_weight", NUMBERS, FILTERS * side * side),
        g.weight("pre_fc1_bias", NUMBERS),
    )
    g.add("FullyConnected", "pre_fc1", "dropout0", weight, bias, num_hidden=NUMBERS)
    g.batch_norm("fc1", "pre_fc1", NUMBERS, fix_gamma=True, eps=4e-5)
    g.add("FullyConnected", "fc7", "fc1", g.weight("fc7_weight", 10, NUMBERS), num_hidden=10, no_bias=True)
    g.add("SoftmaxOutput", "softmax", "fc7", g.variable("softmax_label"))
    return g


def layers() -> Graph:
    """A network whose layers depend on shapes, or have functions of our own. Its output is ``end``."""
    g = Graph()
    g.variable("data")
    g.convolution("conv0", "data", 3, 8, pad=(1, 1))
    g.batch_norm("bn0", "conv0", 8)
    windows: dict[str, Any] = {
        "kernel": (3, 3),
        "stride": (2, 2),
        "pad": (1, 1),
        "pooling_convention": "full",
    }
    g.add("Pooling", "pool0", "bn0", **windows)
    g.add("Pooling_v1", "pool1", "pool0", **windows)
    g.add("Pooling", "largest", "pool1", kernel=(1, 1), global_pool=True)
    g.add("max", "right", "pool1", axis=3)
    g.add("Reshape", "down", g.add("min", "kept", "pool1", axis=2, keepdims=True), shape=(0, 0, -1))
    g.add("SliceChannel", "parts", g.add("elemwise_add", "sum", "right", "down"), num_outputs=2, axis=1)
    g.add("slice_axis", "range", ("parts", 1), axis=1, begin=1, end=3)
    g.add("slice", "ranges", ("parts", 0), begin="(None, 1)", end="(None, 3)")
    g.add("clip", "clipped", g.add("Concat", "joined", "range", "ranges"), a_min=-1, a_max=1)
    g.add("InstanceNorm", "instance", "pool1", g.factor("instance_gamma", 8), g.weight("instance_beta", 8))
    g.add("UpSampling", "large", "instance", "instance", scale=2, sample_type="nearest")
    g.add("Crop", "window", "large", offset=(1, 1), h_w=(2, 2))
    flat = [g.add("Flatten", f"flat_{name}", name) for name in ("largest", "clipped", "window")]
    g.add("Concat", "end", *flat)
    return g


def images(count: int = 4, seed: int = 0) -> NDArray[np.float32]:
    """Random images."""
    return np.random.default_rng(seed).uniform(0, 255, (count, *SIZE)).astype(np.float32)
