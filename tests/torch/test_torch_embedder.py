"""`TorchEmbedder` and the scheme ``torch:``, beside the module itself in float64."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.errors import OptionError
from tests.cli.command import Capture
from tests.small_rec import identities, write_rec
from tests.torch.small_modules import (
    ROUNDING,
    SIZE,
    by_definition,
    distance,
    random_images,
    rows_of,
)

pytest.importorskip("torch")

import torch
from fasttriplet.torch import TorchEmbedder
from fasttriplet.torch._devices import devices_of

pytestmark = pytest.mark.torch


# --- every kind of network gives what the module gives

KINDS = {
    "mynet:net": 16,
    "mynet:made": 16,
    "mynet:viewing": 16,
    "mynet:branching": 16,
    "mynet:net,weights=state.pth": 16,
    "fixed.pt2": 4,
    "dynamic.pt2": 12,
    "script.pt": 16,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_embeds_as_the_module_does(net: Any, kind: str) -> None:
    images = random_images(37)
    embedder = ft.load_embedder(f"torch:{kind}", devices="cpu")
    assert embedder.needs_images
    assert f"on cpu, {KINDS[kind]} images at a time" in embedder.description
    expected = by_definition(net, images)
    for copied in (embedder, pickle.loads(pickle.dumps(embedder))):
        found = copied.embed(rows_of(37), images)
        assert found.dtype == np.float32
        assert distance(found, expected) < ROUNDING


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_embeddings_do_not_depend_on_neighbours(net: Any, kind: str | None) -> None:
    """Bit for bit: alone, in another order, in a last batch of any length."""
    images = random_images(37)
    embedder = TorchEmbedder(net) if kind is None else ft.load_embedder(f"torch:{kind}", devices="cpu")
    found = embedder.embed(rows_of(37), images)
    order = np.random.default_rng(0).permutation(37)
    assert np.array_equal(embedder.embed(rows_of(37), images[order]), found[order])
    for start, end in ((0, 1), (36, 37), (3, 20), (7, 7)):
        assert np.array_equal(embedder.embed(rows_of(end - start), images[start:end]), found[start:end])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 37, 64])
def test_any_batch_size_gives_the_same_to_rounding(net: Any, batch_size: int) -> None:
    images = random_images(37)
    expected = by_definition(net, images)
    for embedder in (
        TorchEmbedder(net, batch_size=batch_size),
        ft.load_embedder("torch:mynet:net", batch_size=batch_size, devices="cpu"),
    ):
        assert f"{batch_size} image" in embedder.description
        assert distance(embedder.embed(rows_of(37), images), expected) < ROUNDING


def test_real_layers_do_not_depend_on_neighbours_either() -> None:
    """Depthwise and pointwise convolutions of the sizes that libraries have kernels for."""
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.PReLU(64), nn.Conv2d(64, 64, 3, 1, 1, groups=64),
        nn.BatchNorm2d(64), nn.Conv2d(64, 128, 1), nn.PReLU(128), nn.Conv2d(128, 128, 3, 2, 1),
        nn.Conv2d(128, 64, 28, groups=64), nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128),
    )  # fmt: skip
    embedder, images = TorchEmbedder(net), random_images(21, (112, 112))
    found = embedder.embed(rows_of(21), images)
    for start, end in ((0, 1), (20, 21), (4, 11)):
        assert np.array_equal(embedder.embed(rows_of(end - start), images[start:end]), found[start:end])


# --- what the network expects

INPUTS: list[dict[str, Any]] = [
    {},
    {"color": "bgr"},
    {"mean": 0, "std": 1},
    {"color": "bgr", "mean": (104, 117, 123), "std": (1, 2, 3)},
]


@pytest.mark.parametrize("inputs", INPUTS)
def test_pixels_become_the_input_that_is_described(net: Any, inputs: dict[str, Any]) -> None:
    images = random_images(5)
    expected = by_definition(net, images, **inputs)
    texts = {
        name: "/".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in inputs.items()
    }
    spec = "".join(f",{name}={value}" for name, value in texts.items())
    for embedder in (
        TorchEmbedder(net, **inputs),
        ft.load_embedder(f"torch:mynet:net{spec}", devices="cpu"),
    ):
        assert distance(embedder.embed(rows_of(5), images), expected) < ROUNDING
        shown = {
            0: "takes RGB, (pixel - 127.5) / 128, any size;",
            1: "takes BGR, (pixel - 127.5) / 128, any size;",
            2: "takes RGB 0..255, any size;",
            3: "takes BGR, (pixel - (104, 117, 123)) / (1, 2, 3), any size;",
        }[INPUTS.index(inputs)]
        assert shown in embedder.description


def test_images_are_not_changed_and_may_be_read_only_or_strided(net: Any) -> None:
    images = random_images(10, (SIZE[0], SIZE[1] * 2))[:, :, ::2]
    images.setflags(write=False)
    before = images.copy()
    found = TorchEmbedder(net).embed(rows_of(10), images)
    assert np.array_equal(images, before)
    assert np.array_equal(TorchEmbedder(net).embed(rows_of(10), before), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "rbg"}, "color must be one of 'rgb', 'bgr', not 'rbg'"),
        ({"mean": (1, 2)}, r"mean must be a number, or three, one for each channel, not \(1, 2\)"),
        ({"std": 0}, "std must be above 0"),
        ({"size": 112}, "size must be"),
        ({"output": 0}, "output must be text, a name or a number such as '0', not 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, not 0"),
        ({"precision": "float16"}, "precision must be one of 'float32', 'tf32', 'bfloat16', not 'float16'"),
    ],
)
def test_options_out_of_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TorchEmbedder(torch.nn.Flatten(), **options)
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Module, not 'torch:net'"):
        TorchEmbedder("torch:net")  # type: ignore[arg-type]


def test_images_of_another_size_are_an_error_with_both_sizes(net: Any) -> None:
    images = random_images(2, (20, 20))
    refused = "the network does not take images of 20 x 20 (H x W)"
    for embedder, taken in (
        (TorchEmbedder(net, size=SIZE), "; it takes 32 x 24"),
        (TorchEmbedder(net, size=[*SIZE]), "; it takes 32 x 24"),  # type: ignore[arg-type]
        (ft.load_embedder("torch:mynet:net,size=32x24", devices="cpu"), "; it takes 32 x 24"),
        (ft.load_embedder("torch:fixed.pt2", devices="cpu"), "; it takes 32 x 24"),
    ):
        with pytest.raises(ValueError, match=re.escape(refused + taken)):
            embedder.embed(rows_of(2), images)
        assert embedder.embed(rows_of(2), random_images(2)).shape == (2, 16)  # still usable
    with pytest.raises(ValueError, match="does not take images of 0 x 24"):
        TorchEmbedder(net).embed(rows_of(1), random_images(1, (0, 24)))


def test_a_size_that_fits_is_found_by_trying() -> None:
    usual = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 112 * 96, 4))
    with pytest.raises(
        ValueError, match=r"not take images of 20 x 20 .*; it takes 112 x 96 \(RuntimeError: "
    ):
        TorchEmbedder(usual).embed(rows_of(2), random_images(2, (20, 20)))


def test_the_error_of_a_module_is_told(net: Any) -> None:
    with pytest.raises(RuntimeError, match=r"module Net failed on 16 images of 20 x 20 \(H x W\): RuntimeE"):
        TorchEmbedder(net).embed(rows_of(2), random_images(2, (20, 20)))

    class Broken(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, _: Any) -> Any:
            raise KeyError("layer9")

    with pytest.raises(RuntimeError, match=r"module Broken failed .*: KeyError: 'layer9'") as caught:
        TorchEmbedder(Broken()).embed(rows_of(1), random_images(1))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("x: can't allocate memory: y"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_too_little_memory_advises_a_smaller_batch(error: Exception) -> None:
    class Large(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, _: Any) -> Any:
            raise error

    for batch_size, advice in (
        (16, "lower batch_size"),
        (1, "close what else uses it, or take smaller images"),
    ):
        count = "1 image" if batch_size == 1 else "16 images"
        with pytest.raises(MemoryError) as caught:
            TorchEmbedder(Large(), batch_size=batch_size).embed(rows_of(1), random_images(1))
        assert str(caught.value) == (
            f"not enough memory on cpu for {count} of 32 x 24 at a time in module Large; {advice}"
        )


# --- a module in training


def test_the_module_is_handed_back_as_it_was(net: Any) -> None:
    net.train()
    net.blocks[0].bn.eval()  # frozen by its owner
    modes = {name: part.training for name, part in net.named_modules()}
    state = copy.deepcopy(net.state_dict())
    images = random_images(20)
    found = TorchEmbedder(net).embed(rows_of(20), images)
    assert distance(found, by_definition(net, images)) < ROUNDING
    assert {name: part.training for name, part in net.named_modules()} == modes
    assert all(torch.equal(values, state[name]) for name, values in net.state_dict().items())
    assert all(values.grad is None and values.requires_grad for values in net.parameters())
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError):
        TorchEmbedder(net).embed(rows_of(1), random_images(1, (3, 3)))
    assert {name: part.training for name, part in net.named_modules()} == modes


@pytest.mark.parametrize("devices", [None, "cpu", ["cpu", "cpu:0", "cpu:1"]])
def test_the_weights_are_those_of_the_moment(net: Any, devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(devices, list):  # copies stand in for those on other GPUs
        monkeypatch.setattr(
            "fasttriplet.torch._embedder.devices_of", lambda names: list(map(torch.device, names))
        )
    embedder, images = TorchEmbedder(net, devices=devices, batch_size=4), random_images(9)
    for _ in range(2):
        assert distance(embedder.embed(rows_of(9), images), by_definition(net, images)) < ROUNDING
        with torch.no_grad():
            for values in net.parameters():
                values.mul_(1.5)
            net.features.running_mean.add_(1)


def test_what_the_module_keeps_can_be_trained_on() -> None:
    class Keeping(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        kept: Any = None

        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3 * 32 * 24, 4)

        def forward(self, x: Any) -> Any:
            if self.kept is None:
                self.kept = torch.ones(3 * 32 * 24)
            return self.fc(x.flatten(1) * self.kept)

    net = Keeping()
    TorchEmbedder(net).embed(rows_of(1), random_images(1))
    net(torch.ones(2, 3, *SIZE)).sum().backward()


def test_a_module_of_another_type_gets_its_type(net: Any) -> None:
    images = random_images(3)
    embedder = TorchEmbedder(net)
    expected = embedder.embed(rows_of(3), images)
    net.to(torch.bfloat16)
    found = embedder.embed(rows_of(3), images)
    assert found.dtype == np.float32
    assert 1e-4 < distance(found, expected) < 0.05


# --- several devices


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize("count", [0, 1, 4, 11, 12, 13, 25])
def test_batches_are_dealt_out_to_devices(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices of the CPU stand in for GPUs."""
    images = random_images(count)
    alone = ft.load_embedder("torch:mynet:net", devices="cpu", batch_size=4)
    names = ["cpu", "cpu:0", "cpu:1"]
    monkeypatch.setattr("fasttriplet.torch._embedder.devices_of", lambda _: list(map(torch.device, names)))
    several = ft.load_embedder("torch:mynet:net", batch_size=4)
    assert "on cpu, cpu:0, cpu:1, 4 images" in several.description
    found = several.embed(rows_of(count), images)
    assert np.array_equal(found, alone.embed(rows_of(count), images))


