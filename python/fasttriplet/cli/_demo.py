"""``fasttriplet demo``: a first run, on a dataset that draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.demo import Demo

_UNITS = {"training": "batches", "drawing sheets": "sheets"}  # of its steps; of the others, images


@click.command()
@options.option(
    "out",
    "Folder for all files: a new one, an empty one, or that of an earlier demo.",
    "demo",
    click.Path(file_okay=False, path_type=Path),
)
@options.option("identities", "Characters to draw for training.", 60, options.Whole(2))
@options.option("images", "Images to draw of each character.", 20, options.Whole(2))
@options.option("batches", "Batches to train for.", 400)
@options.seed
@options.threads
def demo(*, out: Path, **how: Any) -> None:
    """Draw a small dataset, train on it, and mine it.

    A first run: an MXNet network is trained and verified on other characters, then it mines the dataset.
    Without MXNet, the pixels are mined.
    """
    from fasttriplet.demo import run_demo  # noqa: PLC0415  polars takes 0.2 s: not for --help

    with display(announce=True) as shown:

        def progress(step: str, done: int, total: int) -> None:
            shown.update(step, done, total, unit=_UNITS.get(step, "images"))

        made = run_demo(out, progress=progress, **how)
    show.summary(made.summary)
    if made.verifications:
        _print_verifications(made)
    _print_files(made)


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
    rows = {"dataset": f"{made.rec} (with .idx and property)", "pairs of other characters": str(made.pairs)}
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
        click.echo(f"Embedded with the pixels themselves, without a network: {made.no_network}")
    click.echo(f"{made.seconds:.1f} s in all. Next:")
    more = f"fasttriplet verify --pairs {made.pairs} --model {made.model}"
    if made.no_network is None:
        more = f"fasttriplet train --out {prefix} --resume --batches 1000 --verify-on {made.pairs}"
    for command in (
        f"fasttriplet index --rec {made.rec}",
        f"fasttriplet mine --rec {made.rec} --model {made.model} --band hard --out hard.parquet",
        more,
        "fasttriplet pack FOLDER mine.rec   # your own images, one folder per identity",
    ):
        click.echo(f"  {command}")
