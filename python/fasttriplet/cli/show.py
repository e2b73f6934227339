"""How commands print tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table


def facts(rows: Mapping[str, str]) -> None:
    """Print names and values on stdout, a row each."""
    from rich.table import Table  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.text import Text  # noqa: PLC0415

    columns = Table(show_header=False)
    for name, value in rows.items():
        columns.add_row(name, Text(value, overflow="fold"))  # text: not markup, [brackets] stay
    table(columns)


def table(table: Table) -> None:
    """Print a table on stdout."""
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    with console.capture() as text:
        console.print(table)
    click.echo(text.get(), nl=False)  # rich itself would end the process with 1 if the pipe is closed
