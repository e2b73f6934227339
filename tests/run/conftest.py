"""The dataset that most tests of this room read, and the check that no thread outlives a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fasttriplet as ft
from tests.run.leftovers import collected, threads
from tests.small_rec import identities, write_rec


@pytest.fixture(scope="session")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 identities of 6 images, keys 1 to 72, with a cached index; tests only read it."""
    path = write_rec(tmp_path_factory.mktemp("run") / "train.rec", identities(12, 6))
    ft.index_rec(path)
    return path


@pytest.fixture(autouse=True)
def _nothing_left_of_a_test() -> Iterator[None]:
    yield
    if threads():
        collected()
    assert threads() == []
