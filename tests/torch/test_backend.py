"""Steps of PyTorch's backend: the numbers of MXNet's, and nothing else of the process changes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.checkpoint._symbol import Symbol, parse_symbol
from fasttriplet.torch._backend import TrainingBackend
from fasttriplet.torch._from_mxnet import weights_of
from fasttriplet.training import TrainSettings
from tests.torch.conversion import apart
from tests.torch.trainings import batches, one_thread, settings

pytestmark = pytest.mark.torch


def rate_of(batch: int) -> float:
    """A warm-up, and then a line that falls."""
    return 0.05 * min(1.0, (batch + 1) / 8) * (1 - batch / 40)


# The errors of float32 grow with the learning rate: a MobileFaceNet with random weights doubles them tenfold
# in a step at 0.05, also between two of PyTorch that begin 1e-7 apart.
STEPS: dict[str, tuple[dict[str, Any], float]] = {
    "small": ({}, 1.0),
    "small, angular": ({"loss": "angular", "weight_decay": 0.01}, 1.0),
    "small, without momentum": ({"momentum": 0.0}, 1.0),
    "mobilefacenet": ({"network": "mobilefacenet", "batch_size": 12}, 1e-4),
    "mobilefacenet, angular": ({"network": "mobilefacenet", "batch_size": 12, "loss": "angular"}, 1e-4),
    "symbol": ({"symbol": "symbol", "weight_decay": 0.01}, 0.3),
}


def insightface_like(mx: Any) -> Any:
    """A residual block with the head that InsightFace calls E, and with factors of its own."""
    data = mx.sym.identity(mx.sym.Variable("data"), name="id")
    data = (data - 127.5) * 0.0078125
    layer = mx.sym.Convolution(data, name="conv0", num_filter=8, kernel=(3, 3), pad=(1, 1), no_bias=True)
    layer = mx.sym.BatchNorm(layer, name="bn0", fix_gamma=False, eps=2e-5, momentum=0.9)
    layer = stem = mx.sym.LeakyReLU(layer, name="relu0", act_type="prelu")
    layer = mx.sym.BatchNorm(layer, name="bn1", fix_gamma=False, eps=3e-5, momentum=0.9)
    weight = mx.sym.Variable("conv1_weight", lr_mult=0.5, wd_mult=3.0)
    layer = mx.sym.Convolution(
        layer, weight, name="conv1", num_filter=8, kernel=(3, 3), pad=(1, 1), no_bias=True
    )
    layer = mx.sym.BatchNorm(layer + stem, name="bn2", fix_gamma=False, eps=4e-5, momentum=0.9)
    layer = mx.sym.Dropout(layer, p=0.0)
    bias = mx.sym.Variable("pre_fc1_bias", lr_mult=2.0, wd_mult=1.0)
    layer = mx.sym.FullyConnected(layer, bias=bias, num_hidden=16, name="pre_fc1")
    return mx.sym.BatchNorm(layer, name="fc1", fix_gamma=True, eps=5e-5, momentum=0.9)


def of_mxnet(mx: Any, chosen: TrainSettings, size: int) -> Any:
    from fasttriplet.mxnet._backend import TrainingBackend as Theirs  # noqa: PLC0415  needs MXNet

    backend = Theirs(replace(chosen, framework="mxnet"), "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend.begin((size, size))
    return backend


@pytest.mark.mxnet
@pytest.mark.parametrize("kind", STEPS)
def test_steps_are_those_of_mxnet(mx: Any, tmp_path: Path, kind: str) -> None:
    options, scale = STEPS[kind]
    if "symbol" in options:
        insightface_like(mx).save(f"{tmp_path}/a-symbol.json")
        options = options | {"symbol": f"{tmp_path}/a-symbol.json"}
    chosen = settings(**options)
    theirs = of_mxnet(mx, chosen, 24)
    theirs.save(f"{tmp_path}/begun")
    ours = TrainingBackend(replace(chosen, pretrained=f"{tmp_path}/begun,0"), "cpu")
    ours.begin((24, 24))
    before = weights_of(ours._network)
    for number, batch in enumerate(batches(20, chosen.batch_size)):
        for backend in (ours, theirs):
            backend.sums = [0.0] * 4
            backend.step(batch, scale * rate_of(number), number)
        assert np.subtract(ours.sums, theirs.sums)[0] / ours.sums[3] == pytest.approx(0, abs=1e-4)
        assert ours.sums[1:] == pytest.approx(theirs.sums[1:], rel=1e-4, abs=1)
    assert ours.sums[0] > 0
    after = {name: value.asnumpy() for part in theirs._module.get_params() for name, value in part.items()}
    for name, values in weights_of(ours._network).items():
        if "gamma" in name and name not in before:  # fixed at 1
            continue
        moved = after[name] - before[name]
        assert np.linalg.norm(moved) > 0 or name == "fc1_gamma", name
        least = 1e-3 * float(np.linalg.norm(before[name])) + 1e-4 * values.size**0.5 * scale
        assert apart(values - before[name], moved, least) < 5e-2, name
