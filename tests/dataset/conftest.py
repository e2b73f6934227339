"""A folder to pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset.pictures import people


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return people(tmp_path / "people")
