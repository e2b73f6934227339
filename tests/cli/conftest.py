"""A small dataset for the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_rec import identities, write_rec


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(12, 6))
