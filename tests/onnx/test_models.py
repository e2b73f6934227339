"""The models that people have: exported by PyTorch, by MXNet, and those of InsightFace's zoo."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.onnx.models import Builder, planes, random_images, reference, rows_of, weights

pytestmark = pytest.mark.onnx

SIZE = (28, 24)


def cosines(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x.astype(float), y.astype(float)))
    found: NDArray[np.float64] = (x * y).sum(axis=1)
    return found


# --- PyTorch


@pytest.fixture(scope="module")
def module() -> Any:
    """A small network with the layers of InsightFace's, and running statistics that are not 0 and 1."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(8 * 14 * 12, 16),
        nn.BatchNorm1d(16),
    )
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, *SIZE))
    return network.eval()


@contextmanager
def silently() -> Iterator[None]:
    """The exporters print, and warn of what they use themselves."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module", params=["TorchScript", "TorchScript, one image", "dynamo"])
def exported(request: pytest.FixtureRequest, module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    path: Path = tmp_path_factory.mktemp("exported") / "net.onnx"
    exporter, one, _ = request.param.partition(", one image")
    example = (torch.randn(1 if one else 2, 3, *SIZE),)
    dynamo: dict[str, Any] = {"dynamo": exporter == "dynamo"}
    if not one and dynamo["dynamo"]:
        dynamo["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif not one:
        dynamo |= {"input_names": ["input"], "output_names": ["embedding"]}
        dynamo["dynamic_axes"] = {"input": {0: "batch"}, "embedding": {0: "batch"}}
    with silently():
        torch.onnx.export(module, example, str(path), **dynamo)
    return path


def test_what_pytorch_exports_gives_what_pytorch_gives(module: Any, exported: Path) -> None:
    import torch  # noqa: PLC0415

    images = random_images(5, *SIZE)
    embedder = ft.load_embedder(f"onnx:{exported}")
    assert ", RGB, (pixel - 127.5) / 128, 28 x 24 (H x W), " in embedder.description
    found = embedder.embed(rows_of(5), images)
    with torch.no_grad():
        expected = module(torch.from_numpy(planes(images))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert cosines(found, expected).min() > 1 - 1e-6


# --- InsightFace's zoo


@pytest.mark.parametrize("batch", [1, "None"])
def test_models_of_the_zoo(tmp_path: Path, batch: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Input `input.1`, output `683`, announced for one image even where the input takes any number."""
    builder = Builder((batch, 3, 112, 112), name="input.1", opset=11, ir_version=6)
    builder.add("Conv", weights(4, 3, 3, 3), strides=[4, 4])
    builder.add("PRelu", np.full((4, 1, 1), 0.25, np.float32))
    builder.add("Flatten")
    builder.add("Gemm", weights(4 * 28 * 28, 32), name="683")
    spec = builder.save(tmp_path / "w600k.onnx", ("683", np.float32, (1, 32)), weights_as_inputs=True)
    images = random_images(5, 112, 112)
    embedder = ft.load_embedder(spec)
    assert "output 683, RGB, (pixel - 127.5) / 128, 112 x 112 (H x W)" in embedder.description
    found = embedder.embed(rows_of(5), images)
    np.testing.assert_allclose(
        found, reference(tmp_path / "w600k.onnx", planes(images)), rtol=1e-5, atol=1e-5
    )
    assert capfd.readouterr() == ("", "")


# --- MXNet


@pytest.fixture
def checkpoint(mx: Any, tmp_path: Path) -> str:
    """A network of MXNet that normalises its input, as InsightFace's do."""
    from tests.mxnet.small_networks import save  # noqa: PLC0415

    data = (mx.sym.Variable("data") - 127.5) * 0.0078125
    layer = mx.sym.Convolution(data, name="conv", num_filter=8, kernel=(3, 3), stride=(2, 2), no_bias=True)
    layer = mx.sym.BatchNorm(layer, name="bn", fix_gamma=False, eps=2e-5)
    layer = mx.sym.LeakyReLU(layer, name="relu", act_type="prelu")
    layer = mx.sym.FullyConnected(layer, name="pre_fc1", num_hidden=16)
    return save(
        mx, tmp_path / "net", mx.sym.BatchNorm(layer, name="fc1", fix_gamma=True, eps=2e-5), size=SIZE
    )


def as_mxnet_exports(mx: Any, prefix: Path, path: Path, ir_version: int) -> str:
    """The operators, names and inputs of `mx.onnx.export_model`, which writes wrong ones for three of them.

    It flattens at another axis, has slopes of another shape, and forgets `fix_gamma`.
    """
    _, args, auxs = mx.model.load_checkpoint(str(prefix), 0)
    params = {name: value.asnumpy() for name, value in (args | auxs).items()}
    builder = Builder((1, 3, *SIZE), name="data", opset=13, ir_version=ir_version)

    def normalise(name: str, gamma: NDArray[np.float32]) -> None:
        rest = [params[f"{name}_{what}"] for what in ("beta", "moving_mean", "moving_var")]
        builder.add("BatchNormalization", gamma, *rest, name=name, epsilon=2e-5)

    builder.add("Sub", np.array([127.5], np.float32), name="_minusscalar0")
    builder.add("Mul", np.array([0.0078125], np.float32), name="_mulscalar0")
    builder.add("Conv", params["conv_weight"], name="conv", strides=[2, 2])
    normalise("bn", params["bn_gamma"])
    builder.add("PRelu", params["relu_gamma"].reshape(-1, 1, 1), name="relu")
    builder.add("Flatten")
    builder.add("Gemm", params["pre_fc1_weight"], params["pre_fc1_bias"], name="pre_fc1", transB=1)
    normalise("fc1", np.ones(16, np.float32))
    return builder.save(path, ("fc1", np.float32, (1, 16)), weights_as_inputs=True)


@pytest.mark.mxnet
@pytest.mark.parametrize("ir_version", [3, 7])
def test_what_mxnet_exports_gives_what_mxnet_gives(
    mx: Any, tmp_path: Path, checkpoint: str, ir_version: int
) -> None:
    spec = as_mxnet_exports(mx, tmp_path / "net", tmp_path / "net.onnx", ir_version)
    images = random_images(5, *SIZE)
    embedder = ft.load_embedder(spec)
    assert "output fc1, RGB 0..255, 28 x 24 (H x W), on cpu, 1 image at a time" in embedder.description
    found = embedder.embed(rows_of(5), images)
    expected = ft.load_embedder(checkpoint).embed(rows_of(5), images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert cosines(found, expected).min() > 1 - 1e-6
