"""The built-in networks against their paper, MXNet's own operator and themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.checkpoint._networks import NETWORKS, PReLU, _Graph
from fasttriplet.checkpoint._outputs import find_data, find_embedding
from fasttriplet.checkpoint._symbol import Symbol, parse_symbol
from fasttriplet.mxnet import _untrained as untrained
from fasttriplet.mxnet import build_network, mobilefacenet, save_untrained, small_convnet, triplet_loss
from fasttriplet.mxnet._checkpoint import load_checkpoint
from fasttriplet.mxnet._quiet import quiet
from tests.mxnet.small_networks import random_images, rows_of

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]
Arrays = dict[str, NDArray[np.float32]]


def shapes_of(symbol: Any, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Of all weights, and of the output for five images under "fc1"."""
    shapes, outputs, _ = symbol.infer_shape(data=(5, 3, *size))
    found = dict(zip(symbol.list_arguments(), shapes, strict=True))
    del found["data"]
    return found | {"fc1": outputs[0]}


# --- what they are


def test_parameters_of_mobilefacenet() -> None:
    """The paper's 0.99 million are left when normalisations are folded into the weights before them."""
    shapes = shapes_of(mobilefacenet(), (112, 112))
    del shapes["fc1"]
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    weights, slopes, betas = (
        sum(size for name, size in sizes.items() if name.endswith(end))
        for end in ("_weight", "_prelu_gamma", "_beta")
    )
    assert (weights, slopes, betas) == (976_000, 7_552, 9_792)
    assert weights + slopes + betas == 993_344
    assert sum(sizes.values()) == 1_003_136


def test_mobilefacenet_has_the_layers_of_another(real_data: Path) -> None:
    """A published model has the same layers, and a bias that its last normalisation takes away again."""
    theirs = load_checkpoint(real_data / "model-y1" / "model", 0).arg_params
    ours = shapes_of(mobilefacenet(), (112, 112))
    del ours["fc1"]
    other = {name: value.shape for name, value in theirs.items()}
    assert other.pop("pre_fc1_bias") == (128,)
    assert sorted(ours.values()) == sorted(other.values())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(112, 112), (112, 96), (64, 64), (50, 37), (16, 16), (1, 1)])
@pytest.mark.parametrize("embedding_size", [128, 512])
def test_shapes(name: str, size: tuple[int, int], embedding_size: int) -> None:
    symbol = build_network(name, size, embedding_size)
    shapes = shapes_of(symbol, size)
    assert symbol.list_outputs() == ["fc1_output"]
    assert shapes["fc1"] == (5, embedding_size)
    last_map = tuple(math.ceil(side / 16) for side in size)
    if name == "mobilefacenet":
        assert shapes["gdc_conv_weight"] == (512, 1, *last_map)
    else:
        assert shapes["pre_fc1_weight"] == (embedding_size, 128 * math.prod(last_map))


def test_mobilefacenet_takes_no_other_size(tmp_path: Path) -> None:
    symbol = mobilefacenet(16, (48, 32))
    assert symbol.infer_shape(data=(1, 3, 48, 32))[1] == [(1, 16)]
    for height, width in ((64, 32), (48, 33), (32, 32), (112, 112)):
        with pytest.raises(ValueError, match=rf"does not take images of {height} x {width} \(H x W\)"):
            save_untrained(tmp_path / "net", symbol, (height, width))


def test_names_do_not_depend_on_what_was_built_before() -> None:
    builds: list[Callable[[], Any]] = [small_convnet, mobilefacenet, lambda: mobilefacenet(prelu="operator")]
    before = [build().tojson() for build in builds]
    triplet_loss(mobilefacenet(8) * 1, 0.3, 3)
    assert [build().tojson() for build in reversed(builds)][::-1] == before
    names = mobilefacenet().list_arguments()
    assert len(set(names)) == len(names)
    assert {"bottleneck15_depthwise_conv_weight", "bottleneck15_depthwise_prelu_gamma"} < set(names)
    assert names == mobilefacenet(prelu="operator").list_arguments()


def test_the_embedding_has_an_epsilon_of_its_own() -> None:
    """MXNet ends the process where an embedding shares one with a map of one pixel; see the next test."""
    for name in NETWORKS:
        nodes = json.loads(build_network(name, (16, 16)).tojson())["nodes"]
        epsilons = {node["name"]: node["attrs"]["eps"] for node in nodes if node["op"] == "BatchNorm"}
        own = epsilons.pop("fc1")
        assert epsilons
        assert own not in epsilons.values()


