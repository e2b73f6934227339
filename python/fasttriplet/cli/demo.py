"""``fasttriplet demo``: a first run, on a dataset that draws itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fasttriplet.cli import show
from fasttriplet.cli.mine import print_summary

if TYPE_CHECKING:
    from fasttriplet.demo import Demo


@click.command("demo", context_settings={"show_default": True})
@click.option(
    "--out",
    default="demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder: new, empty, or of an earlier demo.",
)
@click.option("--identities", default=60, type=click.IntRange(min=2), help="Characters to draw.")
@click.option("--images", default=20, type=click.IntRange(min=2), help="Images of each.")
@click.option(
    "--seed", default=0, type=click.IntRange(min=0), help="Of the pictures, the network and the picks."
)
@click.option("--threads", type=click.IntRange(min=1), help="By default one for each core.")
def demo(out: Path, identities: int, images: int, seed: int, threads: int | None) -> None:
    """Draw a small dataset, embed it with an untrained MXNet network, mine it, show what was mined."""
    from fasttriplet.demo import run_demo  # noqa: PLC0415  polars takes 0.2 s: not for --help

    with _steps() as tell:
        made = run_demo(out, identities=identities, images=images, seed=seed, threads=threads, tell=tell)
    print_summary(made.summary)
    _print_files(made)


@contextmanager
def _steps() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step on a terminal, else a line."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def tell(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield tell


def _lines() -> Callable[[str, int, int], None]:
    told: set[str] = set()

    def tell(step: str, done: int, total: int) -> None:
        del done, total
        if step not in told:
            told.add(step)
            click.echo(step, err=True)

    return tell


def _print_files(made: Demo) -> None:
    rows = {"dataset": f"{made.rec} (with .idx and property)"}
    if made.no_network is None:
        prefix = made.model.removeprefix("mxnet:").removesuffix(",0")
        rows["network, untrained"] = f"{prefix}-symbol.json, {prefix}-0000.params"
    rows |= {
        "triplets": str(made.triplets),
        "pictures of the dataset": str(made.contact_sheet),
        "pictures of triplets": str(made.triplet_sheet),
    }
    show.facts(rows)
    if made.no_network is None:
        click.echo("The network has random weights: these triplets show the machinery, not quality.")
    else:
        click.echo(f"Embedded by the pixels themselves, without a network: {made.no_network}")
    click.echo(f"{made.seconds:.1f} s in all. Next:")
    for command in (
        f"fasttriplet index --rec {made.rec}",
        f"fasttriplet mine --rec {made.rec} --model {made.model} --band hard --out hard.parquet",
        "fasttriplet pack FOLDER mine.rec   # your own images, a folder for each identity",
    ):
        click.echo(f"  {command}")
