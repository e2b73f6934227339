"""Files that are not ONNX models, or that ONNX Runtime does not run."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.onnx.models import SIZE, WIDTH, Builder, random_images, rows_of, weights

pytestmark = pytest.mark.onnx


def archive() -> bytes:
    """What `torch.save` writes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("archive/data.pkl", b"")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty, not an ONNX model"),
        (b"hello", "is not an ONNX model"),
        (b"\x00" * 1000, "is not an ONNX model"),
        (b"\xff" * 1000, "is not an ONNX model"),
        (b"\n\x05hello", "is not an ONNX model"),  # which the format would take for a field
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (pickle.dumps({"weight": [1.0]}), "is a Python pickle, not an ONNX model"),
        (archive(), r"is a zip archive \(an \.npz, or a PyTorch file\), not an ONNX model"),
        (b"<!DOCTYPE html><html>", r"is a web page \(download the file itself\), not an ONNX model"),
        (b"<html><head>", "is a web page"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"net\.onnx {what}"):
        ft.load_embedder(f"onnx:{path}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ONNX model at .*net\.onnx"):
        ft.load_embedder(f"onnx:{tmp_path}/net.onnx")
    with pytest.raises(OSError, match="is a folder; expected an ONNX model"):
        ft.load_embedder(f"onnx:{tmp_path}")


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(tmp_path: Path, kept: float) -> None:
    spec = Builder().layers().save(tmp_path / "net.onnx")
    content = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "net.onnx").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"net\.onnx is damaged or cut off; copy or export it again"):
        ft.load_embedder(spec)


@pytest.mark.parametrize("weights_as_inputs", [False, True])
def test_external_data(tmp_path: Path, weights_as_inputs: bool) -> None:
    builder = Builder().layers()
    plain = builder.save(tmp_path / "plain.onnx")
    builder.onnx.save(
        builder.model(weights_as_inputs=weights_as_inputs),
        str(tmp_path / "net.onnx"),
        save_as_external_data=True,
        location="net.onnx.data",
        size_threshold=0,
    )
    images = random_images(2)
    expected = ft.load_embedder(plain).embed(rows_of(2), images)
    found = ft.load_embedder(f"onnx:{tmp_path}/net.onnx").embed(rows_of(2), images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    data = tmp_path / "net.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(
        ValueError,
        match=r"^net\.onnx\.data, with the weights of .*net\.onnx, is damaged or cut off; copy or export",
    ):
        ft.load_embedder(f"onnx:{tmp_path}/net.onnx")
    data.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"net\.onnx keeps weights in net\.onnx\.data, which is not beside it; copy both",
    ):
        ft.load_embedder(f"onnx:{tmp_path}/net.onnx")


def one_sentence(message: str) -> None:
    """Without codes, places in C++ and line breaks."""
    assert not re.search(r"ONNXRuntimeError|onnxruntime_src|\.cc:|\n|::", message), message


def test_external_data_that_are_large_are_left_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder().layers()
    plain, path = builder.save(tmp_path / "plain.onnx"), tmp_path / "net.onnx"
    options = {"save_as_external_data": True, "location": "net.onnx.data", "size_threshold": 0}
    builder.onnx.save(builder.model(), str(path), **options)
    images = random_images(2)
    expected = ft.load_embedder(plain).embed(rows_of(2), images)
    monkeypatch.setattr("fasttriplet.onnx._graph._MOST_TAKEN_IN", 0)
    found = ft.load_embedder(f"onnx:{path}").embed(rows_of(2), images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    (tmp_path / "net.onnx.data").write_bytes(b"cut off")
    with pytest.raises(
        ValueError, match=r"net\.onnx: ONNX Runtime [\d.]+ does not load it on cpu: "
    ) as caught:
        ft.load_embedder(f"onnx:{path}")
    one_sentence(str(caught.value))


NEW: dict[str, dict[str, Any]] = {"IR": {"ir_version": 99}, "opset": {"opset": 99}}


@pytest.mark.parametrize("what", NEW)
def test_versions_that_are_too_new(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    spec = Builder(**NEW[what]).layers().save(tmp_path / "net.onnx")
    with pytest.raises(
        ValueError, match=r"net\.onnx: ONNX Runtime [\d.]+ does not load it on cpu: .*99"
    ) as caught:
        ft.load_embedder(spec)
    one_sentence(str(caught.value))
    assert capfd.readouterr() == ("", "")


def test_operators_that_are_unknown_or_do_not_fit(tmp_path: Path) -> None:
    for op, constants in {"Unheard": (), "Gemm": (weights(5, WIDTH),)}.items():
        builder = Builder()
        builder.add("Flatten")
        builder.add(op, *constants, name="embedding")
        with pytest.raises(
            ValueError, match=r"net\.onnx: ONNX Runtime [\d.]+ does not load it on cpu: "
        ) as caught:
            ft.load_embedder(builder.save(tmp_path / "net.onnx"))
        one_sentence(str(caught.value))


@pytest.mark.parametrize("layer", ["BatchNormalization", "Dropout"])
def test_a_model_in_training_mode(tmp_path: Path, layer: str) -> None:
    """PyTorch's newer exporter keeps the mode of the module."""
    builder = Builder()
    if layer == "Dropout":
        builder.add("Dropout", np.float32(0.4), np.array(True))
    else:
        builder.add(layer, *(np.full(3, value, np.float32) for value in (1, 0, 0, 1)), training_mode=1)
        builder.nodes[-1].output.extend(["mean", "variance"])
    spec = builder.layers().save(tmp_path / "net.onnx")
    with pytest.raises(
        ValueError, match=r"net\.onnx was exported in training mode, .* after model\.eval\(\)"
    ):
        ft.load_embedder(spec)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime warns of weights that are not used, and of a batch of another size than announced."""
    builder = Builder()
    builder.constant(np.zeros(3, np.float32), "unused")
    spec = builder.layers().save(tmp_path / "net.onnx", ("embedding", np.float32, (1, WIDTH)))
    assert ft.load_embedder(spec).embed(rows_of(3), random_images(3, *SIZE)).shape == (3, WIDTH)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("names", ["x", "xa"])
def test_a_graph_that_goes_round_in_a_circle(tmp_path: Path, names: str) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    circle = zip(names, names[1:] + names[0], strict=True)
    nodes = [make.make_node("Identity", [before], [after]) for before, after in circle]
    values = [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, *SIZE])]
    onnx.save(make.make_model(make.make_graph(nodes, "circle", values, values)), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"net\.onnx"):
        ft.load_embedder(f"onnx:{tmp_path}/net.onnx")
