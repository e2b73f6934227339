"""``fasttriplet demo``: a first run, on a dataset that draws itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.demo import Demo

_UNITS = {"training": "batch", "drawing sheets": "sheet"}  # of its steps; all others count images


@click.command()
@options.option(
    "out",
    "Folder for all files: a new one, an empty one, or with --overwrite that of an earlier demo.",
    "demo",
    types.PATH,
)
@options.overwrite
@options.option("identities", "Characters to draw for training.", 60, types.Whole(2))
@options.option("images", "Images to draw of each character.", 20, types.Whole(2))
@options.option("batches", "Batches to train for.", 400)
@options.seed
@options.threads
def demo(*, out: Path, **how: Any) -> None:
    """Draw a small dataset, train on it, and mine it.

    A first run: an MXNet network is trained and verified on other characters, then it mines the dataset.
    Without MXNet, the pixels are mined. A page, report.html, shows all of it.
    """
    from fasttriplet.demo import run_demo  # noqa: PLC0415  polars takes 0.2 s: not for --help

    with display(announce=True) as shown:

        def progress(step: str, done: int, total: int) -> None:
            shown.update(step, done, total or None, unit=_UNITS.get(step, "image"))

        made = run_demo(out, progress=progress, **how)
    show.summary(made.summary)
    if made.verifications:
        _print_verifications(made)
    _print_files(made)


def _print_verifications(made: Demo) -> None:
    rows = {}
    for when, found in zip(("before the training", "after it"), made.verifications, strict=True):
        tar = found["tar"].get("0.01")
        rows[when] = [f"{found['accuracy']:.1%}", f"{found['auc']:.4f}", "" if tar is None else f"{tar:.1%}"]
    title = "Pairs of characters that the network was not trained on"
    headings = ["", "accuracy", "AUC", "TAR at FAR 0.01"]
    turned = {name: list(of) for name, *of in zip(headings[1:], *rows.values(), strict=True)}
    show.table(show.columns(title, headings, rows), show.columns(title, ["", "before", "after"], turned))


def _print_files(made: Demo) -> None:
    rows = {"dataset": f"{made.rec} (with .idx and property)", "pairs of other characters": str(made.pairs)}
    if made.no_network is None:
        prefix = made.model.removeprefix("mxnet:").removesuffix(",0")
        rows["network"] = f"{prefix}-symbol.json, {prefix}-0000.params"
        rows["its training"] = f"{prefix}-log.jsonl"
    rows |= {
        "triplets": str(made.triplets),
        "pictures of the dataset": str(made.contact_sheet),
        "pictures of triplets": str(made.triplet_sheet),
        "a page on all of it": str(made.report),
    }
    show.facts(rows)
    if made.no_network is not None:
        click.echo(f"Embedded with the pixels themselves, without a network: {made.no_network}")
    click.echo(f"{made.seconds:.1f} s in all. Next:")
    for what, arguments in next_commands(made).items():
        click.echo(f"\n  # {what}\n  {show.program()} {shlex.join(arguments)}")


def next_commands(made: Demo) -> dict[str, list[str]]:
    """What to try after the demo: what for, and the arguments of ``fasttriplet``.

    They run in this order, in the folder where the demo ran, if a folder `photos` is there.
    """
    unseen = made.pairs.with_suffix(".rec")
    nearest = ("--images-per-identity", 20, "--pick", "hardest", "--out", unseen.with_suffix(".parquet"))
    found: dict[str, tuple[object, ...]] = {
        "what is in the dataset": ("index", "--rec", made.rec),
        "the nearest negatives among other characters": (
            *("mine", "--rec", unseen, "--model", made.model, *nearest),
        ),
        "how well the model tells those apart": ("verify", "--rec", unseen, "--model", made.model),
        "your own pictures, which lie in photos/NAME/": ("pack", "photos", "photos.rec", "--size", 112),
    }
    if made.no_network is None and "batch" in made.verifications[-1]:  # it did not run out of triplets
        prefix, batches = (
            made.model.removeprefix("mxnet:").removesuffix(",0"),
            made.verifications[-1]["batch"],
        )
        more = ("train", "--out", prefix, "--resume", "--batches", 2 * batches, "--verify-on", made.pairs)
        found[f"train for {batches:,} more batches"] = more
    return {what: list(map(str, words)) for what, words in found.items()}
