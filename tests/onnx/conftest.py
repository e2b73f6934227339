"""Skips where ONNX Runtime is not installed."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
