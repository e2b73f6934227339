"""Whole networks and their conversions, with the same weights: inference and one training step.

Gradients in float32 have no bar: where the rounding of 1e-7 moves a value across the kink of a ReLU, its gradient
is another one. One value of a map of (4, 64, 56, 56) changes gradients by 1e-3, in MXNet and in PyTorch alike. In
float64 both are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.torch import networks

pytestmark = [pytest.mark.torch, pytest.mark.mxnet, pytest.mark.usefixtures("mx")]

BAR = 2e-5  # of the norm


def check(name: str, size: int = 112) -> None:
    """Compare one network, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.torch.networks", name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    rounded = {"gradients", "PyTorch", "MXNet"}
    assert not {kind: value for kind, value in found.items() if value > BAR and kind not in rounded}
    assert found["gradients"] < 0.1


@pytest.mark.parametrize(
    "name", [*networks.BUILT_IN[:2], pytest.param(networks.BUILT_IN[2], marks=pytest.mark.slow)]
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
