"""What messages and pages say about optional parts can be installed."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from fasttriplet._extras import how_to_install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def in_an_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were installed with the metadata of this `pyproject.toml`."""
    lines = ["numpy>=1.23.5", "mxnet-of-another-extra; extra == 'other'"]
    for extra, wanted in EXTRAS.items():
        for what in wanted:
            name, _, condition = what.partition(";")
            lines.append(
                f"{name} ; {condition.strip()} and extra == '{extra}'"
                if condition
                else f"{name} ; extra == '{extra}'"
            )
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)


def in_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_there)


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_advice_names_what_the_extra_consists_of(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_an_install(monkeypatch)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    words = shlex.split(how_to_install(extra).removeprefix("Install it: "))
    wanted = [what.partition(";")[0] for what in EXTRAS[extra]]
    assert words == [sys.executable, "-m", "pip", "install", *wanted]


def test_no_advice_is_to_install_mxnet_for_a_python_without_numpy_1(monkeypatch: pytest.MonkeyPatch) -> None:
    in_an_install(monkeypatch)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    said = how_to_install("mxnet")
    assert "pip install" not in said
    assert said.endswith("NumPy 1, which has no wheels for Python 3.13")
    assert "Python 3.11 or 3.12" in said
    assert "pip install" in how_to_install("onnx")


def test_the_extra_of_mxnet_ends_with_the_pythons_of_numpy_1() -> None:
    ends = ("; python_version < '3.13'", "; python_version == '3.12'")
    assert all(what.endswith(ends) for what in EXTRAS["mxnet"])


def test_the_advice_in_a_source_tree_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_source_tree(monkeypatch)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    assert how_to_install("mxnet") == (
        f"Install it, in the checkout of fasttriplet: {sys.executable} -m pip install '.[mxnet]'"
    )


@pytest.mark.parametrize("extra", ["torch", "onnx", "export"])
def test_no_other_extra_ties_a_user_to_mxnet(extra: str) -> None:
    assert not re.search("mxnet|numpy", " ".join(EXTRAS[extra]))


def test_what_make_installs_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines}
    for wanted in [*PROJECT["dependencies"], *(what for extra in EXTRAS.values() for what in extra)]:
        assert re.match(r"[\w-]+", wanted)[0].lower() in pinned, wanted  # type: ignore[index]


def test_every_extra_that_is_named_exists() -> None:
    asked, in_words = set(), set()
    for path in (ROOT / "python").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        asked |= set(re.findall(r"how_to_install\(['\"](\w+)['\"]\)", text))
        in_words |= set(re.findall(r"pip install[^\n]*fasttriplet", text))
    assert asked == {"export", "mxnet", "onnx", "plot", "ray", "torch"} <= EXTRAS.keys()
    assert not in_words, "no index has fasttriplet: how_to_install words what works"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"pip install[^\n]*fasttriplet\[", text), page
        named = {extra for extras in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in extras.split(",")}
        assert named <= EXTRAS.keys(), page