def test_gpus_that_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"devices='cuda:1': PyTorch .* finds no GPU"):
        ft.load_embedder("torch:mynet:net", devices="cuda:1")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ValueError, match=r"finds no GPU: this build of it is for the CPU only"):
        ft.load_embedder("torch:mynet:net", devices="cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="devices='mps': PyTorch finds no GPU of Apple's"):
        ft.load_embedder("torch:mynet:net", devices="mps")


def test_gpus_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice only: no GPU is touched before images come."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for devices, expected in {
        "cpu": ["cpu"],
        "cuda": ["cuda:0", "cuda:1", "cuda:2"],
        "cuda:2": ["cuda:2"],
        "cuda:0,2": ["cuda:0", "cuda:2"],
        ("cuda:1", "cuda:0"): ["cuda:1", "cuda:0"],
    }.items():
        embedder = TorchEmbedder(torch.nn.Flatten(), devices=devices)
        assert embedder.devices == expected
        assert embedder.batch_size == (16 if expected == ["cpu"] else 128)
    assert TorchEmbedder(torch.nn.Flatten()).devices == ["cpu"]  # where the module is
    assert devices_of(None) == [torch.device("cuda", number) for number in range(3)]
    for devices in ("cuda:3", "cuda:0,0"):
        with pytest.raises(ValueError, match="name each GPU once, numbered from 0 to 2"):
            TorchEmbedder(torch.nn.Flatten(), devices=devices)


