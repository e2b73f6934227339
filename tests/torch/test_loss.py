"""The triplet loss of PyTorch has the values and gradients of MXNet's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttriplet.mxnet import triplet_loss as of_mxnet

pytest.importorskip("torch")

import torch
from fasttriplet.torch import triplet_loss, triplet_losses

pytestmark = pytest.mark.torch

Rows = NDArray[np.float32]
KINDS = ("squared", "angular")


def with_mxnet(mx: Any, rows: Rows, margin: float, kind: Any) -> tuple[float, Rows]:
    """The loss, and the gradient of the embeddings."""
    symbol = of_mxnet(mx.sym.Variable("data") * 1, margin, len(rows), kind)
    slopes = mx.nd.zeros(rows.shape)
    bound = symbol.bind(
        mx.cpu(),
        {"data": mx.nd.array(rows), "softmax_label": mx.nd.zeros(len(rows))},
        args_grad={"data": slopes},
        grad_req={"data": "write", "softmax_label": "null"},
    )
    outputs = bound.forward(is_train=True)
    bound.backward([mx.nd.ones(output.shape) for output in outputs])
    return float(outputs[2].asscalar()), slopes.asnumpy()


def with_torch(rows: Rows, margin: float, kind: Any) -> tuple[float, Rows]:
    embeddings = torch.tensor(rows, requires_grad=True)
    loss = triplet_loss(embeddings, margin, kind)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    loss.backward()
    return loss.item(), embeddings.grad.numpy()


def special_rows() -> dict[str, Rows]:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((12, 8)).astype(np.float32)
    same = np.tile(plain[:1], (12, 1))
    signs = np.repeat(np.array([1, -1, 1], np.float32), 4)[:, None]
    zeros = plain.copy()
    zeros[[0, 5, 10]] = 0
    near = same + np.float32(1e-4) * rng.standard_normal((12, 8)).astype(np.float32)
    return {
        "plain": plain,
        "one triplet": plain[:3],
        "one number": plain[:, :1],
        "large": plain * np.float32(1e15),
        "squares that overflow": plain * np.float32(1e25),
        "mixed": plain * np.float32(10.0) ** rng.integers(-6, 7, (12, 1)).astype(np.float32),
        "as small as epsilon": plain * np.float32(1e-5),
        "below it": plain * np.float32(1e-9),
        "rows of zeros": zeros,
        "zeros": np.zeros((6, 4), np.float32),
        "equal rows": same,
        "opposite rows": same * signs,
        "angles that are cut": near,
    }


@pytest.mark.mxnet
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.0, 0.35, 4.0])
def test_values_and_gradients_are_those_of_mxnet(mx: Any, margin: float, kind: str) -> None:
    for name, rows in special_rows().items():
        loss, slopes = with_torch(rows, margin, kind)
        expected, slopes_expected = with_mxnet(mx, rows, margin, kind)
        assert loss == pytest.approx(expected, rel=2e-6, abs=2e-6), name
        assert np.isfinite(slopes).all(), name
        # The slope of a row has the size of one over its norm; that of a row that only epsilon keeps from
        # zero is the difference of such numbers.
        norms = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1, keepdims=True) + 1e-10)
        assert np.abs(slopes * norms - slopes_expected * norms).max() < 3e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_triplets(kind: Any) -> None:
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    losses = triplet_losses(rows, 0.35, kind)
    assert losses.shape == (10,)
    one_by_one = [triplet_loss(rows[[at, at + 10, at + 20]], 0.35, kind) for at in range(10)]
    torch.testing.assert_close(losses, torch.stack(one_by_one))
    torch.testing.assert_close(triplet_loss(rows, 0.35, kind), losses.mean())
    assert 0 < (losses > 0).float().mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_differences(kind: Any) -> None:
    rows = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda x: triplet_losses(x, 4.0, kind), rows.requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(kind: Any, dtype: Any) -> None:
    rows = torch.randn(30, 64, generator=torch.Generator().manual_seed(3)).to(dtype)
    expected = triplet_loss(rows.float(), 0.3, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = triplet_loss(rows.requires_grad_(), 0.3, kind)
    assert loss.dtype == torch.float32
    assert loss == expected
    loss.backward()
    assert rows.grad.dtype == dtype


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(4, 2), r"embeddings must be \(3B, D\): .* not of the shape \(4, 2\)"),
        (torch.zeros(0, 2), r"not of the shape \(0, 2\)"),
        (torch.zeros(3, 0), r"not of the shape \(3, 0\)"),
        (torch.zeros(3), r"one row per image, not of the shape \(3,\)"),
        (torch.zeros(3, 2, 1, 1), r"not of the shape \(3, 2, 1, 1\)"),
        (torch.zeros(3, 2, dtype=torch.int64), "embeddings must be floating point, not torch.int64"),
        (torch.zeros(3, 2, dtype=torch.complex64), "embeddings must be floating point"),
        (np.zeros((3, 2), np.float32), r"embeddings must be a torch\.Tensor, not ndarray"),
    ],
)
def test_embeddings_of_another_kind(embeddings: Any, message: str) -> None:
    for function in (triplet_loss, triplet_losses):
        with pytest.raises(ValueError, match=message):
            function(embeddings, 0.3)


@pytest.mark.parametrize(
    ("margin", "kind", "message"),
    [
        (-0.1, "squared", "margin must be a number >= 0, not -0.1"),
        (float("nan"), "squared", "margin must be a number >= 0"),
        (True, "squared", "margin must be a number >= 0"),
        (0.3, "cosine", "kind must be one of 'squared', 'angular'"),
    ],
)
def test_wrong_options_are_named(margin: Any, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triplet_loss(torch.zeros(3, 2), margin, kind)
