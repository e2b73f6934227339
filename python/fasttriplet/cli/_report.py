"""``fasttriplet report``: a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fasttriplet.cli import _options as options
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display


@click.command()
@options.rec(required=False)
@options.option(
    "triplets",
    "The table that `fasttriplet mine` wrote. A .parquet file also says how it was mined.",
    kind=types.PATH,
)
@options.option("run", "A file with what `fasttriplet mine --json` printed.", kind=types.PATH)
@options.option(
    "audit",
    "Folder of an audit, or its table of suspects. In the page findings can be unticked, and it saves the "
    "decisions.",
    kind=types.PATH,
)
@options.option("log", "The log of a training, PREFIX-log.jsonl.", kind=types.PATH)
@options.option("verify", "A file with what `fasttriplet verify --json` printed.", kind=types.PATH)
@options.option(
    "out",
    "The page.",
    "report.html",
    types.PATH,
    callback=options.ends_in(".html", ".htm"),
)
@options.pictures
@options.overwrite
def report(*, rec: tuple[Path, ...], out: Path, overwrite: bool, **given: Any) -> None:
    """Write one HTML page that shows a dataset and what was done with it.

    Give any of its parts. The page needs no server and no network, and can be sent as it is. Each part begins
    with what it says, and what to do; with --rec, images are shown.
    """
    from fasttriplet.reporting import _report  # noqa: PLC0415  polars takes 0.2 s: not for --help

    if not (rec or any(given[name] for name in ("triplets", "run", "audit", "log", "verify"))):
        raise click.UsageError("give --rec, or another part: --triplets, --run, --audit, --log or --verify")
    _report.check_out(out, overwrite=overwrite)
    with display() as shown:
        shown.update("reading")
        _report.report(out, rec=options.one_or_several(rec) if rec else None, overwrite=overwrite, **given)
    click.echo(f"The page is in {out}")
