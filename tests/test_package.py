"""The package's public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fasttriplet as ft


def test_every_public_name_is_there() -> None:
    homes = [name for names in ft._HOMES.values() for name in names]
    assert sorted(homes) == sorted(set(homes))
    assert set(homes) <= set(ft.__all__) <= set(dir(ft))
    assert ft.__all__ == sorted(ft.__all__)
    for name in ft.__all__:
        assert getattr(ft, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(ft, "nothing")  # noqa: B009


@pytest.mark.parametrize("first", ["fasttriplet.bags", "fasttriplet.pipeline", "fasttriplet.cli.mine"])
def test_bags_is_the_function_whatever_was_imported_first(first: str) -> None:
    code = f"import {first}; import fasttriplet as ft; assert ft.bags.__name__ == 'bags', ft.bags"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_it_waits_for_nothing_heavy() -> None:
    code = (
        "import sys, fasttriplet as ft; heavy = {'numpy', 'polars', 'rich', 'mxnet'}; "
        "assert not heavy & set(sys.modules); assert ft.mine; assert 'polars' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
