"""``fasttriplet clean``: a dataset without what an audit found."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.auditing._clean import Cleaned


@click.command()
@options.rec(required=True)
@options.suspects(required=True)
@click.option("--out", required=True, type=types.PATH, metavar="OUT.rec", help="The new .rec file.")
@options.option(
    "decisions",
    "A JSON file of what you decided otherwise than the audit, as its page saves it.",
    kind=types.PATH,
    metavar="FILE",
)
@options.option(
    "kinds",
    "Kinds of findings to act on, between commas. By default all of them.",
    kind=types.Kinds(),
    metavar="KIND,...",
)
@options.overwrite
@options.as_json
def clean(*, rec: tuple[Path, ...], as_json: bool, **how: Any) -> None:
    """Write .rec files anew as OUT.rec, with images dropped and relabelled as an audit proposes.

    Identities are joined and split, too. Images are stored byte for byte as they were, in InsightFace's
    layout, with labels 0, 1, 2, ... without gaps. OUT.changes.parquet lists the old and the new label and key
    of each image, and the finding that changed it.

    An image that several findings are about is dropped if one of them drops it; else the finding with the
    lowest number decides.
    """
    from fasttriplet.auditing._clean import clean as run  # noqa: PLC0415  not for --help

    with display() as shown:
        shown.update("indexing")
        done = run(options.one_or_several(rec), progress=partial(shown.update, "writing"), **how)
    if as_json:
        show.as_json(asdict(done))
    else:
        _print(done)


def _print(done: Cleaned) -> None:
    from rich.filesize import decimal  # noqa: PLC0415  rich takes 0.05 s: not for --help

    images, identities = counted(done.images, "image"), counted(done.identities, "identity")
    click.echo(f"{done.path}: {images} of {identities}, {decimal(done.bytes)}")
    click.echo(f"{counted(done.dropped, 'image')} dropped, {done.relabelled:,} relabelled")
    if done.identities_gone or done.identities_new:
        click.echo(f"{counted(done.identities_gone, 'identity')} gone, {done.identities_new:,} new")
    click.echo(f"All changes are in {done.changes}")
    for note in done.notes:
        click.echo(note)
