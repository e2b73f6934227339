"""``fasttriplet pack``: a folder of images to a ``.rec``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import click

from fasttriplet.cli import _options as options
from fasttriplet.cli._progress import display


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``112`` or ``112x96``: height, then width."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", value.strip().lower())
    if found is None:
        raise click.BadParameter(
            f"expected pixels as 112 or as 112x96 (height x width), got {value!r}", ctx, param
        )
    return int(found[1]), int(found[2] or found[1])


@click.command()
@click.argument("folder", type=options.FOLDER)
@click.argument("out", metavar="OUT.rec", type=options.OUTPUT, callback=options.ends_in(".rec"))
@options.option(
    "size",
    "Bring all images to this height and width; a single number stands for both. By default the images must "
    "have one size already.",
    metavar="HxW",
    callback=_size,
)
@options.option(
    "quality", "JPEG quality of images that are encoded.", 95, click.IntRange(1, 100), metavar="N"
)
@options.threads
@options.overwrite
def pack(*, folder: Path, out: Path, **how: Any) -> None:
    """Pack FOLDER/identity/image into OUT.rec.

    Writes OUT.rec and OUT.idx in the InsightFace layout, `property` beside them, and OUT.identities.csv,
    which tells which label is which folder. JPEGs of the right size are stored as they are; other images
    are stretched to the size (Lanczos) and encoded as JPEG.
    """
    from fasttriplet.dataset._packing import pack as run  # noqa: PLC0415  not for --help

    with display() as shown:
        done = run(folder, out, progress=partial(shown.update, "packing"), **how)
    height, width = done.size
    click.echo(
        f"{done.path}: {done.images:,} images of {done.identities:,} identities, {height} x {width}, "
        f"{done.bytes / 1e6:,.1f} MB; {done.kept:,} JPEGs kept as they were, "
        f"{done.images - done.kept:,} images encoded; {done.seconds:.1f} s, "
        f"{done.images / done.seconds:,.0f} images/s"
    )
