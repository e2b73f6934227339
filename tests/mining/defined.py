"""Comparing `fasttriplet.mine` with the definition in `tests/reference.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from tests import reference
from tests.strategies import VALUES

each_kind_of_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def rows(triplets: ft.Triplets) -> list[reference.Triplet]:
    return [
        (int(a), int(p), int(n), float(d_ap), float(d_an))
        for a, p, n, d_ap, d_an in triplets.to_frame().iter_rows()
    ]


def assert_defined(embeddings: NDArray[np.float32], labels: Any, **wanted: Any) -> int:
    """Assert that every instruction set gives what the reference gives; returns the number of triplets."""
    threads = wanted.pop("threads", None)
    expected = reference.mine(embeddings, labels, **wanted)
    for name in _core.instruction_sets():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTTRIPLET_ISA", name)
            assert rows(ft.mine(embeddings, labels, **wanted, threads=threads)) == expected, name
    return len(expected)
