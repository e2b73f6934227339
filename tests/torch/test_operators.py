"""Each operator computes what MXNet's does, forwards and backwards, whatever its attributes."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from fasttriplet.torch._graph._operators import OPERATORS  # noqa: E402
from tests.torch import conversion as c  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.mxnet]

examples = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
Shape = tuple[int, ...]


def check(
    mx: Any,
    symbol: Any,
    shape: Shape,
    *,
    positive: bool = False,
    gradients: bool = True,
    ties: bool = False,
) -> None:
    """Compare inference, and a training step of the sum of all outputs times random factors.

    With `ties`, many values are equal, as after a ReLU.
    """
    rng = np.random.default_rng(3)
    data = rng.standard_normal(shape).astype(np.float32) * 2
    data = np.abs(data) + 0.1 if positive else data
    data = np.maximum(np.round(data), 0) if ties else data
    arg_shapes, _, aux_shapes = symbol.infer_shape(data=shape)
    args = dict(zip(symbol.list_arguments(), arg_shapes, strict=True))
    auxs = dict(zip(symbol.list_auxiliary_states(), aux_shapes, strict=True))
    args.pop("data")

    def drawn(shapes: dict[str, Shape]) -> c.Arrays:
        return {name: rng.uniform(0.3, 1.7, size).astype(np.float32) for name, size in shapes.items()}

    weights = drawn(args) | drawn(auxs)
    module = c.converted(symbol, weights)
    expected = c.mxnet_outputs(mx, symbol, weights, data)
    for got, wanted in zip(c.torch_outputs(module, data), expected, strict=True):
        assert c.apart(got, wanted) < c.BAR
    if not gradients:
        return
    # The sum of several outputs would hide which is which.
    total = mx.sym.concat(*[mx.sym.reshape(output, shape=(-1,)) for output in symbol], dim=0)
    factors = rng.standard_normal(sum(output.size for output in expected)).astype(np.float32)
    ours = c.torch_step(c.converted(total, weights), data, factors)
    theirs = c.mxnet_step(mx, total, weights, data, factors)
    for name, gradient in theirs.gradients.items():
        if name in ours.gradients:
            assert c.apart(ours.gradients[name], gradient, 1e-3) < c.BAR, name
        else:
            assert not gradient.any(), name
    assert c.apart(ours.output, theirs.output) < c.BAR
    assert ours.statistics.keys() == theirs.statistics.keys()
    for name, value in ours.statistics.items():
        assert c.apart(value, theirs.statistics[name]) < c.BAR, name


@pytest.fixture
def data(mx: Any) -> Any:
    return mx.sym.Variable("data")


sizes = st.integers(1, 3)


@examples
@given(
    axes=st.integers(1, 2),
    groups=st.integers(1, 3),
    filters=sizes,
    channels=sizes,
    no_bias=st.booleans(),
    numbers=st.data(),
)
def test_convolution(  # noqa: PLR0917
    mx: Any, axes: int, groups: int, filters: int, channels: int, no_bias: bool, numbers: Any
) -> None:
    def drawn(low: int, high: int) -> Shape:
        return tuple(numbers.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    options = {"kernel": drawn(1, 3), "stride": drawn(1, 2), "pad": drawn(0, 2), "dilate": drawn(1, 2)}
    for name, default in (("stride", 1), ("pad", 0), ("dilate", 1)):
        if all(size == default for size in options[name]):
            del options[name]
    symbol = mx.sym.Convolution(
        mx.sym.Variable("data"), num_filter=filters * groups, num_group=groups, no_bias=no_bias, **options
    )
    check(mx, symbol, (2, channels * groups, *[9] * axes))


@examples
@given(
    groups=st.integers(1, 2), filters=sizes, channels=sizes, no_bias=st.sampled_from([None, True, False]),
    kernel=st.tuples(sizes, sizes), stride=st.tuples(sizes, sizes), pad=st.tuples(*[st.integers(0, 1)] * 2),
    adj=st.tuples(*[st.integers(0, 2)] * 2), target=st.booleans(),
)  # fmt: skip
def test_deconvolution(  # noqa: PLR0917
    mx: Any, groups: int, filters: int, channels: int, no_bias: bool | None, kernel: Shape, stride: Shape,
    pad: Shape, adj: Shape, target: bool,
) -> None:  # fmt: skip
    assume(all(a < s for a, s in zip(adj, stride, strict=True)))
    assume(all(k > p for k, p in zip(kernel, pad, strict=True)))
    options: dict[str, Any] = {} if no_bias is None else {"no_bias": no_bias}
    if target:
        smallest = [s * 3 + k for s, k in zip(stride, kernel, strict=True)]
        options["target_shape"] = tuple(n - min(a, 1) for n, a in zip(smallest, adj, strict=True))
        assume(all(s > 1 for s in stride))
    else:
        options |= {"pad": pad, "adj": adj}
    symbol = mx.sym.Deconvolution(
        mx.sym.Variable("data"), kernel=kernel, stride=stride, num_filter=filters * groups, num_group=groups,
        **options,
    )  # fmt: skip
    try:
        check(mx, symbol, (2, channels * groups, 4, 4))
    except mx.base.MXNetError:  # oneDNN has no such deconvolution
        assume(False)


@examples
@given(
    flatten=st.sampled_from([None, True, False]),
    no_bias=st.booleans(),
    shape=st.lists(sizes, min_size=2, max_size=4),
)
def test_fully_connected(mx: Any, flatten: bool | None, no_bias: bool, shape: list[int]) -> None:
    options = {} if flatten is None else {"flatten": flatten}
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, no_bias=no_bias, **options)
    check(mx, symbol, tuple(shape))


@examples
@given(
    rank=st.integers(2, 5), axis=st.integers(-4, 4), eps=st.sampled_from([None, 2e-5, 0.5]),
    fix_gamma=st.sampled_from([None, True, False]), use_global_stats=st.sampled_from([None, True, False]),
    momentum=st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_batch_norm(  # noqa: PLR0917
    mx: Any, rank: int, axis: int, eps: float | None, fix_gamma: bool | None, use_global_stats: bool | None,
    momentum: float | None,
) -> None:  # fmt: skip
    assume(-rank < axis < rank and axis % rank != 0)
    options: dict[str, Any] = {
        # MXNet 1.9.1 mixes up normalisations of different ranks with one epsilon.
        "eps": None if eps is None else eps * (1 + 1e-2 * rank + 1e-3 * axis),
        "fix_gamma": fix_gamma,
        "use_global_stats": use_global_stats,
        "momentum": momentum,
        "axis": None if axis == 1 else axis,
    }
    options = {name: value for name, value in options.items() if value is not None}
    symbol = mx.sym.BatchNorm(mx.sym.Variable("data"), **options)
    check(mx, symbol, (5, 3, 4, 2, 3)[:rank])


@examples
@given(
    kind=st.sampled_from(["max", "avg", "sum", "lp"]), axes=st.integers(1, 2), numbers=st.data(),
    convention=st.sampled_from([None, "valid", "full"]), include=st.sampled_from([None, True, False]),
    power=st.integers(1, 3), whole=st.booleans(),
)  # fmt: skip
def test_pooling(  # noqa: PLR0917
    mx: Any, kind: str, axes: int, numbers: Any, convention: str | None, include: bool | None, power: int,
    whole: bool,
) -> None:  # fmt: skip
    def drawn(low: int, high: int) -> Shape:
        return tuple(numbers.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, stride, pad = drawn(1, 4), drawn(1, 3), drawn(0, 2)
    assume(all(p < k for k, p in zip(kernel, pad, strict=True)))
    size = 7
    # MXNet's windows in the padding alone: a maximum of nothing, a mean of 0 values.
    assume(
        whole
        or convention != "full"
        or all(_in_the_map(size, *n) for n in zip(kernel, stride, pad, strict=True))
    )
    options: dict[str, Any] = {"kernel": kernel, "pool_type": kind, "stride": stride, "pad": pad}
    options |= {"global_pool": True} if whole else {}
    options |= {} if convention is None else {"pooling_convention": convention}
    options |= {} if include is None else {"count_include_pad": include}
    options |= {"p_value": power} if kind == "lp" else {}
    symbol = mx.sym.Pooling(mx.sym.Variable("data"), **options)
    # With oneDNN, MXNet divides the gradient of a last window that is cut off by the size of a whole one.
    cut_off = convention == "full" and any(
        (size + 2 * p - k) % s for k, s, p in zip(kernel, stride, pad, strict=True)
    )
    check(mx, symbol, (2, 3, *[size] * axes), gradients=whole or kind != "avg" or not cut_off)


@examples
@given(
    kind=st.sampled_from(["max", "avg", "sum"]), numbers=st.data(), whole=st.booleans(), ties=st.booleans(),
    convention=st.sampled_from([None, "valid", "full"]), shift=st.sampled_from([0.0, -9.0]),
)  # fmt: skip
def test_pooling_v1(  # noqa: PLR0917
    mx: Any, kind: str, numbers: Any, whole: bool, ties: bool, convention: str | None, shift: float
) -> None:
    """Its padding is zeros, which are above all values after a shift; means are divided by a fixed size."""

    def drawn(low: int, high: int) -> Shape:
        return numbers.draw(st.tuples(*[st.integers(low, high)] * 2))  # type: ignore[no-any-return]

    options: dict[str, Any] = {"kernel": drawn(1, 4), "stride": drawn(1, 4), "pad": drawn(0, 2)}
    options |= {"global_pool": True} if whole else {}
    options |= {} if convention is None else {"pooling_convention": convention}
    symbol = mx.sym.Pooling_v1(mx.sym.Variable("data") + shift, pool_type=kind, **options)
    windows = zip((7, 6), options["kernel"], options["stride"], options["pad"], strict=True)
    assume(kind != "max" or whole or all(_in_the_map(size + 2 * p, k, s, 0) for size, k, s, p in windows))
    check(mx, symbol, (2, 3, 7, 6), ties=ties)


def test_the_maximum_of_an_empty_window(mx: Any) -> None:
    symbol = mx.sym.Pooling_v1(
        mx.sym.Variable("data"), kernel=(1, 1), stride=(2, 2), pool_type="max", pooling_convention="full"
    )
    data = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)
    (expected,) = c.mxnet_outputs(mx, symbol, {}, data)
    (found,) = c.torch_outputs(c.converted(symbol, {}), data)
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(found, expected)


def _in_the_map(size: int, kernel: int, stride: int, pad: int) -> bool:
    windows = -(-(size + 2 * pad - kernel) // stride) + 1
    return (windows - 1) * stride - pad < size


@pytest.mark.parametrize("options", [{"num_filter": 4}, {"num_filter": 6, "num_group": 3, "no_bias": True}])
@pytest.mark.parametrize("windows", [{}, {"stride": (2, 1), "pad": (2, 1)}, {"dilate": (2, 2)}])
def test_convolution_v1(mx: Any, data: Any, options: dict[str, Any], windows: dict[str, Any]) -> None:
    check(mx, mx.sym.Convolution_v1(data, kernel=(3, 2), **options, **windows), (2, 3, 7, 6))


@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3)])
@pytest.mark.parametrize(
    "options",
    [{}, {"fix_gamma": False, "eps": 0.1}, {"momentum": 0.5}, {"use_global_stats": True, "fix_gamma": False}],
)
@pytest.mark.parametrize("name", ["BatchNorm_v1", "SyncBatchNorm"])
def test_other_batch_norms(mx: Any, data: Any, name: str, options: dict[str, Any], shape: Shape) -> None:
    if name == "SyncBatchNorm":
        symbol = mx.sym.contrib.SyncBatchNorm(data, key=str(len(options)), ndev=1, **options)
    else:
        symbol = mx.sym.BatchNorm_v1(data, **options)
    check(mx, symbol, shape)


POOLED: dict[str, Any] = {"kernel": (3, 2), "stride": (2, 1), "pool_type": "max"}
TIES: dict[str, Any] = {
    "max": lambda s, x: s.max(x, axis=(1, 3)),
    "max, kept": lambda s, x: s.max(x, axis=2, keepdims=True),
    "max of all": lambda s, x: s.max(x),
    "max, exclude": lambda s, x: s.max(x, axis=1, exclude=True),
    "min": lambda s, x: s.min(x, axis=(2, 3)),
    "Pooling": lambda s, x: s.Pooling(x, **POOLED),
    "Pooling, padded": lambda s, x: s.Pooling(x, pad=(1, 1), **POOLED),
    "Pooling, full": lambda s, x: s.Pooling(x, pooling_convention="full", **POOLED),
    "Pooling, full and padded": lambda s, x: s.Pooling(
        x, pad=(1, 1), pooling_convention="full", **POOLED
    ),
    "Pooling, 1 dimension": lambda s, x: s.Pooling(
        s.Reshape(x, shape=(0, 0, -1)), kernel=(3,), stride=(2,), pool_type="max"
    ),
    "Pooling, global": lambda s, x: s.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="max"),
    "maximum": lambda s, x: s.broadcast_maximum(x, s.max(x, axis=1, keepdims=True)),
    "minimum": lambda s, x: s.broadcast_minimum(x, s.min(x, axis=1, keepdims=True)),
    "maximum with a number": lambda s, x: s._internal._maximum_scalar(x, scalar=1),
    "minimum with a number": lambda s, x: s._internal._minimum_scalar(x, scalar=1),
    "clip": lambda s, x: s.clip(x, a_min=0, a_max=2),
    "hard_sigmoid": lambda s, x: s.hard_sigmoid(x, alpha=0.5, beta=0),
    "abs": lambda s, x: s.abs(x),
    "relu": lambda s, x: s.relu(x),
    "leaky": lambda s, x: s.LeakyReLU(x, act_type="leaky"),
    "elu": lambda s, x: s.LeakyReLU(x, act_type="elu"),
    "prelu": lambda s, x: s.LeakyReLU(x, act_type="prelu"),
    "norm": lambda s, x: s.norm(x, ord=1, axis=1),
    "L2Normalization": lambda s, x: s.L2Normalization(x, mode="channel"),
    "softsign": lambda s, x: s.softsign(x),
}  # fmt: skip


@pytest.mark.parametrize("case", TIES)
def test_gradients_where_values_are_equal(mx: Any, data: Any, case: str) -> None:
    check(mx, TIES[case](mx.sym, data), (2, 3, 6, 5), ties=True)


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "softrelu", "softsign", "tanh"])
def test_activation(mx: Any, data: Any, kind: str) -> None:
    check(mx, mx.sym.Activation(data, act_type=kind), (2, 3, 4))


@pytest.mark.parametrize("kind", ["elu", "gelu", "leaky", "selu", None])
@pytest.mark.parametrize("slope", [None, 0.1])
def test_leaky_relu(mx: Any, data: Any, kind: str | None, slope: float | None) -> None:
    options = {"act_type": kind, "slope": slope}
    symbol = mx.sym.LeakyReLU(data, **{name: value for name, value in options.items() if value is not None})
    # MXNet's gradient of SELU is not that of its output.
    check(mx, symbol, (2, 3, 4), gradients=kind != "selu")


def test_random_relu_in_inference(mx: Any, data: Any) -> None:
    symbol = mx.sym.LeakyReLU(data, act_type="rrelu", lower_bound=0.2, upper_bound=0.5)[0]
    check(mx, symbol, (2, 3, 4), gradients=False)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3), (2, 3, 5)])
@pytest.mark.parametrize("slopes", [3, 1])
def test_prelu(mx: Any, data: Any, shape: Shape, slopes: int) -> None:
    slope = mx.sym.Variable("slope", shape=(slopes,))
    check(mx, mx.sym.LeakyReLU(data, gamma=slope, act_type="prelu"), shape)


SPECIAL: list[Shape] = [
    (0, -1), (-1,), (0, 0, -1), (-2,), (0, -2), (-3, 0, 0), (-3, -3), (0, -3, 0), (2, 6, 4, 5), (-1, 5),
    (0, 0, 0, 0), (0, 2, -1, 0), (2, -1), (0, 0, -3), (-1, 4, 0, 0),
]  # fmt: skip
# MXNet 1.9.1 finds impossible shapes, or writes outside of its memory, if it reads these from the right.
FROM_THE_LEFT: list[Shape] = [(2, -2), (-4, 1, 2, -2), (0, -4, 2, -1, -2), (0, -4, -1, 2, 0, 0)]


@pytest.mark.parametrize(
    ("shape", "reverse"),
    [
        *[(shape, reverse) for shape in SPECIAL for reverse in (False, True)],
        *[(s, False) for s in FROM_THE_LEFT],
    ],
)
def test_reshape(mx: Any, data: Any, shape: Shape, reverse: bool) -> None:
    symbol = mx.sym.Reshape(data, shape=shape, reverse=reverse)
    try:
        symbol.infer_shape(data=(2, 6, 4, 5))
    except mx.base.MXNetError:
        return
    check(mx, symbol, (2, 6, 4, 5))


@pytest.mark.parametrize("mode", ["instance", "channel", "spatial", None])
@pytest.mark.parametrize("eps", [None, 0.5])
def test_l2_normalization(mx: Any, data: Any, mode: str | None, eps: float | None) -> None:
    options = {"mode": mode, "eps": eps}
    symbol = mx.sym.L2Normalization(data, **{n: value for n, value in options.items() if value is not None})
    check(mx, symbol, (2, 3, 4, 5))


UNARY = [
    "BlockGrad", "Flatten", "abs", "erf", "exp", "hard_sigmoid", "identity", "log", "log_softmax", "negative",
    "reciprocal", "relu", "rsqrt", "sigmoid", "softmax", "softsign", "sqrt", "square", "tanh", "transpose",
]  # fmt: skip
BINARY = [
    "broadcast_add", "broadcast_div", "broadcast_maximum", "broadcast_minimum", "broadcast_mul",
    "broadcast_power", "broadcast_sub", "broadcast_plus", "broadcast_minus",
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor(mx: Any, data: Any, name: str) -> None:
    check(mx, getattr(mx.sym, name)(data), (2, 3, 4), positive=True, gradients=name != "BlockGrad")


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_tensors(mx: Any, data: Any, name: str) -> None:
    other = mx.sym.Variable("other", shape=(1, 3, 1))
    check(mx, getattr(mx.sym, name)(data, other), (2, 3, 4), positive=True)


@pytest.mark.parametrize(
    "name",
    [
        "elemwise_add",
        "elemwise_div",
        "elemwise_mul",
        "elemwise_sub",
        "_maximum",
        "_minimum",
        "_power",
        "_grad_add",
    ],
)
def test_functions_of_two_tensors_of_one_shape(mx: Any, data: Any, name: str) -> None:
    module = mx.sym if hasattr(mx.sym, name) else mx.sym._internal
    other = mx.sym.Variable("other", shape=(2, 3, 4))
    check(mx, getattr(module, name)(data, other), (2, 3, 4), positive=True, gradients=name != "_grad_add")


@pytest.mark.parametrize("name", ["_maximum", "_minimum"])
def test_where_two_are_equal_the_first_has_the_gradient(mx: Any, data: Any, name: str) -> None:
    check(mx, getattr(mx.sym._internal, name)(data * 1, data * 3 - data * 2), (2, 3, 4))
    check(mx, getattr(mx.sym._internal, name)(data * 2, data * 2 + 0), (2, 3, 4))


@pytest.mark.parametrize(
    "name", ["plus", "minus", "rminus", "mul", "div", "rdiv", "power", "rpower", "maximum", "minimum"]
)
@pytest.mark.parametrize("scalar", [2.5, 1.0])
def test_functions_of_a_tensor_and_a_number(mx: Any, data: Any, name: str, scalar: float) -> None:
    check(mx, getattr(mx.sym._internal, f"_{name}_scalar")(data, scalar=scalar), (2, 3, 4), positive=True)


@examples
@given(
    name=st.sampled_from(["sum", "mean", "max", "min", "sum_axis", "max_axis"]),
    axis=st.sampled_from([None, 0, 1, -1, (1, 2), (0, 2), (1, 2, 3), (0, 1, 2, 3)]),
    keepdims=st.booleans(), exclude=st.booleans(),
)  # fmt: skip
def test_reductions(mx: Any, name: str, axis: Any, keepdims: bool, exclude: bool) -> None:
    exclude = exclude and axis is not None and axis != (0, 1, 2, 3)
    options = {} if axis is None else {"axis": axis}
    symbol = getattr(mx.sym, name)(mx.sym.Variable("data"), keepdims=keepdims, exclude=exclude, **options)
    check(mx, symbol, (2, 3, 4, 2))


@pytest.mark.parametrize(
    "options", [{}, {"ord": 1}, {"ord": 2, "axis": 1}, {"axis": (1, 2), "keepdims": True}]
)
def test_norm(mx: Any, data: Any, options: dict[str, Any]) -> None:
    check(mx, mx.sym.norm(data, **options), (2, 3, 4))


SHAPED: dict[str, Any] = {
    "slice_axis": lambda s, x: s.slice_axis(x, axis=1, begin=1, end=3),
    "slice_axis to the end": lambda s, x: s.slice_axis(x, axis=-1, begin=-3, end=None),
    "slice_axis from behind": lambda s, x: s.slice_axis(x, axis=-2, begin=0, end=-1),
    "slice": lambda s, x: s.slice(x, begin=(None, 1), end=(None, 3)),
    "slice with steps": lambda s, x: s.slice(x, begin=(0, 0, 1), end=(2, 6, None), step=(1, 2, 2)),
    "SliceChannel": lambda s, x: s.Group(list(s.SliceChannel(x, num_outputs=3))),
    "SliceChannel, squeezed": lambda s, x: s.Group(
        list(s.SliceChannel(x, num_outputs=6, axis=1, squeeze_axis=True))
    ),
    "SliceChannel, some of it": lambda s, x: s.SliceChannel(x, num_outputs=2, axis=2)[1],
    "Concat": lambda s, x: s.Concat(x, x * 2, s.Variable("w", shape=(2, 1, 4, 6))),
    "concat on another axis": lambda s, x: s.concat(x, x, dim=-1),
    "stack": lambda s, x: s.stack(x, x * 2, axis=1),
    "add_n": lambda s, x: s.add_n(x, x * 2, x * 3),
    "tile": lambda s, x: s.tile(x, reps=(1, 2, 1, 3)),
    "tile, fewer": lambda s, x: s.tile(x, reps=(2,)),
    "transpose": lambda s, x: s.transpose(x, axes=(0, 2, 3, 1)),
    "SwapAxis": lambda s, x: s.SwapAxis(x, dim1=1, dim2=3),
    "expand_dims": lambda s, x: s.expand_dims(x, axis=1),
    "expand_dims at the end": lambda s, x: s.expand_dims(x, axis=-1),
    "squeeze": lambda s, x: s.squeeze(s.expand_dims(s.expand_dims(x, axis=2), axis=0)),
    "squeeze an axis": lambda s, x: s.squeeze(s.expand_dims(s.expand_dims(x, axis=2), axis=0), axis=3),
    "clip": lambda s, x: s.clip(x, a_min=-0.5, a_max=1),
    "Pad": lambda s, x: s.Pad(x, mode="constant", pad_width=(0, 0, 0, 0, 1, 2, 3, 0), constant_value=2),
    "Pad, edge": lambda s, x: s.Pad(x, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)),
    "Pad, reflect": lambda s, x: s.Pad(x, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 3, 0)),
    "SoftmaxActivation": lambda s, x: s.SoftmaxActivation(s.Flatten(x)),
    "SoftmaxActivation of channels": lambda s, x: s.SoftmaxActivation(x, mode="channel"),
    "softmax with a temperature": lambda s, x: s.softmax(x, axis=1, temperature=2.0),
    "UpSampling": lambda s, x: s.UpSampling(x, scale=2, sample_type="nearest", num_args=1),
    "UpSampling of two": lambda s, x: s.UpSampling(
        x, s.slice_axis(s.slice_axis(x, axis=2, begin=0, end=2), axis=3, begin=0, end=3), scale=2,
        sample_type="nearest", num_args=2,
    ),
    "UpSampling, sum": lambda s, x: s.UpSampling(
        x, x, scale=3, sample_type="nearest", num_args=2, multi_input_mode="sum"
    ),
    "UpSampling, bilinear": lambda s, x: s.UpSampling(x, scale=2, sample_type="bilinear", num_filter=6),
    "UpSampling, bilinear, odd": lambda s, x: s.UpSampling(x, scale=3, sample_type="bilinear", num_filter=6),
    "Crop": lambda s, x: s.Crop(x, offset=(1, 2), h_w=(2, 3)),
    "Crop, center": lambda s, x: s.Crop(x, h_w=(2, 3), center_crop=True),
    "Crop like another": lambda s, x: s.Crop(x, s.Pooling(x, kernel=(2, 2), stride=(2, 2)), num_args=2),
    "InstanceNorm": lambda s, x: s.InstanceNorm(x, eps=0.1),
    "LayerNorm": lambda s, x: s.LayerNorm(x),
    "LayerNorm on another axis": lambda s, x: s.LayerNorm(x, axis=1, eps=0.1),
    "Cast and back": lambda s, x: s.Cast(s.Cast(x, dtype="float64") * 2, dtype="float32"),
    "Dropout that drops nothing": lambda s, x: s.Dropout(x, p=0),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPED)
def test_operators_that_move_values(mx: Any, data: Any, case: str) -> None:
    check(mx, SHAPED[case](mx.sym, data), (2, 6, 4, 6))


@pytest.mark.parametrize("options", [{}, {"axes": (2, 3)}, {"mode": "always"}])
def test_dropout_drops_at_the_same_rate(mx: Any, data: Any, options: dict[str, Any]) -> None:
    """Which values are dropped is random; how many, along which axes, and what becomes of the rest is not."""
    torch.manual_seed(0)
    mx.random.seed(0)
    symbol = mx.sym.Dropout(data, p=0.4, **options)
    images = np.ones((200, 30, 3, 2), dtype=np.float32)

    def kept(output: NDArray[Any]) -> tuple[float, float, bool]:
        values = np.unique(output)
        assert len(values) == 2 and values[0] == 0
        whole = bool((output == output[:, :, :1, :1]).all())
        return float(values[1]), float((output > 0).mean()), whole

    ours = c.torch_step(c.converted(symbol, {}), images, images).output
    theirs = c.mxnet_step(mx, symbol, {}, images, images).output
    for got, wanted in zip(kept(ours), kept(theirs), strict=True):
        assert got == pytest.approx(wanted, abs=0.02)
    (still,) = c.torch_outputs(c.converted(symbol, {}), images)
    assert (still == 1).all() != ("mode" in options)


def test_every_operator_is_one_of_mxnet(mx: Any) -> None:
    names, count = ctypes.POINTER(ctypes.c_char_p)(), ctypes.c_uint()
    mx.base._LIB.MXListAllOpNames(ctypes.byref(count), ctypes.byref(names))
    known = {names[number].decode() for number in range(count.value)}
    assert OPERATORS.keys() - known == {"CuDNNBatchNorm"}  # only builds with CUDA have it
