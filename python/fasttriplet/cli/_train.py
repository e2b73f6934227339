"""``fasttriplet train``: train a network with the triplet loss."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fasttriplet._launcher import is_first_process
from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import Display, clock, display
from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    from fasttriplet.training import Trained, TrainSettings

_RATE = types.Number(0, 1e6)
_SHARE = types.Number(0, 1)


def _steps(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError:
        message = f"{value!r} is not whole numbers between commas, such as 1000,2000"
        raise click.BadParameter(message, ctx, param) from None


@click.command()
@options.rec(required=False)
@options.exclude
@click.option(
    "--out",
    required=True,
    metavar="PREFIX",
    type=types.NameOfFile(),
    help="Start of the names of all files: the networks (last and best), the state and the log.",
)
@options.option(
    "framework",
    "What trains the network: MXNet or PyTorch. By default PyTorch where MXNet is not installed, --network "
    "begins with torch: or torchrun started several processes, else MXNet. A resumed training keeps its own.",
    kind=Literal["mxnet", "torch"],
)
@options.option(
    "network",
    "Network to train: small, mobilefacenet or, with PyTorch, torch:PACKAGE.MODULE:FACTORY, a function that "
    "returns a torch.nn.Module. Options may follow, as in ,mean=0,std=255.",
    metavar="NAME",
)
@options.option(
    "symbol",
    "MXNet symbol to train instead of a --network. Its input is called data: RGB, 0 to 255.",
    kind=types.NameOfFile(),
    metavar="JSON",
)
@options.option(
    "pretrained",
    "Checkpoint of MXNet to take the first weights from. With PyTorch also torch:PREFIX, of another "
    "training, or a file of weights (.safetensors, .pt, .pth).",
    metavar="PREFIX,EPOCH",
)
@options.option("embedding_size", "Numbers per embedding of --network small or mobilefacenet.", 128)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a stopped run, with the options that it had unless others are given. On the CPU, the "
    "result is bit-identical to that of a run without a stop.",
)
@options.overwrite
@options.option("batches", "Batches to train for in all.", 240_000)
@options.option("batch_size", "Images of a batch on each device; a multiple of 3.", 60)
@options.option(
    "loss",
    "Distance in the loss: squared L2, or the angle (InsightFace's triplet and atriplet).",
    "squared",
    Literal["squared", "angular"],
)
@options.option(
    "loss_margin",
    "Margin of the loss, on the scale of --loss. By default the number given as --margin.",
    kind=float,
)
@options.option(
    "optimizer",
    "Stochastic gradient descent or, with PyTorch, AdamW.",
    "sgd",
    Literal["sgd", "adamw"],
)
@options.option("learning_rate", "Learning rate before it falls.", 0.05, _RATE)
@options.option("momentum", "Momentum of --optimizer sgd.", 0.9, _SHARE)
@options.option("weight_decay", "Weight decay of the optimizer.", 5e-4, _RATE)
@options.option(
    "clip_norm",
    "With PyTorch, the largest L2 norm of the gradient of all weights. A larger gradient is scaled down.",
    kind=_RATE,
)
@options.option(
    "lr_schedule",
    "How the learning rate falls: in steps (--lr-steps), or to 0 at --lr-end, in a straight line or along a "
    "cosine.",
    "steps",
    Literal["steps", "linear", "cosine"],
)
@options.option(
    "lr_steps",
    "For --lr-schedule steps: multiply the learning rate by --lr-factor after these batches.",
    "100000,160000,220000",
    callback=_steps,
    metavar="BATCHES,...",
)
@options.option("lr_factor", "Factor for --lr-steps.", 0.1, _SHARE)
@options.option(
    "lr_end",
    "For --lr-schedule linear and cosine: the number of batches after which the learning rate is 0. A "
    "training can have no more. By default the --batches that it begins with.",
    kind=int,
    metavar="BATCHES",
)
@options.option(
    "warmup",
    "Let the learning rate rise from 0 to what --lr-schedule gives over this many batches.",
    0,
    types.Whole(0),
    metavar="BATCHES",
)
@options.option(
    "precision",
    "With PyTorch, what the network computes in: tf32 needs an NVIDIA GPU, bf16 is short for bfloat16.",
    "float32",
    Literal["float32", "tf32", "bfloat16", "bf16"],
)
@options.mining
@options.bags
@options.refresh
@options.option("mirror", "Swap left and right in half of the images.", True)
@options.option(
    "cutoff", "Side in pixels of a square that is blanked out in each image; 0 for none.", 0, types.Whole(0)
)
@options.option("color_jitter", "Most relative change of brightness, contrast and saturation.", 0.0, _SHARE)
@options.on_error
@options.seed
@click.option(
    "--verify-on",
    multiple=True,
    type=types.NameOfFile(),
    metavar="FILE.bin",
    help="A .bin file of pairs to verify the network on, such as lfw.bin; repeatable.",
)
@options.option(
    "verify_every",
    "Batches from one verification to the next. The first is at the start, the last at the end.",
    2000,
    metavar="BATCHES",
)
@options.option("checkpoint_every", "Batches from one checkpoint to the next.", 1000, metavar="BATCHES")
@options.option("log_every", "Batches from one line of the log to the next.", 20, metavar="BATCHES")
@click.option(
    "--export",
    multiple=True,
    type=click.Choice(["mxnet", "onnx"]),
    help="With PyTorch, another format in which the last and the best network are written at the end of the "
    "training; repeatable.",
)
@options.option(
    "tensorboard",
    "Folder for TensorBoard's event files.",
    kind=types.NameOfFile(),
    metavar="FOLDER",
)
@options.devices
@options.resources
@options.as_json
@options.renamed("--positives", now="--pairs")
def train(*, out: str, resume: bool, as_json: bool, **given: Any) -> None:
    """Train a network with the triplet loss, with MXNet or PyTorch.

    It trains on triplets that it mines itself, bag by bag, on the scale of --metric, by default squared L2.
    """
    _check_flags(given, resume=resume)

    from fasttriplet.training import TrainSettings, options_at, train_rec  # noqa: PLC0415  takes a second

    deciding = {field.name for field in fields(TrainSettings)}
    if resume:
        settings, how = options_at(out)
        given = {name: value for name, value in given.items() if options.is_set(name)}
        if "network" in given or "symbol" in given:
            given = {"network": None, "symbol": None} | given
        if "lr_schedule" in given:
            given = {"lr_end": None} | given
        if "neighbors" in given:  # the state's may be of a graph that the training makes itself
            given = {"refresh_epochs": 1} | given
        settings = replace(settings, **{name: given.pop(name) for name in deciding & given.keys()})
        how |= given
    else:
        settings = TrainSettings(**{name: given.pop(name) for name in deciding & given.keys()})
        how = given
    _refuse_without_effect(settings)
    first = is_first_process()
    with display(silent=not first) as shown, _blaming_the_state(out) if resume else nullcontext():
        shown.update("preparing")
        try:
            done = train_rec(settings, out, **how, resume=resume, progress=_Log(shown))
        except (KeyboardInterrupt, SystemExit):
            if Path(f"{out}-state.npz").exists():
                shown.say(f"To resume: {show.program()} train --out {shlex.quote(out)} --resume")
            raise
    if not first:
        return
    if as_json:
        names = ("batches", "last", "best", "best_batch", "best_accuracy", "exported")
        plain = {name: getattr(done, name) for name in names}
        show.as_json(plain | {"summary": done.summary.to_dict()})
    else:
        _print(done, out)


def _check_flags(given: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse flags that do not go together, and a command without a dataset or a network."""
    if resume and given["overwrite"]:
        raise click.UsageError("give either --resume or --overwrite")
    if not resume and not given["rec"]:
        raise click.UsageError("--rec is missing: the .rec file to train on")
    chosen = [given[name] is not None for name in ("network", "symbol")]
    if all(chosen) or not (any(chosen) or resume):
        raise click.UsageError("give either --network or --symbol")
    if given["symbol"] is not None and options.is_set("embedding_size"):
        raise click.UsageError("--embedding-size is for --network; a --symbol has its own")


