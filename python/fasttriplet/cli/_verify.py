"""``fasttriplet verify``: how well a model tells same from different."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttriplet.cli import _show as show

if TYPE_CHECKING:
    from fasttriplet.verify._protocol import Verification

_COUNT = click.IntRange(1, 2**31 - 1)
_LINE_EVERY = 5.0  # seconds between lines of progress where stderr is no terminal
_PICTURES = (".png", ".svg")


def _picture(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{value}: the name must end in {' or '.join(_PICTURES)}", ctx, param)
    return value


@click.command(context_settings={"show_default": True})
@click.option(
    "--pairs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A .bin file of pairs, such as lfw.bin; repeatable.",
)
@click.option(
    "--rec",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Instead: the .rec file to draw pairs from; several are shards of one dataset.",
)
@click.option(
    "--model",
    required=True,
    help="What embeds the images: mxnet:PREFIX,EPOCH, npy:FILE (with --rec; rows in key order), or pixels, a "
    "baseline without a model.",
)
@click.option(
    "--pairs-per-kind", default=6000, type=_COUNT, help="With --rec: genuine pairs, and as many impostors."
)
@click.option(
    "--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="With --rec: of the pairs that are drawn."
)
@click.option(
    "--recall/--no-recall",
    default=True,
    help="With --rec: embed all images, and look for the nearest of each.",
)
@click.option("--flip/--no-flip", default=True, help="Add the embedding of the mirrored image.")
@click.option(
    "--roc",
    metavar="OUT.png|.svg",
    callback=_picture,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the ROC curve (needs matplotlib).",
)
@click.option("--threads", type=_COUNT, help="By default one for each core.")
@click.option(
    "--devices", help="Where an MXNet model runs: cpu, gpu or gpu:0,2. By default all GPUs or the CPU."
)
@click.option("--batch-size", type=_COUNT, help="Images per forward pass of a model.")
@click.option("--json", "as_json", is_flag=True, help="The results as one JSON object on stdout.")
def verify(
    *,
    pairs: tuple[Path, ...],
    rec: tuple[Path, ...],
    model: str,
    pairs_per_kind: int,
    seed: int,
    recall: bool,
    flip: bool,
    roc: Path | None,
    threads: int | None,
    devices: str | None,
    batch_size: int | None,
    as_json: bool,
) -> None:
    """Measure how well a model tells same from different.

    An image and its mirror image are embedded, added and normalised; distances are squared L2, 0 to 4. The
    accuracy is the mean over 10 folds, each with the threshold that is best on the other nine.
    """
    if bool(pairs) == bool(rec):
        raise click.UsageError("give either --pairs or --rec")
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help

    if roc is not None:  # before minutes of embedding
        _figure()
        check_can_be_written(roc)
    from fasttriplet.embedders import load_embedder  # noqa: PLC0415  polars takes 0.2 s: not for --help
    from fasttriplet.errors import SpecError  # noqa: PLC0415
    from fasttriplet.verify._run import verify_pairs, verify_rec  # noqa: PLC0415

    try:
        embedder = load_embedder(model, devices=devices, batch_size=batch_size)
    except SpecError as error:
        raise click.BadParameter(str(error), param_hint="--model") from error
    found: dict[str, Verification] = {}
    for path in pairs:
        with _progress(path.name) as progress:
            found[str(path)] = verify_pairs(path, embedder, flip=flip, threads=threads, progress=progress)
    if rec:
        with _progress(rec[0].name) as progress:
            found[" ".join(map(str, rec))] = verify_rec(
                rec[0] if len(rec) == 1 else rec,
                embedder,
                pairs_per_kind=pairs_per_kind,
                seed=seed,
                flip=flip,
                recall=recall,
                threads=threads,
                progress=progress,
            )
    if as_json:
        results: list[dict[str, Any]] = [{"file": name} | one.to_dict() for name, one in found.items()]
        click.echo(json.dumps({"model": embedder.description, "results": results}))
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


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(name: str) -> Callable[[int, int], None]:
    started = last = time.perf_counter()

    def tell(done: int, total: int) -> None:
        nonlocal started, last
        moment = time.perf_counter()
        if done == 0:  # what came before is reading and indexing
            started = last = moment
        elif moment - last >= _LINE_EVERY:
            last = moment
            rate = done / (moment - started)
            click.echo(f"{name}: {done:,}/{total:,} images, {rate:,.0f} images/s", err=True)

    return tell


def _figure() -> Any:
    """The class of matplotlib's figures: without pyplot there is no window and nothing global."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError(
            f"--roc needs matplotlib ({error}). Install it: pip install 'fasttriplet[plot]'"
        ) from error


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
