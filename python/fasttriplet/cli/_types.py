"""Types of values that options take on the command line: how they are read, and what is refused.

Nothing here imports NumPy or Polars: `--help` does not wait for them.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem

from fasttriplet.dataset._options import KINDS, Kind, kinds_of
from fasttriplet.mining._band import BANDS

if TYPE_CHECKING:
    _Choice = click.Choice[str]
    _Type = click.ParamType[tuple[Kind, ...]]
    _Text = click.ParamType[str]
    _OfRanks = click.ParamType[tuple[int, int | None]]
else:
    _Choice, _Type = click.Choice, click.ParamType  # before click 8.2 they take no type
    _Text = _OfRanks = click.ParamType


class Whole(click.IntRange):
    """A whole number from `least` on; `most` is far beyond what makes sense, so help does not show it."""

    name = "n"

    def __init__(self, least: int = 1, most: int = 2**31 - 1) -> None:
        super().__init__(min=least)
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, and refuse what is beyond."""
        try:
            int(value)
        except ValueError:  # for which Click would use the name that help has
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        whole: int = super().convert(value, param, ctx)
        if whole > self._most:
            self.fail(f"{whole} is more than {self._most:,}.", param, ctx)
        return whole


class Number(click.FloatRange):
    """A number in a range; NaN is in none."""

    name = "x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, and refuse NaN, which passes all comparisons of a range."""
        try:
            known = not math.isnan(float(value))
        except ValueError:  # for which Click would use the name that help has
            known = False
        if not known:
            self.fail(f"{value!r} is not a number.", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


class PairsChoice(_Choice):
    """How positives are chosen; a ``.bin`` file of pairs is something else, and answered with its flag."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if str(value).endswith(".bin"):
            self.fail(f"the file {value} goes to --verify-on of `fasttriplet train`.", param, ctx)
        return super().convert(value, param, ctx)


class BandText(_Text):
    """A band; the options of mining read it, and say what is wrong with it."""

    name = "band"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Those that have names."""
        return [CompletionItem(name) for name in BANDS if name.startswith(incomplete)]


class RanksText(_OfRanks):
    """Ranks as Python writes slices, such as ``10:100``, ``10:`` or ``:100``."""

    name = "first:end"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int | None]:
        """Read them."""
        if not isinstance(value, str):
            return cast("tuple[int, int | None]", value)
        found = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", value)
        if found is None or not (found[1] or found[2]):
            self.fail(f"{value!r} is not FIRST:END, such as 10:100, 10: or :100.", param, ctx)
        return int(found[1] or 0), int(found[2]) if found[2] else None


class Kinds(_Type):
    """Kinds of findings, between commas."""

    name = "kinds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Kind, ...]:
        """Read them, and refuse names that are not of kinds."""
        if not isinstance(value, str):
            return cast("tuple[Kind, ...]", value)
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in KINDS:
                self.fail(f"{name!r} is not one of {', '.join(KINDS)}.", param, ctx)
        return kinds_of(str(param and param.name), cast("list[Kind]", names))


class NameOfFile(click.Path):
    """A path. The command finds out what is there and what is missing: that is not for the exit code 2."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Refuse what cannot be a path; an empty one would be the current folder."""
        if not os.fspath(value):
            self.fail("a path must not be empty.", param, ctx)
        if "\0" in str(value):
            self.fail(f"{value!r} is not a path: it has a NUL character.", param, ctx)
        return super().convert(value, param, ctx)


PATH = NameOfFile(path_type=Path)
