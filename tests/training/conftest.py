"""A small dataset, and a training on it that nothing stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from tests.small_rec import identities
from tests.training.small import settings, train


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 16 identities of 6 images of 24 x 24, and pairs.bin of them."""
    folder = tmp_path_factory.mktemp("data")
    with ft.RecordWriter(folder / "train.rec") as writer:
        for key, label in identities(16, 6).items():
            pattern = np.random.default_rng(label).integers(0, 56, (3, 3, 3)).repeat(8, 0).repeat(8, 1)
            noise = np.random.default_rng(1000 + key).integers(0, 200, (24, 24, 3))
            encoded = io.BytesIO()
            Image.fromarray((pattern + noise).astype(np.uint8)).save(encoded, "PNG")
            writer.write(key, ft.IRHeader(0, float(label), key, 0), encoded.getvalue())
    index = ft.index_rec(folder / "train.rec")
    drawn = ft.draw_pairs(index, 30)
    file = ft.RecordFile(folder / "train.rec")
    images = [file.read(index["key"][int(row)])[1] for pair in zip(*drawn[:2], strict=True) for row in pair]
    ft.write_pairs(folder / "pairs.bin", images, drawn.same)
    return folder


@pytest.fixture(scope="session")
def unbroken(mx: Any, data: Path) -> Path:
    """The prefix of a training that nothing stopped."""
    train(settings(mx, data), data / "unbroken", verify_on=[data / "pairs.bin"])
    return data / "unbroken"
