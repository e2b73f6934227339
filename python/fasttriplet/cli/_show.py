"""How commands print tables."""

from __future__ import annotations

import shlex
import shutil
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._words import counted
from fasttriplet.cli._words import in_flags
from fasttriplet.mining._options import scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from fasttriplet.embedders._vectors import Skipped
    from fasttriplet.run._summary import Summary

_WIDTH_FOR_FACTS = 60  # columns
_WIDEST = 32  # parts of a timeline that fit beside the numbers
_QUANTILES = {"0": "least", "1": "most"}
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


def as_json(plain: Mapping[str, Any]) -> None:
    """Print plain data, and paths in it, as a line of JSON on stdout."""
    import json  # noqa: PLC0415  it takes 3 ms: not for --help

    click.echo(json.dumps(plain, default=str))


def program() -> str:
    """How to type this command in the current folder: its name may not be on the PATH."""
    started = Path(sys.argv[0])
    if started.name != "fasttriplet":  # python -m fasttriplet
        return f"{_typed(Path(sys.executable))} -m fasttriplet"
    on_path = shutil.which("fasttriplet")
    if on_path is not None and Path(on_path).resolve() == started.resolve():
        return "fasttriplet"
    return _typed(started)


def _typed(path: Path) -> str:
    here = Path.cwd()
    path = here / path
    inside = path.is_relative_to(here)
    short = str(path.relative_to(here)) if inside else str(path)
    return shlex.quote(short if "/" in short else f"./{short}")


def facts(rows: Mapping[str, str]) -> None:
    """Print names and values on stdout, one row for each, or one line on a narrow terminal."""
    from rich.console import Console  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if Console().width < _WIDTH_FOR_FACTS:
        for name, value in rows.items():
            click.echo(f"{name}: {value}")
        return
    columns = Table(show_header=False)
    for name, value in rows.items():
        columns.add_row(name, Text(value, overflow="fold"))  # text: not markup, [brackets] stay
    table(columns)


def summary(found: Summary) -> None:
    """Print what was mined, how fast, and where it is."""
    epochs = f" in {counted(found.epochs, 'epoch')}" if found.epochs > 1 else ""
    excluded = f", {found.images_excluded:,} excluded" if found.images_excluded else ""
    placed = {}
    if found.identities_without_neighbors:
        placed["  not in the graph"] = counted(found.identities_without_neighbors, "identity")
    rows = {
        "dataset": f"{counted(found.images_indexed, 'image')} of {counted(found.identities, 'identity')}"
        + excluded,
        **placed,
        "embeddings": found.embedder,
        "bags": f"{counted(found.bags, 'bag')} with {counted(found.images, 'image')}{epochs}",
        "triplets": f"{found.triplets:,}" + (" (stopped there)" if found.stopped_at_max_triplets else ""),
        "pairs": f"{found.pairs:,}",
        "  without a negative": f"{found.pairs_without_negative:,}",
    }
    if found.pairs_over_max_ap:
        rows["  over max_ap, skipped"] = f"{found.pairs_over_max_ap:,}"
    facts(rows)
    timeline(found)
    _distances(found)
    # As lines, not through the console: it would break paths and take [brackets] in them for markup.
    if found.bags_without_triplets:
        bags = counted(found.bags_without_triplets, "bag")
        why = in_flags(str(found.why_no_triplets), click.get_current_context().command)
        click.echo(f"{bags} gave no triplet, the first in {why}")
    left_out(found)
    if found.out is not None:
        click.echo(f"Triplets are in {found.out}")


def left_out(found: Summary) -> None:
    """Say how many images were left out, if any."""
    if found.skipped:
        click.echo(f"Left out: {counted(len(found.skipped), 'image')}, the first: {found.skipped[0]}")


def skipped(files: Sequence[str], images: Sequence[Skipped]) -> None:
    """Say how many images of some files were left out, if any."""
    if images:
        first = images[0]
        click.echo(
            f"Left out: {counted(len(images), 'image')}, the first: {files[first.file]}, key {first.key}: "
            f"{first.reason}"
        )


def _distances(found: Summary) -> None:
    names = [_QUANTILES.get(q, f"{float(q):.0%}") for q in found.quantiles["d_ap"]]
    rows = {name: [f"{value:.4f}" for value in of.values()] for name, of in found.quantiles.items()}
    title = f"Distances ({scale_of(found.metric)})"
    turned = {name: list(of) for name, *of in zip(names, *rows.values(), strict=True)}
    table(
        columns(title, ["quantile", *names], rows),
        columns(title, ["quantile", *rows], turned),
    )


def timeline(found: Summary) -> None:
    """Print how fast and how busy each stage was, when, and which one the run waited for."""
    from rich.console import Console  # noqa: PLC0415

    total = found.seconds["total"]
    levels = _BLOCKS if Console().encoding.startswith("utf") else _ASCII
    rows, drawn, curves = {}, {}, found.timeline()[1]
    for stage in found.seconds:
        if stage == "total":
            continue
        shares = curves.get(stage, [])  # none of a cluster's tasks
        rate = found.images_per_second(stage) if stage in ("decode", "embed", "mine") else None
        busy, waited = found.seconds[stage], found.waited.get(stage, 0.0)
        rows[stage] = [
            f"{rate:,.0f}" if rate else "",
            f"{busy:,.0f} s" if busy >= 100 else f"{busy:.2f} s",
            f"{waited / total:.0%}" if total else "",
        ]
        curve = "".join(levels[ceil(share * (len(levels) - 1))] for share in _narrow(shares))
        drawn[stage] = [*rows[stage], curve]
    title, headings = f"{total:,.2f} s in all", ["stage", "images/s", "busy", "waited for"]
    with_curves = columns(title, [*headings, "busy over time"], drawn)
    with_curves.columns[-1].justify = "left"
    table(with_curves, columns(title, headings, rows), columns(title, headings, rows, padding=0))


def _narrow(shares: list[float]) -> list[float]:
    if len(shares) <= _WIDEST:
        return shares
    return [(a + b) / 2 for a, b in zip(shares[::2], [*shares[1::2], shares[-1]], strict=False)]


def columns(
    title: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]], *, padding: int = 1
) -> Table:
    """A table of names and numbers."""
    from rich.table import Table  # noqa: PLC0415

    made = Table(title=title, title_justify="left", padding=(0, padding))
    for at, heading in enumerate(headings):
        made.add_column(heading, justify="right" if at else "left")
    for name, values in rows.items():
        made.add_row(name, *values)
    return made


def table(*made: Table) -> None:
    """Print a table on stdout, in the first of these forms that fits the terminal, or else the last."""
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    anything = console.options.update(max_width=10_000)
    fitting = (one for one in made if one.__rich_measure__(console, anything).maximum <= console.width)
    with console.capture() as text:
        console.print(next(fitting, made[-1]))
    for line in text.get().splitlines():
        click.echo(line.rstrip())  # rich itself would end the process with 1 if the pipe is closed
