"""What a user has set in PyTorch for a block or for the whole process changes no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.training import TrainSettings, train_rec
from tests.small_rec import identities, write_rec

torch = pytest.importorskip("torch")

from torch.utils.data import default_collate  # noqa: E402

from fasttriplet.torch import (  # noqa: E402
    IdentityBatchSampler,
    RecordDataset,
    TorchEmbedder,
    TripletFeed,
    load_network,
)

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rec(tmp_path_factory.mktemp("settings") / "train.rec", identities(12, 4))


def module() -> Any:
    with torch.device("cpu"):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 5, stride=4), torch.nn.Flatten(), torch.nn.Linear(100, 8)
        )


def embeddings(rec: Path) -> Any:
    dataset = ft.Dataset(rec)
    pixels = dataset.decode(np.arange(20)).pixels
    return TorchEmbedder(module()).embed(dataset.index[:20], pixels)


# What is on "meta" has no values, so whatever is made there by mistake is an error; as on a GPU.


@pytest.mark.parametrize("options", [{}, {"mirror": True}, {"image": "uint8"}, {"transform": torch.clone}])
def test_images_with_another_default_device(rec: Path, options: dict[str, Any]) -> None:
    def batch() -> Any:
        torch.manual_seed(0)
        dataset = RecordDataset(rec, **options)
        sampler = IdentityBatchSampler(dataset.targets, 4, 2)
        return dataset.__getitems__(next(iter(sampler)))

    expected = batch()
    with torch.device("meta"):
        found = batch()
    assert all(map(torch.equal, default_collate(found), default_collate(expected)))


def test_triplets_with_another_default_device(rec: Path) -> None:
    options: dict[str, Any] = {"bag_size": 30, "batch_size": 9, "band": "any"}
    with TripletFeed(rec, module(), **options) as feed:
        expected = next(iter(feed))
    with torch.device("meta"), TripletFeed(rec, module(), **options) as feed:
        found = next(iter(feed))
    assert all(map(torch.equal, found, expected))


@pytest.mark.heavy
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_trainings_with_another_default_device(rec: Path, tmp_path: Path, optimizer: Any) -> None:
    settings = TrainSettings(
        rec=(str(rec),), framework="torch", network="small", optimizer=optimizer, bag_size=48, batch_size=12
    )
    train_rec(settings, tmp_path / "a", batches=2, devices="cpu")
    with torch.device("meta"):
        train_rec(settings, tmp_path / "b", batches=2, devices="cpu", export=["onnx"])
        weights = load_network(tmp_path / "b").state_dict()
    expected = load_network(tmp_path / "a").state_dict()
    assert all(torch.equal(weights[name], values) for name, values in expected.items())


def test_embeddings_in_an_autocast(rec: Path) -> None:
    expected = embeddings(rec)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(embeddings(rec), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_embeddings_without_gradients(rec: Path, mode: Any) -> None:
    expected = embeddings(rec)
    with mode():
        assert np.array_equal(embeddings(rec), expected)
