"""Known noise in real faces is found: `benches/bench_audit.py` measures it for more seeds and datasets."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.auditing._audit import audit
from fasttriplet.auditing._examine import examine

ROOT = Path(__file__).parents[2]
# Keys of images that are findings without any noise: two of another person, a crop between two faces, a man
# who is nobody else, and a profile.
LOOKED_AT = {"mislabelled": {1716, 1903}, "outlier": {340, 1657, 2220}}


@pytest.fixture(scope="module")
def planted() -> Any:
    """The bench's module that plants noise."""
    spec = importlib.util.spec_from_file_location("planted", ROOT / "benches" / "planted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faces(real_data: Path) -> Path:
    return real_data / "lfw112-a"


def test_what_real_faces_have_without_noise(faces: Path) -> None:
    keys = ft.index_rec(faces / "train.rec", cache=False).sort("key")["key"].to_numpy()
    labels = np.load(faces / "lab_a.npy")
    found = examine(np.load(faces / "emb_a.npy"), labels, keys)
    for kind, expected in LOOKED_AT.items():
        assert set(found.suspects.filter(pl.col("kind") == kind)["key"].to_list()) == expected
    assert set(found.suspects["kind"]) == LOOKED_AT.keys()
    suggested = dict(found.suspects.select("key", "suggested_label").iter_rows())
    assert (suggested[1716], suggested[1903]) == (90, 0)


@pytest.mark.torch
def test_known_noise_in_real_faces(faces: Path, planted: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    keys = ft.index_rec(faces / "train.rec", cache=False).sort("key")["key"].to_list()
    known = dict(zip(keys, np.load(faces / "emb_a.npy"), strict=True))
    network = ft.load_embedder(f"torch:mxnet:{faces.parent / 'model-y1' / 'model'},0", devices="cpu")
    embedder = planted.Remembering(network, known)
    before = audit(faces / "train.rec", model=embedder, out=tmp_path / "before").suspects
    noisy = planted.plant(
        faces / "train.rec", tmp_path / "noisy.rec", 1, spare=set().union(*LOOKED_AT.values())
    )
    found = audit(noisy.rec, model=embedder, out=tmp_path / "noisy").suspects
    score = planted.scores(noisy, found, before)
    assert score["moved"].recall >= 0.99
    assert score["moved"].precision >= 0.99
    assert score["suggested"].recall >= 0.99
    assert (score["same person"].found, score["two people"].found) >= (5, 4)
    assert score["same person"].false <= 1
    assert score["two people"].false <= 1
    assert (score["copies"].found, score["copies"].false) == (20, 0)
    assert score["bad pictures"].recall == 1
    alone = found.filter(pl.col("kind").is_in(["mislabelled", "outlier", "bad-picture"]))
    assert alone["key"].is_unique().all()
    assert not set(alone.filter(pl.col("kind") != "bad-picture")["key"]) & noisy.bad
