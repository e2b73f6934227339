"""A network's numbers of any kind are compared between processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.run.thread_group import ThreadGroup, in_threads

torch = pytest.importorskip("torch")

from fasttriplet.torch._alike import alike  # noqa: E402  once PyTorch is known to be there

pytestmark = pytest.mark.torch

KINDS = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_kind(kind: str) -> None:
    dtype = getattr(torch, kind)

    def network(weight: float, buffer: float) -> Any:
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.full((2, 3), weight, dtype=dtype))
        module.register_buffer("mean", torch.full((3,), buffer, dtype=dtype))
        return module

    def lent(group: ThreadGroup) -> list[float]:
        module = network(1.5, 2.0 + group.rank)
        with alike(module, group):
            inside = module.mean.real.tolist()
        return inside + module.mean.real.tolist()

    assert in_threads(2, lent) == [[2.0] * 6, [2.0] * 3 + [3.0] * 3]

    def differ(group: ThreadGroup) -> None:
        with alike(network(1.5 + group.rank, 2.0), group):
            pass

    for error in in_threads(2, differ):
        assert "differ between processes 0 and 1 (weight)" in str(error)
