"""A small dataset, and pairs of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_rec import identities, picture, write_rec


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "val.rec", identities(8, 4))


@pytest.fixture
def pairs() -> tuple[list[bytes], list[bool]]:
    """Encoded images of 12 pairs, and the truth about them."""
    return [picture(i % 5) for i in range(24)], [i % 3 != 0 for i in range(12)]
