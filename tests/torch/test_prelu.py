"""PReLU of converted networks gives what PyTorch's gives, with gradients by other operators."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.torch._graph._prelu import PReLU

pytestmark = pytest.mark.torch


def layers(channels: int, **options: Any) -> tuple[PReLU, torch.nn.PReLU]:
    ours, theirs = PReLU(channels, **options), torch.nn.PReLU(channels, **options)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-0.5, 1.5, channels))
        theirs.weight.copy_(ours.weight)
    return ours, theirs


def images(*shape: int, **options: Any) -> torch.Tensor:
    found = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(**options)
    found[0, 0] = 0  # where both sides meet
    return found


PLAIN, LAST = torch.contiguous_format, torch.channels_last


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((6, 5), PLAIN),
        ((6, 5, 4), PLAIN),
        ((6, 5, 4, 3), PLAIN),
        ((6, 5, 4, 3), LAST),
        ((6, 5, 4, 3, 2), PLAIN),
    ],
)
def test_values_and_gradients(channels: int, shape: tuple[int, ...], memory_format: Any) -> None:
    found = []
    for layer in layers(channels):
        data = images(*shape).to(memory_format=memory_format).requires_grad_()
        output = layer(data)
        (output * images(*shape)).sum().backward()
        assert data.grad is not None
        assert data.grad.is_contiguous(memory_format=memory_format)
        found.append((output.detach(), data.grad, layer.weight.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_gradients_of_gradients() -> None:
    layer, _ = layers(3, dtype=torch.float64)
    data = images(2, 3, 2, 2, dtype=torch.float64) + 0.1
    inputs = data.requires_grad_(), layer.weight
    assert torch.autograd.gradcheck(lambda given, _: layer(given), inputs)
    assert torch.autograd.gradgradcheck(lambda given, _: layer(given), inputs)


def test_it_is_traced_in_training() -> None:
    layer, data = layers(5)[0], images(6, 5, 4, 3)
    assert torch.equal(torch.fx.symbolic_trace(layer.train())(data), layer(data))


def test_it_is_pytorchs_in_inference_and_in_other_types() -> None:
    ours, theirs = layers(5)
    data = images(6, 5, 4, 3).requires_grad_()
    assert "Vectorised" in type(ours(data).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        half = data.to(torch.bfloat16)
        assert torch.equal(ours(half), theirs(half))
    assert "Vectorised" not in type(copy.deepcopy(ours).eval()(data).grad_fn).__name__
    with torch.no_grad():
        assert torch.equal(ours(data), theirs(data))
