"""How commands print tables."""

from __future__ import annotations

import shlex
import shutil
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.mining._options import scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from fasttriplet.run._summary import Summary

_WIDEST = 32  # parts of a timeline that fit beside the numbers
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


def as_json(plain: Mapping[str, Any]) -> None:
    """Print plain data as a line of JSON on stdout."""
    import json  # noqa: PLC0415  it takes 3 ms: not for --help

    click.echo(json.dumps(plain))


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
    """Print names and values on stdout, one row for each."""
    from rich.table import Table  # noqa: PLC0415  rich takes 0.05 s: not for --help
    from rich.text import Text  # noqa: PLC0415

    columns = Table(show_header=False)
    for name, value in rows.items():
        columns.add_row(name, Text(value, overflow="fold"))  # text: not markup, [brackets] stay
    table(columns)


def summary(found: Summary) -> None:
    """Print what was mined, how fast, and where it is."""
    epochs = f" in {found.epochs} epochs" if found.epochs > 1 else ""
    rows = {
        "dataset": f"{found.images_indexed:,} images of {found.identities:,} identities",
        "embeddings": found.embedder,
        "bags": f"{found.bags:,} of {found.images:,} images{epochs}",
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
        click.echo(
            f"{found.bags_without_triplets} bags gave no triplet, the first in {found.why_no_triplets}"
        )
    left_out(found)
    if found.out is not None:
        click.echo(f"Triplets are in {found.out}")


def left_out(found: Summary) -> None:
    """Say how many images were left out, if any."""
    if found.skipped:
        click.echo(f"{len(found.skipped):,} images were left out, the first: {found.skipped[0]}")


def _distances(found: Summary) -> None:
    from rich.table import Table  # noqa: PLC0415

    distances = Table(title=f"Distances ({scale_of(found.metric)})", title_justify="left")
    quantiles = {f"{float(q):.0%}": q for q in found.quantiles["d_ap"]}
    distances.add_column("quantile")
    for name in quantiles:
        distances.add_column({"0%": "least", "100%": "most"}.get(name, name), justify="right")
    for distance, values in found.quantiles.items():
        distances.add_row(distance, *(f"{values[q]:.4f}" for q in quantiles.values()))
    table(distances)


def timeline(found: Summary) -> None:
    """Print how fast and how busy each stage was, when, and which one the run waited for."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    total = found.seconds["total"]
    levels = _BLOCKS if Console().encoding.startswith("utf") else _ASCII
    stages = Table(title=f"{total:.2f} s in all", title_justify="left")
    stages.add_column("stage", no_wrap=True)
    for heading in ("images/s", "busy", "waited for"):
        stages.add_column(heading, justify="right", no_wrap=True)
    stages.add_column("busy over time", no_wrap=True)
    for stage, shares in found.timeline()[1].items():
        rate = found.images_per_second(stage) if stage in ("decode", "embed", "mine") else None
        busy, waited = found.seconds[stage], found.waited.get(stage, 0.0)
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


def table(made: Table) -> None:
    """Print a table on stdout."""
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    with console.capture() as text:
        console.print(made)
    click.echo(text.get(), nl=False)  # rich itself would end the process with 1 if the pipe is closed