@pytest.mark.parametrize(
    ("name", "size", "embedding_size"),
    [("mobilefacenet", (32, 32), 512), ("mobilefacenet", (9, 16), 128), ("small", (16, 16), 128)],
)
def test_maps_of_one_pixel_with_as_many_channels_as_the_embedding(
    mx: Any, name: str, size: tuple[int, int], embedding_size: int
) -> None:
    module = mx.mod.Module(build_network(name, size, embedding_size), label_names=None)
    with quiet():
        module.bind([("data", (6, 3, *size))], for_training=False)
    module.init_params(mx.init.Xavier())
    for _ in range(2):
        module.forward(mx.io.DataBatch([mx.nd.ones((6, 3, *size))]), is_train=False)
        assert module.get_outputs()[0].asnumpy().shape == (6, embedding_size)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="network must be one of 'small', 'mobilefacenet', not 'resnet'"):
        build_network("resnet", (112, 112))
    for name in NETWORKS:
        with pytest.raises(ValueError, match="embedding_size must be a whole number >= 1, not 0"):
            build_network(name, (112, 112), 0)
        with pytest.raises(ValueError, match="the width in image_size must be a whole number >= 1, not 0"):
            build_network(name, (112, 0))
    with pytest.raises(ValueError, match=r"^image_size must be \(height, width\) in pixels, not 112"):
        mobilefacenet(128, 112)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prelu must be one of 'convolutions', 'operator', not 'fast'"):
        mobilefacenet(prelu="fast")  # type: ignore[arg-type]


# --- PReLU


def outputs_and_slopes(mx: Any, symbol: Any, arrays: Arrays, flowing: NDArray[np.float32]) -> list[Any]:
    """The output, and the gradients of all variables."""
    gradients = {name: mx.nd.zeros(array.shape) for name, array in arrays.items()}
    bound = symbol.bind(
        mx.cpu(), {name: mx.nd.array(array) for name, array in arrays.items()}, args_grad=gradients
    )
    found = [bound.forward(is_train=True)[0].asnumpy()]
    bound.backward([mx.nd.array(flowing)])
    return [*found, *(gradients[name].asnumpy() for name in sorted(arrays))]


