"""Skips where ONNX Runtime is not installed, and a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.onnx.models import Builder


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A small model, saved as `net.onnx` in `tmp_path`."""
    return Builder().layers().save(tmp_path / "net.onnx")
