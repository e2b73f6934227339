"""How many cores networks use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fasttriplet._cores import cores


def test_two_threads_of_a_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    siblings = {"cpu0": "0,4", "cpu1": "1,5", "cpu2": "2,6", "cpu5": "1,5"}
    monkeypatch.setattr(Path, "read_text", lambda path: siblings[path.parent.parent.name])
    assert cores() == 3

    def hidden(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert cores() == 4
