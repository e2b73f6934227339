"""``fasttriplet mine``: the whole line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import Display, display

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fasttriplet.run._summary import Progress, Summary


@click.command()
@options.rec(required=True)
@options.exclude
@options.model(default="pixels")
@click.option(
    "--out",
    default="triplets.parquet",
    type=types.PATH,
    help="File for the triplets. Its ending is the format: .parquet, .csv, .ndjson or .jsonl, .arrow or "
    ".feather.",
)
@options.option(
    "report",
    "Page to write about the dataset, the triplets and the run; see `fasttriplet report`.",
    kind=types.PATH,
    metavar="OUT.html",
    callback=options.ends_in(".html", ".htm"),
)
@options.pictures
@options.overwrite
@click.option(
    "--whole",
    is_flag=True,
    help="Mine the whole dataset at once and not bag by bag: negatives come from all of it. All images are "
    "embedded first. --memory is then what blocks of embeddings may take.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="With --whole or --ray, continue an unfinished run with what it has kept beside --out.",
)
@options.ray
@options.bags
@options.tail
@options.option("epochs", "Passes over the dataset, each in another order and with other picks.", 1)
@options.mining
@options.option("max_triplets", "Stop when this many triplets are found.", kind=int)
@options.on_error
@options.seed
@options.resources
@options.as_json
def mine(
    *,
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    out: Path,
    report: Path | None,
    pictures: int,
    overwrite: bool,
    whole: bool,
    ray: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Mine triplets from .rec files into a table.

    A triplet is an anchor, a positive of the same identity and a negative of another. Distances d_ap and
    d_an are on the scale of --metric, by default squared L2 between unit embeddings; semi-hard means
    d_ap < d_an < d_ap + margin.
    """
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help
    from fasttriplet.run._mine_rec import mine_rec  # noqa: PLC0415
    from fasttriplet.run._sink import check_ending  # noqa: PLC0415
    from fasttriplet.run._work_folder import may_overwrite  # noqa: PLC0415

    if whole:
        if options.is_set("bag_size"):
            raise click.UsageError("--bag-size has no meaning with --whole, which has no bags")
        how["bag_size"] = None
    if report is None and options.is_set("pictures"):
        raise click.UsageError("--pictures goes with --report")
    check_ending(out)  # before minutes of embedding
    replaces = overwrite or (how["resume"] and may_overwrite(out))
    for path in filter(None, (out, report)):
        check_can_be_written(path, overwrite=replaces)
    with display() as shown:
        embedder = options.load_model(shown, model, devices, batch_size, ray=ray)
        if ray is None:
            shown.update("indexing")
        result = mine_rec(
            options.one_or_several(rec),
            model=embedder,
            out=out,
            overwrite=overwrite,
            ray=ray,
            progress=partial(_show_progress, shown),
            **how,
        )
        if report is not None:
            shown.update("writing the page")
            _write(report, rec, result.summary, how | {"model": model}, pictures=pictures, overwrite=replaces)
    if as_json:
        show.as_json(result.summary.to_dict())
    else:
        show.summary(result.summary)
    if report is not None:
        click.echo(f"The page is in {report}", err=as_json)


def _write(
    page: Path,
    rec: tuple[Path, ...],
    summary: Summary,
    how: Mapping[str, Any],
    *,
    pictures: int,
    overwrite: bool,
) -> None:
    from fasttriplet.dataset._options import DatasetOptions  # noqa: PLC0415
    from fasttriplet.reporting._report import Sources, write_report  # noqa: PLC0415

    write_report(
        page,
        Sources(rec=options.one_or_several(rec), triplets=summary.out, run=summary, how=how),
        pictures=pictures,
        overwrite=overwrite,
        options=DatasetOptions(**{name: how[name] for name in DatasetOptions.names()}),
    )


def _show_progress(shown: Display, now: Progress) -> None:
    if now.steps_in_all:
        note = f"{counted(now.triplets, 'triplet')} so far" if now.triplets else ""
        shown.update("mining", now.steps, now.steps_in_all, unit="step", note=note)
        return
    where = [f"epoch {now.epoch:,} of {now.epochs:,}"] if now.epochs > 1 else []
    where.append(f"bag {now.bag:,} of {now.bags:,}")
    if now.bags_mined:
        where.append(f"{counted(now.triplets, 'triplet')} so far")
    shown.update("mining", now.images, now.images_in_all, note=", ".join(where))
