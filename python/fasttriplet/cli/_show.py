"""How commands print tables."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from fasttriplet.run._summary import Summary

_WIDEST = 32  # parts of a timeline that fit beside the numbers
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


def facts(rows: Mapping[str, str]) -> None:
    """Print names and values on stdout, a row each."""
    from rich.table import Table  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.text import Text  # noqa: PLC0415

    columns = Table(show_header=False)
    for name, value in rows.items():
        columns.add_row(name, Text(value, overflow="fold"))  # text: not markup, [brackets] stay
    table(columns)


def timeline(summary: Summary) -> None:
    """Print how fast and how busy each stage was, when, and which one the run waited for."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    total = summary.seconds["total"]
    levels = _BLOCKS if Console().encoding.startswith("utf") else _ASCII
    stages = Table(title=f"{total:.2f} s in all", title_justify="left")
    stages.add_column("stage", no_wrap=True)
    for heading in ("images/s", "busy", "waited for"):
        stages.add_column(heading, justify="right", no_wrap=True)
    stages.add_column("busy over time", no_wrap=True)
    for stage, shares in summary.timeline()[1].items():
        rate = summary.images_per_second(stage) if stage in ("decode", "embed", "mine") else None
        busy, waited = summary.seconds[stage], summary.waited.get(stage, 0.0)
        curve = "".join(levels[ceil(share * (len(levels) - 1))] for share in _narrow(shares))
        stages.add_row(
            stage,
            f"{rate:,.0f}" if rate else "",
            f"{busy:.2f} s",
            f"{waited / total:.0%}" if total else "",
            curve,
        )
    table(stages)


def _narrow(shares: list[float]) -> list[float]:
    if len(shares) <= _WIDEST:
        return shares
    return [(a + b) / 2 for a, b in zip(shares[::2], [*shares[1::2], shares[-1]], strict=False)]


def table(table: Table) -> None:
    """Print a table on stdout."""
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    with console.capture() as text:
        console.print(table)
    click.echo(text.get(), nl=False)  # rich itself would end the process with 1 if the pipe is closed
