"""A verification asks for as many threads as it was told."""

from __future__ import annotations

from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet.verify._examine import check_for_training
from tests.small_rec import picture
from tests.threads_asked import threads_asked


def test_as_many_as_it_was_told(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = rec.with_name("a.bin")
    ft.write_pairs(pairs, [picture(at) for at in range(20)], [True, False] * 5)
    asked = threads_asked(monkeypatch)
    ft.verify_rec(rec, "pixels", threads=3)
    assert asked == {name: {3} for name in ("scan", "image_size", "decode_rows", "mine")}
    asked.clear()
    ft.verify_pairs(pairs, "pixels", threads=3)
    check_for_training(pairs, (24, 24), threads=3)
    assert asked == {"decode_images": {3}}
