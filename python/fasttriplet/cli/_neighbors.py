"""``fasttriplet neighbors``: which identities, or images, are near each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display
from fasttriplet.dataset._options import ExcludeOptions

if TYPE_CHECKING:
    from fasttriplet.run._neighbors_rec import NeighborsOfRec


@click.command()
@options.rec(required=True)
@options.exclude
@options.model(required=True)
@click.option(
    "--out",
    required=True,
    type=types.PATH,
    callback=options.ends_in(".parquet"),
    metavar="FILE.parquet",
    help="File for the neighbors, one row for each: label, neighbor_label, rank (0 is the nearest) and "
    "distance.",
)
@options.overwrite
@options.option(
    "of",
    "What has neighbors. identities: the nearest identities of each identity, by the means of their "
    "embeddings, which is an identity graph. rows: the nearest images of other identities of each image.",
    "identities",
    Literal["identities", "rows"],
)
@options.option("k", "Most neighbors of each identity or image.", 20)
@options.distances
@options.on_error
@options.threads
@options.as_json
def neighbors(
    *,
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    out: Path,
    as_json: bool,
    **how: Any,
) -> None:
    """Find the nearest identities of each identity of .rec files.

    The table is an identity graph, for --neighbors of `fasttriplet train` and `fasttriplet mine`: bags then
    hold identities that look alike. --model npy:FILE takes embeddings that `fasttriplet embed` has written;
    with another model all images are embedded first. The file says which dataset it is of, and is refused
    with another one.
    """
    from fasttriplet.run._neighbors_rec import check_neighbors_rec, neighbors_rec  # noqa: PLC0415  not for --help

    chosen = ExcludeOptions(**{name: how.pop(name) for name in ExcludeOptions.names()})
    what = {name: how[name] for name in ("k", "of", "overwrite")}
    check_neighbors_rec(rec, out, chosen, **what)  # before a model is loaded
    with display() as shown:
        embedder = options.load_model(shown, model, devices, batch_size)
        shown.update("indexing")
        done = neighbors_rec(rec, model=embedder, out=out, options=chosen, progress=shown.update, **how)
    if as_json:
        show.as_json(done.to_dict())
    else:
        _print(done)


def _print(done: NeighborsOfRec) -> None:
    images = counted(done.images, "image")
    if done.images_excluded:
        images += f" ({done.images_excluded:,} excluded)"
    noun = "identity" if done.of == "identities" else "image"
    facts = {
        "dataset": f"{images} of {counted(done.identities, 'identity')} in {', '.join(done.files)}",
        "embeddings": done.embedder,
        "neighbors": f"{done.neighbors:,} of "
        + counted(done.identities if done.of == "identities" else done.images, noun),
        "time": f"{done.seconds['total']:,.1f} s, {done.seconds['search']:,.1f} s of it for the search",
    }
    show.facts(facts)
    show.skipped(done.files, done.skipped)
    click.echo(f"Neighbors are in {done.out}")
