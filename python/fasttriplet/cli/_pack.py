"""``fasttriplet pack``: a folder of images to a ``.rec``."""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._checks import MOST_PIXELS
from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display
from fasttriplet.dataset._packing._options import Fit, Format, PackOptions

if TYPE_CHECKING:
    from fasttriplet.dataset._packing._pack import Packed


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``112`` or ``112x96``: height, then width."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", value.strip().lower())
    if found is None:
        raise click.BadParameter(
            f"expected pixels as 112 or as 112x96 (height x width), got {value!r}", ctx, param
        )
    size = int(found[1]), int(found[2] or found[1])
    try:
        PackOptions(size=size, max_pixels=MOST_PIXELS)  # --max-pixels is looked at later
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return size


@click.command()
@click.argument("folder", type=types.PATH)
@click.argument("out", metavar="OUT.rec", type=types.PATH)
@options.option(
    "size",
    "Bring all images to this height and width; a single number stands for both. By default the images must "
    "have one size already.",
    metavar="HxW",
    callback=_size,
)
@options.option(
    "fit",
    "How an image of another shape is brought to --size: change its proportions, cut off what is too much, "
    "or add black.",
    PackOptions.fit,
    Fit,
)
@options.option(
    "format",
    "What images are stored as. png is lossless; with keep, JPEG stays JPEG, and all other formats become "
    "PNG.",
    PackOptions.format,
    Format,
)
@options.option(
    "quality",
    "JPEG quality of images that are encoded.",
    PackOptions.quality,
    click.IntRange(1, 100),
    metavar="N",
)
@options.option(
    "identity_depth",
    "How many folders name an identity: with 2, FOLDER/a/b/picture is a picture of a/b. Pictures may lie at "
    "any depth below. By default 1, and pictures must lie in FOLDER/identity itself.",
    kind=int,
)
@options.option(
    "split",
    "Share of the identities that go into OUT-val.rec instead, for validation.",
    kind=types.Number(min=0, max=1, min_open=True, max_open=True),
)
@options.max_pixels
@options.on_error
@options.seed
@options.threads
@options.overwrite
@options.as_json
def pack(*, folder: Path, out: Path, as_json: bool, **how: Any) -> None:
    """Pack FOLDER/identity/picture into OUT.rec.

    Writes OUT.rec and OUT.idx in the InsightFace layout, OUT.identities.csv with the folder of each label,
    OUT.sources.parquet with the path of each image, and `property` for InsightFace's scripts, unless that
    describes another .rec of the folder.

    Pictures may be JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF (the first frame), JPEG 2000, PPM, PGM or PBM. Those
    of the right size and format are stored as they are; others are resized (Lanczos) and encoded. Hidden and
    system files are ignored. Everything that cannot be used is listed at once, and nothing is written; with
    --on-error skip it is left out, and OUT.problems.csv has the complete list.
    """
    from fasttriplet.dataset._packing._pack import pack as run  # noqa: PLC0415  not for --help

    with display() as shown:
        done = run(folder, out, progress=partial(shown.update, "packing"), **how)
    if as_json:
        show.as_json(asdict(done))
    else:
        _print(done)


def _print(done: Packed) -> None:
    from rich.filesize import decimal  # noqa: PLC0415  rich takes 0.05 s: not for --help

    height, width = done.size
    for file in done.files:
        images, identities = counted(file.images, "image"), counted(file.identities, "identity")
        click.echo(f"{file.path}: {images} of {identities}, {height} x {width}, {decimal(file.bytes)}")
    click.echo(
        f"{done.kept:,} kept unchanged, {done.encoded:,} encoded, in {done.seconds:.1f} s "
        f"({done.images / done.seconds:,.0f} images/s)"
    )
    if done.ignored:
        click.echo(f"{counted(done.ignored, 'hidden or system file')} ignored")
    if done.problems is not None:
        click.echo(f"{counted(done.skipped, 'problem')} left out, listed in {done.problems}")
    for note in done.notes:
        click.echo(note)
