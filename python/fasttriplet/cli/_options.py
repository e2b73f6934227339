"""Options that several commands take, each written once, with the defaults and choices of the Python options.

Nothing here imports NumPy or Polars: `--help` does not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click
from click.core import ParameterSource

from fasttriplet._checks import MOST_PIXELS
from fasttriplet._options import Options
from fasttriplet.cli._types import PATH, BandText, Kinds, NameOfFile, Number, PairsChoice, RanksText, Whole
from fasttriplet.cli._words import in_flags
from fasttriplet.dataset._options import EXCLUDED_KINDS, RUNNING, DatasetOptions
from fasttriplet.mining._band import BANDS
from fasttriplet.mining._options import Metric, MiningOptions, Pairs, scale_of
from fasttriplet.run._options import FeedOptions, ResourceOptions

if TYPE_CHECKING:
    from fasttriplet.cli._progress import Display
    from fasttriplet.embedders import Embedder

F = TypeVar("F", bound=Callable[..., Any])

# Ways to write options

_TYPES = {int: Whole(), float: Number(min=0), Path: PATH, NoneType: None}


def option(name: str, text: str, default: Any = None, kind: Any = None, **more: Any) -> Callable[[F], F]:
    """Make the option ``--name`` with this help text.

    It takes what `kind` says: a type of click's, a ``Literal`` for a choice, or a Python type, by default
    that of `default`. An int is at least 1, a float at least 0, and a bool a pair of flags.
    """
    flag = "--" + name.replace("_", "-")
    kind = kind or type(default)
    if get_origin(kind) in (Union, UnionType):
        kind = get_args(kind)[0]  # the other is None
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", default=default, help=text, **more)
    kind = click.Choice(get_args(kind)) if get_origin(kind) is Literal else _TYPES.get(kind, kind)
    return click.option(flag, default=default, type=kind, help=text, **more)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Join decorators; help lists the options in this order."""

    def decorate(command: F) -> F:
        for one in reversed(options):
            command = one(command)
        return command

    return decorate


