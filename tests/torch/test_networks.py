"""Whole networks and their conversions, with the same weights: inference and one training step.

In float64 they agree. In float32 a training step of four images amplifies rounding, so where both are
further apart than the bar, the conversion must be as near to float64 as MXNet. Gradients in float32
have no bar: where rounding moves a value across the kink of a ReLU, its gradient is another one, and
one such value in a map of (4, 64, 56, 56) changes the gradients by 1e-3.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.torch import networks

pytestmark = [pytest.mark.torch, pytest.mark.mxnet, pytest.mark.usefixtures("mx")]

BAR = 2e-5  # of the norm


def check(name: str, size: int = 112) -> None:
    found = networks.measured(name, size)
    float64 = [kind for kind in found if kind.endswith("in float64")]
    assert not {kind: found[kind] for kind in ["inference", *float64] if found[kind] > BAR}
    for kind in ("output", "loss", "statistics"):
        ours, theirs = found[f"{kind} of PyTorch"], found[f"{kind} of MXNet"]
        assert found[kind] < BAR or ours <= max(BAR, theirs), (kind, found)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name",
    [networks.BUILT_IN[0], *(pytest.param(one, marks=pytest.mark.slow) for one in networks.BUILT_IN[1:])],
)
def test_networks_that_are_built_in(name: str) -> None:
    check(name, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.FILES)
def test_networks_that_others_published(real_data: Path, name: str) -> None:
    assert real_data.is_dir()
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.INSIGHTFACE)
def test_networks_of_insightface(name: str) -> None:
    if networks.checkout() is None:
        pytest.skip("INSIGHTFACE does not name a checkout of deepinsight/insightface")
    check(name)
