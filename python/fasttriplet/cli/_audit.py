"""``fasttriplet audit``: what is wrong with a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fasttriplet._words import counted
from fasttriplet.auditing._options import AuditOptions, PictureOptions
from fasttriplet.auditing._thresholds import LabelOptions
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display
from fasttriplet.dataset._options import DatasetOptions, Kind

if TYPE_CHECKING:
    from fasttriplet.auditing._audit import Audit

PAGE = "audit.html"
F = TypeVar("F", bound=Callable[..., Any])

_COSINE = types.Number(min=-1, max=1)
_TEXTS = {
    "other_above": ("Mislabelled: least cosine with another identity.", _COSINE),
    "lead": ("Mislabelled: by how much that exceeds the cosine with the own identity.", types.Number(0, 2)),
    "own_below": ("Outlier: the cosine with its own identity is below this.", _COSINE),
    "same_person_above": (
        "Same person: least likeness of two identities; 1 is that of two halves of one.",
        _COSINE,
    ),
    "two_people_below": ("Two people: the likeness of two groups of an identity is below this.", _COSINE),
    "smallest_group": ("Two people: images that a group must have.", types.Whole(2)),
    "contrast_below": ("Bad picture: nearly uniform, in gray levels (0 to 255).", types.Number(min=0)),
    "brightness_below": ("Bad picture: dark, in gray levels (0 to 255).", types.Number(min=0)),
    "sharpness_below": ("Bad picture: blurred, detail as a multiple of contrast.", types.Number(min=0)),
    "copies_above": ("Duplicate: least correlation of the details of two pictures.", types.Number(0, 1)),
}


def _thresholds(command: F) -> F:
    names = (*LabelOptions.names(), *PictureOptions.names())
    made = (
        options.option(name, _TEXTS[name][0], getattr(AuditOptions, name), _TEXTS[name][1]) for name in names
    )
    return options.together(*made)(command)


@click.command(
    epilog="The thresholds of mislabelled images, outliers, identities and bad pictures are calibrated from "
    "the dataset, unless they are given."
)
@options.rec(required=True)
@options.model(required=True)
@click.option(
    "--out",
    required=True,
    type=types.PATH,
    metavar="FOLDER",
    help="Folder for the results: audit.html to look at, suspects.parquet, identities.parquet, and the "
    "embeddings, which a later audit of the same dataset with the same model uses again.",
)
@options.overwrite
@click.option(
    "--kinds",
    metavar="KIND,...",
    type=types.Kinds(),
    help="Kinds of findings to look for, between commas: mislabelled, outlier, same-person, two-people, "
    "duplicate, bad-picture. By default all.",
)
@_thresholds
@options.threads
@options.as_json
def audit(
    *,
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    out: Path,
    overwrite: bool,
    kinds: tuple[Kind, ...] | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Find wrong labels, duplicates and bad pictures in .rec files.

    Finds images with wrong labels (mislabelled), images that fit no identity (outlier), identities that are
    one (same-person), identities that are several (two-people), pictures that occur twice (duplicate), and
    pictures that cannot be decoded or show nothing (bad-picture). Nothing in the dataset is changed.
    """
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help
    from fasttriplet.auditing._audit import IDENTITIES, SUSPECTS  # noqa: PLC0415
    from fasttriplet.auditing._audit import audit as run  # noqa: PLC0415
    from fasttriplet.dataset._dataset import Dataset  # noqa: PLC0415
    from fasttriplet.reporting._report import report  # noqa: PLC0415

    for name in (SUSPECTS, IDENTITIES, PAGE):  # before a model is loaded
        check_can_be_written(out / name, overwrite=overwrite)
    with display() as shown:
        embedder = options.load_model(shown, model, devices, batch_size)
        shown.update("indexing")
        opened = {name: how.pop(name) for name in DatasetOptions.names()}
        dataset = Dataset(options.one_or_several(rec), threads=how["threads"], **opened)
        found = run(
            dataset,
            model=embedder,
            out=out,
            overwrite=overwrite,
            kinds=kinds,
            progress=shown.update,
            **how,
        )
        shown.update("writing the page")
        report(out / PAGE, rec=dataset, audit=out, overwrite=overwrite)
    for note in found.notes:
        click.echo(f"fasttriplet: {note}", err=True)
    if as_json:
        show.as_json(found.to_dict())
    else:
        _print(found)


def _print(found: Audit) -> None:
    from fasttriplet.auditing._audit import IDENTITIES, SUSPECTS  # noqa: PLC0415

    undecodable = f", of which {found.undecodable:,} cannot be decoded" if found.undecodable else ""
    people = counted(found.identities.height, "identity")
    show.facts(
        {
            "dataset": f"{counted(found.images, 'image')} of {people}{undecodable}",
            "embeddings": found.embedder,
        }
    )
    headings = ["kind", "findings", "images", "relabel", "drop", "keep"]
    rows: dict[str, list[str]] = {
        kind: [f"{number:,}" if number else "-" for number in counts.values()]
        for kind, counts in found.counts().items()
    }
    show.table(show.columns("Findings", headings, rows), show.columns("Findings", headings, rows, padding=0))
    show.facts(dict(found.decided_by))
    click.echo(
        f"Suspects are in {found.folder / SUSPECTS}, identities in {found.folder / IDENTITIES}. To look at "
        f"them, open {found.folder / PAGE} in a browser"
    )
