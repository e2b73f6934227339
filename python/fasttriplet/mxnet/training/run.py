"""A training from its first batch to its last, over any number of interruptions."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasttriplet.checks import whole_number
from fasttriplet.feed import Feed, TripletBatch
from fasttriplet.judging import Verification
from fasttriplet.mxnet.checkpoint import save_checkpoint
from fasttriplet.mxnet.compat import import_mxnet
from fasttriplet.mxnet.devices import contexts, name_of
from fasttriplet.mxnet.module_embedder import ModuleEmbedder
from fasttriplet.mxnet.quiet import quiet
from fasttriplet.mxnet.training.journal import Journal, Tell
from fasttriplet.mxnet.training.model import Model
from fasttriplet.mxnet.training.network import network, pretrained
from fasttriplet.mxnet.training.settings import TrainSettings
from fasttriplet.mxnet.training.signals import signals_wait
from fasttriplet.mxnet.training.state import State, load_state, save_state
from fasttriplet.summary import Summary
from fasttriplet.verification import verify_pairs


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
        To go on with a training, the same; :func:`settings_at` reads them.
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
        embedded.

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
    """
    whole_number("batches", batches, 1)
    for name, value in (
        ("verify_every", verify_every),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
    ):
        whole_number(name, value, 1)
    for file in pairs:
        if not Path(file).is_file():
            raise FileNotFoundError(f"no file {file} to verify on")
    files = _Files(os.fspath(out))
    state = load_state(files.state) if resume else None
    if state is None:
        files.refuse_to_replace()
    else:
        _check_settings(files.state, state, settings)
    watch = _Watch([os.fspath(file) for file in pairs], verify_every, checkpoint_every, log_every)
    options = {"threads": threads, "prefetch": prefetch, "memory": memory}
    with Journal(
        files.log, None if state is None else state.plain, tell or (lambda _: None), tensorboard
    ) as journal:
        run = _Run(settings, files, state, journal, watch)
        return run.through(batches, contexts(devices), options)


@dataclass(frozen=True, slots=True)
class _Files:
    """The names under a prefix."""

    prefix: str

    @property
    def state(self) -> Path:
        return Path(f"{self.prefix}-state.npz")

    @property
    def log(self) -> Path:
        return Path(f"{self.prefix}-log.jsonl")

    @property
    def best(self) -> str:
        return f"{self.prefix}-best"

    def refuse_to_replace(self) -> None:
        """Never write over what somebody has trained."""
        folder = self.state.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"out: there is no folder {folder}")
        if self.state.exists():
            raise FileExistsError(
                f"out: there is a training at {self.prefix}; go on with it (resume), or give another prefix"
            )
        for taken in (f"{prefix}{end}" for prefix in (self.prefix, self.best) for end in _ENDS):
            if Path(taken).exists():
                raise FileExistsError(f"out: {taken} exists; give another prefix")


_ENDS = ("-symbol.json", "-0000.params")


@dataclass(frozen=True, slots=True)
class _Watch:
    """What is done every so many batches."""

    pairs: list[str]  # to verify on
    verify: int
    checkpoint: int
    log: int


@dataclass(frozen=True, slots=True)
class _Best:
    """The verification that was best."""

    batch: int
    accuracy: float  # means over the files
    auc: float

    def beats(self, other: _Best | None) -> bool:
        return other is None or (self.accuracy, self.auc) > (other.accuracy, other.auc)