@pytest.mark.parametrize("shape", [(30, 64, 56, 56), (6, 512, 7, 7), (3, 5, 1, 1), (1, 3, 4, 9)])
def test_prelu_is_that_of_mxnet(mx: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    values, flowing = rng.standard_normal((2, *shape)).astype(np.float32)
    values.flat[::7] = 0
    arrays = {"data": values, "x_gamma": rng.normal(0.2, 0.5, shape[1]).astype(np.float32)}
    data = mx.sym.Variable("data")
    expected = outputs_and_slopes(
        mx, mx.sym.LeakyReLU(data, act_type="prelu", name="x"), arrays, flowing
    )  # whose slopes are called x_gamma, too
    for by in get_args(PReLU):
        graph = _Graph(by)
        head = graph.prelu(graph.variable("data"), "x", shape[1])
        symbol = mx.sym.load_json(Symbol(tuple(graph.nodes), (head,)).to_json())
        found = outputs_and_slopes(mx, symbol, arrays, flowing)
        for one, other in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
        # A gradient of a slope is the sum of so many numbers, of either sign.
        np.testing.assert_allclose(found[2], expected[2], rtol=1e-5, atol=1e-6 * values.size / shape[1])


def test_the_two_kinds_of_prelu_are_one_network(mx: Any, tmp_path: Path) -> None:
    size = (32, 48)
    save_untrained(tmp_path / "fast", mobilefacenet(64, size), size, seed=3)
    save_untrained(tmp_path / "plain", mobilefacenet(64, size, prelu="operator"), size, seed=3)
    fast, plain = (mx.nd.load(f"{tmp_path}/{name}-0000.params") for name in ("fast", "plain"))
    assert fast.keys() == plain.keys()
    for name, value in fast.items():
        np.testing.assert_allclose(value.asnumpy(), plain[name].asnumpy(), rtol=1e-4, atol=1e-5, err_msg=name)
        if name.endswith("_prelu_gamma"):
            assert (value.asnumpy() == np.float32(0.25)).all()
    (tmp_path / "plain-0000.params").write_bytes((tmp_path / "fast-0000.params").read_bytes())
    images, rows = random_images(20, *size), rows_of(20)
    one, other = (
        ft.load_embedder(f"mxnet:{tmp_path}/{name},0").embed(rows, images) for name in ("fast", "plain")
    )
    assert np.abs(one).max() > 1
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# --- what is done with them


@pytest.mark.parametrize("name", NETWORKS)
def test_the_embedding_is_found(tmp_path: Path, name: str) -> None:
    size = (40, 32)
    symbol = build_network(name, size, 24)
    for whole in (symbol, triplet_loss(symbol, 0.3, 6)):
        params, graph = {*symbol.list_arguments()} - {"data"}, parse_symbol(whole.tojson())
        assert find_data(graph, params) == "data"
        assert graph.name_of(find_embedding(graph, data="data", params=params)) == "fc1_output"
    save_untrained(tmp_path / "net", symbol, size)
    embedder = ft.load_embedder(f"mxnet:{tmp_path}/net,0")
    assert ", output fc1, " in embedder.description
    pictures = random_images(30, 5, 4).repeat(8, axis=1).repeat(8, axis=2)
    found = embedder.embed(rows_of(30), pictures)
    assert found.shape == (30, 24)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert (found @ found.T)[np.triu_indices(30, 1)].mean() < 0.5


def trained(mx: Any, name: str, prefix: Path, size: tuple[int, int]) -> tuple[Arrays, list[Any]]:
    """All weights after some steps, and the embeddings and losses on the way."""
    start = load_checkpoint(prefix, 0)
    module = mx.mod.Module(triplet_loss(build_network(name, size, 32), 0.3, 12))
    with quiet():
        module.bind([("data", (12, 3, *size))], [("softmax_label", (12,))])
    module.set_params(start.arg_params, start.aux_params)
    module.init_optimizer(
        optimizer="sgd", optimizer_params={"learning_rate": 0.05, "momentum": 0.9, "wd": 5e-4}
    )
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(4):
        images = mx.nd.array(rng.integers(0, 256, (12, 3, *size)))
        batch = mx.io.DataBatch([images], [mx.nd.zeros(12)])
        module.forward_backward(batch)
        module.update()
        seen.append(module.get_outputs()[2].asnumpy())
        module.forward(batch, is_train=False)
        seen.append(module.get_outputs()[0].asnumpy())
    mx.nd.waitall()  # get_params does not wait for the running statistics
    args, auxs = module.get_params()
    return {key: value.asnumpy() for key, value in (args | auxs).items()}, seen


@pytest.mark.parametrize("name", NETWORKS)
def test_training_repeats_to_the_bit(mx: Any, tmp_path: Path, name: str) -> None:
    size = (32, 32)
    save_untrained(tmp_path / "net", build_network(name, size, 32), size)
    embedder = ft.load_embedder(f"mxnet:{tmp_path / 'net'},0")
    noise = random_images(40, *size)
    for images, least in ((noise, 0.1), (noise % np.uint8(3), 1e-4)):  # nearly black
        scatter = ft.mine(embedder.embed(rows_of(40), images), np.arange(40) // 2).stats.scatter
        assert scatter is not None
        assert scatter > least, "a collapse is at 1e-6"
    (weights, seen), (again, seen_again) = (trained(mx, name, tmp_path / "net", size) for _ in range(2))
    assert weights.keys() == again.keys()
    assert all(np.array_equal(weights[key], again[key]) for key in weights)
    assert all(np.array_equal(one, other) for one, other in zip(seen, seen_again, strict=True))
    assert all(np.isfinite(one).all() for one in seen)
    start = load_checkpoint(tmp_path / "net", 0).arg_params
    still = [key for key, value in start.items() if np.array_equal(weights[key], value.asnumpy())]
    assert still == ["fc1_gamma"]


def test_running_statistics_are_those_of_an_inference(
    mx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer after layer, though Dropout and global statistics behave otherwise in training."""
    images = np.random.default_rng(0).random((64, 3, 6, 5)).astype(np.float32) * 255
    monkeypatch.setattr(untrained, "_pictures", lambda *_: images)
    layer = mx.sym.BatchNorm(mx.sym.Variable("data"), name="first", use_global_stats=True)
    layer = mx.sym.Convolution(layer, name="conv", num_filter=4, kernel=(3, 3))
    layer = mx.sym.BatchNorm(layer, name="middle", fix_gamma=False)
    layer = mx.sym.Dropout(mx.sym.Activation(layer, act_type="relu"), p=0.4)
    layer = mx.sym.FullyConnected(layer, name="pre_fc1", num_hidden=8)
    symbol = mx.sym.BatchNorm(layer, name="fc1", eps=2e-5)
    save_untrained(tmp_path / "net", symbol, (6, 5))
    saved = load_checkpoint(tmp_path / "net", 0)
    assert saved.symbol == parse_symbol(symbol.tojson())
    for name, before in (("first", "data"), ("middle", "conv_output"), ("fc1", "pre_fc1_output")):
        inputs = symbol.get_internals()[before]
        module = mx.mod.Module(inputs, label_names=None)
        module.bind([("data", images.shape)], for_training=False)
        module.set_params(saved.arg_params, saved.aux_params, allow_extra=True)
        module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
        found = module.get_outputs()[0].asnumpy().astype(np.float64)
        axes = (0, *range(2, found.ndim))
        mean, variance = (saved.aux_params[f"{name}_moving_{kind}"].asnumpy() for kind in ("mean", "var"))
        np.testing.assert_allclose(mean, found.mean(axes), rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(variance, found.var(axes), rtol=1e-4, atol=1e-5, err_msg=name)
