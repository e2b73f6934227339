"""`fasttriplet.torch.from_mxnet`: what the module is, and what cannot be converted."""

from __future__ import annotations

import copy
import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasttriplet.checkpoint._checkpoint import read_checkpoint  # noqa: E402
from fasttriplet.errors import OptionError  # noqa: E402
from fasttriplet.torch import _from_mxnet as home  # noqa: E402
from fasttriplet.torch import from_mxnet, to_mxnet  # noqa: E402
from tests.torch import conversion as c  # noqa: E402
from tests.torch import graphs  # noqa: E402
from tests.torch.converted import converted, images, outputs, take_a_step  # noqa: E402
from tests.torch.graphs import Graph  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.torch


# What the module is


def test_the_module_is_readable(module: Any) -> None:
    kinds = {name: type(layer) for name, layer in module.named_children()}
    assert kinds["conv0"] is nn.Conv2d
    assert issubclass(kinds["relu0"], nn.PReLU)
    assert kinds["pre_fc1"] is nn.Linear
    assert isinstance(module.bn0, nn.BatchNorm2d)
    keys = set(module.state_dict())
    assert {"conv0.weight", "bn0.running_var", "pre_fc1.bias", "relu0.weight"} <= keys
    assert "prelu_gamma" in keys  # a weight that others are computed from has the name of MXNet
    assert "conv0 = self.conv0(_mulscalar0)" in module.code
    assert not module.training


def test_the_loss_is_cut_off(module: Any) -> None:
    assert outputs(module).shape == (4, graphs.NUMBERS)
    assert not hasattr(module, "fc7")


def test_another_output(prefix: Path) -> None:
    assert outputs(from_mxnet(prefix, 0, output="bn1")).shape == (4, graphs.FILTERS, 8, 8)
    with pytest.raises(ValueError, match="softmax_label"):
        from_mxnet(prefix, 0, output="softmax")
    with pytest.raises(OptionError, match=r"^output must be text, a name or a number such as '0', not 5$"):
        from_mxnet(prefix, 0, output=5)  # type: ignore[arg-type]


def test_a_layer_that_is_used_twice_is_one(module: Any) -> None:
    assert module.code.count("self.first(") == 2
    assert not hasattr(module, "second")


