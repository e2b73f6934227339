"""A training from its first batch to its last, over any number of interruptions."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import whole_number
from fasttriplet.mxnet._backend import Model
from fasttriplet.mxnet._checkpoint import save_checkpoint
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._devices import contexts, name_of
from fasttriplet.mxnet._module_embedder import ModuleEmbedder
from fasttriplet.mxnet._network import network, pretrained
from fasttriplet.mxnet._quiet import quiet
from fasttriplet.run._feed import Feed, TripletBatch
from fasttriplet.run._summary import Summary
from fasttriplet.training._files import Names
from fasttriplet.training._journal import Journal
from fasttriplet.training._settings import TrainSettings
from fasttriplet.training._signals import signals_wait
from fasttriplet.training._state import State, load_state, save_state
from fasttriplet.verify._bin_file import read_pairs
from fasttriplet.verify._protocol import Verification
from fasttriplet.verify._run import verify_pairs

Tell = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Trained:
    """What :func:`train_rec` did.

    Attributes
    ----------
    batches : int
        Behind the training in all.
    last : str
        Spec of the trained network, for :func:`fasttriplet.load_embedder`.
    best : str or None
        Spec of the network that was best at telling the pairs apart.
    best_batch : int or None
        Behind how many batches it was.
    summary : Summary
        Of the feed, since the training was begun or gone on with.
    """

    batches: int
    last: str
    best: str | None
    best_batch: int | None
    summary: Summary


def train_rec(
    settings: TrainSettings,
    out: str | os.PathLike[str],
    *,
    batches: int = 240_000,
    pairs: Sequence[str | os.PathLike[str]] = (),
    verify_every: int = 2000,
    checkpoint_every: int = 1000,
    log_every: int = 20,
    tensorboard: str | os.PathLike[str] | None = None,
    resume: bool = False,
    devices: str | Sequence[str] | None = None,
    threads: int | None = None,
    prefetch: int = 1,
    memory: int | None = None,
    tell: Tell | None = None,
) -> Trained:
    """Train a network with the triplet loss.

    A training that is stopped, by Ctrl-C, a signal or a power cut, can be gone on with from its last
    checkpoint, and gives the same numbers as one that was not: its state holds the weights, the momenta, the
    triplets that were mined and not yet used, and the place in the dataset.

    Parameters
    ----------
    settings : TrainSettings
        To go on with a training, the same; :func:`options_at` reads them.
    out : path
        PREFIX of the files: ``PREFIX-symbol.json`` and ``PREFIX-0000.params``, the network at the last
        checkpoint; ``PREFIX-best-symbol.json`` and ``PREFIX-best-0000.params``, the one of the best
        verification; ``PREFIX-state.npz``, to go on from; ``PREFIX-log.jsonl``, one JSON object a line.
    batches : int
        Where the training ends; it can be gone on with to more.
    pairs : sequence of paths, optional
        ``.bin`` files to verify the network on: at the start, every `verify_every` batches and at the end.
        The best network is the one with the highest mean accuracy over the files; of equals the one with the
        higher mean AUC.
    verify_every, checkpoint_every, log_every : int
        Batches.
    tensorboard : path, optional
        Folder for TensorBoard's event files (needs tensorboardX).
    resume : bool, default False
        Whether to go on with a training.
    devices
        See :func:`fasttriplet.load_embedder`. `batch_size` is for each.
    threads, prefetch, memory
        See :class:`fasttriplet.Feed`.
    tell : callable, optional
        Called with each record of the log, and with ``{"kind": "embedded", "images": n}`` while a bag is
        embedded, of which n images are done.

    Returns
    -------
    Trained

    Raises
    ------
    FileExistsError
        If there is a training or a network at PREFIX, or another training is writing it.
    FileNotFoundError
        If there is none to go on with.
    NoTripletsError
        If a whole epoch gives no triplet; the message says why. The state is saved before.
    ValueError
        If an option is wrong, settings are others than before, or the loss is not finite any more.
    OSError, RecordError
        If a file cannot be read or written. The state is saved before, where that is possible.
    MemoryError
        If a batch does not fit the device.
    """
    for name, value in (
        ("batches", batches),
        ("verify_every", verify_every),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
    ):
        whole_number(name, value, 1)
    files = [pairs] if isinstance(pairs, (str, os.PathLike)) else pairs
    watch = _Watch(
        batches, tuple(os.fspath(file) for file in files), verify_every, checkpoint_every, log_every
    )
    names = Names.of(out)
    for file in watch.pairs:
        read_pairs(file)  # an error now, not at the next verification
    on = contexts(devices)
    state = load_state(names.state) if resume else None
    if state is None:
        names.refuse_to_replace()
    else:
        _check(names, state, settings, watch, len(on))
    how = {
        **asdict(watch),
        "tensorboard": None if tensorboard is None else os.fspath(tensorboard),
        "devices": devices if devices is None or isinstance(devices, str) else list(devices),
        "threads": threads,
        "prefetch": prefetch,
        "memory": memory,
    }
    with Journal(names.log, None if state is None else state.plain, tensorboard) as journal:
        names.tidy(new=state is None)
        run = _Run(settings, names, journal, tell or (lambda _: None), watch, how)
        return run.through(state, on)


def options_at(out: str | os.PathLike[str]) -> tuple[TrainSettings, dict[str, Any]]:
    """What the training at PREFIX was last run with.

    Returns
    -------
    settings : TrainSettings
    how : dict
        The other arguments of :func:`train_rec`, but for `resume` and `tell`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file of its state is damaged.
    """
    plain = load_state(Names.of(out).state).plain
    return TrainSettings.from_dict(plain["settings"]), plain["how"]


def _check(names: Names, state: State, settings: TrainSettings, watch: _Watch, devices: int) -> None:
    before = TrainSettings.from_dict(state.plain["settings"])
    if different := before.differences(settings):
        raise ValueError(
            f"{names.state} is of a training with {', '.join(different)}: it can only be gone on with as it "
            "was begun. Begin another one with its weights as pretrained"
        )
    if devices != (then := state.plain["feed"]["arguments"]["devices"]):
        raise ValueError(f"{names.state} is of a training on {then} devices, and now there are {devices}")
    for rec in settings.rec:
        if not Path(rec).exists():
            raise FileNotFoundError(f"{rec} does not exist; if the dataset was moved, give its path as rec")
    if watch.pairs and state.plain["best"] is None:
        names.refuse_to_replace_best()


@dataclass(frozen=True, slots=True)
class _Watch:
    """Where a training ends, and what is done every so many batches."""

    batches: int
    pairs: tuple[str, ...]  # to verify on
    verify_every: int
    checkpoint_every: int
    log_every: int


@dataclass(frozen=True, slots=True)
class _Best:
    """The verification that was best."""

    batch: int
    accuracy: float  # means over the files
    auc: float

    def beats(self, other: _Best | None) -> bool:
        return other is None or (self.accuracy, self.auc) > (other.accuracy, other.auc)


class _Embedder(ModuleEmbedder):
    """Tells how far a bag is embedded, which can take minutes."""

    def __init__(self, description: str, tell: Tell) -> None:
        super().__init__()
        self.description = description
        self.images = 0  # of the bag, so far
        self._tell = tell

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Embed and tell."""
        embeddings = super().embed(rows, images)
        self.images += len(embeddings)
        self._tell({"kind": "embedded", "images": self.images})
        return embeddings


