"""Weights of networks that have none: their shapes are those of MXNet, and so is how they are drawn."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.checkpoint._networks import NETWORKS, network_of
from fasttriplet.checkpoint._symbol import Symbol, parse_symbol
from fasttriplet.torch._from_mxnet import weights_of
from fasttriplet.torch._graph._initial import untrained
from tests.torch.networks import DATA

pytestmark = pytest.mark.torch
Arrays = dict[str, Any]


def drawn(symbol: Symbol, size: tuple[int, int] = (24, 24), seed: int = 0) -> Arrays:
    return weights_of(untrained(symbol, "data", size, seed))


def graph_of(symbol: Any) -> Symbol:
    return parse_symbol(symbol.tojson())


def shapes_of_mxnet(symbol: Any, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    args, _, auxs = symbol.infer_shape(data=(1, 3, *size))
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    return {name: shape for name, shape in zip(names, [*args, *auxs], strict=True) if name != "data"}


def same_shapes(symbol: Any, size: tuple[int, int]) -> None:
    found = {name: values.shape for name, values in drawn(graph_of(symbol), size).items()}
    assert found == shapes_of_mxnet(symbol, size)


@pytest.mark.mxnet
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prelu", ["operator", "convolutions"])
@pytest.mark.parametrize("size", [(24, 24), (112, 96)])
def test_shapes_of_built_in_networks(mx: Any, name: str, prelu: Any, size: tuple[int, int]) -> None:
    same_shapes(mx.sym.load_json(network_of(name, size, 16, prelu=prelu).to_json()), size)


@pytest.mark.mxnet
@pytest.mark.parametrize("name", ["mobilefacenet-dim512", "r34-amf", "retinaface-mnet10"])
def test_shapes_of_published_networks(mx: Any, real_data: Path, name: str) -> None:
    assert real_data == DATA
    symbol = mx.sym.load(f"{real_data}/symbols/{name}-symbol.json")
    same_shapes(symbol, (128, 96) if name.startswith("retinaface") else (112, 112))


def convolved(mx: Any) -> Any:
    return mx.sym.Convolution(mx.sym.Variable("data"), name="c", num_filter=6, kernel=(3, 3), pad=(1, 1))


def shared(mx: Any) -> Any:
    weight, bias = mx.sym.Variable("w_weight"), mx.sym.Variable("w_bias")
    options = {"num_filter": 6, "kernel": (3, 3), "pad": (1, 1)}
    first = mx.sym.Convolution(convolved(mx), weight, bias, name="first", **options)
    return mx.sym.Convolution(first, weight, bias, name="second", **options)


def flattened(mx: Any) -> Any:
    pooled = mx.sym.Pooling(convolved(mx), kernel=(2, 2), stride=(2, 2), pool_type="max")
    return mx.sym.FullyConnected(pooled, name="f", num_hidden=5)


ODD: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda mx: mx.sym.Deconvolution(
        convolved(mx), name="d", num_filter=4, num_group=2, kernel=(4, 3), stride=(2, 2), no_bias=False
    ),
    "grouped": lambda mx: mx.sym.Convolution(
        convolved(mx), name="g", num_filter=12, num_group=3, kernel=(1, 3)
    ),
    "shared": shared,
    "flattened": flattened,
    "last axis": lambda mx: mx.sym.FullyConnected(convolved(mx), name="f", num_hidden=5, flatten=False),
    "normalised along the last axis": lambda mx: mx.sym.BatchNorm(convolved(mx), name="b", axis=3),
    "normalised along a negative axis": lambda mx: mx.sym.BatchNorm(convolved(mx), name="b", axis=-2),
    "other normalisations": lambda mx: mx.sym.LayerNorm(
        mx.sym.InstanceNorm(convolved(mx), name="i"), name="l", axis=-1
    ),
    "slopes": lambda mx: mx.sym.LeakyReLU(
        mx.sym.BatchNorm(convolved(mx), name="b"), name="p", act_type="prelu"
    ),
}


@pytest.mark.mxnet
@pytest.mark.parametrize("name", ODD)
def test_shapes_of_odd_layers(mx: Any, name: str) -> None:
    same_shapes(ODD[name](mx), (20, 14))


@pytest.mark.mxnet
def test_values_are_drawn_as_mxnet_draws_them(mx: Any) -> None:
    symbol = mx.sym.load_json(network_of("mobilefacenet", (112, 112), 512).to_json())
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", (1, 3, 112, 112))], for_training=False)
    mx.random.seed(1)
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))
    theirs = {name: value.asnumpy() for part in module.get_params() for name, value in part.items()}
    ours = drawn(graph_of(symbol), (112, 112))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        found = ours[name]
        if np.ptp(expected) == 0:
            assert np.array_equal(found, expected), name
            continue
        deviation = math.sqrt(2 / (found.shape[0] * math.prod(found.shape[2:])))
        few = 5 / math.sqrt(found.size)
        for values in (found, expected):
            assert values.std() == pytest.approx(deviation, rel=few)
            assert abs(values.mean()) < few * deviation
            assert (values**4).mean() / deviation**4 == pytest.approx(3, rel=5 * few)  # a normal distribution


def test_a_weight_depends_on_its_name_and_the_seed_alone() -> None:
    small, wide = (drawn(network_of("small", (24, 24), size)) for size in (16, 32))
    assert np.array_equal(small["block1_conv_weight"], wide["block1_conv_weight"])
    assert not np.array_equal(small["pre_fc1_weight"], wide["pre_fc1_weight"][:16])
    again = drawn(network_of("small", (24, 24), 16), seed=1)
    assert not np.array_equal(small["block1_conv_weight"], again["block1_conv_weight"])
    flat = [small[f"block{number}_conv_weight"].ravel()[:99] for number in (2, 3, 4)]
    assert max(abs(np.corrcoef(flat)[np.triu_indices(3, 1)])) < 0.4


def test_the_random_numbers_of_the_process_stay() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    drawn(network_of("small", (24, 24), 16))
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def changed(change: Any) -> Symbol:
    """The small network, with a change to the JSON of its nodes by name."""
    plain = json.loads(network_of("small", (24, 24), 16).to_json())
    change({node["name"]: node for node in plain["nodes"]})
    return parse_symbol(json.dumps(plain))


def noted(name: str, **notes: str) -> Any:
    return lambda nodes: (
        nodes[name].setdefault("attrs", {}).update({f"__{key}__": value for key, value in notes.items()})
    )


def test_constants_by_initializers() -> None:
    for text, value in (
        ('["zero", {}]', 0),
        ('["Zeros", {}]', 0),
        ('["one", {}]', 1),
        ('["ones", {}]', 1),
        ('["constant", {"value": -0.5}]', -0.5),
    ):
        weight = drawn(changed(noted("block2_conv_weight", init=text)))["block2_conv_weight"]
        assert np.array_equal(weight, np.full((64, 32, 3, 3), value, np.float32))


def test_a_deviation_by_an_initializer() -> None:
    found = drawn(changed(noted("block4_conv_weight", init='["normal", {"sigma": 0.3}]')))
    assert found["block4_conv_weight"].std() == pytest.approx(0.3, rel=0.02)


def test_a_network_for_a_file_is_not_larger_than_the_file() -> None:
    symbol = network_of("small", (24, 24), 16)
    numbers = sum(values.size for values in drawn(symbol).values())
    network = untrained(symbol, "data", (24, 24), 0, numbers=numbers)
    assert not weights_of(network)["block2_conv_weight"].any()
    assert weights_of(network)["block2_bn_gamma"].all()
    with pytest.raises(ValueError, match="more than the file holds, at 'fc1_"):
        untrained(symbol, "data", (24, 24), 0, numbers=numbers - 1)
    vast = changed(lambda nodes: nodes["block2_conv"]["attrs"].update(num_filter="2000000000"))
    with pytest.raises(ValueError, match=r"at 'block2_conv_weight' of the shape \(2"):
        untrained(vast, "data", (60_000, 60_000), 0, numbers=numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (noted("block2_conv_weight", init='["normal", {"sigma": NaN}]'), "has the initializer"),
        (
            noted("block2_conv_weight", init='["orthogonal", {}]'),
            "has the initializer .*orthogonal.*only zero",
        ),
        (noted("block2_conv_weight", init='["constant", {}]'), "has the initializer"),
        (noted("block2_conv_weight", init="{"), "has the initializer"),
        (noted("block2_conv_weight", init='["constant", {"value": NaN}]'), "block2_conv_weight.*initializer"),
        (noted("block2_conv_weight", shape="(64, 32, 5, 5)"), r"block2_conv.*\(64, 32, 5, 5\)"),
        (noted("pre_fc1_weight", shape="(16, 9999)"), "does not take images of 24 x 24"),
        (noted("block2_conv_weight", shape="(99999999, 99999999, 3, 3)"), "block2_conv"),
        (lambda nodes: nodes["block2_conv"]["attrs"].update(num_filter="2000000000"), "block2_conv"),
        (lambda nodes: nodes["block2_conv"]["attrs"].update(num_group="7"), "block2_conv.*num_group=7"),
        (lambda nodes: nodes["pre_fc1"]["attrs"].update(num_hidden="0"), "pre_fc1.*num_hidden"),
    ],
)
def test_what_cannot_be_drawn_is_named(change: Any, message: str) -> None:
    with pytest.raises((ValueError, MemoryError), match=message):
        drawn(changed(change))


def test_a_weight_whose_shape_nothing_tells_is_named() -> None:
    def scaled(nodes: Any) -> None:
        nodes["block1_relu"] |= {"op": "broadcast_mul", "attrs": {}}
        nodes["block1_relu"]["inputs"] = [nodes["block1_relu"]["inputs"][0], [3, 0, 0]]

    with pytest.raises(ValueError, match=re.escape("node 'block1_relu' (broadcast_mul)")):
        drawn(changed(scaled))


def test_images_that_a_network_does_not_take_are_named() -> None:
    symbol = network_of("mobilefacenet", (112, 112), 16)
    with pytest.raises(ValueError, match=r"does not take images of 24 x 24 \(H x W\).*gdc"):
        drawn(symbol)
