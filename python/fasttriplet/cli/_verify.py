"""``fasttriplet verify``: how well a model tells same from different."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet._extras import how_to_install
from fasttriplet._words import counted, prefixing
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.verify._protocol import Verification


@click.command()
@click.option(
    "--pairs",
    multiple=True,
    type=types.PATH,
    help="A .bin file of pairs, such as lfw.bin; repeatable.",
)
@options.rec(required=False)
@options.model(required=True)
@options.pairs_per_kind
@options.seed
@options.option(
    "folds",
    "Parts into which the pairs are cut to measure the accuracy. There must be at least as many pairs.",
    10,
    types.Whole(2),
)
@options.option("recall", "Embed all images of --rec and look for the nearest neighbour of each.", True)
@options.option("flip", "Add the embedding of the mirrored image.", True)
@options.option(
    "roc",
    "Picture of the ROC curve to draw (needs matplotlib).",
    kind=types.PATH,
    metavar="OUT.png|.svg",
    callback=options.ends_in(".png", ".svg"),
)
@options.overwrite
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
    folds: int,
    threads: int | None,
    roc: Path | None,
    overwrite: bool,
    as_json: bool,
    **of_rec: Any,
) -> None:
    """Measure how well a model tells same from different.

    Give either --pairs or --rec; from --rec, pairs are drawn. An image and its mirror image are embedded,
    added and normalised; distances are squared L2, 0 to 4. The accuracy is the mean over --folds parts of the
    pairs, each with the threshold that is best on the other parts.
    """
    if bool(pairs) == bool(rec):
        raise click.UsageError("give either --pairs or --rec")
    if pairs:
        options.refuse_what_goes_with_rec()
    if overwrite and roc is None:
        raise click.UsageError("--overwrite goes with --roc")
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help

    if roc is not None:  # before minutes of embedding
        _figure()
        check_can_be_written(roc, overwrite=overwrite)
    found: dict[tuple[Path, ...], Verification] = {}
    with display() as shown:
        embedder = options.load_model(shown, model, devices, batch_size)
        from fasttriplet.verify._run import verify_pairs, verify_rec  # noqa: PLC0415

        for path in pairs:
            _check(path, folds, for_roc=roc is not None)
        for path in pairs:
            progress = partial(shown.update, path.name)
            found[path,] = verify_pairs(
                path,
                embedder,
                folds=folds,
                flip=flip,
                threads=threads,
                max_pixels=of_rec["max_pixels"],
                progress=progress,
            )
        if rec:
            dataset, progress = options.one_or_several(rec), partial(shown.update, rec[0].name)
            found[rec] = verify_rec(
                dataset, embedder, folds=folds, flip=flip, threads=threads, progress=progress, **of_rec
            )
    if as_json:
        results = [_plain(of, one) for of, one in found.items()]
        show.as_json({"model": embedder.description, "results": results})
    else:
        for of, one in found.items():
            click.echo(_named(of))  # not in the table: a long path would be broken
            show.facts({"embeddings": embedder.description} | _facts(one, asked_flip=flip))
    if roc is not None:
        _draw(found, roc, overwrite=overwrite)
        click.echo(f"The ROC curve is in {roc}", err=True)


def _plain(paths: tuple[Path, ...], found: Verification) -> dict[str, Any]:
    """One result for ``--json``."""
    from fasttriplet.verify._details import details  # noqa: PLC0415

    return {"file": _named(paths), "files": list(map(str, paths))} | found.to_dict() | details(found)


def _check(path: Path, folds: int, *, for_roc: bool) -> None:
    """Find out what is wrong with a file, before the files ahead of it are embedded."""
    from fasttriplet.verify._examine import read_for_folds  # noqa: PLC0415
    from fasttriplet.verify._protocol import check_for_roc  # noqa: PLC0415

    _, same = read_for_folds(path, folds)
    if for_roc:
        with prefixing(str(path)):
            check_for_roc(same)


def _named(paths: tuple[Path, ...]) -> str:
    return " ".join(map(str, paths))


def _facts(found: Verification, *, asked_flip: bool) -> dict[str, str]:
    from fasttriplet.verify._protocol import why_no_accuracy  # noqa: PLC0415

    mirrored = "added" if found.flip else "not used"
    if asked_flip and not found.flip:
        mirrored = "not used: the embeddings were computed before"
    rows = {
        "images": f"{found.images:,}",
        "mirror images": mirrored,
        "pairs": f"{found.pairs:,}: {found.genuine:,} genuine, {found.impostors:,} impostor",
    }
    why = why_no_accuracy(found.same, found.folds)
    if found.auc is None:
        rows["accuracy, AUC, TAR"] = f"undefined: {why}"
    else:
        accuracy = f"undefined: {why}"
        if found.accuracy is not None:
            accuracy = f"{found.accuracy:.3%} ± {found.accuracy_std:.3%} ({found.folds} folds)"
        rows |= {
            "accuracy": accuracy,
            "best threshold": f"{found.threshold:.2f} (squared L2)",
            "AUC": f"{found.auc:.6f}",
        }
    for far, tar in found.tar.items():
        rows[f"TAR at FAR {far:g}"] = f"{tar:.3%}"
    if found.auc is not None and 1e-6 not in found.tar:
        too_few = "is" if found.impostors == 1 else "are"
        left_out = "  lower FAR" if found.tar else "TAR at FAR"
        rows[left_out] = f"left out: {counted(found.impostors, 'impostor pair')} {too_few} too few"
    rows["XNorm"] = f"{found.xnorm:.4f}"
    if found.recall_at_1 is not None:
        rows["recall@1"] = f"{found.recall_at_1:.3%} of {found.recall_images:,} images"
    if found.warning is not None:
        rows["warning"] = found.warning
    return rows


def _figure() -> Any:
    """The class of matplotlib's figures: without pyplot there is no window and nothing global."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError(f"--roc needs matplotlib ({error}). {how_to_install('plot')}") from error


def _draw(found: Mapping[tuple[Path, ...], Verification], path: Path, *, overwrite: bool) -> None:
    from fasttriplet._files import replacing  # noqa: PLC0415

    figure = _figure()(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    # A logarithmic axis has no 0: it begins where one impostor pair is accepted, or at 0.1 if that is less.
    left = min(0.1, *(1 / one.impostors for one in found.values()))
    bottom = 0.99
    for of, one in found.items():
        far, tar = one.roc()
        begin = far.searchsorted(left, side="right") - 1  # where the left edge cuts the curve
        bottom = min(bottom, 1 - 1.1 * (1 - float(tar[begin])))
        label = f"{' '.join(file.name for file in of)}, AUC {one.auc:.4f}"
        # A rate between two points is not reached: the curve is a staircase. It may run along the frame.
        shown = far[begin:].clip(left), tar[begin:]
        axes.plot(*shown, drawstyle="steps-post", label=label, clip_on=False, zorder=3)
    axes.set(xscale="log", xlim=(left, 1), ylim=(max(0.0, bottom), 1))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="best")
    kind = path.suffix.lower().removeprefix(".")
    with replacing(path, overwrite=overwrite) as unfinished:
        figure.savefig(unfinished, format=kind, dpi=150)