class _Run:
    def __init__(  # noqa: PLR0917
        self,
        settings: TrainSettings,
        names: Names,
        journal: Journal,
        tell: Tell,
        watch: _Watch,
        how: dict[str, Any],
    ) -> None:
        self._settings, self._names, self._watch, self._how = settings, names, watch, how
        self._journal, self._tell = journal, tell
        self._batch = 0  # behind the training
        self._verified = -1  # the batch of the last verification
        self._best: _Best | None = None
        self._saved: tuple[int, int] | None = None  # batch and last verification
        # Weights, momenta and sums fit together, are finite, and can be written.
        self._whole = True
        self._steps = 0  # of this run

    def through(self, state: State | None, devices: Sequence[Any]) -> Trained:
        """Train to the end."""
        settings, how = self._settings, self._how
        on = list(map(name_of, devices))
        embedder = _Embedder(f"the network in training, on {', '.join(on)}", self._tell)
        options = settings.feed()
        options["batch_size"] *= len(devices)
        feed = Feed(
            settings.rec if len(settings.rec) > 1 else settings.rec[0],
            model=embedder,
            devices=len(devices),
            epochs=None,
            state=None if state is None else state.plain["feed"] | {"triplets": state.arrays["triplets"]},
            threads=how["threads"],
            prefetch=how["prefetch"],
            memory=how["memory"],
            **options,
        )
        with feed:
            self._feed = feed
            self._model = self._begin(devices) if state is None else self._restore(state, devices)
            embedder.module = self._model.module
            if state is None:
                self._save()  # finds out now whether there is room
            self._record(self._start(on))
            try:
                self._go_on(embedder)
            except BaseException:
                self._save_if_possible()
                raise
        best = self._best
        return Trained(
            batches=self._batch,
            last=f"mxnet:{self._names.prefix},0",
            best=None if best is None else f"mxnet:{self._names.best},0",
            best_batch=None if best is None else best.batch,
            summary=feed.summary,
        )

    def _begin(self, devices: Sequence[Any]) -> Model:
        size = self._feed.image_size
        model = Model(network(self._settings, size, devices[0]), self._settings, devices, size)
        model.begin(*pretrained(self._settings))
        return model

    def _restore(self, state: State, devices: Sequence[Any]) -> Model:
        plain = state.plain
        with quiet():
            embedding = import_mxnet().sym.load_json(plain["symbol"])
        model = Model(embedding, self._settings, devices, self._feed.image_size)
        try:
            model.load(state.arrays)
        except ValueError as error:
            raise ValueError(f"{self._names.state} does not fit its network: {error}") from error
        model.metric.sums = list(plain["metric"])
        self._batch = plain["batch"]
        if not self._watch.pairs or list(self._watch.pairs) == plain["pairs"]:  # else accuracies of others
            self._verified = plain["verified"]
            self._best = None if plain["best"] is None else _Best(**plain["best"])
        self._saved = (self._batch, self._verified)
        return model

    def _start(self, devices: list[str]) -> dict[str, Any]:
        summary = self._feed.summary
        return {
            "kind": "start",
            "batch": self._batch,
            "batches": self._watch.batches,
            "images": summary.images_indexed,
            "identities": summary.identities,
            "image_size": list(self._feed.image_size),
            "devices": devices,
            "settings": self._settings.to_dict(),
        }

    def _record(self, record: Mapping[str, Any]) -> None:
        self._journal.write(record)
        self._tell(record)

    def _go_on(self, embedder: _Embedder) -> None:
        settings, watch = self._settings, self._watch
        images = settings.batch_size * len(self._model.module._context)
        since, logged = time.perf_counter(), self._batch
        while True:
            at_end = self._batch >= watch.batches
            began = time.perf_counter()
            verify = watch.pairs and (at_end or self._batch % watch.verify_every == 0)
            if verify and self._verified != self._batch:
                self._verify()
            save = at_end or self._batch % watch.checkpoint_every == 0
            if save and self._saved != (self._batch, self._verified):
                self._save()
            if at_end:
                return
            since += time.perf_counter() - began  # not what images per second are about
            batch = next(self._feed)
            embedder.images = 0
            with signals_wait():
                self._step(batch)
                if self._batch % watch.log_every == 0:
                    now = time.perf_counter()
                    self._log(batch, images * (self._batch - logged) / (now - since))
                    since, logged = now, self._batch

    def _step(self, batch: TripletBatch) -> None:
        self._whole = False
        self._model.step(batch, self._batch)
        self._batch += 1
        self._steps += 1
        if not math.isfinite(self._model.metric.sums[0]):
            raise self._not_finite(f"the loss of batch {self._batch:,}")
        self._whole = True

    def _not_finite(self, what: str) -> ValueError:
        return ValueError(
            f"{what} is not finite. Lower the learning rate: begin another training, with pretrained weights "
            f"{self._names.prefix},0 of batch {self._saved[0] if self._saved else 0:,}"
        )

    def _log(self, batch: TripletBatch, images_per_second: float) -> None:
        names, values = self._model.metric.get()
        record = {
            "kind": "train",
            "batch": self._batch,
            "epoch": batch.epoch,
            "bag": batch.bag,
            **dict(zip(names, values, strict=True)),
            "learning_rate": self._settings.learning_rate_behind(self._batch - 1),
            "images_per_second": images_per_second,
        }
        self._journal.write(record)
        self._model.metric.reset()  # in this order: what is not written comes again
        self._tell(record)

    def _verify(self) -> None:
        found: list[Verification] = []
        for file in self._watch.pairs:
            one = verify_pairs(file, ModuleEmbedder(self._model.module))
            found.append(one)
            plain = {name: value for name, value in one.to_dict().items() if not name.startswith("fold_")}
            self._record({"kind": "verification", "batch": self._batch, **plain, "pairs": file})
        score = _Best(
            self._batch,
            sum(one.accuracy for one in found) / len(found),
            sum(one.auc or 0.0 for one in found) / len(found),
        )
        with signals_wait():
            beats = score.beats(self._best)
            if beats:
                self._publish(self._names.best)
                self._best = score
            self._verified = self._batch
            if beats:
                self._save()  # the file and the state are not to differ

    def _save_if_possible(self) -> None:
        # A batch that the feed handed out and that no step has seen would be lost.
        none_lost = self._feed.summary.batches == self._steps
        if self._whole and none_lost and self._saved != (self._batch, self._verified):
            self._save()

    def _save(self) -> None:
        with signals_wait():
            self._write()

    def _write(self) -> None:
        self._whole = False
        arrays = self._model.arrays()
        for name, values in arrays.items():
            if not np.isfinite(values).all():  # the loss of the batch before was
                raise self._not_finite(f"{name} behind batch {self._batch:,}")
        feed = self._feed.state_dict()
        arrays["triplets"] = feed.pop("triplets")
        plain = {
            "batch": self._batch,
            "verified": self._verified,
            "best": None if self._best is None else asdict(self._best),
            "pairs": list(self._watch.pairs),
            "metric": self._model.metric.sums,
            "settings": self._settings.to_dict(),
            "how": self._how,
            "symbol": self._model.embedding.tojson(),
            "feed": feed,
        }
        save_state(self._names.state, State(plain, arrays))
        self._saved = (self._batch, self._verified)
        self._publish(self._names.prefix)
        self._whole = True

    def _publish(self, prefix: str) -> None:
        save_checkpoint(prefix, 0, self._model.embedding, *self._model.params())
