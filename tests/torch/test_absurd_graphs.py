"""Graphs that make no sense: each is an error that names the node, its operator and the attribute."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fasttriplet.torch import from_mxnet, to_mxnet  # noqa: E402
from fasttriplet.torch._fold import folded  # noqa: E402
from fasttriplet.torch._graph._build import build  # noqa: E402
from fasttriplet.torch._graph._operators import OPERATORS  # noqa: E402
from tests.torch.graphs import Graph  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE = (2, 4, 6, 5)
ABSURD = [
    "-1", "-7", "0", "7", "99", "-99", str(2**31 - 1), str(-(2**31)), str(2**62), "9" * 40, "9" * 5000, "1.5",
    "nan", "inf", "-inf", "1e999", "", "None", "()", "(0,)", "(0, 0)", "(-1, -1)", "(1, 0)", "(2, 2, 2)",
    "(7, 7)", "(1, 1)", "(0, -1, 0, -1)", "(-4,)", "(-4, 0, 0)", "(-3, -3, -3)", "(-5, 1)", "(3, 3, 3, 3)",
    "(1,,2)", "((1))", f"({2**31 - 1}, {2**31 - 1})", f"({2**62},)", "(" + "1, " * 99 + ")", "(" * 99,
    " " * 9999, "True", "true!", "full", "NHWC", "\n", "\0", "٣", "{'a': 1}", "float8",
]  # fmt: skip
NUMBER, AXIS = {"scalar": 2}, {"axis": 1}
_WINDOWS = {"kernel": (2, 2), "stride": (1, 1), "pad": (1, 1)}
_POOL = {**_WINDOWS, "pooling_convention": "valid", "pool_type": "max", "global_pool": False}
_CONVOLUTION = {
    "num_filter": 4,
    "num_group": 2,
    **_WINDOWS,
    "dilate": (1, 1),
    "layout": "NCHW",
    "no_bias": True,
}
_NORM = {"eps": 0.1, "momentum": 0.9, "fix_gamma": True, "use_global_stats": False, "axis": 1}
_REDUCTION = {"axis": (2, 3), "keepdims": False, "exclude": False}
# The attributes of operators, and the shapes of their weights.
NODES: dict[str, tuple[dict[str, Any], list[tuple[int, ...]]]] = {
    "Activation": ({"act_type": "relu"}, []),
    "BatchNorm": (_NORM, [(4,)] * 4),
    "BatchNorm_v1": (_NORM, [(4,)] * 4),
    "Cast": ({"dtype": "float32"}, []),
    "Concat": ({"dim": 1}, [(2, 1, 6, 5)]),
    "Convolution": (_CONVOLUTION, [(4, 2, 2, 2)]),
    "Crop": ({"offset": (1, 1), "h_w": (2, 2), "center_crop": False}, []),
    "Deconvolution": (
        {**_CONVOLUTION, "stride": (2, 2), "adj": (1, 1), "target_shape": (0, 0)},
        [(4, 2, 2, 2)],
    ),
    "Dropout": ({"p": 0.5, "mode": "training", "axes": (2,)}, []),
    "FullyConnected": ({"num_hidden": 3, "no_bias": True, "flatten": True}, [(3, 120)]),
    "InstanceNorm": ({"eps": 0.1}, [(4,), (4,)]),
    "L2Normalization": ({"mode": "instance", "eps": 0.1}, []),
    "LayerNorm": ({"axis": -1, "eps": 0.1}, [(5,), (5,)]),
    "LeakyReLU": ({"act_type": "leaky", "slope": 0.1, "lower_bound": 0.1, "upper_bound": 0.3}, []),
    "Pad": ({"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 1, 1, 1), "constant_value": 0}, []),
    "Pooling": ({**_POOL, "pool_type": "lp", "count_include_pad": True, "p_value": 2, "layout": "NCHW"}, []),
    "Pooling_v1": (_POOL, []),
    "Reshape": ({"shape": (0, -1), "reverse": False}, []),
    "SliceChannel": ({"num_outputs": 2, "axis": 1, "squeeze_axis": False}, []),
    "SoftmaxActivation": ({"mode": "channel"}, []),
    "SwapAxis": ({"dim1": 1, "dim2": 2}, []),
    "UpSampling": ({"scale": 2, "sample_type": "nearest", "num_filter": 0, "multi_input_mode": "sum"}, []),
    "clip": ({"a_min": 0, "a_max": 1}, []),
    "expand_dims": (AXIS, []),
    "hard_sigmoid": ({"alpha": 0.2, "beta": 0.5}, []),
    **{name: (_REDUCTION, []) for name in ("max", "mean", "min", "sum")},
    "norm": ({"ord": 2, "axis": 1, "keepdims": False}, []),
    "slice": ({"begin": (0, 1), "end": (2, 3), "step": (1, 1)}, []),
    "slice_axis": ({"axis": 1, "begin": 0, "end": 2}, []),
    "softmax": ({"axis": 1, "temperature": 2.0}, []),
    "squeeze": (AXIS, []),
    "stack": (AXIS, [(2, 4, 6, 5)]),
    "tile": ({"reps": (1, 2)}, []),
    "transpose": ({"axes": (0, 2, 3, 1)}, []),
    **{f"_{name}_scalar": (NUMBER, []) for name in ("plus", "div", "power", "rdiv", "maximum", "minimum")},
}


def network(op: str, attributes: dict[str, Any], shapes: list[tuple[int, ...]]) -> Any:
    g = Graph()
    g.variable("data")
    weights = [g.factor(f"w{number}", *shape) for number, shape in enumerate(shapes)]
    g.add(op, "node", "data", *weights, **attributes)
    return build(g.symbol("node"), "data", g.args)


def run(module: Any) -> None:
    with torch.no_grad():
        module.eval()(torch.rand(SHAPE))
        module.train()(torch.rand(SHAPE))


@pytest.mark.parametrize("op", NODES)
def test_absurd_attributes(op: str) -> None:
    """A value is converted and computed, or it is an error that names where it is."""
    attributes, shapes = NODES[op]
    run(network(op, attributes, shapes))
    refused = set()
    for name in attributes:
        for value in ABSURD:
            try:
                run(network(op, attributes | {name: value}, shapes))
            except (ValueError, MemoryError) as error:
                assert re.match(rf"node 'node' \({op}\)", str(error)), (name, value, error)
                assert name in str(error), (name, value, error)
                assert len(str(error)) < 2000, (name, value)
                refused.add(name)
    assert refused == set(attributes)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("slice", {"begin": "(0, 0)", "end": "(None, 0)"}),
        ("slice", {"begin": "(0, 3)", "end": "(None, 3)"}),
        ("slice", {"begin": "(0, 9)", "end": "(None, None)"}),
        ("slice", {"begin": "(0, -5)", "end": "(None, 2)"}),
        ("slice_axis", {"axis": 1, "begin": 2, "end": 2}),
        ("slice_axis", {"axis": 1, "begin": 0, "end": 5}),
        ("slice_axis", {"axis": -1, "begin": -6, "end": None}),
        ("SliceChannel", {"axis": 1, "num_outputs": 3}),
        ("SliceChannel", {"axis": 1, "num_outputs": 2, "squeeze_axis": True}),
        ("Crop", {"offset": (5, 0), "h_w": (2, 2)}),
        ("Crop", {"h_w": (7, 2), "center_crop": True}),
        ("sum", {"axis": 5}),
        ("sum", {"axis": (0, 1, 2, 3), "exclude": True}),
        ("Pooling", {"kernel": (9, 9), "pool_type": "sum"}),
        ("Pooling", {"kernel": (3, 3), "pool_type": "max", "pad": (3, 3)}),
        ("Pooling", {"kernel": (3, 3), "pool_type": "lp"}),
        ("clip", {"a_min": 3, "a_max": 1}),
    ],
)
def test_what_would_give_fewer_values_or_others(op: str, attributes: dict[str, Any]) -> None:
    """PyTorch would return something."""
    with pytest.raises(ValueError, match=rf"node 'node' \({op}\)"):
        run(network(op, attributes, []))


@pytest.mark.parametrize("op", NODES)
def test_an_unknown_attribute_and_an_input_too_many(op: str) -> None:
    attributes, shapes = NODES[op]
    with pytest.raises(ValueError, match=rf"node 'node' \({op}\): colour='red' is not known"):
        network(op, attributes | {"colour": "red"}, shapes)
    with pytest.raises(ValueError, match=rf"node 'node' \({op}\)"):
        run(network(op, attributes, [*shapes, (1,), (1,), (1,)]))


@pytest.mark.parametrize("op", OPERATORS)
def test_no_input_at_all(op: str) -> None:
    g = Graph()
    attributes, _ = NODES.get(op, (NUMBER if op.lower().endswith("scalar") else {}, []))
    g.add(op, "node", **attributes)
    with pytest.raises(ValueError, match=rf"node 'node' \({op}\)"):
        build(g.symbol("node"), "data", {})


@pytest.mark.parametrize(
    "op", [op for op, (_, shapes) in NODES.items() if shapes and op not in ("Concat", "stack")]
)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 2), (0, 0, 0, 0), (9, 9, 9, 9, 9)])
def test_weights_of_absurd_shapes(op: str, shape: tuple[int, ...]) -> None:
    attributes, shapes = NODES[op]
    for number in range(len(shapes)):
        changed = [shape if at == number else given for at, given in enumerate(shapes)]
        with pytest.raises(ValueError, match=rf"node 'node' \({op}\)"):
            run(network(op, attributes | {"fix_gamma": False} if "BatchNorm" in op else attributes, changed))


def test_images_that_do_not_fit_are_an_error_of_the_node() -> None:
    module = network("FullyConnected", *NODES["FullyConnected"])
    expected = r"node 'node' \(FullyConnected\) with flatten='True', no_bias='True', num_hidden='3': "
    with pytest.raises(ValueError, match=expected):
        module(torch.rand(2, 4, 6, 6))


# With a weight of two images, or for the second image alone.
_OF_TWO_IMAGES = ("Concat", "stack", "slice")


@pytest.mark.parametrize("op", [op for op in OPERATORS if op not in _OF_TWO_IMAGES and op != "concat"])
def test_no_images(op: str) -> None:
    """The result has the shape that it has for one image, but for the number."""
    alias = next(
        name for name, builder in OPERATORS.items() if builder is OPERATORS[op] and name in (op, *NODES)
    )
    attributes, shapes = NODES.get(alias, ({}, []))
    if op.lower().endswith("scalar"):
        attributes = NUMBER
    try:
        module = network(op, attributes, shapes)
    except ValueError:
        module = network(op, attributes, [SHAPE[1:]])  # a function of two tensors
    module.eval()
    with torch.no_grad():
        one, none = module(torch.rand(1, *SHAPE[1:])), module(torch.rand(0, *SHAPE[1:]))
    assert none.shape == (0, *one.shape[1:])


NAMES = [
    "a.b", "a/b", "a\nb", "a\tb", "", " ", "origin", "self", "torch", "forward", "training", "state_dict",
    "graph", "code", "meta", "class", "None", "inf", "nan", "device", "math", "print", "len", "__init__",
    "__dict__", "_graph", "_modules", "weight", "1", "é", "名", "a" * 5000, "'", '"', "#", "\\", "import os",
    "a.b", "_self", "self_1",
]  # fmt: skip


@pytest.mark.parametrize("data", ["self", "torch", "a.b\nc", "", "class", "origin", "data"])
def test_names_of_all_kinds(data: str, tmp_path: Path) -> None:
    """Of the images, of nodes and of weights; two nodes may have the same name."""
    g = Graph()
    before = g.variable(data)
    for number, name in enumerate(name for name in NAMES if name != data):
        weight = g.weight(f"{name}{number}", 4, 4, 1, 1)
        before = g.add("Convolution", name, before, weight, kernel=(1, 1), num_filter=4, no_bias=True)
        if number % 5 == 0:
            before = g.add("broadcast_mul", f"{name} ", before, g.weight(f"{name}.{number}", 1, 4, 1, 1))
    module = build(g.symbol(before), data, g.args)
    batch = torch.rand(SHAPE)
    expected = module(batch)
    assert expected.abs().sum() > 0
    for copied in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(batch), expected)
    assert {name for name, _ in module.origin.places.values()} == g.args.keys()
    with pytest.raises(ValueError, match=r"^node '.*' \(Convolution\) with kernel"):
        module(torch.rand(2, 3, 4, 4))
    to_mxnet(module, tmp_path / "back")
    assert torch.equal(from_mxnet(tmp_path / "back", 0)(batch), expected)


def test_thousands_of_nodes() -> None:
    """Of the images and of weights, all with the same names."""
    g, count = Graph(), 2000
    before, weight = g.variable("data"), g.weight("w", 1)
    for _ in range(count):
        before = g.add("Activation", "a", g.add("_plus_scalar", "a", before, scalar=1), act_type="relu")
        weight = g.add("_mul_scalar", "b", weight, scalar=1)
    module = build(g.symbol(g.add("broadcast_mul", "product", before, weight)), "data", g.args)
    batch = torch.zeros(1, 1)
    assert float(module(batch).detach()) == pytest.approx(count * g.args["w"][0])
    assert torch.equal(pickle.loads(pickle.dumps(module))(batch), module(batch))
    assert torch.equal(folded(module)(batch), module(batch))


@pytest.mark.parametrize("count", [1000, 10**6, 10**9])
def test_millions_of_outputs(count: int) -> None:
    with pytest.raises(ValueError, match=rf"num_outputs='{count}' .* expected a whole number from 1 to 999"):
        network("SliceChannel", {"num_outputs": count}, [])


def test_an_operator_that_spoils_messages() -> None:
    with pytest.raises(
        ValueError, match=r"node 'node' \('ReLU\\n'\): the operator cannot be converted"
    ) as caught:
        network("ReLU\n", {"a\nb": "c\nd"}, [])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"'a\\nb'='c\\nd' is not known") as caught:
        network("relu", {"a\nb": "c\nd"}, [])
    assert "\n" not in str(caught.value)
