"""`train_rec`: its arguments, what is checked before a training begins, and how it was last run."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Unpack

from fasttriplet._callers import stacklevel_of_user
from fasttriplet._checks import truth_value
from fasttriplet._extras import how_to_install
from fasttriplet._files import making
from fasttriplet._launcher import launched
from fasttriplet._options import shows
from fasttriplet._words import counted, plural
from fasttriplet.dataset._index_cache import has_cache
from fasttriplet.errors import OptionError
from fasttriplet.run._group import Alone, Group, telling
from fasttriplet.run._options import ResourceKeywords, ResourceOptions
from fasttriplet.training._backend import Backend, backend_of, usual_framework
from fasttriplet.training._events import Events, has_events_of
from fasttriplet.training._files import Names
from fasttriplet.training._journal import Journal, NoJournal
from fasttriplet.training._loop import Loop, Progress, Trained
from fasttriplet.training._schedule import Export, Schedule
from fasttriplet.training._settings import Framework, TrainSettings
from fasttriplet.training._signals import signals_ignored
from fasttriplet.training._state import State, load_state
from fasttriplet.training._store import NoStore, Store
from fasttriplet.verify._examine import check_for_training

_ANOTHER = "Begin another training, with the network of this one as pretrained=SPEC"
_RENAMED = {"pairs": "verify_on", "tell": "progress"}


@shows(ResourceOptions)
def train_rec(
    settings: TrainSettings,
    out: str | os.PathLike[str],
    *,
    batches: int = 240_000,
    verify_on: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    verify_every: int = 2000,
    checkpoint_every: int = 1000,
    log_every: int = 20,
    export: Sequence[Export] = (),
    tensorboard: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    devices: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    **resources: Unpack[ResourceKeywords],
) -> Trained:
    """Train a network with the triplet loss.

    A training that is stopped by Ctrl-C, a signal or a power cut can be resumed from its last checkpoint, and
    gives the same numbers as one that was not: its state holds the weights, what the optimizer keeps, the
    triplets that were mined and not yet used, and the place in the dataset.

    Parameters
    ----------
    settings : TrainSettings
        To resume a training, the same settings; :func:`options_at` reads them.
    out : path
        PREFIX of the files. The network at the last checkpoint is ``PREFIX-symbol.json`` and
        ``PREFIX-0000.params`` with MXNet, and ``PREFIX.json`` and ``PREFIX.safetensors`` with PyTorch; that
        of the best verification has the prefix ``PREFIX-best``. ``PREFIX-state.npz`` is what the training is
        resumed from, and ``PREFIX-log.jsonl`` has one JSON object per line. A folder that is missing is made.
    batches : int, default 240,000
        Number of batches after which the training ends; a resumed one may have more.
    verify_on : path or sequence of paths, optional
        ``.bin`` files to verify the network on: at the start, every `verify_every` batches and at the end.
        They need genuine and impostor pairs, 10 at least, of images of the size of the dataset's.
        The best network has the highest mean accuracy over the files; among equals, the highest mean AUC.
    verify_every, checkpoint_every, log_every : int, default 2000, 1000 and 20
        Batches between two verifications, checkpoints and lines of the log.
    export : sequence of {"mxnet", "onnx"}, optional
        With PyTorch, other formats to write the last and the best network in when the training has ended:
        ``PREFIX-symbol.json`` with ``PREFIX-0000.params``, or ``PREFIX.onnx``.
    tensorboard : path, optional
        Folder for TensorBoard's event files.
    resume : bool, default False
        Whether to resume a training.
    overwrite : bool, default False
        Whether a training or a network at PREFIX may be replaced by a new training.
    devices : str or sequence of str, optional
        Where the network runs; see :func:`fasttriplet.load_embedder`. Each device gets a batch of
        ``settings.batch_size`` images.
    progress : callable, optional
        Called with each record of the log, with ``{"kind": "step"}`` after each batch, with ``{"kind":
        "exporting", "file": first of the files}`` before a network is exported, and with ``{"kind":
        "embedded", "images": n, "of": m}`` and ``{"kind": "verifying", "pairs": file, "images": n, "of": m}``
        while n of the m images of a bag or a file are embedded. Each has in addition ``batch``, the number
        of batches so far, and ``seconds_left``, an estimate for the rest of the training, with what is still
        to be embedded and verified; None while it is unknown.
    threads, prefetch, memory
        See :class:`fasttriplet.Feed`.

    Returns
    -------
    Trained

    Raises
    ------
    FileExistsError
        If there is a training or a network at PREFIX and `overwrite` is not set, or another training is
        writing there.
    FileNotFoundError
        If there is no training to resume.
    ImportError
        If the framework, or a package that `export` needs, cannot be imported.
    NoTripletsError
        If the dataset can give no triplet, or a whole epoch gives none; the message says why. The state is
        saved before, once there is one.
    CollapsedError
        If in all bags of an epoch the embeddings of different identities are nearly equal. The state is
        saved before. The training warns of the first such bag (:class:`fasttriplet.CollapseWarning`).
    ValueError
        If an option is wrong or does not go with the framework, a file of `verify_on` does not fit, settings
        differ from those of the training that is resumed, `batches` is beyond ``settings.lr_end``, or a loss
        or a weight is not finite.
    OSError, RecordError
        If a file cannot be read or written. The state is saved before, where that is possible.
    MemoryError
        If a batch does not fit a device.
    """
    for name in resources:
        if name in _RENAMED:
            raise TypeError(f"train_rec() has no option {name!r}: it is called {_RENAMED[name]!r}")
    _check_given(settings, resume=resume, overwrite=overwrite)
    limits = ResourceOptions.of(train_rec, resources)
    files = [verify_on] if isinstance(verify_on, (str, os.PathLike)) else verify_on
    paths = tuple(map(_absolute, files))
    cache = settings.cache if isinstance(settings.cache, bool) else _absolute(settings.cache)
    # Their tables, where they are files.
    tables: dict[str, Any] = {
        name: _absolute(table)
        for name in ("exclude", "neighbors")
        if isinstance(table := getattr(settings, name), str)
        and not (name == "neighbors" and settings.has_running_graph)
    }
    settings = replace(settings, rec=tuple(map(_absolute, settings.rec)), cache=cache, **tables)
    schedule = Schedule(batches, paths, verify_every, checkpoint_every, log_every, export)
    names = Names.of(out)
    written = names.written()
    state = load_state(names.state) if resume else None
    undecided = state is None and settings.framework is None
    if state is None:
        settings = settings.begun(usual_framework(settings), schedule.batches)
    else:
        settings = _as_before(names, state, settings)
    assert settings.framework is not None
    _check_end(settings, schedule, resume=resume)
    wanted = {name: [table] for name, table in tables.items()}
    _check_files({"rec": settings.rec, "verify_on": paths, **wanted}, resume=resume)
    with _naming_the_other(settings) if undecided else nullcontext():
        kind = backend_of(settings.framework)
        names = replace(names, endings=kind.endings, exports=_exports(schedule, settings.framework, kind))
        names.check(overwrite=overwrite or resume)
        for file in schedule.verify_on:
            check_for_training(file)  # an error now, not at the next verification
        backend = kind(settings, devices)
    if backend.group is None and (processes := launched()) > 1:
        raise OptionError(
            "framework",
            f"{settings.framework!r} trains in one process, and {processes} were started: start one, with "
            "all GPUs as its devices, or give framework='torch'",
        )
    for one in schedule.export:
        backend.check_export(one)
    if state is not None:
        _check_what_it_wrote(names, state, schedule, backend)
    options = {
        **asdict(schedule),
        "tensorboard": None if tensorboard is None else _absolute(tensorboard),
        "devices": devices if devices is None or isinstance(devices, str) else list(devices),
        **asdict(limits),
    }
    events = None if tensorboard is None else partial(Events, tensorboard, names.prefix)
    making_board = nullcontext() if tensorboard is None else making(Path(tensorboard))
    lines = 0 if state is None else state.plain["log"]
    group: Group = backend.group or Alone()
    if group.rank > 0:  # the first process does all but the steps
        schedule = replace(schedule, verify_on=(), export=())
        alone = NoStore(names, backend, ()), NoJournal(lines), _silent
        with signals_ignored():
            return Loop(settings, backend, schedule, *alone, options).run(state, limits)
    with (
        telling(group),
        making(names.folder),
        making_board,
        Journal(names.log, lines, events) as journal,
    ):
        if names.written() != written:  # before this run had locked the log
            raise FileExistsError(f"another training has just written {names.state}: give the command again")
        store = Store(names, backend, schedule.export)
        loop = Loop(settings, backend, schedule, store, journal, progress or _silent, options)
        return loop.run(state, limits)


def _check_given(settings: TrainSettings, *, resume: bool, overwrite: bool) -> None:
    if not isinstance(settings, TrainSettings):
        raise OptionError("settings", f"must be a TrainSettings, not {settings!r:.100}")
    if truth_value("resume", resume) and truth_value("overwrite", overwrite):
        raise OptionError("overwrite", "must not be True together with resume=True")


def options_at(out: str | os.PathLike[str]) -> tuple[TrainSettings, dict[str, Any]]:
    """How the training at PREFIX was last run.

    Returns
    -------
    settings : TrainSettings
    options : dict
        The other arguments of :func:`train_rec`, except `resume`, `overwrite` and `progress`. Paths are
        absolute. The file may come from elsewhere, so it does not choose folders to write to: `tensorboard`
        is None unless a training at PREFIX has written event files to that folder, and ``settings.cache`` is
        False unless that folder has the index of a file of `rec`. A warning names what is left out.

    Raises
    ------
    FileNotFoundError
        If there is no training.
    ValueError
        If the file of its state is damaged.
    """
    names = Names.of(out)
    plain = load_state(names.state).plain
    settings, options = TrainSettings.from_dict(plain["settings"]), plain["options"]
    folder, cache = options["tensorboard"], settings.cache
    if folder is not None and not has_events_of(names.prefix, folder):
        _left_out(names, "TensorBoard's files of this training", folder, "tensorboard")
        options = options | {"tensorboard": None}
    if not isinstance(cache, bool) and not any(has_cache(Path(rec), cache) for rec in settings.rec):
        _left_out(names, "the index of its dataset", cache, "cache")
        settings = replace(settings, cache=False)
    return settings, options


def _absolute(path: str | os.PathLike[str]) -> str:
    """The path as it is from any folder, for the training may be resumed from another one; links stay."""
    return os.path.abspath(path)  # noqa: PTH100


def _left_out(names: Names, what: str, folder: str | os.PathLike[str], option: str) -> None:
    warnings.warn(
        f"{names.state} names {folder} for {what}, where there is nothing of the kind: it is used only if "
        f"{option}={folder!r} is given",
        stacklevel=stacklevel_of_user(),
    )


def _as_before(names: Names, state: State, settings: TrainSettings) -> TrainSettings:
    """The settings of a training that is resumed; a ValueError if they are not those that it began with."""
    before = TrainSettings.from_dict(state.plain["settings"])
    if different := before.differences(settings):
        raise ValueError(
            f"{names.state} is of a training with {', '.join(different)}: it can only be resumed with the "
            f"settings that it began with. {_ANOTHER}"
        )
    assert before.framework is not None
    return settings.begun(before.framework, before.lr_end)


def _check_end(settings: TrainSettings, schedule: Schedule, *, resume: bool) -> None:
    """Raise an OptionError if the learning rate would be 0 before the training ends."""
    end = settings.lr_end
    if end is not None and schedule.batches > end:
        advice = _ANOTHER if resume else "To train for longer, give a later lr_end"
        raise OptionError(
            "batches",
            f"must be at most {end:,}, not {schedule.batches:,}: there the learning rate has fallen to 0 "
            f"(lr_end). {advice}",
        )


def _check_files(wanted: Mapping[str, Sequence[str]], *, resume: bool) -> None:
    """Raise an OSError if there is no such file, by the name of its option."""
    for name, paths in wanted.items():
        moved = f"; if it was moved, give its new path as {name}=PATH" if resume else ""
        for path in paths:
            if not Path(path).exists():
                raise FileNotFoundError(errno.ENOENT, f"does not exist{moved}", path)
            if not Path(path).is_file():
                raise OSError(errno.EINVAL, f"is not a file{moved}", path)


def _exports(schedule: Schedule, framework: Framework, kind: type[Backend]) -> dict[str, tuple[str, ...]]:
    """The formats that are to be written, with the endings of their files."""
    for one in schedule.export:
        if one not in kind.exports:
            raise OptionError(
                "export",
                f"{one!r} goes with framework='torch'. A training with framework={framework!r} writes a "
                "checkpoint of MXNet, which fasttriplet.torch.from_mxnet reads",
            )
    return {one: kind.exports[one] for one in schedule.export}


@contextmanager
def _naming_the_other(settings: TrainSettings) -> Iterator[None]:
    """Let the error that a framework cannot be imported say that there is another one."""
    try:
        yield
    except ImportError as error:
        if error.name != settings.framework:  # a module of the user's
            raise
        other: Framework = "mxnet" if settings.framework == "torch" else "torch"
        try:
            replace(settings, framework=other)
        except OptionError:
            raise error from None
        advice = f"Or give framework={other!r}"
        if find_spec(other) is None:
            advice += f", which is not installed. {how_to_install(other)}"
        raise ImportError(f"{error}. {advice}", name=error.name) from error


def _silent(record: Mapping[str, Any]) -> None:
    """Report nothing."""


def _check_what_it_wrote(names: Names, state: State, schedule: Schedule, backend: Backend) -> None:
    """Raise a ValueError if a state does not fit, an OSError for files that its training did not write."""
    before = state.plain["feed"]["arguments"]
    processes = 1 if backend.group is None else backend.group.size
    for noun, now in {"device": len(backend.devices), "process": processes}.items():
        if now != (then := before.get(plural(noun), 1)):
            found = f"of a training on {counted(then, noun)}, not on {now:,}"
            raise ValueError(f"{names.state} is {found}: resume it on as many")
    if schedule.verify_on and state.plain["best"] is None and not state.new:
        names.refuse_to_replace_best()
    names.refuse_to_replace_exports(set(schedule.export) - set(state.plain["options"]["export"]))
