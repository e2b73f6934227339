"""``fasttriplet train``: train an MXNet network with the triplet loss."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fasttriplet.cli import _show as show

if TYPE_CHECKING:
    from fasttriplet.training import Trained

_COUNT = click.IntRange(1, 2**31 - 1)
_RATE = click.FloatRange(0, 1e6)
_SHARE = click.FloatRange(0, 1)
_LINE_EVERY = 5.0  # seconds between lines while a bag is embedded

# Options that say how a training runs; the others decide its outcome, and are those of `TrainSettings`.
_HOW = (
    "batches",
    "verify_every",
    "checkpoint_every",
    "log_every",
    "tensorboard",
    "devices",
    "threads",
    "prefetch",
)


def _steps(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError:
        message = f"{value!r} is not whole numbers between commas, such as 1000,2000"
        raise click.BadParameter(message, ctx, param) from None


@click.command(context_settings={"show_default": True})
@click.option(
    "--rec",
    multiple=True,
    type=click.Path(),
    help="The .rec file to train on; several are shards of one dataset.",
)
@click.option(
    "--out",
    required=True,
    metavar="PREFIX",
    type=click.Path(),
    help="Begins the names of all files: the networks (last and best), the state, the log.",
)
@click.option("--network", metavar="NAME", help="small or mobilefacenet.")
@click.option(
    "--symbol",
    type=click.Path(),
    metavar="JSON",
    help="Instead: an MXNet symbol; its input is data, RGB 0 to 255.",
)
@click.option("--pretrained", metavar="PREFIX,EPOCH", help="A checkpoint to take weights from.")
@click.option("--embedding-size", default=128, type=_COUNT, help="Of a named network.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the training at PREFIX, with the options that it was last run with.",
)
@click.option("--batches", default=240_000, type=_COUNT, help="Where the training ends.")
@click.option("--batch-size", default=60, type=_COUNT, help="Images on each device, a multiple of 3.")
@click.option(
    "--loss",
    default="squared",
    type=click.Choice(["squared", "angular"]),
    help="On squared L2, or on angles (InsightFace's triplet and atriplet).",
)
@click.option("--margin", default=0.3, type=click.FloatRange(min=0), help="Of the loss and of mining.")
@click.option("--learning-rate", default=0.05, type=_RATE)
@click.option(
    "--lr-steps",
    default="100000,160000,220000",
    callback=_steps,
    metavar="BATCHES,...",
    help="Behind so many batches the learning rate is multiplied.",
)
@click.option("--lr-factor", default=0.1, type=_SHARE, help="By this.")
@click.option("--momentum", default=0.9, type=_SHARE)
@click.option("--weight-decay", default=5e-4, type=_RATE)
@click.option("--mirror/--no-mirror", default=True, help="Swap left and right in half of the images.")
@click.option(
    "--cutoff", default=0, type=click.IntRange(0, 2**31 - 1), help="Side of a square that is blanked out."
)
@click.option(
    "--color-jitter", default=0.0, type=_SHARE, help="Change brightness, contrast and saturation so much."
)
@click.option("--images-per-identity", default=5, type=_COUNT, help="Most images of an identity in an epoch.")
@click.option("--bag-size", default=7200, type=_COUNT, help="Images embedded and mined together.")
@click.option(
    "--boundary",
    default="keep",
    type=click.Choice(["keep", "split"]),
    help="Whether a bag may cut an identity in two.",
)
@click.option(
    "--band",
    default="semihard",
    type=click.Choice(["semihard", "violating", "hard", "any"]),
    help="Negatives that qualify, on squared L2. semihard: d_ap < d_an < d_ap + margin; violating: "
    "d_an < d_ap + margin; hard: d_an <= d_ap; any: all of them.",
)
@click.option(
    "--pick",
    default="random",
    type=click.Choice(["random", "hardest", "all"]),
    help="Which of these are taken for each pair.",
)
@click.option(
    "--negatives-per-pair", default=1, type=_COUNT, help="Most negatives that are taken for a pair."
)
@click.option(
    "--positives",
    default="unordered",
    type=click.Choice(["unordered", "ordered", "hardest", "easiest"]),
    help="Each pair once, both ways round, or each anchor's farthest or nearest positive.",
)
@click.option("--max-ap", type=click.FloatRange(min=0), help="Skip pairs with a larger d_ap.")
@click.option(
    "--on-error",
    default="raise",
    type=click.Choice(["raise", "skip"]),
    help="About images that are damaged or of another size: end the run, or leave them out.",
)
@click.option(
    "--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="Of weights, order, picks and changes."
)
@click.option(
    "--pairs", multiple=True, type=click.Path(), help="A .bin file to verify on, such as lfw.bin; repeatable."
)
@click.option(
    "--verify-every",
    default=2000,
    type=_COUNT,
    metavar="BATCHES",
    help="Verify so often, at the start and at the end.",
)
@click.option("--checkpoint-every", default=1000, type=_COUNT, metavar="BATCHES")
@click.option("--log-every", default=20, type=_COUNT, metavar="BATCHES")
@click.option("--tensorboard", type=click.Path(), metavar="FOLDER", help="Event files (needs tensorboardX).")
@click.option("--devices", help="cpu, gpu or gpu:0,2. By default all GPUs or the CPU.")
@click.option("--threads", type=_COUNT, help="By default one for each core.")
@click.option("--prefetch", default=1, type=click.IntRange(0, 1000), help="Bags that are decoded ahead.")
@click.option("--memory", type=_COUNT, metavar="MB", help="Most megabytes of decoded images to hold.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    *,
    rec: tuple[str, ...],
    out: str,
    resume: bool,
    pairs: tuple[str, ...],
    positives: str,
    memory: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train an MXNet network with the triplet loss, on triplets that it mines itself.

    A training that was stopped is gone on with by --resume, and ends with the same numbers as one that was
    not.
    """
    how = {name: options.pop(name) for name in _HOW} | {"verify_on": pairs}
    how["memory"] = None if memory is None else memory * 10**6
    decide = options | {"rec": rec, "pairs": positives}
    if not resume and not rec:
        raise click.UsageError("--rec is missing: the .rec file to train on")
    if not resume and (decide["network"] is None) == (decide["symbol"] is None):
        raise click.UsageError("give either --network or --symbol")
    if decide["symbol"] is not None and _given(ctx, "embedding_size"):
        raise click.UsageError("--embedding-size is for --network; a --symbol has its own")

    from fasttriplet.training import TrainSettings, options_at, train_rec  # noqa: PLC0415  takes a second

    if resume:
        before, how_before = options_at(out)
        given = {name: value for name, value in decide.items() if _given(ctx, _SETTING.get(name, name))}
        if "network" in given or "symbol" in given:
            given = {"network": None, "symbol": None} | given
        settings = replace(before, **given)
        how = how_before | {
            name: value for name, value in how.items() if _given(ctx, _OPTION.get(name, name))
        }
    else:
        settings = TrainSettings(**decide)
    try:
        done = train_rec(settings, out, **how, resume=resume, progress=_lines())
    except (KeyboardInterrupt, SystemExit):
        if Path(f"{out}-state.npz").exists():
            click.echo(f"To go on: fasttriplet train --out {shlex.quote(out)} --resume", err=True)
        raise
    if as_json:
        plain = {"batches": done.batches, "last": done.last, "best": done.best, "best_batch": done.best_batch}
        click.echo(json.dumps(plain | {"summary": done.summary.to_dict()}))
    else:
        _print(done, out)


# Arguments that have another name on the command line.
_SETTING, _OPTION = {"pairs": "positives"}, {"verify_on": "pairs"}


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _lines() -> Callable[[Mapping[str, Any]], None]:
    told, batches = time.perf_counter(), 0

    def tell(record: Mapping[str, Any]) -> None:
        nonlocal told, batches
        now = time.perf_counter()
        if record["kind"] == "embedded":
            if now - told < _LINE_EVERY:
                return
            click.echo(f"embedded {record['images']:,} images of a bag", err=True)
        else:
            batches = record.get("batches", batches)
            click.echo(_LINE[record["kind"]](record, batches), err=True)
        told = now

    return tell


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
        rows["best network"] = f"{done.best} (behind batch {done.best_batch:,})"
    show.facts(rows | {"log": f"{out}-log.jsonl"})
    if summary.seconds:
        show.timeline(summary)
    if summary.skipped:
        click.echo(f"{len(summary.skipped):,} images were left out, the first: {summary.skipped[0]}")
