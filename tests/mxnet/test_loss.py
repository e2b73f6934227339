"""The triplet loss of MXNet against its formula in float64, and its gradient against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttriplet import mxnet
from fasttriplet.mxnet import triplet_loss

pytestmark = pytest.mark.mxnet

Rows = NDArray[np.float64]


def formula(rows: Rows, margin: float, kind: str) -> float:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    a, p, n = np.split(unit, 3)
    if kind == "squared":
        d_ap, d_an = ((a - p) ** 2).sum(1), ((a - n) ** 2).sum(1)
    else:
        d_ap, d_an = np.arccos((a * p).sum(1)), np.arccos((a * n).sum(1))
    return float(np.maximum(0, d_ap - d_an + margin).mean())


def run(mx: Any, rows: Rows, margin: float, kind: Any) -> tuple[list[Any], Rows]:
    """The outputs, and the gradient of the embedding."""
    data = mx.sym.Variable("data")
    symbol = triplet_loss(data * 1, margin, len(rows), kind)
    labels = mx.nd.arange(len(rows))
    values = mx.nd.array(rows.astype(np.float32))
    slopes = mx.nd.zeros(rows.shape)
    bound = symbol.bind(
        mx.cpu(),
        {"data": values, "softmax_label": labels},
        args_grad={"data": slopes},
        grad_req={"data": "write", "softmax_label": "null"},
    )
    outputs = bound.forward(is_train=True)
    bound.backward([mx.nd.ones(output.shape) for output in outputs])
    return [output.asnumpy() for output in outputs], slopes.asnumpy().astype(np.float64)


def differences(function: Callable[[Rows], float], rows: Rows, step: float = 1e-6) -> Rows:
    slopes = np.zeros_like(rows)
    for at in np.ndindex(*rows.shape):
        moved = rows.copy()
        moved[at] += step
        above = function(moved)
        moved[at] -= 2 * step
        slopes[at] = (above - function(moved)) / (2 * step)
    return slopes


@pytest.mark.parametrize("kind", ["squared", "angular"])
@pytest.mark.parametrize(("triplets", "dim", "margin"), [(1, 4, 4.0), (5, 8, 0.35), (20, 3, 2.0)])
def test_loss_and_gradient(mx: Any, kind: str, triplets: int, dim: int, margin: float) -> None:
    rows = np.random.default_rng(triplets).standard_normal((3 * triplets, dim)).astype(np.float32)
    wide = rows.astype(np.float64)
    (embedding, labels, loss), slopes = run(mx, wide, margin, kind)
    assert np.array_equal(embedding, rows)
    assert np.array_equal(labels, np.arange(len(rows)))
    assert loss.shape == (1,)
    assert loss[0] == pytest.approx(formula(wide, margin, kind), rel=1e-5, abs=1e-6)
    expected = differences(lambda moved: formula(moved, margin, kind), wide)
    np.testing.assert_allclose(slopes, expected, rtol=2e-3, atol=2e-5)
    assert np.abs(slopes).max() > 0.01  # nothing flows from the other two outputs, and something from this


def test_the_angle_is_safe_where_its_slope_is_infinite(mx: Any) -> None:
    same = np.tile(np.random.default_rng(0).standard_normal(16), (3, 1))
    for rows in (same, same * [[1.0], [1.0], [-1.0]], same * [[1.0], [-1.0], [1.0]]):
        (_, _, loss), slopes = run(mx, rows, 0.35, "angular")
        assert np.isfinite(loss).all()
        assert np.isfinite(slopes).all()
        assert np.abs(slopes).max() < 1
    (_, _, loss), _ = run(mx, same, 0.35, "angular")
    assert loss[0] == pytest.approx(0.35, abs=1e-6)


def test_a_triplet_that_is_far_enough_gives_no_gradient(mx: Any) -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    (_, _, loss), slopes = run(mx, rows, 0.3, "squared")
    assert loss[0] == 0
    assert not slopes.any()


@pytest.mark.parametrize(
    ("margin", "per_batch_size", "kind", "message"),
    [
        (-0.1, 6, "squared", "margin must be a number >= 0"),
        (float("nan"), 6, "squared", "margin must be a number >= 0"),
        (True, 6, "squared", "margin must be a number >= 0"),
        (0.3, 128, "squared", "per_batch_size must be a multiple of 3"),
        (0.3, 0, "squared", "per_batch_size must be a whole number >= 3"),
        (0.3, 6, "cosine", "kind must be one of 'squared', 'angular'"),
    ],
)
def test_wrong_arguments_are_named(
    mx: Any, margin: Any, per_batch_size: int, kind: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        triplet_loss(mx.sym.Variable("data"), margin, per_batch_size, kind)
    if not message.startswith("per_batch_size"):
        with pytest.raises(ValueError, match=message):
            mxnet.TripletMetric(margin, kind)


@pytest.mark.parametrize("kind", ["squared", "angular"])
def test_the_metric_is_the_mean_over_devices(mx: Any, kind: Any) -> None:
    """Two devices in a module, and the same by the formula."""
    batch, margin = 12, 0.35
    rows = np.random.default_rng(0).standard_normal((2 * batch, 5)).astype(np.float32)
    symbol = triplet_loss(mx.sym.Variable("data") * 1, margin, batch, kind)
    module = mx.mod.Module(symbol, context=[mx.cpu(0), mx.cpu(1)])
    module.bind([("data", rows.shape)], [("softmax_label", (len(rows),))], for_training=False)
    module.init_params()
    metric = mxnet.TripletMetric(margin, kind)
    assert np.isnan(metric.get()[1]).all()
    labels = [mx.nd.zeros(len(rows))]
    for _ in range(2):
        module.forward(mx.io.DataBatch([mx.nd.array(rows)], labels), is_train=False)
        module.update_metric(metric, labels)
    halves = np.split(rows.astype(np.float64), 2)
    one_by_one = [
        formula(half[at::4], margin, kind) for half in halves for at in range(4)
    ]  # row t, t + 4, t + 8: one triplet
    names, values = metric.get()
    assert names == ["loss", "active", "norm"]
    assert values[0] == pytest.approx(np.mean(one_by_one), rel=1e-5)
    assert values[1] == pytest.approx(np.mean(np.array(one_by_one) > 0))
    assert 0 < values[1] < 1
    assert values[2] == pytest.approx(np.linalg.norm(rows, axis=1).mean(), rel=1e-5)
    metric.reset()
    assert np.isnan(metric.get()[1]).all()
