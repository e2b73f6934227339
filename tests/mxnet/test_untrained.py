"""Networks with random weights: the same each time, and good enough to tell images apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.mxnet import save_untrained, small_convnet
from tests.mxnet.small_networks import SIZE, random_images, rows_of

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


def test_untrained_network_is_reproducible(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_untrained(tmp_path / name, small_convnet(32), (28, 28), seed=seed)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == [f"{n}-{e}" for n in "abc" for e in ("0000.params", "symbol.json")]
    assert written["a-symbol.json"] == written["b-symbol.json"] == written["c-symbol.json"]
    assert written["a-0000.params"] == written["b-0000.params"] != written["c-0000.params"]


def test_untrained_embeddings_differ(tmp_path: Path) -> None:
    save_untrained(tmp_path / "net", small_convnet(), (40, 40))
    embedder = ft.load_embedder(f"mxnet:{tmp_path}/net,0")
    found = embedder.embed(rows_of(60), random_images(60, 40, 40) // np.uint8(2))
    assert found.shape == (60, 128)
    pictures = random_images(20, 5, 5).repeat(8, axis=1).repeat(8, axis=2)
    found = embedder.embed(rows_of(20), pictures)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    cosines = (found @ found.T)[np.triu_indices(20, 1)]
    assert cosines.mean() < 0.5
    assert cosines.max() < 0.95


def test_untrained_network_errors(mx: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only the input 'data' can be fed.*x"):
        save_untrained(tmp_path / "none" / "net", small_convnet() + mx.sym.Variable("x").reshape((-1,)), SIZE)
    tall = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=1, kernel=(50, 50), name="fc1")
    with pytest.raises(ValueError, match="does not take images of 32 x 24"):
        save_untrained(tmp_path / "net", tall, SIZE)
    net: Any = small_convnet()
    side: Any = 24
    for symbol, size, seed, message in (
        ("small", SIZE, 0, "symbol must be an mxnet.symbol.Symbol, not 'small'"),
        (net, side, 0, r"image_size must be \(height, width\) in pixels, not 24"),
        (net, SIZE, -1, "seed must be a whole number >= 0, not -1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            save_untrained(tmp_path / "net", symbol, size, seed=seed)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "net-0000.params").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
        save_untrained(tmp_path / "net", small_convnet(), SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["net-0000.params"]
    save_untrained(tmp_path / "net", small_convnet(), SIZE, overwrite=True)
    assert (tmp_path / "net-symbol.json").exists()