def _refuse_without_effect(settings: TrainSettings) -> None:
    """Refuse flags that the chosen network, optimizer or schedule does not read."""
    unread = {
        "embedding_size": settings.network_is_module and "a --network by name",
        "momentum": settings.optimizer == "adamw" and "--optimizer sgd",
        "lr_steps": settings.lr_schedule != "steps" and "--lr-schedule steps",
        "lr_factor": settings.lr_schedule != "steps" and "--lr-schedule steps",
    }
    for name, chosen in unread.items():
        if chosen and options.is_set(name):
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {chosen}")


@contextmanager
def _blaming_the_state(out: str) -> Iterator[None]:
    """Let an option that comes from the state be no fault of the command."""
    try:
        yield
    except OptionError as error:
        if options.is_set(error.argument):
            raise
        advice = f"to resume with another value, give {error.argument}=VALUE"
        raise ValueError(f"{out}-state.npz: {error}; {advice}") from error


class _Log:
    """Shows the records of a training as lines, and how far it is."""

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self._batches = 0  # in all
        self._last = ""  # of the log's numbers

    def __call__(self, record: Mapping[str, Any]) -> None:
        kind, batch, left = record["kind"], record["batch"], record["seconds_left"]
        self._batches = record.get("batches", self._batches)
        if kind in _EMBEDDING:
            of_training = f"batch {batch:,} of {self._batches:,}"
            if left is not None:
                of_training += f", {clock(left)} left in all"
            step = _EMBEDDING[kind] + Path(record.get("pairs", "")).name
            self._shown.update(step, record["images"], record["of"], note=of_training)
            return
        if kind == "exporting":
            self._shown.update(f"writing {record['file']}")
            return
        if kind == "train":
            rate = f"{record['images_per_second']:,.0f} images/s"
            self._last = f"{rate}, loss {record['loss']:.4f}, active {record['active']:.0%}"
        if kind in _LINE:
            self._shown.say(_LINE[kind](record, self._batches))
        self._shown.update("training", batch, self._batches, unit="batch", note=self._last, left=left)


