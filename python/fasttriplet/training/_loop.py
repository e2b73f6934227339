"""A training from its first batch to its last, over any number of interruptions."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet.dataset._order import epoch_seed
from fasttriplet.embedders._base import Embedder, Started, started
from fasttriplet.errors import OptionError
from fasttriplet.run._feed import Feed, TripletBatch
from fasttriplet.run._options import ResourceOptions
from fasttriplet.run._summary import Summary
from fasttriplet.training._backend import Backend
from fasttriplet.training._journal import Journal
from fasttriplet.training._pace import Pace
from fasttriplet.training._schedule import Schedule
from fasttriplet.training._settings import TrainSettings
from fasttriplet.training._signals import signals_wait
from fasttriplet.training._state import ADVICE, State, of_feed
from fasttriplet.training._store import Store
from fasttriplet.verify._examine import check_for_training
from fasttriplet.verify._protocol import Verification
from fasttriplet.verify._run import verify_pairs

Progress = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Trained:
    """What :func:`train_rec` did.

    Attributes
    ----------
    batches : int
        Batches of the training so far, over all its runs.
    last : str
        Spec of the trained network, for :func:`fasttriplet.load_embedder`.
    best : str or None
        Spec of the network that was best at telling the pairs apart.
    best_batch : int or None
        Number of batches after which that was.
    best_accuracy : float or None
        Its mean accuracy over the files of pairs.
    exported : tuple of str
        The files of these networks in other formats.
    summary : Summary
        What the feed did in this run.
    """

    batches: int
    last: str
    best: str | None
    best_batch: int | None
    best_accuracy: float | None
    exported: tuple[str, ...]
    summary: Summary


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


class _Best(NamedTuple):
    """The best verification."""

    batch: int
    accuracy: float  # means over the files
    auc: float


class _Reporting:
    """An embedder that reports how many images it begins with and has embedded: a bag can take minutes."""

    needs_images = True

    def __init__(self, embedder: Embedder, report: Callable[[int], object]) -> None:
        self._embedder, self._report = embedder, report

    @property
    def description(self) -> str:
        return self._embedder.description

    def prepare(self, index: pl.DataFrame) -> None:
        self._embedder.prepare(index)

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        return self.start_embedding(rows, images).result()

    def start_embedding(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> Started:
        self._report(0)
        begun = started(self._embedder, rows, images)
        if begun.done():
            self._report(rows.height)
            return begun
        return _Reported(begun, partial(self._report, rows.height))

    def __getattr__(self, name: str) -> Any:
        """Have the other methods that an embedder may have."""
        return getattr(self._embedder, name)


class _Reported:
    """Embeddings that are reported when they have been waited for."""

    def __init__(self, begun: Started, report: Callable[[], object]) -> None:
        self._report = report
        self.done, self._result = begun.done, begun.result

    def result(self) -> NDArray[np.float32]:
        embeddings = self._result()
        self._report()
        return embeddings


@dataclass(eq=False)
class Loop:
    """One run of a training."""

    settings: TrainSettings
    backend: Backend  # made with these settings
    schedule: Schedule
    store: Store
    journal: Journal
    progress: Progress
    options: Mapping[str, Any]  # what the state is to remember of the other arguments

    def __post_init__(self) -> None:
        group = self.backend.group
        self._rank: int = 0 if group is None else group.rank
        self._processes: int = 1 if group is None else group.size
        self._embedder = _Reporting(self.backend.embedder, self._embedded)
        # A file of pairs that was moved is the same one.
        self._verify_on = [_digest(file) for file in self.schedule.verify_on]
        self._best_on = self._verify_on  # the files of the best verification
        self._batch = 0  # batches of the training so far
        self._in_bag = (0, 0)  # bags before the one that was last embedded, and its images so far
        self._verified = -1  # the batch of the last verification
        self._best: _Best | None = None
        self._saved: tuple[int, int] | None = None  # batch and last verification
        # Weights, momenta and sums fit together, are finite, and can be written.
        self._whole = True
        self._steps = 0  # of this run
        self._committed = False  # by this run

    def run(self, state: State | None, resources: ResourceOptions) -> Trained:
        """Train to the end, from the beginning or from a state."""
        settings, devices = self.settings, len(self.backend.devices)
        options = settings.feed()
        options["batch_size"] *= devices
        if self.backend.group is not None:
            options["group"] = self.backend.group
        with (
            self._of_this_training(),
            Feed(
                settings.rec if len(settings.rec) > 1 else settings.rec[0],
                model=self._embedder,
                devices=devices,
                epochs=None,
                layout=self.backend.layout,
                state=None if state is None else state.plain["feed"] | of_feed(state.arrays),
                **options,
                **asdict(resources),
            ) as feed,
            feed.summary.in_errors(),
        ):
            self._feed = feed
            self._pair_images = sum(
                check_for_training(
                    file,
                    feed.image_size,
                    threads=resources.threads,
                    max_pixels=self.settings.max_pixels,
                )
                for file in self.schedule.verify_on
            )
            restored = 0 if state is None else len(state.arrays["triplets"])
            self._pace = Pace(options["batch_size"] // 3 * self._processes, restored)
            if state is None:
                self.backend.begin(feed.image_size)
            else:
                self._restore(state)
            if state is None:  # nothing is in the way of this training
                self._commit()
            # The rest follows from the state, which may be all that an interrupted run left.
            new = state is None or state.new
            self.store.tidy(new=new)
            self.journal.begin(0 if new else self._batch + 1)
            self._publish()
            self._record(self._start())
            try:
                self._train()
            except BaseException:
                self._save_if_possible()
                raise
            exported = self._export()
        best = self._best
        return Trained(
            batches=self._batch,
            last=self.store.last,
            best=best and self.store.best,
            best_batch=best and best.batch,
            best_accuracy=best and best.accuracy,
            exported=exported,
            summary=feed.summary,
        )

    @contextmanager
    def _of_this_training(self) -> Iterator[None]:
        """Let an error of a Feed about its `state` name the file, and what to do."""
        try:
            yield
        except ValueError as error:
            if isinstance(error, OptionError) and error.argument == "state":
                raise ValueError(
                    f"{self.store.state} {error.reason}; give the files that the training began with, in "
                    "that order, as rec=PATH"
                ) from None
            if str(error).startswith("state"):
                raise ValueError(f"{self.store.state}: {error}. {ADVICE}") from None
            raise

    def _restore(self, state: State) -> None:
        plain = state.plain
        of_network = {name: state.arrays[name] for name in state.arrays.keys() - of_feed(state.arrays).keys()}
        try:
            self.backend.load(plain["network"], of_network, self._feed.image_size)
        except ValueError as error:
            raise ValueError(f"{self.store.state} does not fit its network: {error}. {ADVICE}") from error
        self.backend.sums = list(map(float, plain["sums"]))
        self._batch, self._best_on = plain["batch"], plain["verify_on"]
        self._best = None if plain["best"] is None else _Best(**plain["best"])
        if not self._verify_on or self._verify_on == self._best_on:
            self._verified = plain["verified"]
        self._saved = (self._batch, self._verified)

    def _start(self) -> dict[str, Any]:
        summary = self._feed.summary
        return {
            "kind": "start",
            "batch": self._batch,
            "batches": self.schedule.batches,
            "framework": self.settings.framework,
            "images": summary.images_indexed,
            "identities": summary.identities,
            "image_size": list(self._feed.image_size),
            "devices": list(self.backend.devices),
            "processes": self._processes,
            "settings": self.settings.to_dict(),
        }

    def _record(self, record: Mapping[str, Any]) -> None:
        self.journal.write(record)
        self._report(record)

    def _report(self, record: Mapping[str, Any], embedded: int = 0) -> None:
        """Tell how far the training is; this many images of a bag or of a verification are embedded."""
        left = self._pace.seconds_left(
            max(0, self.schedule.batches - self._batch), self._images_to_verify() - embedded
        )
        self.progress({**record, "batch": self._batch, "seconds_left": left})

    def _images_to_verify(self) -> int:
        """How many images verifications will still embed, the mirrored ones included."""
        schedule, batch = self.schedule, self._batch
        end, every = schedule.batches, schedule.verify_every
        times = end // every - batch // every + (batch < end and end % every > 0)
        times += self._verified != batch and self._verification_is_due()
        return 2 * self._pair_images * max(0, times)

    def _verifying(self, file: str, before: int, images: int, of: int) -> None:
        """Report the images of a file, after those of the files before it."""
        self._report({"kind": "verifying", "pairs": file, "images": images, "of": of}, 2 * (before + images))

    def _embedded(self, more: int) -> None:
        """Report images of the bag in use."""
        bags_before = self._feed.summary.bags
        bag, images = self._in_bag
        images = more + (images if bag == bags_before else 0)
        self._in_bag = (bags_before, images)
        self._report(
            {"kind": "embedded", "images": images, "of": self._feed.images_of_bag}, images * self._processes
        )

    def _train(self) -> None:
        schedule = self.schedule
        images = self.settings.batch_size * len(self.backend.devices) * self._processes
        since, logged = time.perf_counter(), self._batch
        while True:
            at_end = self._batch >= schedule.batches
            began = time.perf_counter()
            if self._verification_is_due() and self._verified != self._batch:
                self._verify()
            save = at_end or self._batch % schedule.checkpoint_every == 0
            if save and self._saved != (self._batch, self._verified):
                self._save()
            if at_end:
                return
            ready = time.perf_counter()
            since += ready - began  # images per second are those of training alone
            batch = next(self._feed)
            fetched = time.perf_counter()
            bags = self._pace.fetched(self._feed.summary, fetched - ready)
            record = None
            with self._changing():
                self._step(batch)
                self._pace.stepped(time.perf_counter() - (fetched if bags else ready))
                if self._batch % schedule.log_every == 0:
                    now = time.perf_counter()
                    record = self._log(batch, images * (self._batch - logged) / (now - since))
                    since, logged = now, self._batch
            if record is not None:
                self._report(record)
            self._report({"kind": "step"})

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let signals wait for the end of the block; after an error in it, nothing is saved any more."""
        with signals_wait():
            self._whole = False
            yield
            self._whole = True

    def _verification_is_due(self) -> bool:
        schedule = self.schedule
        at_end = self._batch >= schedule.batches
        return bool(schedule.verify_on) and (at_end or self._batch % schedule.verify_every == 0)

    def _step(self, batch: TripletBatch) -> None:
        settings = self.settings
        # The seed depends on the batch, not on what this process did before.
        seed = epoch_seed(settings.seed, self._batch)
        if self._rank:
            seed = epoch_seed(seed, self._rank)
        self.backend.step(batch, settings.learning_rate_after(self._batch), seed)
        self._batch += 1
        self._steps += 1
        if not math.isfinite(self.backend.sums[0]):
            raise self._not_finite(f"the loss of batch {self._batch:,}")

    def _not_finite(self, what: str) -> ValueError:
        if self._saved is None:
            return ValueError(f"{what} is not finite: begin with other weights")
        return ValueError(
            f"{what} is not finite. Lower the learning rate: begin another training, with the weights of "
            f"batch {self._saved[0]:,} as pretrained={self.store.last!r}"
        )

    def _log(self, batch: TripletBatch, images_per_second: float) -> dict[str, Any]:
        *sums, triplets = self.backend.sums
        loss, active, norm = (total / triplets for total in sums)
        record = {
            "kind": "train",
            "batch": self._batch,
            "epoch": batch.epoch,
            "bag": batch.bag,
            "loss": loss,
            "active": active,
            "norm": norm,
            "learning_rate": self.settings.learning_rate_after(self._batch - 1),
            "images_per_second": images_per_second,
        }
        self.journal.write(record)
        self.backend.sums = [0.0] * 4
        return record

    def _verify(self) -> None:
        found: list[Verification] = []
        records: list[dict[str, Any]] = []
        for file in self.schedule.verify_on:
            began, before = time.perf_counter(), sum(one.images or 0 for one in found)
            report = partial(self._verifying, file, before)
            one = verify_pairs(
                file, self.backend.embedder, max_pixels=self.settings.max_pixels, progress=report
            )
            self._pace.embedded(time.perf_counter() - began, 2 * (one.images or 0))
            found.append(one)
            plain = one.to_dict()
            del plain["fold_accuracies"], plain["fold_thresholds"], plain["warning"]
            records.append({"kind": "verification", "batch": self._batch, **plain, "pairs": file})
            self._report(records[-1], 2 * (before + (one.images or 0)))
        accuracy = sum(one.accuracy or 0.0 for one in found) / len(found)
        score = _Best(self._batch, accuracy, sum(one.auc or 0.0 for one in found) / len(found))
        with self._changing():
            self.journal.write(*records)  # all at once, for a state after some of them would repeat these
            self._verified = self._batch
            # Accuracies on other files do not compare.
            best = self._best if self._best_on == self._verify_on else None
            if beats := best is None or score[1:] > best[1:]:
                self._best, self._best_on = score, self._verify_on
        if beats:
            self._save()

    def _save_if_possible(self) -> None:
        # A batch that the feed handed out and that no step has seen would be lost.
        none_lost = self._feed.summary.batches == self._steps
        if self._whole and none_lost and self._saved != (self._batch, self._verified):
            self._save()

    def _save(self) -> None:
        with self._changing():
            self._commit()
            self._publish()

    def _commit(self) -> None:
        """Write the state, from which all other files follow."""
        with self._changing():
            arrays = self.backend.arrays()
            for name, values in arrays.items():
                if not np.isfinite(values).all():  # although the loss of the last batch was
                    raise self._not_finite(f"{name} after batch {self._batch:,}")
            feed = self._feed.state_dict()
            arrays |= {name: feed.pop(name) for name in of_feed(feed)}
            self.journal.sync()
            plain = {
                "batch": self._batch,
                "verified": self._verified,
                "best": self._best and self._best._asdict(),
                "verify_on": self._best_on,
                "log": self.journal.lines,
                "sums": self.backend.sums,
                "settings": self.settings.to_dict(),
                "options": self.options,
                "network": self.backend.network,
                "feed": feed,
            }
            self.store.commit(State(plain, arrays))
            self.journal.committed()
            self._saved = (self._batch, self._verified)
            self._committed = True

    def _publish(self) -> None:
        """Write the networks of the state; a run that resumes from it does so again."""
        with self._changing():
            self.store.publish(best=self._best is not None and self._best.batch == self._batch)

    def _export(self) -> tuple[str, ...]:
        """Write the networks in other formats, if asked to; returns the files."""
        if self.store.formats and not self._committed:
            self._commit()  # the state names the formats before their files are there
        return self.store.export(
            best=self._best is not None,
            begins=lambda file: self._report({"kind": "exporting", "file": str(file)}),
        )
