"""Tests of this room mine rows of every kind, also those that `mine` warns of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

import fasttriplet as ft


@pytest.fixture(autouse=True)
def _rows_may_be_all_but_equal() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ft.CollapseWarning)
        yield