def test_weights_that_different_layers_share(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    weight = g.weight("w", 3, 3, 3, 3)
    g.add("Convolution", "a", "data", weight, num_filter=3, kernel=(3, 3), no_bias=True)
    g.add("Convolution", "b", "a", weight, num_filter=3, kernel=(3, 3), no_bias=True, stride=(2, 2))
    net = converted(g, "b", tmp_path)
    assert list(net.state_dict()) == ["w"]
    net(images()).sum().backward()
    assert net.w.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_shared_weights_have_the_type_of_the_graph(dtype: str, tmp_path: Path) -> None:
    """Weights of several layers, and those that weights are computed from."""
    g = Graph()
    g.variable("data")
    g.add("Cast", "cast", "data", dtype=dtype)
    weight, computed = g.weight("w", 3, 3, 3, 3), g.weight("v", 3, 27)
    options = {"num_filter": 3, "kernel": (3, 3), "no_bias": True}
    g.add("Convolution", "a", "cast", weight, **options)
    g.add("Convolution", "b", "a", weight, **options, stride=(2, 2))
    g.add("Reshape", "reshaped", g.add("_mul_scalar", "twice", computed, scalar=2), shape=(3, 3, 3, 3))
    g.add("Convolution", "c", "b", "reshaped", **options)
    g.add("Cast", "back", "c", dtype="float32")
    g.args = {name: array.astype(dtype) for name, array in g.args.items()}
    net = converted(g, "back", tmp_path)
    assert {name: array.dtype for name, array in net.state_dict().items()} == dict.fromkeys(
        ("w", "v"), getattr(torch, dtype)
    )
    found = outputs(net, images() / 255)
    exact = outputs(copy.deepcopy(net).double(), images() / 255)
    assert found.dtype is torch.float32
    bar = 2e-3 if dtype == "float16" else 1e-7
    assert c.apart(found.numpy(), exact.numpy()) < bar
    net.train()(images() / 255).sum().backward()
    assert net.w.grad.dtype is getattr(torch, dtype)
    to_mxnet(net, tmp_path / "back")
    for name, array in read_checkpoint(tmp_path / "back", 0).arg_params.items():
        assert array.dtype == dtype
        assert np.array_equal(array, g.args[name])


@pytest.mark.mxnet
def test_shared_weights_of_float64_in_mxnet(mx: Any) -> None:
    """A network that computes in float64 keeps all digits of its weights."""
    symbol = mx.sym
    data, weight = symbol.Cast(symbol.Variable("data"), dtype="float64"), symbol.Variable("w")
    inner = symbol.FullyConnected(data, weight=weight, num_hidden=5, no_bias=True)
    outer = symbol.broadcast_mul(inner, symbol.sum(weight, axis=0))
    values = np.random.default_rng(0).standard_normal((4, 5))
    weights = {"w": np.random.default_rng(1).standard_normal((5, 5))}
    theirs = c.mxnet_step(mx, outer, weights, values.astype(np.float32), np.ones((4, 5)))
    ours = c.torch_step(c.converted(outer, weights), values.astype(np.float32), np.ones((4, 5)))
    assert c.apart(ours.output, theirs.output) < 1e-14
    assert c.apart(ours.gradients["w"], theirs.gradients["w"]) < 1e-14


def test_names_become_legal(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.convolution("stage-1/conv.1", "data", 3, 3)
    g.convolution("stage-1_conv/1", "stage-1/conv.1", 3, 3)
    g.convolution("forward", "stage-1_conv/1", 3, 3)
    g.convolution("1x1", "forward", 3, 3)
    net = converted(g, "1x1", tmp_path)
    expected = ["stage_1_conv_1", "stage_1_conv_1_1", "forward_1", "_1x1"]
    assert [name for name, _ in net.named_children()] == expected
    to_mxnet(net, tmp_path / "back")
    assert read_checkpoint(tmp_path / "back", 0).arg_params.keys() == g.args.keys()


def test_the_input_may_have_any_name(tmp_path: Path) -> None:
    g = Graph()
    g.variable("input/images:0")
    g.convolution("conv", "input/images:0", 3, 4)
    assert outputs(converted(g, "conv", tmp_path)).shape == (4, 4, 14, 14)


def test_a_fixed_gamma_counts_as_one_and_is_kept(prefix: Path, tmp_path: Path) -> None:
    stored = read_checkpoint(prefix, 0).arg_params["fc1_gamma"]
    net: Any = from_mxnet(prefix, 0)
    assert net.fc1.weight is None
    normalised = (outputs(net) - net.fc1.bias) * (
        net.fc1.running_var + net.fc1.eps
    ).sqrt() + net.fc1.running_mean
    assert torch.allclose(normalised, outputs(from_mxnet(prefix, 0, output="pre_fc1")), atol=1e-5)
    take_a_step(net)
    to_mxnet(net, tmp_path / "back")
    assert np.array_equal(read_checkpoint(tmp_path / "back", 0).arg_params["fc1_gamma"], stored)


def test_running_statistics_are_those_of_mxnet(module: Any) -> None:
    """The variance of a batch is divided by N, and momentum 0.9 is what is kept."""
    before = module.bn0.running_mean.clone(), module.bn0.running_var.clone()
    batch = module.conv0((images() - 127.5) * 0.0078125).detach()
    module.train()
    module(images())
    means = batch.mean((0, 2, 3)), batch.var((0, 2, 3), unbiased=False)
    for old, new, now in zip(before, means, (module.bn0.running_mean, module.bn0.running_var), strict=True):
        assert torch.allclose(now, 0.9 * old + 0.1 * new, rtol=1e-5, atol=1e-6)
    assert module.bn0.num_batches_tracked == 1


def test_fixed_statistics_stay(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.batch_norm("bn", "data", 3, use_global_stats=True)
    net = converted(g, "bn", tmp_path)
    expected = outputs(net)
    net.train()
    assert torch.equal(outputs(net), expected)
    assert net.bn.num_batches_tracked == 0


def test_float16_inside_is_followed_unless_it_is_changed(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.add("Cast", "half", "data", dtype="float16")
    g.convolution("conv", "half", 3, 4)
    g.batch_norm("bn", "conv", 4)
    g.add("Cast", "single", "bn", dtype="float32")
    net = converted(g, "single", tmp_path)
    assert net.conv.weight.dtype is torch.float16
    assert net.bn.running_var.dtype is torch.float32
    found = outputs(net, images() / 255)
    assert found.dtype is torch.float32
    exact = outputs(copy.deepcopy(net).float(), images() / 255)
    assert 0 < float((found - exact).abs().max()) < 1e-2
    to_mxnet(net, tmp_path / "back")
    assert read_checkpoint(tmp_path / "back", 0).arg_params["conv_weight"].dtype == np.float16


@pytest.mark.parametrize("spec", [False, True])
def test_the_warning_of_unused_weights_points_to_the_caller(tmp_path: Path, spec: bool) -> None:
    import fasttriplet as ft  # noqa: PLC0415

    g = graphs.network()
    g.args["more"] = np.zeros(3, dtype=np.float32)
    prefix = g.save(tmp_path / "model", "softmax")
    with pytest.warns(UserWarning, match=r"0000\.params holds more, unknown to .*; not used") as caught:
        if spec:
            ft.load_embedder(f"torch:mxnet:{prefix},0", devices="cpu")
        else:
            from_mxnet(prefix, 0)
    assert [warning.filename for warning in caught] == [__file__]


# What cannot be converted


def broken(**options: Any) -> Graph:
    """A network with one convolution and these attributes."""
    g = Graph()
    g.variable("data")
    weight = g.weight("conv_weight", 4, 3, 3, 3)
    g.add(
        "Convolution",
        "conv",
        "data",
        weight,
        **{"num_filter": 4, "kernel": (3, 3), "no_bias": True} | options,
    )
    return g


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layout": "NHWC"},
            r"node 'conv' \(Convolution\): layout='NHWC' cannot be converted; expected NCHW",
        ),
        ({"sparse": "yes"}, r"node 'conv' \(Convolution\): sparse='yes' is not known"),
        ({"stride": "(1,)"}, r"stride=\(1,\) and kernel=\(3, 3\) have different lengths"),
        ({"kernel": "(3, x)"}, r"kernel='\(3, x\)' cannot be converted; expected whole numbers"),
        ({"no_bias": "maybe"}, "no_bias='maybe' cannot be converted; expected True or False"),
        ({"num_filter": "5"}, r"'conv_weight' has the shape \(4, 3, 3, 3\); expected \(5, any, 3, 3\)"),
        ({"no_bias": "False"}, "it has 2 inputs; expected at least 3"),
    ],
)
def test_attributes_that_cannot_be_converted(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        converted(broken(**options), "conv", tmp_path)
    assert "own-symbol.json" in str(caught.value)


def test_operators_that_cannot_be_converted(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.add("ROIPooling", "roi", "data")
    with pytest.raises(ValueError, match=r"node 'roi' \(ROIPooling\): the operator cannot be converted"):
        converted(g, "roi", tmp_path)


def test_outputs_that_mxnet_hides(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.batch_norm("bn", "data", 3)
    g.add("abs", "mean", ("bn", 1))
    with pytest.raises(ValueError, match=r"node 'bn' \(BatchNorm\): its output 1 is used"):
        converted(g, "mean", tmp_path)


@pytest.mark.parametrize("name", ["data", "w"])
def test_outputs_that_variables_do_not_have(name: str, tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    if name == "w":
        g.weight("w", 1)
    g.add("broadcast_add", "sum", ("data", 0), (name, 1))
    with pytest.raises(ValueError, match=rf"node '{name}' \(null\): its output 1 is used"):
        converted(g, "sum", tmp_path)


def test_running_statistics_that_something_else_uses(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.batch_norm("bn", "data", 3)
    g.add("broadcast_mul", "product", "bn", g.add("Reshape", "r", "bn_moving_var", shape=(1, -1, 1, 1)))
    with pytest.raises(ValueError, match=r"node 'r' \(Reshape\): 'bn_moving_var' is also used"):
        converted(g, "product", tmp_path)


def test_running_statistics_that_different_layers_share(tmp_path: Path) -> None:
    g = Graph()
    g.variable("data")
    g.batch_norm("bn", "data", 3)
    inputs = ["bn_gamma", "bn_beta", "bn_moving_mean", "bn_moving_var"]
    g.add("BatchNorm", "other", "bn", *inputs, eps=1)
    with pytest.raises(ValueError, match="'bn_moving_mean' is also used by a layer of another kind"):
        converted(g, "other", tmp_path)


# How it is imported


@pytest.mark.heavy
def test_needs_no_mxnet(prefix: Path) -> None:
    code = (
        "import sys; sys.modules['mxnet'] = None\n"
        "import fasttriplet.torch\n"
        "assert 'fasttriplet.torch._from_mxnet' not in sys.modules, 'it is imported at its first use'\n"
        f"print(type(fasttriplet.torch.from_mxnet({str(prefix)!r}, 0)).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ConvertedNetwork\n"


def test_documented_examples(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prefix.parent)
    assert doctest.testmod(home).failed == 0


# Real ones


@pytest.mark.heavy
@pytest.mark.parametrize("rows", [200, pytest.param(None, marks=pytest.mark.slow)])
def test_embeddings_are_those_that_mxnet_gave(real_data: Path, rows: int | None) -> None:
    import fasttriplet as ft  # noqa: PLC0415

    expected = np.load(real_data / "lfw112-a" / "emb_a.npy")[:rows]
    dataset = ft.Dataset(real_data / "lfw112-a" / "train.rec")
    pixels = dataset.decode(np.arange(len(expected))).pixels
    module = from_mxnet(real_data / "model-y1" / "model", 0)
    batches = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().split(50)
    found = np.concatenate([outputs(module, batch).numpy() for batch in batches])
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / lengths).min() > 0.999999
