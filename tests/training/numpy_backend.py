"""A backend of NumPy alone, which takes milliseconds where MXNet takes seconds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet._files import replacing
from fasttriplet.cli import main
from fasttriplet.errors import OptionError
from fasttriplet.training import TrainSettings, _train_rec
from fasttriplet.training._backend import Backend


class NumpyBackend(Backend):
    """One matrix from the pixels to the embedding, moved so that positives come nearer than negatives."""

    endings = (".json", ".npy")
    exports: ClassVar[Mapping[str, tuple[str, ...]]] = {"onnx": (".onnx",)}
    needs_images = True
    description = "a matrix"

    def __init__(self, settings: TrainSettings, devices: Any) -> None:
        if devices not in (None, "cpu"):
            raise OptionError("devices", f"must be 'cpu', not {devices!r}")
        self.settings = settings
        self.devices = ("cpu",)
        self.embedder = self
        self.sums = [0.0] * 4

    def begin(self, image_size: tuple[int, int]) -> None:
        rng = np.random.default_rng(self.settings.seed)
        pixels = 3 * image_size[0] * image_size[1]
        self.matrix = rng.standard_normal((pixels, self.settings.embedding_size)) / np.sqrt(pixels)
        self.momentum = np.zeros_like(self.matrix)

    def load(self, network: Any, arrays: Mapping[str, NDArray[Any]], image_size: tuple[int, int]) -> None:
        shape = (3 * image_size[0] * image_size[1], self.settings.embedding_size)
        if network != {"pixels": shape[0]} or type(network["pixels"]) is not int:
            raise ValueError(f"network is {network!r}, for {shape[0]} pixels")
        if arrays.keys() != {"matrix", "momentum"} or any(one.shape != shape for one in arrays.values()):
            raise ValueError(f"matrix and momentum must be {shape}")
        self.matrix, self.momentum = arrays["matrix"].copy(), arrays["momentum"].copy()

    @property
    def network(self) -> Any:
        return {"pixels": len(self.matrix)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"matrix": self.matrix, "momentum": self.momentum}

    def step(self, batch: ft.TripletBatch, learning_rate: float, seed: int) -> None:
        noise = np.random.default_rng(seed).standard_normal(self.matrix.shape) * 1e-6
        anchor, positive, negative = np.split(batch.images.reshape(len(batch.images), -1) / 255.0, 3)
        to_positive, to_negative = (anchor - positive) @ self.matrix, (anchor - negative) @ self.matrix
        lost = (to_positive**2).sum(1) - (to_negative**2).sum(1) + float(self.settings.margin_of_loss)
        active = lost > 0
        gradient = (anchor - positive)[active].T @ to_positive[active]
        gradient -= (anchor - negative)[active].T @ to_negative[active]
        self.momentum = float(self.settings.momentum) * self.momentum - learning_rate * 1e-3 * gradient / len(
            anchor
        )
        self.matrix = self.matrix + self.momentum + noise
        norms = np.linalg.norm(anchor @ self.matrix, axis=1)
        of_batch = (lost.clip(0).sum(), active.sum(), norms.sum(), len(anchor))
        self.sums = [float(total + more) for total, more in zip(self.sums, of_batch, strict=True)]

    def save(self, prefix: str) -> None:
        with replacing(Path(f"{prefix}.json")) as unfinished:
            unfinished.write_text(json.dumps(self.network))
        content = io.BytesIO()
        np.save(content, self.matrix)  # to a file it would not say why it fails
        with replacing(Path(f"{prefix}.npy")) as unfinished:
            unfinished.write_bytes(content.getvalue())

    def export(self, prefix: str, kind: str) -> None:
        with replacing(Path(f"{prefix}.{kind}")) as unfinished:
            unfinished.write_bytes(b"the same as " + Path(f"{prefix}.npy").read_bytes())

    def spec(self, prefix: str) -> str:
        return f"numpy:{prefix}.npy"

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is not None
        assert len(images) == rows.height
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1) / 255.0
        embeddings: NDArray[np.float32] = (flat @ self.matrix).astype(np.float32)
        return embeddings


def command(arguments: list[str]) -> int:
    """Run ``fasttriplet`` with this backend."""
    vars(_train_rec)["backend_of"] = lambda _: NumpyBackend
    return main(arguments)
