"""Normalisations of converted networks become part of the layers before them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasttriplet.torch import from_mxnet  # noqa: E402
from fasttriplet.torch._fold import folded  # noqa: E402
from fasttriplet.torch._graph._batch_norm import BatchNorm  # noqa: E402
from tests.torch import conversion as c  # noqa: E402
from tests.torch.graphs import SIZE, Graph  # noqa: E402

pytestmark = pytest.mark.torch


def left(network: Any) -> list[str]:
    """The normalisations that a network has."""
    return [name for name, part in network.named_modules() if isinstance(part, BatchNorm)]


def loaded(g: Graph, head: str, folder: Path) -> Any:
    network: Any = from_mxnet(g.save(folder / "model", head), 0)
    return network


def apart(network: Any, other: Any, size: tuple[int, ...] = SIZE) -> float:
    batch = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, *size)).astype(np.float32))
    with torch.no_grad():
        return c.apart(other(batch).numpy(), network(batch).numpy())


def everything() -> Graph:
    """A network with all kinds of layers that ask for the number of axes, or have loops."""
    g = Graph()
    g.variable("data")
    g.convolution("conv0", "data", 3, 8, pad=(1, 1))
    g.batch_norm("bn0", "conv0", 8)
    g.add("Pooling", "pool", "bn0", kernel=(3, 3), stride=(2, 2), pad=(1, 1), pooling_convention="full")
    g.add("UpSampling", "joined", "pool", "pool", scale=2, sample_type="nearest", num_args=2)
    g.add("mean", "mean", "joined", axis=(2, 3))
    g.add("Reshape", "reshaped", "mean", shape=(0, -1, 1, 1))
    g.convolution("conv1", "reshaped", 16, 8, 1)
    g.batch_norm("bn1", "conv1", 8, fix_gamma=False)
    g.add("Pooling", "global", "bn1", kernel=(1, 1), global_pool=True, pool_type="max")
    inputs = [g.weight("fc_weight", 6, 8), g.weight("fc_bias", 6)]
    g.add("FullyConnected", "fc", "global", *inputs, num_hidden=6)
    g.batch_norm("fc1", "fc", 6, fix_gamma=True)
    g.add("L2Normalization", "length", "fc1")
    return g


def test_all_normalisations_of_a_network_are_folded(tmp_path: Path) -> None:
    network = loaded(everything(), "length", tmp_path)
    fewer = folded(network)
    assert left(network) == ["bn0", "bn1", "fc1"]  # it stays as it is
    assert left(fewer) == []
    assert type(fewer).__name__ == "ConvertedNetwork"
    assert apart(network, fewer) < 1e-6


def convolutions(axes: int) -> Graph:
    g = Graph()
    g.variable("data")
    kernel = (2,) * axes
    inputs = [g.weight("conv_weight", 6, 1, *kernel), g.weight("conv_bias", 6)]
    g.add("Convolution", "conv", "data", *inputs, num_filter=6, num_group=3, kernel=kernel)
    g.batch_norm("bn", "conv", 6, use_global_stats=True)
    return g


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_of_any_dimension(axes: int, tmp_path: Path) -> None:
    network = loaded(convolutions(axes), "bn", tmp_path)
    fewer = folded(network)
    assert left(fewer) == []
    assert apart(network, fewer, (3, *[5] * axes)) < 1e-6


def used_twice(g: Graph) -> None:
    g.convolution("conv", "data", 3, 3, 1)
    g.batch_norm("bn", "conv", 3)
    g.add("Convolution", "again", "bn", "conv_weight", num_filter=3, kernel=(1, 1), no_bias=True)


def of_two_outputs(g: Graph) -> None:
    g.convolution("conv", "data", 3, 3, 1)
    g.batch_norm("bn", "conv", 3)
    g.add("elemwise_add", "sum", "bn", "conv")


def after_an_activation(g: Graph) -> None:
    g.convolution("conv", "data", 3, 3, 1)
    g.add("Activation", "relu", "conv", act_type="relu")
    g.batch_norm("bn", "relu", 3)


def along_another_axis(g: Graph) -> None:
    g.convolution("conv", "data", 3, 3, 1)
    g.batch_norm("bn", "conv", SIZE[2], axis=3)


def of_a_product_along_the_last_axis(g: Graph) -> None:
    g.add("FullyConnected", "fc", "data", g.weight("w", SIZE[1], SIZE[2]), num_hidden=SIZE[1], no_bias=True,
          flatten=False)  # fmt: skip
    g.batch_norm("bn", "fc", 3)


def in_float16(g: Graph) -> None:
    g.add("Cast", "half", "data", dtype="float16")
    g.convolution("conv", "half", 3, 3, 1)
    g.batch_norm("bn", "conv", 3)
    g.add("Cast", "single", "bn", dtype="float32")


def with_shared_weights(g: Graph) -> None:
    g.convolution("conv", "data", 3, 3, 1)
    g.batch_norm("bn", "conv", 3)
    g.add("broadcast_mul", "product", "bn", g.add("Reshape", "w", "bn_beta", shape=(1, -1, 1, 1)))


@pytest.mark.parametrize(
    "make",
    [
        used_twice, of_two_outputs, after_an_activation, along_another_axis, of_a_product_along_the_last_axis,
        in_float16, with_shared_weights,
    ],
)  # fmt: skip
def test_what_would_not_be_the_same_is_not_folded(make: Callable[[Graph], None], tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    make(g)
    network = loaded(g, g.nodes[-1].name, tmp_path)
    fewer = folded(network)
    assert left(fewer) == ["bn"]
    assert apart(network, fewer) == 0


def test_normalisations_in_training_stay(tmp_path: Path) -> None:
    network = loaded(everything(), "length", tmp_path)
    assert len(left(folded(network.train()))) == 3


def test_nothing_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace replaces methods of nn.Module for all threads."""
    network = loaded(everything(), "length", tmp_path)
    monkeypatch.setattr(torch.fx.Tracer, "trace", None)
    assert left(folded(network)) == []


