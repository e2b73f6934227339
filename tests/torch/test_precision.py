"""The precision of a network, with switches and devices that stand in for those of a GPU."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

import fasttriplet as ft
from fasttriplet.errors import OptionError
from tests.torch.small_modules import SIZE, random_images, rows_of

pytest.importorskip("torch")

import torch
from fasttriplet.torch import TorchEmbedder, _precision
from fasttriplet.torch._devices import numbered
from fasttriplet.torch._precision import check_precision, computing_in

pytestmark = pytest.mark.torch

GPU = torch.device("cuda", 0)


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A new switch and one of before PyTorch 2.9."""
    new, old = SimpleNamespace(fp32_precision="none"), SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(_precision, "_switches", lambda: [(new, "fp32_precision"), (old, "allow_tf32")])
    return [new, old]


def values(switches: list[Any]) -> tuple[Any, Any]:
    return switches[0].fp32_precision, switches[1].allow_tf32


SET: dict[Any, tuple[Any, Any]] = {"float32": ("ieee", False), "tf32": ("tf32", True)}


@pytest.mark.parametrize("precision", SET)
def test_switches_are_set_and_set_back(switches: list[Any], precision: Any) -> None:
    with computing_in(precision, GPU):
        assert values(switches) == SET[precision]
        with computing_in("float32", GPU):  # a network that itself embeds
            assert values(switches) == SET["float32"]
        assert values(switches) == SET[precision]
    assert values(switches) == ("none", True)
    with pytest.raises(KeyError), computing_in(precision, GPU):
        raise KeyError
    assert values(switches) == ("none", True)
    with computing_in("float32", torch.device("cpu")):
        assert values(switches) == ("none", True)


def test_threads_find_the_switches_as_they_set_them(switches: list[Any]) -> None:
    entered, done = threading.Event(), threading.Event()
    wrong: list[Any] = []

    def compute(precision: Any) -> None:
        for _ in range(200):
            with computing_in(precision, GPU):
                entered.set()
                done.wait(1e-4)  # the other thread would enter meanwhile
                if values(switches) != SET[precision]:
                    wrong.append((precision, values(switches)))

    threads = [threading.Thread(target=compute, args=(precision,)) for precision in SET]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered.is_set()
    assert not wrong
    assert values(switches) == ("none", True)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_tf32_is_nvidia_s(device: str) -> None:
    possible = "'float32' or 'bfloat16'" if device == "cpu" else ".*"
    with pytest.raises(
        OptionError,
        match=f"^precision cannot be 'tf32' on {device}: only NVIDIA's GPUs have it; give {possible}",
    ):
        check_precision("tf32", torch.device(device))
    check_precision("tf32", GPU)


def test_a_spec_and_a_module_say_so() -> None:
    with pytest.raises(OptionError, match="precision cannot be 'tf32' on cpu"):
        TorchEmbedder(torch.nn.Flatten(), precision="tf32")
    with pytest.raises(OptionError, match="precision cannot be 'tf32' on cpu"):
        ft.load_embedder("torch:torch.nn:Flatten,precision=tf32", devices="cpu")


def test_bf16_is_short_for_bfloat16() -> None:
    for name in ("bfloat16", "bf16"):
        embedder = TorchEmbedder(torch.nn.Flatten(), precision=name)  # type: ignore[arg-type]
        assert " on cpu in bfloat16," in embedder.description
        spec = f"torch:torch.nn:Flatten,precision={name}"
        assert " on cpu in bfloat16," in ft.load_embedder(spec, devices="cpu").description


@pytest.mark.parametrize("reason", [RuntimeError("unsupported autocast device_type"), None])
def test_bfloat16_where_there_is_no_autocast(
    reason: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def autocast(*_: Any) -> None:
        import warnings  # noqa: PLC0415

        if reason is not None:
            raise reason
        warnings.warn("In MPS autocast, but the target dtype is not supported. Disabling", stacklevel=2)

    monkeypatch.setattr(torch, "autocast", autocast)
    with pytest.raises(
        OptionError,
        match=r"^precision cannot be 'bfloat16' on mps:0: PyTorch \S+ has no autocast there; give 'float32'$",
    ):
        check_precision("bfloat16", torch.device("mps", 0))
    check_precision("float32", torch.device("mps", 0))


def test_a_module_that_moves_to_where_its_precision_is_not() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE[0] * SIZE[1], 4))
    embedder = TorchEmbedder(net, precision="bfloat16")
    images = random_images(1)
    embedder.embed(rows_of(1), images)
    net.to("meta")
    with pytest.raises(OptionError, match="precision cannot be 'bfloat16' on meta"):
        embedder.embed(rows_of(1), images)


def test_gpus_have_numbers() -> None:
    """A module that was moved to "mps" has tensors on "mps:0": it is there, and need not be copied."""
    assert numbered(torch.device("mps")) == torch.device("mps:0")
    assert numbered(torch.device("cuda")) == torch.device("cuda:0")
    assert numbered(torch.device("cuda:1")) == torch.device("cuda:1")
    assert str(numbered(torch.device("cpu"))) == "cpu"


def test_a_module_on_mps_is_used_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    net = torch.nn.Flatten()
    for named in ("mps", "mps:0"):
        net.register_buffer("there", None)
        monkeypatch.setattr(
            net, "buffers", lambda named=named: iter([SimpleNamespace(device=torch.device(named))])
        )
        embedder = TorchEmbedder(net, devices="mps")
        assert embedder.devices == ["mps:0"]
        assert embedder._place(embedder._devices[0]) is net
