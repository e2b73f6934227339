"""``fasttriplet index``: what is in a ``.rec``."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli._progress import display
from fasttriplet.dataset._options import IndexOptions

if TYPE_CHECKING:
    from fasttriplet.dataset._index import Inspection
    from fasttriplet.dataset._options import Cache, Labels

_PROBLEMS_SHOWN = 10
_COUNTS_SHOWN = 4  # of labels per image
_QUANTILES = {"fewest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@click.command()
@options.rec(required=True, of=IndexOptions)
@options.threads
@options.as_json
def index(
    *, rec: tuple[Path, ...], labels: Labels | None, cache: Cache, threads: int | None, as_json: bool
) -> None:
    """Show what is in .rec files.

    Each file is indexed, and its problems are listed: the first ten, or all with --json. Several files are
    shown one by one, with what --labels separate adds to the labels of each.
    """
    from fasttriplet.dataset._index import inspect_rec, paths_of  # noqa: PLC0415  polars takes 0.2 s: not for --help
    from fasttriplet.dataset._numbering import Numbering, doubt, label_shifts  # noqa: PLC0415
    from fasttriplet.errors import RecordWarning  # noqa: PLC0415

    numberings: list[Numbering] = []
    for path in paths_of(rec)[0]:
        with display() as shown:
            shown.update(f"indexing {path.name}")
            found = inspect_rec(path, cache=cache, threads=threads)
        numberings.append(Numbering.of(found.path, found.layout, found.index))
        shift = label_shifts(numberings)[-1] if labels == "separate" else 0
        facts = _facts(found) | {"label_shift": shift}
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
        "label_range": found.label_range,
        "object_images": found.object_images,
        "idx_used": found.idx_used,
        "problems": list(found.problems),
    }


def _print(facts: dict[str, Any]) -> None:
    from rich.filesize import decimal  # noqa: PLC0415

    fewest, low, median, high, most = (f"{n:,.0f}" for n in facts["images_per_identity"].values())
    rows = {
        "size": decimal(facts["bytes"]),
        "layout": f"{facts['layout']} ({counted(facts['identity_records'], 'identity record')})",
        "records": f"{facts['records']:,}",
        "images": f"{facts['images']:,} ({decimal(facts['image_bytes'])} encoded)",
        "identities": f"{facts['identities']:,} ({facts['single_image_identities']:,} with one image)",
        "labels": _labels(facts),
        "images per identity": fewest
        if fewest == most
        else f"median {median}; {fewest} to {most}, and 90 % have {low} to {high}",
        ".idx": "used" if facts["idx_used"] else "not used: the records were found in the .rec",
        "problems": _first(facts["problems"]) or "none found",
    }
    click.echo(facts["file"])  # not in the table: a long path would be broken
    show.facts(rows)


def _labels(facts: dict[str, Any]) -> str:
    images: Counter[int] = Counter()
    for flag, count in facts["images_by_flag"].items():
        images[max(flag, 1)] += count  # 0: one, in the header itself
    (low, high), shift = facts["label_range"], facts["label_shift"]
    if len(images) == 1:
        counts = f"{min(images)} per image"
    elif len(images) <= _COUNTS_SHOWN:
        counts = ", ".join(f"{labels} in {count:,}" for labels, count in sorted(images.items())) + " images"
    else:
        counts = f"{min(images)} to {max(images)} per image"
    values = f"{low}" if low == high else f"{low} to {high}"
    if shift:
        values += f", shifted to {low + shift} to {high + shift}"
    if max(images) == 1:
        return f"{counts}; {values}"
    objects = facts["object_images"]
    unless = f", except in {counted(objects, 'image')} labelled for object detection" if objects else ""
    return f"{counts}; the first, {values}, is the identity{unless}"


def _first(problems: list[str]) -> str:
    shown = problems[:_PROBLEMS_SHOWN]
    if more := len(problems) - len(shown):
        shown.append(f"... and {more:,} more lines: --json has them all")
    return "\n".join(shown)
