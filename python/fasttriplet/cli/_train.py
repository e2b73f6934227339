"""``fasttriplet train``: train an MXNet network with the triplet loss."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli._progress import Display, display

if TYPE_CHECKING:
    from fasttriplet.training import Trained

_RATE = options.Number(0, 1e6)
_SHARE = options.Number(0, 1)


def _steps(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError:
        message = f"{value!r} is not whole numbers between commas, such as 1000,2000"
        raise click.BadParameter(message, ctx, param) from None


_network = options.together(
    click.option("--network", metavar="NAME", help="Network to train: small or mobilefacenet."),
    click.option(
        "--symbol",
        type=click.Path(),
        metavar="JSON",
        help="MXNet symbol to train instead of a --network. Its input is called data: RGB, 0 to 255.",
    ),
    click.option("--pretrained", metavar="PREFIX,EPOCH", help="Checkpoint to take the first weights from."),
    click.option(
        "--embedding-size", default=128, type=options.Whole(), help="Numbers per embedding of a --network."
    ),
)
_descent = options.together(
    click.option(
        "--batch-size",
        default=60,
        type=options.Whole(),
        help="Images of a batch on each device; a multiple of 3.",
    ),
    click.option(
        "--loss",
        default="squared",
        type=click.Choice(["squared", "angular"]),
        help="Distance in the loss: squared L2, or the angle (InsightFace's triplet and atriplet).",
    ),
    click.option(
        "--loss-margin",
        type=options.Number(min=0),
        help="Margin of the loss, on the scale of --loss. By default the number given as --margin.",
    ),
    click.option("--learning-rate", default=0.05, type=_RATE, help="Learning rate of the first batches."),
    click.option(
        "--lr-steps",
        default="100000,160000,220000",
        callback=_steps,
        metavar="BATCHES,...",
        help="Multiply the learning rate by --lr-factor after these batches.",
    ),
    click.option("--lr-factor", default=0.1, type=_SHARE, help="Factor for --lr-steps."),
    click.option("--momentum", default=0.9, type=_SHARE, help="Momentum of the gradient descent."),
    click.option("--weight-decay", default=5e-4, type=_RATE, help="Weight decay of the gradient descent."),
)
_augment = options.together(
    click.option("--mirror/--no-mirror", default=True, help="Swap left and right in half of the images."),
    click.option(
        "--cutoff",
        default=0,
        type=options.Whole(0),
        help="Side in pixels of a square that is blanked out in each image; 0 for none.",
    ),
    click.option(
        "--color-jitter",
        default=0.0,
        type=_SHARE,
        help="Most relative change of brightness, contrast and saturation.",
    ),
)
_watch = options.together(
    click.option(
        "--verify-on",
        multiple=True,
        type=click.Path(),
        metavar="FILE.bin",
        help="A .bin file of pairs to verify the network on, such as lfw.bin; repeatable.",
    ),
    click.option(
        "--verify-every",
        default=2000,
        type=options.Whole(),
        metavar="BATCHES",
        help="Batches from one verification to the next. The first is at the start, the last at the end.",
    ),
    click.option(
        "--checkpoint-every",
        default=1000,
        type=options.Whole(),
        metavar="BATCHES",
        help="Batches from one checkpoint to the next.",
    ),
    click.option(
        "--log-every",
        default=20,
        type=options.Whole(),
        metavar="BATCHES",
        help="Batches from one line of the log to the next.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(),
        metavar="FOLDER",
        help="Folder for TensorBoard's event files (needs tensorboardX).",
    ),
)


@click.command()
@options.rec(required=False)
@click.option(
    "--out",
    required=True,
    metavar="PREFIX",
    type=click.Path(),
    help="Start of the names of all files: the networks (last and best), the state and the log.",
)
@_network
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a stopped run, with the options that it had unless others are given; the result is "
    "bit-identical to that of a run without a stop.",
)
@click.option("--batches", default=240_000, type=options.Whole(), help="Batches to train for in all.")
@_descent
@options.mining
@options.bags
@_augment
@options.on_error
@options.seed
@_watch
@options.devices
@options.resources
@options.as_json
@options.renamed("--positives", now="--pairs")
@click.pass_context
def train(ctx: click.Context, /, *, out: str, resume: bool, as_json: bool, **given: Any) -> None:
    """Train an MXNet network with the triplet loss.

    It trains on triplets that it mines itself, bag by bag, on the scale of --metric, by default squared L2.
    """
    if not resume and not given["rec"]:
        raise click.UsageError("--rec is missing: the .rec file to train on")
    if not resume and (given["network"] is None) == (given["symbol"] is None):
        raise click.UsageError("give either --network or --symbol")
    if given["symbol"] is not None and _is_set(ctx, "embedding_size"):
        raise click.UsageError("--embedding-size is for --network; a --symbol has its own")

    from fasttriplet.training import TrainSettings, options_at, train_rec  # noqa: PLC0415  takes a second

    deciding = {field.name for field in fields(TrainSettings)}
    if resume:
        settings, how = options_at(out)
        given = {name: value for name, value in given.items() if _is_set(ctx, name)}
        if "network" in given or "symbol" in given:
            given = {"network": None, "symbol": None} | given
        settings = replace(settings, **{name: given.pop(name) for name in deciding & given.keys()})
        how |= given
    else:
        settings = TrainSettings(**{name: given.pop(name) for name in deciding & given.keys()})
        how = given
    with display() as shown:
        try:
            done = train_rec(settings, out, **how, resume=resume, progress=_Log(shown))
        except (KeyboardInterrupt, SystemExit):
            if Path(f"{out}-state.npz").exists():
                shown.say(f"To resume: fasttriplet train --out {shlex.quote(out)} --resume")
            raise
    if as_json:
        plain = {"batches": done.batches, "last": done.last, "best": done.best, "best_batch": done.best_batch}
        show.as_json(plain | {"summary": done.summary.to_dict()})
    else:
        _print(done, out)


def _is_set(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


class _Log:
    """Shows the records of a training as lines, and how far it is."""

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self._batches = 0  # in all

    def __call__(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "embedded":
            self._shown.update("embedding a bag", record["images"])
            return
        self._batches = record.get("batches", self._batches)
        self._shown.say(_LINE[record["kind"]](record, self._batches))
        self._shown.update("training", record["batch"], self._batches, unit="batches")


def _start(record: Mapping[str, Any], batches: int) -> str:
    height, width = record["image_size"]
    return (
        f"{record['images']:,} images of {record['identities']:,} identities, {height} x {width}, on "
        f"{', '.join(record['devices'])}; batch {record['batch']:,} of {batches:,}"
        + (": nothing to do, give more --batches" if record["batch"] >= batches else "")
    )


def _train(record: Mapping[str, Any], batches: int) -> str:
    return (
        f"batch {record['batch']:,} of {batches:,}  epoch {record['epoch']}  loss {record['loss']:.4f}  "
        f"active {record['active']:.0%}  norm {record['norm']:.2f}  learning rate "
        f"{record['learning_rate']:g}  {record['images_per_second']:,.0f} images/s"
    )


def _verification(record: Mapping[str, Any], batches: int) -> str:  # noqa: ARG001  one of _LINE
    known = {"AUC": record["auc"], "TAR at FAR 0.001": record["tar"].get("0.001")}
    more = "".join(f", {name} {value:.4f}" for name, value in known.items() if value is not None)
    accuracy = f"accuracy {record['accuracy']:.3%} ± {record['accuracy_std']:.3%}"
    return f"batch {record['batch']:,}  {Path(record['pairs']).name}: {accuracy}{more}"


_LINE = {"start": _start, "train": _train, "verification": _verification}


def _print(done: Trained, out: str) -> None:
    summary = done.summary
    rows = {
        "batches": f"{done.batches:,}, {summary.batches:,} of them now",
        "bags": f"{summary.bags:,} of {summary.images:,} images",
        "triplets": f"{summary.triplets:,}",
        "last network": done.last,
    }
    if done.best is not None:
        rows["best network"] = f"{done.best} (after batch {done.best_batch:,})"
    show.facts(rows | {"log": f"{out}-log.jsonl"})
    if summary.seconds:
        show.timeline(summary)
    show.left_out(summary)
