"""``fasttriplet export``: pictures of a dataset as files."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

_MOST = 10_000_000  # keys of a range


def _keys(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Read ``1,2,5-9``."""
    if value is None:
        return None
    keys: list[int] = []
    for part in value.split(","):
        found = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part.strip())
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise click.BadParameter(f"expected keys as 1,2,5-9, got {part!r}", ctx, param)
        first, last = int(found[1]), int(found[2] or found[1])
        if last - first >= _MOST:
            raise click.BadParameter(f"{part} are more than {_MOST:,} keys", ctx, param)
        keys += range(first, last + 1)
    return keys


@click.command()
@options.rec(required=True)
@options.option("keys", "Export the images with these keys.", kind=str, metavar="1,2,5-9", callback=_keys)
@options.option(
    "triplets",
    "Export the triplets of this file, in a folder each: a file that `fasttriplet mine` wrote.",
    kind=types.PATH,
    metavar="FILE",
)
@options.suspects(required=False)
@options.option("first", "Export only this many keys, triplets or findings.", kind=int)
@click.option(
    "--out", required=True, type=types.PATH, metavar="FOLDER", help="A new folder for the pictures."
)
@options.as_json
def export(*, rec: tuple[Path, ...], out: Path, as_json: bool, **how: Any) -> None:
    """Write pictures of .rec files as files in a new folder.

    Each file has the bytes of its record, and the ending of its format; nothing is encoded anew. Give --keys,
    --triplets or --suspects. A triplet has a folder with its anchor, positive and negative, and a finding one
    with its suspects and the evidence.
    """
    given = [f"--{name}" for name in ("keys", "triplets", "suspects") if how[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --keys, --triplets and --suspects")

    from fasttriplet.run._export import export as run  # noqa: PLC0415  not for --help

    with display() as shown:
        shown.update("indexing")
        done = run(options.one_or_several(rec), out, progress=partial(shown.update, "writing"), **how)
    if as_json:
        show.as_json({"folder": done.folder, "pictures": done.pictures})
    else:
        click.echo(f"{done.folder}: {counted(done.pictures, 'picture')}")