def renamed(flag: str, now: str) -> Callable[[F], F]:
    """Let a flag of earlier versions say what it is called now."""

    def answer(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001
        if value is not None:
            raise click.UsageError(f"{flag} is called {now} now.", ctx)

    return click.option(flag, hidden=True, expose_value=False, is_eager=True, callback=answer)


def ends_in(*endings: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Make a callback that refuses names of files with other endings."""
    *first, last = endings
    known = f"{', '.join(first)} or {last}" if first else last

    def check(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in endings:
            raise click.BadParameter(f"{path}: the name must end in {known}.", ctx, param)
        return path

    return check


def _bytes(ctx: click.Context, param: click.Parameter, megabytes: int | None) -> int | None:  # noqa: ARG001
    return None if megabytes is None else megabytes * 10**6


def _go_together(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse a metric that does not go with --normalize or without it, whichever flag is read last."""
    values = ctx.params | {str(param.name): value}
    if "metric" in values and "normalize" in values:
        MiningOptions(metric=values["metric"], normalize=values["normalize"])
    return value


# The dataset

_CACHE_DIR = "fasttriplet.cache_dir"  # where the context has the value of --cache-dir


def rec(*, required: bool, of: type[Options] = DatasetOptions) -> Callable[[F], F]:
    """Make the option ``--rec``, and those that say how to read the files: the fields of `of`."""
    return together(
        click.option(
            "--rec",
            required=required,
            multiple=True,
            type=PATH,
            help="The .rec file. Repeat the flag for several that make one dataset; see --labels.",
        ),
        _of_run(*of.names()),
        click.option(
            "--cache-dir",
            type=NameOfFile(file_okay=False, path_type=Path),
            metavar="FOLDER",
            expose_value=False,
            is_eager=True,  # before --cache, which becomes this folder
            callback=_remember_cache_dir,
            help="Folder to keep the index in. By default that of the .rec file, or the one that the "
            "environment variable FASTTRIPLET_CACHE_DIR names.",
        ),
        _telling_of_indexes,
    )


def _remember_cache_dir(ctx: click.Context, param: click.Parameter, folder: Path | None) -> None:  # noqa: ARG001
    ctx.meta[_CACHE_DIR] = folder


def _cache(ctx: click.Context, param: click.Parameter, keep: bool) -> bool | Path:
    """Make what Python takes as `cache` of two flags."""
    folder: Path | None = ctx.meta[_CACHE_DIR]
    if folder is None:
        return keep
    if not keep:
        raise click.BadParameter("--no-cache keeps no index: do not give --cache-dir.", ctx, param)
    ctx.set_parameter_source(str(param.name), ParameterSource.COMMANDLINE)
    return folder


def _telling_of_indexes(command: F) -> F:
    """Have a command say on stderr when it writes an index."""

    @wraps(command)
    def telling(*args: Any, **values: Any) -> Any:
        import logging  # noqa: PLC0415  not for --help

        class Lines(logging.Handler):
            hint = "; --no-cache keeps none, --cache-dir FOLDER keeps it there"

            def emit(self, record: logging.LogRecord) -> None:
                click.echo(f"fasttriplet: {record.getMessage()}{self.hint}", err=True)
                self.hint = ""

        logger, lines = logging.getLogger("fasttriplet.index"), Lines()
        before = logger.level
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
        try:
            return command(*args, **values)
        finally:
            logger.removeHandler(lines)
            logger.setLevel(before)

    return cast("F", telling)


def is_set(name: str) -> bool:
    """Whether the command line gives an option, if only its default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse_what_goes_with_rec() -> None:
    """Refuse flags on how a dataset is read and drawn from, where pairs are from another source."""
    params = click.get_current_context().command.params
    flags = {one.name: "/".join([*one.opts, *one.secondary_opts]) for one in params}
    for name in ("labels", "cache_dir", "cache", "pairs_per_kind", "seed", "recall"):  # --cache-dir sets both
        if name in flags and is_set(name):
            raise click.UsageError(f"{flags[name]} goes with --rec")


def one_or_several(paths: Sequence[Path]) -> Path | Sequence[Path]:
    """Turn the values of ``--rec`` into what functions take: a path, or several."""
    return paths[0] if len(paths) == 1 else paths


pairs_per_kind = option(
    "pairs_per_kind",
    "Genuine pairs (of one identity) to draw from --rec, and as many impostor pairs (of two).",
    6000,
)

# The model

devices = option(
    "devices",
    "Where the network runs: cpu, or GPUs in the framework's words, gpu or gpu:0,2 for MXNet, cuda or "
    "cuda:0,2 for PyTorch and ONNX Runtime, mps for PyTorch. By default on all GPUs, or on the CPU if there "
    "is none.",
    metavar="NAMES",
)


def model(**default: Any) -> Callable[[F], F]:
    """Make the options of a model: what :func:`load_model` takes."""
    return together(
        click.option(
            "--model",
            metavar="SPEC",
            help="What embeds the images: mxnet:PREFIX,EPOCH or torch:mxnet:PREFIX,EPOCH (an MXNet network, "
            "run by MXNet or by PyTorch), torch:PREFIX (a network of `fasttriplet train`), torch:FILE "
            "(torch.export or TorchScript), torch:PACKAGE.MODULE:FACTORY[,weights=FILE] (a PyTorch module), "
            "onnx:FILE, python:PACKAGE.MODULE:NAME (an embedder of your own), npy:FILE (embeddings computed "
            "before, in key order) or pixels (a baseline without a network). For PyTorch and ONNX, "
            ",color=bgr,mean=127.5,std=128,size=112x112 at the end says what the network expects.",
            **default,
        ),
        devices,
        option(
            "batch_size",
            "Images that the network is given at a time, on each device. By default what suits the framework "
            "on the CPU, and 128 on a GPU.",
            kind=int,
        ),
    )


def load_model(
    shown: Display, spec: str, devices: str | None, batch_size: int | None, *, ray: str | None = None
) -> Embedder:
    """Make the embedder that the options of :func:`model` describe; for a cluster, one it loads."""
    shown.update("loading the model" if ray is None else "connecting to Ray")
    from fasttriplet.embedders import load_embedder  # noqa: PLC0415  polars takes 0.2 s: not for --help
    from fasttriplet.embedders._deferred import DeferredEmbedder  # noqa: PLC0415
    from fasttriplet.embedders._load import runs_network  # noqa: PLC0415
    from fasttriplet.errors import SpecError  # noqa: PLC0415

    if ray is not None and runs_network(spec):
        return DeferredEmbedder(spec, devices=devices, batch_size=batch_size)
    try:
        return load_embedder(spec, devices=devices, batch_size=batch_size)
    except SpecError as error:
        command = click.get_current_context().command
        raise click.BadParameter(in_flags(str(error), command), param_hint="--model") from error


# Where a run takes place

ray = option(
    "ray",
    "Run on a Ray cluster: the address of its head, such as 10.0.0.1:6379, auto for the cluster that this "
    "machine belongs to, or local for one on this machine that ends with the run. --threads is then the "
    "number of CPUs of a task, by default 1.",
    kind=str,
    metavar="ADDRESS",
)

# The options of a run


_TEXTS = {
    "exclude": "Leave out the images of this Parquet file, by its columns key and, with several --rec, file. "
    "Of a table of suspects, those that --exclude-kinds names.",
    "exclude_kinds": "Kinds of findings, between commas, whose images --exclude leaves out, except those "
    f"with the action keep. By default kinds about single images: {','.join(EXCLUDED_KINDS)}.",
    "labels": "What the labels of several --rec mean. shared: a label is the same identity in all of them; "
    "separate: no identity is in two files, and labels are shifted. By default shared, with a warning where "
    "the files seem to be numbered independently.",
    "cache": "Keep the index of each file for later runs.",
    "max_pixels": "Most pixels of an image, height times width. No memory is taken for a larger one.",
    "margin": "How far a band reaches beyond d_ap, on the scale of --metric: by default "
    f"{scale_of(FeedOptions.metric)}.",
    "band": "Negatives that qualify for a pair. "
    + "; ".join(f"{name}: {rule or 'all of them'}" for name, rule in BANDS.items())
    + ". Or limits on d_an of your own, such as 'd_ap + 0.1 < d_an < 0.9'.",
    "ranks": "Choose only from the qualifying negatives of these ranks. The nearest has rank 0: 10: leaves "
    "out the 10 nearest, 10:100 also all from rank 100 on.",
    "pick": "Which of these to take for each pair: at random; the nearest to the anchor; at random with "
    "weights that make near, middling and far ones equally likely; or all.",
    "negatives_per_pair": "Most negatives to take for each pair.",
    "fallback": "What to take for a pair without any of these: the farthest negative of all.",
    "pairs": "Pairs of anchor and positive: each pair once, each pair both ways round, or each anchor with "
    "its farthest or nearest positives.",
    "positives_per_anchor": "Most pairs of an anchor. By default 1 for --pairs hardest and easiest, and all "
    "for the others.",
    "triplets_per_anchor": "Most triplets of an anchor, chosen at random. By default all.",
    "max_ap": "Skip pairs with a larger d_ap, on the scale of --metric.",
    "metric": "Scale of all distances. "
    + "; ".join(f"{metric}: {scale_of(metric)}" for metric in get_args(Metric))
    + ".",
    "normalize": "Divide each embedding by its L2 norm before distances are measured.",
    "images_per_identity": "Most images of an identity in an epoch.",
    "bag_size": "Images embedded and mined together, which are a bag.",
    "boundary": "Keep each identity in one bag, or split it where a bag is full.",
    "neighbors": "Make bags of identities that are near each other, by this Parquet file: an identity graph, "
    "with the columns label, neighbor_label and rank, as `fasttriplet neighbors` writes it. `fasttriplet "
    f"train` also takes {RUNNING}: it makes the graph itself, of what it embeds, every --refresh-epochs.",
    "random_share": "Share of each bag, 0 to 1, for identities in random order. Goes with --neighbors.",
    "refresh_epochs": f"Epochs that have the same graph, with --neighbors {RUNNING}.",
    "tail": "Keep or drop the last, smaller bag of an epoch.",
    "on_error": "What to do about images that cannot be used, such as damaged ones or ones of another size: "
    "end with an error, or leave them out.",
    "seed": "Seed for all random choices.",
    "threads": "Threads to use. By default one per core.",
    "prefetch": "Bags to decode ahead of the embedding. With 0, decoding and embedding take turns.",
    "memory": "Most megabytes of decoded images to hold. By default what --prefetch takes.",
}
_KINDS: dict[str, Any] = {field.name: field.type for field in fields(FeedOptions)} | {
    "cache": bool,
    "exclude": PATH,
    "exclude_kinds": Kinds(),
    "max_pixels": Whole(1, MOST_PIXELS),
    "band": BandText(),
    "ranks": RanksText(),
    "neighbors": PATH,
    "random_share": Number(0, 1),
    "pairs": PairsChoice(get_args(Pairs)),
    "seed": Whole(0, 2**64 - 1),
    "prefetch": Whole(0, 1000),
}
_MORE: dict[str, dict[str, Any]] = {
    "cache": {"callback": _cache},
    "metric": {"callback": _go_together},
    "normalize": {"callback": _go_together},
    "memory": {"metavar": "MB", "callback": _bytes},
    "exclude": {"metavar": "FILE"},
    "exclude_kinds": {"metavar": "KIND,..."},
    "neighbors": {"metavar": "FILE"},
}


def _of_run(*names: str) -> Callable[[F], F]:
    """Make options of the fields of :class:`FeedOptions`."""
    return together(
        *(
            option(name, _TEXTS[name], getattr(FeedOptions, name), _KINDS[name], **_MORE.get(name, {}))
            for name in names
        )
    )


exclude = _of_run("exclude", "exclude_kinds")
mining = _of_run(*MiningOptions.names())
distances = _of_run("metric", "normalize")
bags = _of_run("images_per_identity", "bag_size", "boundary", "neighbors", "random_share")
refresh = _of_run("refresh_epochs")
tail = _of_run("tail")
on_error = _of_run("on_error")
seed = _of_run("seed")
threads = _of_run("threads")
max_pixels = _of_run("max_pixels")
resources = _of_run(*ResourceOptions.names())

# Findings


def suspects(*, required: bool) -> Callable[[F], F]:
    """Make the option ``--suspects``."""
    return click.option(
        "--suspects",
        required=required,
        type=PATH,
        metavar="FILE",
        help="The findings of an audit of this dataset: its suspects.parquet.",
    )


# Results

pictures = option(
    "pictures",
    "Most pictures in the page. 400 keep it below 5 MB.",
    400,
    Whole(0),
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on stdout instead of tables, one object per line."
)
overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace files that exist. Without it, an existing file is an error."
)
