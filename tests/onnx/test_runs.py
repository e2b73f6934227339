"""ONNX models in whole runs: mining, verification, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fasttriplet as ft
from tests.cli.command import run
from tests.onnx.models import Builder
from tests.small_rec import identities, write_rec

pytestmark = pytest.mark.onnx


def test_mining_and_verification(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(6, 5))
    spec = Builder().layers().save(tmp_path / "net.onnx")
    mined = ft.mine_rec(rec, model=spec, bag_size=10, band="any")
    triplets = mined.triplets.collect()
    assert triplets.height > 0
    assert mined.summary.embedder == ft.load_embedder(spec).description
    embedder = ft.onnx.OnnxEmbedder(tmp_path / "net.onnx", batch_size=3)
    again = ft.mine_rec(rec, model=embedder, bag_size=10, band="any")
    assert again.triplets.collect().equals(triplets)
    assert ft.verify_rec(rec, spec, pairs_per_kind=20)


def test_the_command_line(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(6, 5))
    spec = Builder().layers().save(tmp_path / "net.onnx")
    out = tmp_path / "out.parquet"
    mine: list[str | Path] = ["mine", "--rec", rec, "--band", "any", "--model"]
    done = run(*mine, f"{spec},color=bgr,std=255", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    assert "BGR, (pixel - 127.5) / 255, 24 x 24 (H x W)" in json.loads(done.stdout)["embedder"]
    refused = run(*mine, f"{spec},colour=bgr", "--out", tmp_path / "other.parquet")
    assert refused.returncode == 2
    assert "did you mean 'color'?" in refused.stderr
