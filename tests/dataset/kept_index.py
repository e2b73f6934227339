"""What is said of a file that has the name of a kept index, and whether there is an index that is used."""

from __future__ import annotations

from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet import _core
from tests.small_rec import kept_beside


def problem_of(rec: Path) -> str:
    """What is said of the file that has the name of the index; the index itself is right."""
    expected = ft.index_rec(rec, cache=False)
    with pytest.warns(ft.RecordWarning) as caught:
        assert ft.index_rec(rec).equals(expected)
    (warning,) = caught
    assert warning.filename == __file__
    said = str(warning.message)
    assert said.startswith(f"{kept_beside(rec)} is not used as the index of {rec}: it ")
    return said


def is_kept(rec: Path) -> bool:
    """Whether there is an index now that is used, silently."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "scan", lambda *_: pytest.fail("the file is gone through"))
        try:
            ft.index_rec(rec)
        except pytest.fail.Exception:
            return False
    return True
