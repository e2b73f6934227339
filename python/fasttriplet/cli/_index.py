"""``fasttriplet index``: what is in a ``.rec``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show

if TYPE_CHECKING:
    from fasttriplet.dataset._index import Inspection
    from fasttriplet.dataset._options import Cache, Labels

_QUANTILES = {"fewest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@click.command()
@options.rec(required=True)
@options.threads
@options.as_json
def index(
    *, rec: tuple[Path, ...], labels: Labels | None, cache: Cache, threads: int | None, as_json: bool
) -> None:
    """Show what is in .rec files.

    Each file is indexed, and what is wrong with it is listed, too. Several files are shown one by one, with
    the labels that they have together.
    """
    from fasttriplet.dataset._index import inspect_rec, paths_of  # noqa: PLC0415  polars takes 0.2 s: not for --help
    from fasttriplet.dataset._numbering import Numbering, doubt, label_shifts  # noqa: PLC0415
    from fasttriplet.errors import RecordWarning  # noqa: PLC0415

    numberings: list[Numbering] = []
    for path in paths_of(rec)[0]:
        found = inspect_rec(path, cache=cache, threads=threads)
        numberings.append(numbering := Numbering.of(found.path, found.layout, found.index))
        shift = label_shifts(numberings)[-1] if labels == "separate" else 0
        facts = _facts(found) | {"labels": [numbering.first, numbering.last], "label_shift": shift}
        if as_json:
            show.as_json(facts)
        else:
            _print(facts)
    if labels is None and (reason := doubt(numberings)):
        warnings.warn(reason, RecordWarning, stacklevel=2)


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
    first, last = facts["labels"]
    shift = facts["label_shift"]
    rows = {
        "size": decimal(facts["bytes"]),
        "layout": f"{facts['layout']} ({facts['identity_records']:,} identity records)",
        "records": f"{facts['records']:,}",
        "images": f"{facts['images']:,} ({decimal(facts['image_bytes'])} encoded)",
        "identities": f"{facts['identities']:,} ({facts['single_image_identities']:,} with one image)",
        "images per identity": spread,
        "labels": f"{first} to {last}" + (f", shifted to {first + shift} to {last + shift}" if shift else ""),
        ".idx": "used" if facts["idx_used"] else "not used: the records were found in the .rec",
        "problems": "\n".join(facts["problems"]) or "none found",
    }
    click.echo(facts["file"])  # not in the table: a long path would be broken
    show.facts(rows)
