"""Embedding on a GPU, beside the CPU."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.torch.small_modules import SIZE, by_definition, distance, module_in, random_images, rows_of

pytest.importorskip("torch")

import torch
from fasttriplet.torch import TorchEmbedder

pytestmark = [
    pytest.mark.torch,
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

ROUNDING = 5e-6  # of the norm; TF32 would be 1e-3
# Convolutions that were traced use TF32 if PyTorch did so then; 3e-5 on an H200.
TRACED = 5e-4


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A network whose module `gpunet` is in the current folder."""
    module_in(tmp_path, "gpunet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import gpunet  # type: ignore[import-not-found]  # noqa: PLC0415

    return gpunet.net()


def wide_net() -> Any:
    """Layers that cuDNN has kernels in TF32 for."""
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        *[nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.PReLU(64), nn.Conv2d(64, 128, 3, 2, 1)],
        *[nn.PReLU(128), nn.Conv2d(128, 256, 3, 2, 1), nn.Flatten(), nn.Linear(256 * 4 * 3, 64)],
    )


@pytest.mark.parametrize("kind", ["gpunet:net", "gpunet:viewing", "fixed.pt2", "dynamic.pt2", "script.pt"])
def test_a_gpu_gives_what_the_cpu_gives(net: Any, kind: str) -> None:
    net.eval()
    example = torch.zeros(4, 3, *SIZE)
    if kind == "fixed.pt2":
        torch.export.save(torch.export.export(net, (example,)), kind)
    elif kind == "dynamic.pt2":
        shapes = ({0: torch.export.Dim("batch", min=2, max=12)},)
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=shapes), kind)
    elif kind == "script.pt":
        jit: Any = torch.jit
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated
            jit.save(jit.trace(net, example), kind)
    images = random_images(301)
    expected = by_definition(net, images)
    embedder = ft.load_embedder(f"torch:{kind}", devices="cuda:0")
    assert "on cuda:0, " in embedder.description
    for count in (301, 1, 128, 129, 257):
        found = embedder.embed(rows_of(count), images[:count])
        assert found.dtype == np.float32
        assert distance(found, expected[:count]) < (TRACED if kind == "script.pt" else ROUNDING)


def test_all_gpus_are_the_default() -> None:
    embedder = ft.load_embedder("torch:torch.nn:Flatten")
    assert (
        f"on {', '.join(f'cuda:{gpu}' for gpu in range(torch.cuda.device_count()))}, " in embedder.description
    )
    with pytest.raises(ValueError, match="name each GPU once, numbered from 0 to"):
        ft.load_embedder("torch:torch.nn:Flatten", devices="cuda:99")


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_two_buffers_hold_the_right_images(batch_size: int) -> None:
    """The network takes so long that copies would overtake it, if nothing waited for it."""

    class Slow(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, x: Any) -> Any:
            cuda: Any = torch.cuda
            cuda._sleep(2_000_000)  # about a millisecond
            return x.flatten(1)[:, ::37]

    images = random_images(batch_size * 5 + 1, seed=3)
    embedder = TorchEmbedder(Slow(), mean=0, std=1, devices="cuda:0", batch_size=batch_size)
    expected = images.transpose(0, 3, 1, 2).reshape(len(images), -1)[:, ::37]
    for count in (len(images), 1, batch_size, len(images)):
        assert np.array_equal(embedder.embed(rows_of(count), images[:count]), expected[:count])
    other = random_images(batch_size + 1, (16, 16))  # the buffers have another size
    expected = other.transpose(0, 3, 1, 2).reshape(len(other), -1)[:, ::37]
    assert np.array_equal(embedder.embed(rows_of(len(other)), other), expected)


def test_embeddings_do_not_depend_on_neighbours() -> None:
    images = random_images(150)
    embedder = TorchEmbedder(wide_net().cuda())
    found = embedder.embed(rows_of(150), images)
    for start, end in ((0, 1), (149, 150), (100, 140)):
        assert np.array_equal(embedder.embed(rows_of(end - start), images[start:end]), found[start:end])


def test_float32_is_float32_and_other_precisions_are_near() -> None:
    net, images = wide_net(), random_images(40)
    expected = by_definition(net, images)
    before = torch.backends.cudnn.allow_tf32
    net.cuda()
    assert distance(TorchEmbedder(net).embed(rows_of(40), images), expected) < ROUNDING
    for precision, least, most in (("tf32", 0, 5e-3), ("bfloat16", 1e-4, 5e-2)):
        embedder = TorchEmbedder(net, precision=precision)  # type: ignore[arg-type]
        assert f"on cuda:0 in {precision}" in embedder.description
        found = embedder.embed(rows_of(40), images)
        assert found.dtype == np.float32
        assert least < distance(found, expected) < most
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_module_is_used_where_it_is_or_copied(net: Any) -> None:
    images = random_images(9)
    copied, moved = TorchEmbedder(net, devices="cuda:0"), TorchEmbedder(net)
    for _ in range(2):
        expected = by_definition(net, images)
        for embedder in (copied, moved):
            assert distance(embedder.embed(rows_of(9), images), expected) < ROUNDING
        with torch.no_grad():
            net.fc.weight.mul_(1.5)
    assert next(net.parameters()).device.type == "cpu"
    assert moved.devices == ["cpu"]
    expected = by_definition(net, images)
    net.cuda()
    for embedder in (copied, moved):
        assert distance(embedder.embed(rows_of(9), images), expected) < ROUNDING
    assert moved.devices == ["cuda:0"]


def test_too_little_memory_advises_a_smaller_batch() -> None:
    class Large(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, x: Any) -> Any:
            return x.new_empty((len(x), 2**45))

    with pytest.raises(
        MemoryError, match=r"^not enough memory on cuda:0 for 128 images of 32 x 24 .*; lower batch_size"
    ):
        TorchEmbedder(Large(), devices="cuda:0").embed(rows_of(1), random_images(1))


def test_copies_on_several_gpus(net: Any) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    images = random_images(75)
    expected = by_definition(copy.deepcopy(net), images)
    for count in (1, 16, 17, 75):
        for embedder in (
            TorchEmbedder(net, devices="cuda", batch_size=8),
            ft.load_embedder("torch:gpunet:net", devices="cuda:1,0", batch_size=8),
        ):
            assert distance(embedder.embed(rows_of(count), images[:count]), expected[:count]) < ROUNDING
