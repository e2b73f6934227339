"""A trained network in other formats embeds as it does: MXNet runs the one, ONNX Runtime the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")

import fasttriplet as ft
from fasttriplet.errors import OptionError
from fasttriplet.torch import from_mxnet
from fasttriplet.training import train_rec
from tests.torch.small_modules import distance
from tests.torch.trainings import importable, one_thread
from tests.training.small import settings

pytestmark = pytest.mark.torch

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module of the user's that can be imported."""
    with importable(tmp_path_factory.mktemp("exported"), "exported"), one_thread():
        yield


def embeddings(spec: str, images: Any = IMAGES) -> Any:
    return ft.load_embedder(spec, devices="cpu").embed(pl.DataFrame({"key": np.arange(len(images))}), images)


def trained(data: Path, out: Path, export: list[Any], **options: Any) -> Any:
    chosen = settings(data, framework="torch", learning_rate=0.01, **options)
    return train_rec(chosen, out, batches=4, verify_on=data / "pairs.bin", export=export)


@pytest.mark.mxnet
@pytest.mark.parametrize("network", ["small", pytest.param("mobilefacenet", marks=pytest.mark.slow)])
def test_mxnet_runs_what_was_exported_for_it(mx: Any, data: Path, tmp_path: Path, network: str) -> None:
    options = {"batch_size": 6, "bag_size": 24} if network == "mobilefacenet" else {}
    done = trained(data, tmp_path / "a", ["mxnet"], network=network, **options)
    ends = ("-symbol.json", "-0000.params")
    assert done.exported == tuple(f"{tmp_path}/{name}{end}" for name in ("a", "a-best") for end in ends)
    for name in ("a", "a-best"):
        ours = embeddings(f"torch:{tmp_path / name}")
        assert distance(embeddings(f"mxnet:{tmp_path / name},0"), ours) < 2e-5
        assert distance(embeddings(f"torch:mxnet:{tmp_path / name},0"), ours) < 2e-5
    assert mx.sym.load(f"{tmp_path}/a-symbol.json").list_outputs() == ["fc1_output"]
    # MXNet trains it further.
    chosen = settings(data, framework="mxnet", network=None, symbol=f"{tmp_path}/a-symbol.json", batch_size=6)
    assert train_rec(chosen, tmp_path / "b", batches=1).batches == 1
    assert not from_mxnet(tmp_path / "a", 0).training


@pytest.mark.heavy
@pytest.mark.parametrize(
    "network",
    [
        "small",
        "torch:exported:square,color=bgr,mean=104/117/123,std=58/57/56",
        pytest.param("torch:exported:Several,output=embedding,mean=0,std=1", marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_runs_what_was_exported_for_it(data: Path, tmp_path: Path, network: str) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    done = trained(data, tmp_path / "a", ["onnx"], network=network)
    assert done.exported == (f"{tmp_path}/a.onnx", f"{tmp_path}/a-best.onnx")
    ours = embeddings(f"torch:{tmp_path / 'a'}")
    theirs = embeddings(f"onnx:{tmp_path}/a.onnx")
    assert distance(theirs, ours) < 2e-5
    assert distance(embeddings(f"onnx:{tmp_path}/a.onnx", IMAGES[:1]), ours[:1]) < 2e-5
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".onnx"} == {"a.onnx", "a-best.onnx"}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".data")]


def test_a_network_that_a_function_makes_is_not_for_mxnet(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="export 'mxnet' is for networks by name and symbols of MXNet"):
        trained(data, tmp_path / "a", ["onnx", "mxnet"], network="torch:exported:square")
    assert not list(tmp_path.iterdir())


def test_an_old_pytorch_is_named_before_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415

    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(ImportError, match=r"^export='onnx' needs PyTorch 2\.7 or later, and this is 2\.6\.0"):
        trained(data, tmp_path / "a", ["onnx"])
    assert not (tmp_path / "a-state.npz").exists()
