"""What `make mutants-python` changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutants

SOURCE = '''
"""A text of 1 sentence."""
from typing import TYPE_CHECKING, Protocol, overload
if TYPE_CHECKING:
    LIMIT = 1
Text = str | None
LEAST, MOST = -0.5, 2**20
NAMES = [1]
class Shape(Protocol):
    sides: int = 4
@overload
def f(a: int = 3) -> int: ...
def f(a: int = 7, *, b: "int | None" = None):
    if a and not b:
        g(a, key=zip(b, strict=True))
    while a:
        a -= b
    try:
        return [c for c in b if c.d], f"{a} + {b}" + "1"
    except OSError:
        return None
    self.a = min(a, True)
    raise ValueError("a < b") if a < b <= 0 else KeyError
'''

EXPECTED = {
    "NAMES = [2]",
    "def f(a: int=8, *, b: 'int | None'=None):",
    "if a or not b:",
    "if a and b:",
    "g(a)",
    "while not a:",
    "a += b",
    "return None",
    "return ([c for c in b if not c.d], f'{a} + {b}' + '1')",
    "raise",
    "self.a = max(a, True)",
    "self.a = min(a, False)",
    "raise ValueError('a < b') if a <= b <= 0 else KeyError",
    "raise ValueError('a < b') if a < b < 0 else KeyError",
    "raise ValueError('a < b') if a < b <= 1 else KeyError",
    "pass",  # for `g(...)`, `a -= b`, `self.a = ...` and `raise ...`
}


def test_changes_are_of_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / mutants.PACKAGE).mkdir(parents=True)
    (tmp_path / mutants.PACKAGE / "a.py").write_text(SOURCE)
    found = list(mutants.mutants_of(Path("a.py")))
    added = [line[1:].strip() for one in found for line in one.diff.splitlines() if line[0] == "+"]
    assert set(added) == EXPECTED
    assert len(added) == len(found) == len(EXPECTED) + 3
    assert {one.function for one in found} == {"", "f:13"}
    assert [one.line for one in found if "a=8" in one.diff or "int=8" in one.diff] == [13]
    assert len({one.source for one in found}) == len(found)
    for one in found:
        compile(one.source, "a.py", "exec")


def test_notes_are_in_each_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / mutants.PACKAGE).mkdir(parents=True)
    (tmp_path / mutants.PACKAGE / "a.py").write_text(
        '"""A."""\nfrom __future__ import annotations\nclass A:\n    def a(self):\n        """B."""\n'
        "        def inner(): return 1\n        return inner()\ndef b(): return A().a()\n"
    )
    calls: list[str] = []
    monkeypatch.setitem(__import__("sys").modules, "_recorder", type("R", (), {"called": calls.append}))
    names: dict[str, object] = {}
    exec(mutants.with_notes(Path("a.py")), names)
    assert names["b"]() == 1  # type: ignore[operator]
    assert calls == ["a.py:b:8", "a.py:a:4"]