# --- outputs


class Pair(NamedTuple):
    embedding: Any
    score: Any


class Several(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """Returns two outputs in a container of this kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Any) -> Any:
        vectors = x.mean(dim=(2, 3))
        both = {"embedding": vectors, "score": vectors[:, 0]}
        return {
            "dict": both,
            "tuple": tuple(both.values()),
            "list": [*both.values()],
            "named": Pair(**both),
            "alone": [vectors],
            "map": vectors[:, :, None, None],
            "half": vectors.half(),
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        *[("dict", "embedding"), ("tuple", "0"), ("list", "0"), ("named", "embedding"), ("alone", None)],
        *[("map", None), ("half", None)],
    ],
)
def test_the_output_is_chosen(kind: str, output: str | None) -> None:
    images = random_images(3)
    embedder = TorchEmbedder(Several(kind), mean=0, std=1, output=output)
    assert (f", output {output};" in embedder.description) == (output is not None)
    found = embedder.embed(rows_of(3), images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)), rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "output", "message"),
    [
        (
            "dict",
            None,
            r"several outputs; choose one with output=NAME: embedding: float32 \(16, 3\), score: ",
        ),
        ("tuple", "2", r"has no output '2'; it has 0: float32 \(16, 3\), 1: float32 \(16,\)"),
        (
            "named",
            "score",
            r"output score has the shape \(16,\) for 16 images, and an embedding has \(16, D\)",
        ),
        ("map", "fc1", "has no output 'fc1'; it has 0: float32"),
    ],
)
def test_outputs_that_are_not_there_or_no_embedding(kind: str, output: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"module Several: .*{message}"):
        TorchEmbedder(Several(kind), output=output).embed(rows_of(2), random_images(2))


def test_an_output_that_is_not_a_vector_for_each_image() -> None:
    for net in (torch.nn.Identity(), torch.nn.Flatten(0)):
        with pytest.raises(ValueError, match=r"output 0 has the shape .*, and an embedding has \(16, D\)$"):
            TorchEmbedder(net).embed(rows_of(2), random_images(2))


def test_not_finite_names_the_image(net: Any) -> None:
    with torch.no_grad():
        net.features.bias[3] = np.nan
    with pytest.raises(
        ValueError, match=r"module Net: the embedding of .* key 1 holds NaN .*\(2 of 2 images"
    ):
        TorchEmbedder(net).embed(rows_of(2), random_images(2))


# --- in runs, and on the command line


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(6, 4), side=24)


def flat_net() -> Any:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 8))


def test_runs_take_modules(rec: Path) -> None:
    net = flat_net()
    embedder = TorchEmbedder(net, batch_size=5)
    result = ft.mine_rec(rec, model=embedder, cache=False, band="any")
    assert result.summary.embedder == embedder.description
    ids = ft.Dataset(rec, cache=False)
    embeddings = embedder.embed(ids.index, ids.decode(ids.index).pixels)
    expected = ft.mine(embeddings, ids.labels, ids=ids.ids, band="any", seed=ft.epoch_seed(0, 0))
    assert len(expected) == result.summary.triplets > 0
    assert ft.verify_rec(rec, embedder, pairs_per_kind=20, folds=2, cache=False).images == 24
    with ft.Feed(rec, model=embedder, batch_size=12, cache=False, band="any") as feed:
        batch = next(iter(feed))
    assert batch.images.shape == (12, 3, 24, 24)
    assert net.training


def test_commands_take_specs(rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(rec.parent)
    Path("tinynet.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten())"
    )
    model = ["--model", "torch:tinynet:net", "--devices", "cpu"]
    assert main(["mine", "--rec", "train.rec", *model, "--batch-size", "5", "--no-cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["embedder"].startswith("PyTorch, tinynet:net, weights as it made them; takes RGB")
    assert main(["verify", "--rec", "train.rec", *model, "--pairs-per-kind", "20", "--folds", "2"]) == 0
    assert "tinynet:net" in capsys.readouterr().out
    for more, message in (
        (["--model", "torch:tinynet:nett"], "--model: 'torch:tinynet:nett': tinynet has no 'nett'"),
        ([*model[:2], "--devices", "gpu:0"], "PyTorch's name of 'gpu:0' is 'cuda:0'"),
        ([*model, "--batch-size", "0"], "--batch-size"),
        (["--model", "torch:tinynet:net,std=0"], "std must be above 0"),
    ):
        assert main(["mine", "--rec", "train.rec", "--overwrite", *more]) == 2
        assert message in capsys.readouterr().err
