"""Checkpoints of MXNet in other types than float32, beside MXNet itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.torch.small_modules import distance, random_images, rows_of

pytest.importorskip("torch")

import torch
from fasttriplet.torch import TorchEmbedder, from_mxnet
from fasttriplet.torch._models import dtype_of

pytestmark = [pytest.mark.torch, pytest.mark.mxnet]

SIZE = (16, 12)


def network(mx: Any, *, half: bool) -> Any:
    """As InsightFace's: the pixels are normalised in float32, and then cast."""
    data = (mx.sym.Variable("data") - 127.5) * 0.0078125
    data = mx.sym.Cast(data, dtype="float16", name="half") if half else data
    layer = mx.sym.Convolution(data, name="conv", num_filter=8, kernel=(3, 3))
    layer = mx.sym.BatchNorm(layer, name="bn", fix_gamma=False)
    layer = mx.sym.FullyConnected(mx.sym.Activation(layer, act_type="relu"), name="fc1", num_hidden=16)
    return mx.sym.Cast(layer, dtype="float32", name="single") if half else layer


def save(mx: Any, prefix: Path, symbol: Any, kind: type) -> None:
    generator = np.random.default_rng(0)
    shapes, _, states = symbol.infer_shape(data=(1, 3, *SIZE))
    args, auxs = (
        {
            name: mx.nd.array(generator.uniform(0.1, 1, shape) if "var" in name else
                              generator.normal(0, 0.2, shape), dtype=kind)
            for name, shape in zip(names, of_these, strict=True)
            if name != "data"
        }
        for names, of_these in ((symbol.list_arguments(), shapes), (symbol.list_auxiliary_states(), states))
    )  # fmt: skip
    mx.model.save_checkpoint(str(prefix), 0, symbol, args, auxs)


@pytest.mark.parametrize(
    ("kind", "half", "apart"),
    [
        (np.float32, False, 2e-6),
        (np.float64, False, 2e-6),
        (np.float16, False, 2e-6),  # weights that were stored in float16, and are computed with in float32
        (np.float16, True, 2e-3),
    ],
)
def test_pytorch_computes_what_mxnet_does(
    mx: Any, tmp_path: Path, kind: type, half: bool, apart: float
) -> None:
    """MXNet itself has no float16 on a CPU, and computes with the same weights in float32."""
    save(mx, tmp_path / "single", network(mx, half=False), kind)
    save(mx, tmp_path / "net", network(mx, half=half), kind)
    images = random_images(9, SIZE)
    of_mxnet = ft.load_embedder(f"mxnet:{tmp_path}/single,0", devices="cpu", batch_size=4)
    expected = of_mxnet.embed(rows_of(9), images).astype(np.float64)
    of_spec = ft.load_embedder(f"torch:mxnet:{tmp_path}/net,0", devices="cpu", batch_size=4)
    for embedder in (of_spec, TorchEmbedder(from_mxnet(tmp_path / "net", 0), mean=0, std=1)):
        found = embedder.embed(rows_of(9), images)
        assert found.std() > 0
        assert distance(found, expected) < apart


def test_pixels_are_normalised_before_they_are_cast(mx: Any, tmp_path: Path) -> None:
    """In float16 the difference from a mean of 127.4375 would be wrong."""
    data = mx.sym.Cast(mx.sym.Variable("data") - 127.4375, dtype="float16", name="half")
    symbol = mx.sym.FullyConnected(data, name="fc1", num_hidden=4)
    save(mx, tmp_path / "net", symbol, np.float16)
    net: Any = from_mxnet(tmp_path / "net", 0)
    assert net.fc1.weight.dtype is torch.float16
    assert dtype_of(net) is torch.float32
    assert dtype_of(copy.deepcopy(net).float()) is torch.float32


def test_a_network_that_was_moved_to_another_type_gets_that(mx: Any, tmp_path: Path) -> None:
    save(mx, tmp_path / "net", network(mx, half=False), np.float32)
    net: Any = from_mxnet(tmp_path / "net", 0)
    images = random_images(2, SIZE)
    expected = TorchEmbedder(net, mean=0, std=1).embed(rows_of(2), images)
    for kind in (torch.float64, torch.bfloat16):
        moved = copy.deepcopy(net).to(kind)
        assert dtype_of(moved) is kind
        found = TorchEmbedder(moved, mean=0, std=1).embed(rows_of(2), images)
        assert distance(found, expected.astype(np.float64)) < 0.05