_FRAMEWORKS = {"mxnet": "MXNet", "torch": "PyTorch"}
_EMBEDDING = {"embedded": "embedding a bag", "verifying": "verifying on "}


def _start(record: Mapping[str, Any], batches: int) -> str:
    height, width = record["image_size"]
    on, processes = f"on {', '.join(record['devices'])}", record["processes"]
    if processes > 1:
        on = f"in {processes} processes, this one {on}"
    return (
        f"{counted(record['images'], 'image')} of {counted(record['identities'], 'identity')}, "
        f"{height} x {width}, with {_FRAMEWORKS[record['framework']]} {on}; "
        f"batch {record['batch']:,} of {batches:,}"
        + (": nothing to do, give more --batches" if record["batch"] >= batches else "")
    )


def _train(record: Mapping[str, Any], batches: int) -> str:
    left = record["seconds_left"]
    return (
        f"batch {record['batch']:,} of {batches:,}  epoch {record['epoch']}  loss {record['loss']:.4f}  "
        f"active {record['active']:.0%}  norm {record['norm']:.2f}  learning rate "
        f"{record['learning_rate']:g}  {record['images_per_second']:,.0f} images/s"
        + (f"  {clock(left)} left" if left else "")
    )


def _verification(record: Mapping[str, Any], batches: int) -> str:  # noqa: ARG001  one of _LINE
    known = {"AUC": record["auc"], "TAR at FAR 0.001": record["tar"].get("0.001")}
    more = "".join(f", {name} {value:.4f}" for name, value in known.items() if value is not None)
    accuracy = f"accuracy {record['accuracy']:.3%} ± {record['accuracy_std']:.3%}"
    return f"batch {record['batch']:,}  {Path(record['pairs']).name}: {accuracy}{more}"


_LINE = {"start": _start, "train": _train, "verification": _verification}


def _print(done: Trained, out: str) -> None:
    summary = done.summary
    rows = {"batches": f"{done.batches:,}, {summary.batches:,} of them now"}
    if summary.bags:  # a resumed run may have ended in the bag that it was resumed in
        rows["bags"] = f"{counted(summary.bags, 'bag')} with {counted(summary.images, 'image')}"
        rows["triplets"] = f"{summary.triplets:,}"
    rows["last network"] = done.last
    if done.best is not None:
        rows["best network"] = (
            f"{done.best} (after batch {done.best_batch:,}, with accuracy {done.best_accuracy:.3%})"
        )
    if done.exported:
        rows["exported"] = ", ".join(done.exported)
    show.facts(rows | {"log": f"{out}-log.jsonl"})
    if summary.seconds:
        show.timeline(summary)
    show.left_out(summary)
