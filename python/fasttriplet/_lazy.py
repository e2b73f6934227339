"""Public names of a package that are imported at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fasttriplet import _forks, _moved


def names_of(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        ``__name__`` of the package, which has an ``__all__``.
    homes : mapping of str to sequence of str
        The public names by the module that has them, whose name is relative to the package.
    """

    def imported(name: str) -> Any:
        for home, names in homes.items():
            if name in names:
                with _forks.importing():
                    value = getattr(importlib.import_module(f"{package}.{home}"), name)
                    setattr(sys.modules[package], name, value)
                return value
        if answer := _moved.renamed(f"{package}.{name}"):
            raise ImportError(answer)  # `from fasttriplet import name` would hide an AttributeError
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        module = sys.modules[package]
        return sorted({*vars(module), *module.__all__})

    return imported, listed
