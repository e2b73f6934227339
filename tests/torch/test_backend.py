"""Steps of PyTorch's backend: the numbers of MXNet's, and nothing else of the process changes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import fasttriplet as ft
import torch
from fasttriplet.embedders._inputs import Inputs
from fasttriplet.torch._backend import TrainingBackend
from fasttriplet.torch._from_mxnet import weights_of
from fasttriplet.torch._lanes import Lane
from fasttriplet.training import TrainSettings
from fasttriplet.training._backend import backend_of
from tests.torch.conversion import apart
from tests.torch.trainings import batches, module_of, settings

pytestmark = pytest.mark.torch


def rate_of(batch: int) -> float:
    """A warm-up, and then a line that falls."""
    return 0.05 * min(1.0, (batch + 1) / 8) * (1 - batch / 40)


# The errors of float32 grow from step to step, also between two trainings of PyTorch that begin 1e-7 apart,
# as a ReLU or a loss comes to the other side of 0. At the full learning rate they can reach 1e-3 after 11
# steps of "small" and after 2 of "mobilefacenet".
STEPS: dict[str, tuple[dict[str, Any], float]] = {
    "small": ({}, 0.005),
    "small, angular": ({"loss": "angular", "weight_decay": 0.01}, 0.02),
    "small, without momentum": ({"momentum": 0.0}, 0.3),
    "mobilefacenet": ({"network": "mobilefacenet", "batch_size": 12}, 1e-4),
    "symbol": ({"symbol": "symbol", "weight_decay": 0.01}, 0.02),
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


def of_mxnet(chosen: TrainSettings, size: int) -> Any:
    backend = backend_of("mxnet")(replace(chosen, framework="mxnet"), "cpu")
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
    theirs = of_mxnet(chosen, 24)
    theirs.save(f"{tmp_path}/begun")
    ours = TrainingBackend(replace(chosen, pretrained=f"{tmp_path}/begun,0"), "cpu")
    ours.begin((24, 24))
    for number, batch in enumerate(batches(20, chosen.batch_size)):
        for backend in (ours, theirs):
            backend.sums = [0.0] * 4
            backend.step(batch, scale * rate_of(number), number)
        assert np.subtract(ours.sums, theirs.sums)[0] / ours.sums[3] == pytest.approx(0, abs=1e-4)
        assert ours.sums[1:] == pytest.approx(theirs.sums[1:], rel=1e-4, abs=1)
    assert ours.sums[0] > 0
    after = {name: value.asnumpy() for part in theirs._module.get_params() for name, value in part.items()}
    for name, values in weights_of(ours._network).items():
        assert apart(values, after[name], 0.01 * values.size**0.5) < 1e-3, name
    assert momenta(ours) == pytest.approx(momenta_of_mxnet(theirs), rel=0.02)


def test_images_are_laid_out_as_they_are_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_of(tmp_path, "laid")
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = TrainingBackend(settings(network="torch:laid:square,color=bgr,mean=104/117/123,std=57"), "cpu")
    backend.begin((24, 24))
    pixels = np.random.default_rng(0).integers(0, 256, (400, 24, 24, 3), np.uint8)
    rows, inputs = np.arange(400)[::-1], Inputs("bgr", (104, 117, 123), (57, 57, 57))
    lane = Lane(None, torch.device("cpu"), inputs, torch.float32, len(pixels))
    laid_out = backend.layout(pixels, rows, ids=rows)  # in three parts
    assert laid_out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(laid_out, lane.input(pixels[rows]))
    mirrored = backend.layout(pixels, rows, ids=rows, augment=ft.Augment(mirror=True), seed=3)
    alone = backend.layout(pixels, rows[350:], ids=rows[350:], augment=ft.Augment(mirror=True), seed=3)
    assert torch.equal(mirrored[350:], alone)
    assert not torch.equal(mirrored, laid_out)


def momenta(backend: TrainingBackend) -> dict[str, float]:
    """Their L2 norms, by MXNet's names, where they are more than rounding."""
    names = {place: name for place, (name, _) in backend._network.origin.places.items()}
    found = {
        names[key.removeprefix("momentum_buffer:")]: float(np.linalg.norm(values))
        for key, values in backend.arrays().items()
        if key.startswith("momentum_buffer:")
    }
    return _without_rounding(found)


def momenta_of_mxnet(backend: Any) -> dict[str, float]:
    names = backend._momenta
    found = {
        names[json.loads(key.removeprefix("momentum:"))]: float(np.linalg.norm(values))
        for key, values in backend.arrays().items()
        if key.startswith("momentum:")
    }
    return _without_rounding({name: norm for name, norm in found.items() if name != "fc1_gamma"})


def _without_rounding(norms: dict[str, float]) -> dict[str, float]:
    least = 1e-3 * max(norms.values(), default=0.0)
    return {name: max(norm, least) for name, norm in norms.items()}
