"""``fasttriplet pack``: a folder of images to a ``.rec``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


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


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", metavar="OUT.rec", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--size",
    metavar="HxW",
    callback=_size,
    help="Bring all images to this height and width; one number is both. By default they must have one "
    "size already.",
)
@click.option("--quality", default=95, type=click.IntRange(1, 100), help="Of images encoded as JPEG.")
@click.option("--threads", type=click.IntRange(min=1), help="By default one for each core.")
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier run.")
def pack(  # noqa: PLR0917  click calls by name
    folder: Path, out: Path, size: tuple[int, int] | None, quality: int, threads: int | None, overwrite: bool
) -> None:
    """Pack FOLDER/identity/image into OUT.rec.

    Writes OUT.rec and OUT.idx in the InsightFace layout, `property` beside them, and OUT.identities.csv,
    which tells which label is which folder. JPEGs of the right size are stored as they are; other images
    are stretched to the size (Lanczos) and encoded as JPEG.
    """
    if out.suffix != ".rec":
        raise click.BadParameter(f"{out}: the name must end in .rec", param_hint="OUT.rec")
    from fasttriplet.dataset._packing import pack as run  # noqa: PLC0415  not for --help

    with _progress() as progress:
        try:
            done = run(
                folder,
                out,
                size=size,
                quality=quality,
                threads=threads,
                overwrite=overwrite,
                progress=progress,
            )
        except FileExistsError as error:
            raise ValueError(f"{error.filename}: exists already; --overwrite replaces it") from error
    height, width = done.size
    click.echo(
        f"{done.path}: {done.images:,} images of {done.identities:,} identities, {height} x {width}, "
        f"{done.bytes / 1e6:,.1f} MB; {done.kept:,} JPEGs kept as they were, "
        f"{done.images - done.kept:,} images encoded; {done.seconds:.1f} s, "
        f"{done.images / done.seconds:,.0f} images/s"
    )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = ("packing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("packing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
