"""Damaged and odd models end with an error that names the file, or with embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fasttriplet as ft
from tests.onnx.models import WIDTH, Builder, random_images, rows_of, weights
from tests.onnx.mutations import mutated

pytestmark = pytest.mark.onnx


def model(path: Path) -> bytes:
    """All that is looked at in a file: operators that normalise, batch normalisation, PReLU, dropout."""
    builder = Builder()
    builder.add("Sub", np.float32(127.5))
    builder.add("Mul", np.float32(0.0078125))
    builder.add("Conv", weights(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    builder.add("BatchNormalization", *[np.linspace(0.5, 1.5, 4, dtype=np.float32)] * 4)
    builder.add("PRelu", np.full((4, 1, 1), 0.2, np.float32))
    builder.add("Dropout")
    builder.add("Flatten")
    builder.add("Gemm", weights(4 * 12 * 12, WIDTH), np.ones(WIDTH, np.float32), name="embedding")
    builder.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_mutated_models_end_with_an_error_that_names_the_file(start: int, tmp_path: Path) -> None:
    content = model(tmp_path / "whole.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    path, images, ended = tmp_path / "net.onnx", random_images(2), 0
    for seed in range(start, start + 100):
        path.write_bytes(mutated(content, seed))
        try:
            ft.load_embedder(f"onnx:{path}", devices="cpu").embed(rows_of(2), images)
        except (ValueError, FileNotFoundError, RuntimeError, MemoryError) as error:
            assert not isinstance(error, UnicodeError), seed
            assert str(path) in str(error), seed
            ended += 1
    assert 50 < ended < 100


DAMAGED_SLOPES = {
    "no numbers": lambda tensor: tensor.ClearField("raw_data"),
    "too few bytes": lambda tensor: tensor.__setattr__("raw_data", tensor.raw_data[:-4]),
    "half a number": lambda tensor: tensor.__setattr__("raw_data", tensor.raw_data[:-1]),
    "a negative size": lambda tensor: tensor.dims.__setitem__(0, -4),
    "a size without end": lambda tensor: tensor.dims.__setitem__(0, 2**62),
    "a type that does not exist": lambda tensor: tensor.__setattr__("data_type", 99),
    "no name": lambda tensor: tensor.__setattr__("name", ""),
}


@pytest.mark.parametrize("case", DAMAGED_SLOPES)
def test_damaged_slopes(case: str, tmp_path: Path) -> None:
    builder = Builder()
    builder.add("Conv", weights(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    builder.add("PRelu", np.full((4, 1, 1), 0.2, np.float32))
    builder.add("Flatten")
    builder.add("Gemm", weights(4 * 12 * 12, WIDTH), name="embedding")
    damaged = builder.model()
    (slope,) = (tensor for tensor in damaged.graph.initializer if list(tensor.dims) == [4, 1, 1])
    DAMAGED_SLOPES[case](slope)
    path = tmp_path / "net.onnx"
    path.write_bytes(damaged.SerializeToString())
    with pytest.raises(ValueError, match=r"net\.onnx: ONNX Runtime \S+ does not load it on cpu: "):
        ft.load_embedder(f"onnx:{path}")


def test_a_batch_that_fits_no_memory(tmp_path: Path) -> None:
    for count in (2**40, 2**62):
        spec = (
            Builder((count, 3, 24, 24))
            .layers()
            .save(tmp_path / "net.onnx", ("embedding", np.float32, (count, WIDTH)))
        )
        with pytest.raises(
            MemoryError, match=r"^not enough memory on cpu for .* images of 24 x 24 at a time in .*net\.onnx"
        ):
            ft.load_embedder(spec).embed(rows_of(1), random_images(1))