class _Run:
    def __init__(
        self,
        settings: TrainSettings,
        files: _Files,
        state: State | None,
        journal: Journal,
        watch: _Watch,
    ) -> None:
        self._settings, self._files, self._journal, self._watch = settings, files, journal, watch
        self._state = state
        plain = {} if state is None else state.plain
        self._batch = int(plain.get("batch", 0))  # behind the training
        self._verified = int(plain.get("verified", -1))  # the batch of the last verification
        self._best = _Best(**plain["best"]) if plain.get("best") else None
        self._saved = None if state is None else (self._batch, self._verified)
        self._whole = True  # weights, momenta and place fit together, and are finite

    def through(self, batches: int, devices: Sequence[Any], options: Mapping[str, Any]) -> Trained:
        """Train up to so many batches."""
        settings = self._settings
        embedder = _Embedder(self._journal)
        embedder.description = f"the network in training, on {', '.join(map(name_of, devices))}"
        feed_options = settings.feed()
        feed_options["batch_size"] *= len(devices)
        feed = Feed(
            settings.rec if len(settings.rec) > 1 else settings.rec[0],
            model=embedder,
            devices=len(devices),
            epochs=None,
            state=self._feed_state(),
            **feed_options,
            **options,
        )
        with feed:
            self._feed = feed
            self._model = self._begin(devices)
            embedder.module = self._model.module
            self._tell_the_start(batches, devices)
            try:
                self._go_on(batches, embedder)
            except BaseException:
                if self._whole and self._saved != (self._batch, self._verified):
                    self._save()
                raise
        best = self._best
        return Trained(
            batches=self._batch,
            last=f"mxnet:{self._files.prefix},0",
            best=None if best is None else f"mxnet:{self._files.best},0",
            best_batch=None if best is None else best.batch,
            summary=feed.summary,
        )

    def _feed_state(self) -> dict[str, Any] | None:
        if self._state is None:
            return None
        feed: dict[str, Any] = self._state.plain["feed"]
        return feed | {"triplets": self._state.arrays["triplets"]}

    def _begin(self, devices: Sequence[Any]) -> Model:
        settings, state = self._settings, self._state
        if state is not None:
            mx = import_mxnet()
            with quiet():
                embedding = mx.sym.load_json(state.plain["symbol"])
            model = Model(embedding, settings, devices, self._feed.image_size)
            try:
                model.load(state.arrays)
            except ValueError as error:
                raise ValueError(f"{self._files.state} does not fit its network: {error}") from error
            model.metric.sums = list(state.plain["metric"])
            return model
        size = self._feed.image_size
        model = Model(network(settings, size, devices[0]), settings, devices, size)
        model.begin(*pretrained(settings))
        return model

    def _tell_the_start(self, batches: int, devices: Sequence[Any]) -> None:
        summary = self._feed.summary
        self._journal.write(
            {
                "kind": "start",
                "batch": self._batch,
                "batches": batches,
                "images": summary.images_indexed,
                "identities": summary.identities,
                "image_size": list(self._feed.image_size),
                "devices": list(map(name_of, devices)),
                "settings": self._settings.to_dict(),
            }
        )

    def _go_on(self, batches: int, embedder: ModuleEmbedder) -> None:
        settings, watch = self._settings, self._watch
        if self._state is None:
            self._save()  # finds out now whether there is room
        images = settings.batch_size * len(self._model.module._context)
        since, logged = time.perf_counter(), self._batch
        while True:
            at_end = self._batch >= batches
            if watch.pairs and self._verified != self._batch and (at_end or self._batch % watch.verify == 0):
                self._verify(embedder)
            is_saved = self._saved == (self._batch, self._verified)
            if not is_saved and (at_end or self._batch % watch.checkpoint == 0):
                self._save()
            if at_end:
                return
            batch = next(self._feed)
            rate = settings.learning_rate_behind(self._batch)
            with signals_wait():
                self._step(batch)
                if self._batch % watch.log == 0:
                    now = time.perf_counter()
                    self._log(batch, rate, images * (self._batch - logged) / (now - since))
                    since, logged = now, self._batch

    def _step(self, batch: TripletBatch) -> None:
        self._whole = False
        self._model.step(batch, self._batch)
        self._batch += 1
        if not math.isfinite(self._model.metric.sums[0]):
            raise self._not_finite(f"the loss of batch {self._batch:,}")
        self._whole = True

    def _not_finite(self, what: str) -> ValueError:
        return ValueError(
            f"{what} is not finite. Lower the learning rate: begin another training, with pretrained weights "
            f"{self._files.prefix},0 of batch {self._saved[0] if self._saved else 0:,}"
        )

    def _log(self, batch: TripletBatch, rate: float, images_per_second: float) -> None:
        names, values = self._model.metric.get()
        self._model.metric.reset()
        self._journal.write(
            {
                "kind": "train",
                "batch": self._batch,
                "epoch": batch.epoch,
                "bag": batch.bag,
                **dict(zip(names, values, strict=True)),
                "learning_rate": rate,
                "images_per_second": images_per_second,
            }
        )

    def _verify(self, embedder: ModuleEmbedder) -> None:
        found: list[Verification] = []
        for file in self._watch.pairs:
            # Not the one that tells of bags.
            one = verify_pairs(file, ModuleEmbedder(embedder.module))
            found.append(one)
            plain = {name: value for name, value in one.to_dict().items() if not name.startswith("fold_")}
            self._journal.write({"kind": "verification", "batch": self._batch, **plain, "pairs": file})
        score = _Best(
            self._batch,
            sum(one.accuracy for one in found) / len(found),
            sum(one.auc or 0.0 for one in found) / len(found),
        )
        if score.beats(self._best):
            self._publish(self._files.best)
            self._best = score
        self._verified = self._batch

    def _save(self) -> None:
        arrays = self._model.arrays()
        for name, values in arrays.items():
            if not np.isfinite(values).all():  # the loss of the batch before was
                self._whole = False
                raise self._not_finite(f"{name} behind batch {self._batch:,}")
        feed = self._feed.state_dict()
        arrays["triplets"] = feed.pop("triplets")
        self._publish(self._files.prefix)
        plain = {
            "batch": self._batch,
            "verified": self._verified,
            "best": None if self._best is None else asdict(self._best),
            "metric": self._model.metric.sums,
            "settings": self._settings.to_dict(),
            "symbol": self._model.embedding.tojson(),
            "feed": feed,
        }
        save_state(self._files.state, State(plain, arrays))
        self._saved = (self._batch, self._verified)

    def _publish(self, prefix: str) -> None:
        save_checkpoint(prefix, 0, self._model.embedding, *self._model.params())


class _Embedder(ModuleEmbedder):
    """Tells how far a bag is embedded, which can take minutes."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def embed(self, rows: Any, images: Any) -> Any:
        """Embed and tell."""
        embeddings = super().embed(rows, images)
        self._journal.tell({"kind": "embedded", "images": len(embeddings)})
        return embeddings


def settings_at(out: str | os.PathLike[str]) -> TrainSettings:
    """Those of the training at PREFIX.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file of its state is damaged.
    """
    return TrainSettings.from_dict(load_state(_Files(os.fspath(out)).state).plain["settings"])


def _check_settings(path: Path, state: State, settings: TrainSettings) -> None:
    before = TrainSettings.from_dict(state.plain["settings"])
    if different := before.differences(settings):
        raise ValueError(
            f"{path} is of a training with {', '.join(different)}: it can only be gone on with as it was "
            "begun. Begin another one with its weights as pretrained"
        )
