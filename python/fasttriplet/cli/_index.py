"""``fasttriplet index``: what is in a ``.rec``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.dataset._index import Inspection

_QUANTILES = {"fewest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@click.command()
@options.rec(required=True)
@options.option("cache", "Keep the index beside the file for later runs.", True)
@options.threads
@options.as_json
def index(*, rec: tuple[Path, ...], cache: bool, threads: int | None, as_json: bool) -> None:
    """Show what is in .rec files.

    Each file is indexed, and what is wrong with it is listed, too.
    """
    from fasttriplet.dataset._index import inspect_rec  # noqa: PLC0415  polars takes 0.2 s: not for --help

    for path in rec:
        with display() as shown:
            shown.update(f"indexing {path.name}")
            facts = _facts(inspect_rec(path, cache=cache, threads=threads))
        if as_json:
            show.as_json(facts)
        else:
            _print(facts)


def _facts(found: Inspection) -> dict[str, Any]:
    counts = found.images_per_identity
    return {
        "file": str(found.path),
        "bytes": found.bytes,
        "layout": found.layout,
        "records": found.records,
        "images": found.images,
        "identities": found.identities,
        "identity_records": found.identity_records,
        "image_bytes": found.image_bytes,
        "images_per_identity": {name: counts.quantile(q, "nearest") for name, q in _QUANTILES.items()},
        "single_image_identities": int((counts == 1).sum()),
        "images_by_flag": found.images_by_flag,
        "idx_used": found.idx_used,
        "problems": list(found.problems),
    }


def _print(facts: dict[str, Any]) -> None:
    from rich.filesize import decimal  # noqa: PLC0415

    spread = ", ".join(f"{name} {count:.0f}" for name, count in facts["images_per_identity"].items())
    rows = {
        "size": decimal(facts["bytes"]),
        "layout": f"{facts['layout']} ({counted(facts['identity_records'], 'identity record')})",
        "records": f"{facts['records']:,}",
        "images": f"{facts['images']:,} ({decimal(facts['image_bytes'])} encoded)",
        "identities": f"{facts['identities']:,} ({facts['single_image_identities']:,} with one image)",
        "images per identity": spread,
        ".idx": "used" if facts["idx_used"] else "not used: the records were found in the .rec",
        "problems": "\n".join(facts["problems"]) or "none found",
    }
    click.echo(facts["file"])  # not in the table: a long path would be broken
    show.facts(rows)
