"""The README's Python is run, and its two ways give the same triplets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.small_rec import identities, write_rec

README = Path(__file__).parents[1] / "README.md"


def run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int = 24) -> dict[str, Any]:
    (tmp_path / "demo").mkdir()
    write_rec(tmp_path / "demo" / "train.rec", identities(12, 6), side=side)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "documentation", "exec"), names)
    return names


def test_the_page_on_feeding_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = README.parent / "docs" / "feed.md"
    code = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = run(code[0] + code[2], tmp_path, monkeypatch, side=112)
    assert names["batch"].images.shape[1:] == (3, 112, 112)
    assert names["feed"].summary.batches == 0
    assert "batches; waited most for" in capsys.readouterr().out


def test_the_loop_and_the_one_call_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(
        r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    names = run(code, tmp_path, monkeypatch)
    assert "MiningStats" in capsys.readouterr().out
    loop = names["triplets"].to_frame()  # of the only bag
    one_call = names["result"].triplets.collect()
    assert loop.rows() == one_call.select("anchor_key", "positive_key", "negative_key", "d_ap", "d_an").rows()
    assert loop.height == names["result"].summary.triplets > 0
