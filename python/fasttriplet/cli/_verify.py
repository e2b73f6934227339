"""``fasttriplet verify``: how well a model tells same from different."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._extras import how_to_install
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.verify._protocol import Verification


@click.command()
@click.option(
    "--pairs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A .bin file of pairs, such as lfw.bin; repeatable.",
)
@options.rec(required=False)
@options.model(required=True)
@options.pairs_per_kind
@options.seed
@options.option("recall", "Embed all images of --rec and look for the nearest neighbour of each.", True)
@options.option("flip", "Add the embedding of the mirrored image.", True)
@options.option(
    "roc",
    "Picture of the ROC curve to draw (needs matplotlib).",
    kind=options.OUTPUT,
    metavar="OUT.png|.svg",
    callback=options.ends_in(".png", ".svg"),
)
@options.threads
@options.as_json
def verify(
    *,
    pairs: tuple[Path, ...],
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    flip: bool,
    threads: int | None,
    roc: Path | None,
    as_json: bool,
    **of_rec: Any,
) -> None:
    """Measure how well a model tells same from different.

    Give either --pairs or --rec; from --rec, pairs are drawn. An image and its mirror image are embedded,
    added and normalised; distances are squared L2, 0 to 4. The accuracy is the mean over 10 folds, each with
    the threshold that is best on the other nine.
    """
    if bool(pairs) == bool(rec):
        raise click.UsageError("give either --pairs or --rec")
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help

    if roc is not None:  # before minutes of embedding
        _figure()
        check_can_be_written(roc)
    embedder = options.load_model(model, devices, batch_size)
    from fasttriplet.verify._run import verify_pairs, verify_rec  # noqa: PLC0415

    found: dict[str, Verification] = {}
    with display() as shown:
        for path in pairs:
            progress = partial(shown.update, path.name)
            found[str(path)] = verify_pairs(path, embedder, flip=flip, threads=threads, progress=progress)
        if rec:
            dataset, progress = options.one_or_several(rec), partial(shown.update, rec[0].name)
            found[" ".join(map(str, rec))] = verify_rec(
                dataset, embedder, flip=flip, threads=threads, progress=progress, **of_rec
            )
    if as_json:
        results: list[dict[str, Any]] = [{"file": name} | one.to_dict() for name, one in found.items()]
        show.as_json({"model": embedder.description, "results": results})
    else:
        for name, one in found.items():
            click.echo(name)  # not in the table: a long path would be broken
            show.facts({"embeddings": embedder.description} | _facts(one, asked_flip=flip))
    if roc is not None:
        _draw(found, roc)
        click.echo(f"The ROC curve is in {roc}", err=True)


def _facts(found: Verification, *, asked_flip: bool) -> dict[str, str]:
    mirrored = "added" if found.flip else "not used"
    if asked_flip and not found.flip:
        mirrored = "not used: the embeddings were computed before"
    rows = {
        "images": f"{found.images:,}",
        "mirror images": mirrored,
        "pairs": f"{found.pairs:,}: {found.genuine:,} genuine, {found.impostors:,} impostor",
        "accuracy": f"{found.accuracy:.3%} ± {found.accuracy_std:.3%} (10 folds)",
        "best threshold": f"{found.threshold:.2f} (squared L2)",
    }
    if found.auc is None:
        kind = "genuine" if found.genuine else "impostors"
        rows["AUC, TAR"] = f"undefined: all pairs are {kind}"
    else:
        rows["AUC"] = f"{found.auc:.6f}"
    for far, tar in found.tar.items():
        rows[f"TAR at FAR {far:g}"] = f"{tar:.3%}"
    if found.auc is not None and 1e-6 not in found.tar:
        rows["  lower FAR"] = f"left out: {found.impostors:,} impostor pairs are too few"
    rows["XNorm"] = f"{found.xnorm:.4f}"
    if found.recall_at_1 is not None:
        rows["recall@1"] = f"{found.recall_at_1:.3%} of {found.recall_images:,} images"
    return rows


def _figure() -> Any:
    """The class of matplotlib's figures: without pyplot there is no window and nothing global."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError(f"--roc needs matplotlib ({error}). {how_to_install('plot')}") from error


def _draw(found: Mapping[str, Verification], path: Path) -> None:
    from fasttriplet._files import replacing  # noqa: PLC0415

    figure = _figure()(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    lowest, missed = 1.0, 0.01
    for name, one in found.items():
        try:
            far, tar = one.roc()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        lowest = min(lowest, 1 / one.impostors)
        missed = max(missed, 1 - float(tar[far <= 1 / one.impostors].max()))
        # A rate between two points is not reached: the curve is a staircase.
        axes.plot(far, tar, drawstyle="steps-post", label=f"{Path(name).name}, AUC {one.auc:.4f}")
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(1 - 1.1 * missed, 1))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="lower right")
    kind = path.suffix.lower().removeprefix(".")
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=kind, dpi=150)