def sum_of_two(**other: Any) -> Graph:
    """PReLU as the built-in MobileFaceNet has it: slope * x + (1 - slope) * relu(x)."""
    g = Graph()
    g.variable("data")
    g.convolution("conv", "data", 3, 8)
    g.batch_norm("bn", "conv", 8)
    slopes = g.weight("gamma", 8)
    options = {"num_filter": 8, "num_group": 8, "kernel": (1, 1), "no_bias": True}
    g.add("Reshape", "weight", slopes, shape=(-1, 1, 1, 1))
    g.add("Activation", "positive", "bn", act_type=other.get("act_type", "relu"))
    g.add("_rminus_scalar", "rest", "weight", scalar=other.get("one", 1))
    g.add("Convolution", "all", other.get("source", "bn"), "weight", **options)
    g.add("Convolution", "some", "positive", "rest", **options | {"pad": other.get("pad", (0, 0))})
    g.add(other.get("op", "elemwise_add"), "prelu", "all", "some")
    return g


def test_prelu_is_one_operator(tmp_path: Path) -> None:
    network = loaded(sum_of_two(), "prelu", tmp_path)
    fewer = folded(network)
    functions = [node.target for node in fewer.graph.nodes if node.op == "call_function"]
    assert functions == [torch.nn.functional.prelu]
    assert left(fewer) == []
    assert apart(network, fewer) < 1e-6


@pytest.mark.parametrize(
    "other", [{"act_type": "sigmoid"}, {"one": 2}, {"source": "conv"}, {"op": "elemwise_sub"}], ids=str
)
def test_what_is_almost_prelu_stays(other: dict[str, Any], tmp_path: Path) -> None:
    network = loaded(sum_of_two(**other), "prelu", tmp_path)
    fewer = folded(network)
    assert "conv2d" in fewer.code
    assert apart(network, fewer) < 1e-6
