"""``fasttriplet mine``: the whole line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _show as show

if TYPE_CHECKING:
    from fasttriplet.run._summary import Progress, Summary

_COUNT = click.IntRange(1, 2**31 - 1)
_LINE_EVERY = 5.0  # seconds between lines of progress where stderr is no terminal


@click.command(context_settings={"show_default": True})
@click.option(
    "--rec",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The .rec file; several are shards of one dataset.",
)
@click.option(
    "--model",
    default="pixels",
    help="What embeds the images: mxnet:PREFIX,EPOCH, npy:FILE (rows in key order), or pixels, a baseline "
    "without a model.",
)
@click.option("--out", default="triplets.parquet", type=click.Path(path_type=Path), help="Parquet file.")
@click.option("--images-per-identity", default=5, type=_COUNT, help="Most images of an identity in an epoch.")
@click.option("--bag-size", default=7200, type=_COUNT, help="Images embedded and mined together.")
@click.option(
    "--boundary",
    default="keep",
    type=click.Choice(["keep", "split"]),
    help="Whether a bag may cut an identity in two.",
)
@click.option(
    "--tail",
    default="keep",
    type=click.Choice(["keep", "drop"]),
    help="What to do with the last, smaller bag.",
)
@click.option("--epochs", default=1, type=_COUNT, help="Passes over the dataset.")
@click.option("--margin", default=0.3, type=click.FloatRange(min=0), help="On squared L2 of unit rows.")
@click.option(
    "--band",
    default="semihard",
    type=click.Choice(["semihard", "violating", "hard", "any"]),
    help="Negatives that qualify. semihard: d_ap < d_an < d_ap + margin; violating: d_an < d_ap + margin; "
    "hard: d_an <= d_ap; any: all of them.",
)
@click.option(
    "--pick",
    default="random",
    type=click.Choice(["random", "hardest", "all"]),
    help="Which of these are taken for each pair.",
)
@click.option(
    "--negatives-per-pair", default=1, type=_COUNT, help="Most negatives that are taken for a pair."
)
@click.option(
    "--pairs",
    default="unordered",
    type=click.Choice(["unordered", "ordered", "hardest", "easiest"]),
    help="Each pair once, both ways round, or each anchor's farthest or nearest positive.",
)
@click.option("--max-ap", type=click.FloatRange(min=0), help="Skip pairs with a larger d_ap.")
@click.option("--max-triplets", type=_COUNT, help="Stop when there are as many.")
@click.option(
    "--on-error",
    default="raise",
    type=click.Choice(["raise", "skip"]),
    help="About images that are damaged or of another size: end the run, or leave them out.",
)
@click.option("--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="Of the order and the picks.")
@click.option("--threads", type=_COUNT, help="By default one for each core.")
@click.option(
    "--prefetch",
    default=1,
    type=click.IntRange(0, 1000),
    help="Bags that are decoded ahead of the embedding.",
)
@click.option(
    "--memory",
    type=_COUNT,
    metavar="MB",
    help="Most megabytes of decoded images to hold; by default what --prefetch takes.",
)
@click.option(
    "--devices", help="Where an MXNet model runs: cpu, gpu or gpu:0,2. By default all GPUs or the CPU."
)
@click.option("--batch-size", type=_COUNT, help="Images per forward pass of a model.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
def mine(
    *,
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    memory: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Mine triplets from .rec files into a parquet file.

    A triplet is an anchor, a positive of the same identity and a negative of another. Distances d_ap and
    d_an are squared L2 between unit embeddings; semi-hard means d_ap < d_an < d_ap + margin.
    """
    from fasttriplet.embedders import load_embedder  # noqa: PLC0415  polars takes 0.2 s: not for --help
    from fasttriplet.errors import SpecError  # noqa: PLC0415
    from fasttriplet.run._mine_rec import mine_rec  # noqa: PLC0415

    try:
        embedder = load_embedder(model, devices=devices, batch_size=batch_size)
    except SpecError as error:
        raise click.BadParameter(str(error), param_hint="--model") from error
    with _progress() as progress:
        result = mine_rec(
            rec[0] if len(rec) == 1 else rec,
            model=embedder,
            memory=None if memory is None else memory * 10**6,
            progress=progress,
            **options,
        )
    if as_json:
        click.echo(json.dumps(result.summary.to_dict()))
    else:
        print_summary(result.summary)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with rates on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("indexing", total=None)

        def tell(now: Progress) -> None:
            described = _describe(now, time.perf_counter() - started)
            bar.update(task, description=described, completed=now.images, total=now.images_in_all)

        yield tell


def _lines() -> Callable[[Progress], None]:
    started = last = time.perf_counter()

    def tell(now: Progress) -> None:
        nonlocal last
        moment = time.perf_counter()
        if moment - last >= _LINE_EVERY:
            last = moment
            click.echo(_describe(now, moment - started), err=True)

    return tell


def _describe(now: Progress, seconds: float) -> str:
    epoch = f"epoch {now.epoch}/{now.epochs}, " if now.epochs > 1 else ""
    rate = f"{now.images / seconds:,.0f} images/s"
    return f"{epoch}bag {now.bag:,}/{now.bags:,}: {rate}, {now.triplets:,} triplets"


def print_summary(summary: Summary) -> None:
    """Print what was mined, how fast, and where it is."""
    from rich.table import Table  # noqa: PLC0415

    bags = f"{summary.bags:,} of {summary.images:,} images"
    if summary.epochs > 1:
        bags += f" in {summary.epochs} epochs"
    rows = {
        "dataset": f"{summary.images_indexed:,} images of {summary.identities:,} identities",
        "embeddings": summary.embedder,
        "bags": bags,
        "triplets": f"{summary.triplets:,}" + (" (stopped there)" if summary.stopped_at_max_triplets else ""),
        "pairs": f"{summary.pairs:,}",
        "  without a negative": f"{summary.pairs_without_negative:,}",
    }
    if summary.pairs_over_max_ap:
        rows["  over max_ap, skipped"] = f"{summary.pairs_over_max_ap:,}"
    show.facts(rows)
    show.timeline(summary)

    distances = Table(title="Squared L2 distances", title_justify="left")
    quantiles = {f"{float(q):.0%}": q for q in summary.quantiles["d_ap"]}
    distances.add_column("quantile")
    for name in quantiles:
        distances.add_column({"0%": "least", "100%": "most"}.get(name, name), justify="right")
    for distance, values in summary.quantiles.items():
        distances.add_row(distance, *(f"{values[q]:.4f}" for q in quantiles.values()))
    show.table(distances)

    # As lines, not through the console: it would break paths and take [brackets] in them for markup.
    if summary.bags_without_triplets:
        click.echo(
            f"{summary.bags_without_triplets} bags gave no triplet, the first in {summary.why_no_triplets}"
        )
    if summary.skipped:
        click.echo(f"{len(summary.skipped):,} images were left out, the first: {summary.skipped[0]}")
    if summary.out is not None:
        click.echo(f"Triplets are in {summary.out}")
