"""Where ONNX models run: the CPU, one GPU or several."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.errors import OptionError
from fasttriplet.onnx import _embedder as embedder_module
from fasttriplet.onnx import _runtime as runtime
from tests.onnx.models import random_images, rows_of

pytestmark = pytest.mark.onnx


def test_cuda_is_refused_where_it_is_not(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime  # noqa: PLC0415

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(runtime, "gpus", lambda: 2)
    assert " on cpu, " in ft.load_embedder(spec).description
    with pytest.raises(
        ValueError, match=r"devices='cuda:1': this ONNX Runtime is for the CPU only; for CUDA, "
    ):
        ft.load_embedder(spec, devices="cuda:1")


def test_cuda_is_not_touched_where_it_is_not(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has begun to use CUDA cannot use it in a fork."""
    import onnxruntime  # noqa: PLC0415

    def touched() -> int:
        raise AssertionError

    monkeypatch.setattr(runtime, "gpus", touched)
    ft.load_embedder(spec, devices="cpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    ft.load_embedder(spec)
    for devices in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match="is for the CPU only"):
            ft.load_embedder(spec, devices=devices)


def test_what_cuda_s_loader_prints_is_hidden_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout

    def preload_dlls(cuda: bool = True) -> None:
        print("libcudnn.so.9: cannot open shared object file", cuda)
        sys.stdout.write(f"{sys.stdout is stdout}\n")  # as another thread would at that moment

    runtime._load_cuda(SimpleNamespace(preload_dlls=preload_dlls))
    assert capsys.readouterr().out == "True\n"
    runtime._load_cuda(SimpleNamespace())  # before 1.21


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if there were three GPUs; sessions for them run on the CPU. The devices of sessions."""
    import onnxruntime  # noqa: PLC0415

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(runtime, "gpus", lambda: 3)
    made: list[str] = []

    def on_the_cpu(path: Path, device: str, content: bytes | None) -> Any:
        made.append(device)
        return runtime.session_on(path, "cpu", content)

    monkeypatch.setattr(embedder_module, "session_on", on_the_cpu)
    return made


def test_gpus_are_chosen(spec: str, with_cuda: list[str]) -> None:
    for devices, expected in {
        None: ["cuda:0", "cuda:1", "cuda:2"],
        "cpu": ["cpu"],
        "cuda": ["cuda:0", "cuda:1", "cuda:2"],
        "cuda:2": ["cuda:2"],
        "cuda:0,2": ["cuda:0", "cuda:2"],
        ("cuda:1", "cuda:0"): ["cuda:1", "cuda:0"],
    }.items():
        with_cuda.clear()
        description = ft.load_embedder(spec, devices=devices).description
        assert with_cuda == expected
        count = 8 if expected == ["cpu"] else 128
        each = " on each" if len(expected) > 1 else ""
        assert description.endswith(f"on {', '.join(expected)}, {count} images at a time{each}")
    assert ft.load_embedder(spec, batch_size=100).description.endswith("100 images at a time on each")
    for devices in ("cuda:3", "cuda:0,0"):
        with pytest.raises(OptionError, match="name each GPU once, numbered from 0 to 2"):
            ft.load_embedder(spec, devices=devices)


@pytest.mark.usefixtures("with_cuda")
def test_several_devices_share_the_images(spec: str) -> None:
    for count in (0, 1, 4, 5, 23):
        images = random_images(count)
        expected = ft.load_embedder(spec, devices="cpu", batch_size=4).embed(rows_of(count), images)
        shared = ft.load_embedder(spec, batch_size=4)
        np.testing.assert_array_equal(shared.embed(rows_of(count), images), expected)


@pytest.mark.usefixtures("with_cuda")
def test_an_error_on_one_device_ends_all(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = ft.load_embedder(spec, batch_size=3)

    class Broken:
        def run(self, *_: Any) -> None:
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {reason}")

    reason = "Non-zero status code"
    monkeypatch.setattr(embedder, "_sessions", [*embedder._sessions[:2], Broken()])  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"failed to run .* on cuda:2 .*: Non-zero status code"):
        embedder.embed(rows_of(50), random_images(50))
    reason = "Failed to allocate memory for requested buffer of size 1073741824"
    with pytest.raises(
        MemoryError,
        match=r"^not enough memory on cuda:0, cuda:1, cuda:2 for 3 images of 24 x 24 .*; lower batch_size$",
    ):
        embedder.embed(rows_of(50), random_images(50))


def test_a_provider_that_does_not_load_is_an_error(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA's provider ONNX Runtime warns and takes the CPU."""
    import onnxruntime  # noqa: PLC0415

    with pytest.raises(
        RuntimeError, match=r"cannot use cuda:0: its CUDA provider does not load.*devices='cpu'"
    ):
        plain = onnxruntime.InferenceSession
        monkeypatch.setattr(
            onnxruntime,
            "InferenceSession",
            lambda *args, **_: plain(*args, providers=["CPUExecutionProvider"]),
        )
        runtime.session_on(Path(spec.removeprefix("onnx:")), "cuda:0", None)


@pytest.mark.cuda
def test_cuda_gives_what_the_cpu_gives(spec: str) -> None:
    import onnxruntime  # noqa: PLC0415

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not runtime.gpus():
        pytest.skip("no GPU, or no onnxruntime-gpu")
    images = random_images(150)
    expected = ft.load_embedder(spec, devices="cpu").embed(rows_of(150), images)
    for devices in (None, "cuda", "cuda:0"):
        embedder = ft.load_embedder(spec, devices=devices)
        assert " on cuda:0" in embedder.description
        found = embedder.embed(rows_of(150), images)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(embedder.embed(rows_of(3), images[7:10]), found[7:10])
