"""``fasttriplet demo``: a first run, on a dataset that draws itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _show as show
from fasttriplet.cli._mine import print_summary

if TYPE_CHECKING:
    from fasttriplet.demo import Demo


@click.command("demo", context_settings={"show_default": True})
@click.option(
    "--out",
    default="demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder: new, empty, or of an earlier demo.",
)
@click.option("--identities", default=60, type=click.IntRange(min=2), help="Characters to train on.")
@click.option("--images", default=20, type=click.IntRange(min=2), help="Images of each.")
@click.option("--batches", default=400, type=click.IntRange(min=1), help="Of the training.")
@click.option(
    "--seed", default=0, type=click.IntRange(min=0), help="Of the pictures, the network and the picks."
)
@click.option("--threads", type=click.IntRange(min=1), help="By default one for each core.")
def demo(*, out: Path, **options: Any) -> None:
    """Draw a small dataset, train an MXNet network on it, and show what it learned and what it mines."""
    from fasttriplet.demo import run_demo  # noqa: PLC0415  polars takes 0.2 s: not for --help

    with _steps() as tell:
        made = run_demo(out, tell=tell, **options)
    print_summary(made.summary)
    if made.verifications:
        _print_verifications(made)
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


def _print_verifications(made: Demo) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Pairs of characters that the network was not trained on", title_justify="left")
    for heading in ("", "accuracy", "AUC", "TAR at FAR 0.01"):
        table.add_column(heading, justify="right" if heading else "left")
    for when, found in zip(("before the training", "after it"), made.verifications, strict=True):
        tar = found["tar"].get("0.01")
        values = (f"{found['accuracy']:.1%}", f"{found['auc']:.4f}", "" if tar is None else f"{tar:.1%}")
        table.add_row(when, *values)
    show.table(table)


def _print_files(made: Demo) -> None:
    rows = {"dataset": f"{made.rec} (with .idx and property)", "pairs of others": str(made.pairs)}
    if made.no_network is None:
        prefix = made.model.removeprefix("mxnet:").removesuffix(",0")
        rows["network"] = f"{prefix}-symbol.json, {prefix}-0000.params"
        rows["its training"] = f"{prefix}-log.jsonl"
    rows |= {
        "triplets": str(made.triplets),
        "pictures of the dataset": str(made.contact_sheet),
        "pictures of triplets": str(made.triplet_sheet),
    }
    show.facts(rows)
    if made.no_network is not None:
        click.echo(f"Embedded by the pixels themselves, without a network: {made.no_network}")
    click.echo(f"{made.seconds:.1f} s in all. Next:")
    more = f"fasttriplet verify --pairs {made.pairs} --model {made.model}"
    if made.no_network is None:
        more = f"fasttriplet train --out {prefix} --resume --batches 1000 --pairs {made.pairs}"
    for command in (
        f"fasttriplet index --rec {made.rec}",
        f"fasttriplet mine --rec {made.rec} --model {made.model} --band hard --out hard.parquet",
        more,
        "fasttriplet pack FOLDER mine.rec   # your own images, a folder for each identity",
    ):
        click.echo(f"  {command}")
