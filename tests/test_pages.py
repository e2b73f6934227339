"""Pages agree with the benches' results, their links lead somewhere, and their code runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small_rec import identities, write_rec

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benches" / "README.md"]


def test_the_tables_of_the_benches_are_those_of_their_results() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benches" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables: Any = importlib.util.module_from_spec(spec)
    sys.modules["tables"] = tables  # for its dataclasses
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page) == page


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize(
    ("name", "block"), [("verify.md", 0), pytest.param("mxnet.md", 1, marks=pytest.mark.mxnet)]
)
def test_the_code_of_a_page_runs(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "mxnet.md":
        request.getfixturevalue("mx")
    for folder in ("demo", "models"):
        (tmp_path / folder).mkdir()
    write_rec(tmp_path / "demo" / "train.rec", identities(12, 6))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[block]
    exec(compile(code, name, "exec"), {})
