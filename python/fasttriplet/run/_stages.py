"""The stages of a run, one after the other: from a dataset to the triplets of each bag."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._callers import stacklevel_of_user
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._words import advising, counted
from fasttriplet.dataset._dataset import Dataset, Rec, open_dataset
from fasttriplet.dataset._exclude import included_images
from fasttriplet.dataset._graph import Graph
from fasttriplet.dataset._ids import image_ids, positions_of
from fasttriplet.dataset._options import RUNNING
from fasttriplet.dataset._order import Bag, bags, epoch_seed, order_of_epoch
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import Started, check_embeddings, started
from fasttriplet.embedders._load import embedder_of
from fasttriplet.errors import CollapsedError, CollapseWarning, NoTripletsError, OptionError, RecordError
from fasttriplet.mining._explain import (
    why_collapsed,
    why_never_triplets,
    why_no_triplets,
    why_without_negative,
)
from fasttriplet.mining._mine import MiningStats, Triplets, mine_rows
from fasttriplet.run._machines import Machines
from fasttriplet.run._options import ResourceOptions, RunOptions
from fasttriplet.run._probe import Probe, ProbedEmbedder
from fasttriplet.run._shares import share_of
from fasttriplet.run._summary import Summary

# Images that are decoded, and embedded, at once. A network on a CPU takes ten seconds for them; a GPU takes
# 0.1 s, long against what a call costs.
PART = 1024

# Threads that decode and mine beside the one that feeds the network give way to it: where all cores are busy,
# it would be woken late.
NICE = 5

Images = NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of a bag's images."""

    epoch: int  # from 0
    bag: Bag  # its rows may hold images that were left out
    bags: int  # of the epoch
    images_of_epoch: int
    rows: pl.DataFrame  # of the index, one per image
    last: bool  # of the bag


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """A bag's triplets."""

    epoch: int
    bag: Bag
    rows: pl.DataFrame  # of the index, that were mined
    ids: NDArray[np.int64]  # of the rows, see `Dataset.ids`
    triplets: Triplets  # in terms of these ids
    last: bool  # of the epoch
    why_none: str | None  # why there are none, if that was asked for

    @property
    def outcome(self) -> Outcome:
        """What there is to record of it."""
        count, images = len(self.triplets), self.rows.height
        return Outcome(
            self.epoch, self.bag.number, images, count, self.triplets.stats, self.last, self.why_none
        )

    def positions(self) -> tuple[NDArray[np.int64], ...]:
        """Where the anchors, positives and negatives are among the rows: (T,) int64 each."""
        return tuple(positions_of(self.ids, role) for role in self.triplets)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What :meth:`Stages.record` takes of a bag."""

    epoch: int
    bag: int  # its number in the epoch
    images: int  # that were mined
    triplets: int
    stats: MiningStats
    last: bool
    why_none: str | None


@contextmanager
def _naming(epoch: int, bag: Bag, advice: str = "lower bag_size") -> Iterator[None]:
    """Say in a MemoryError which bag it is about, and what to do."""
    try:
        with advising(advice):
            yield
    except MemoryError as error:
        raise MemoryError(f"epoch {epoch}, bag {bag.number}: {error}") from error


class Stages:
    """The stages between a dataset and its triplets; what each of them did is in `summary`.

    Making one loads the model; :meth:`open` takes the dataset. The stages `for_training` decode the images
    even if the model does not need them.
    """

    # Known once it is open.
    dataset: Dataset
    exclusion: str | None  # tells which images are excluded; None if none is
    index: pl.DataFrame  # of the other images
    rows_of_index: NDArray[np.int64]  # theirs in the dataset
    graph: Graph | None  # of the epochs that are next
    neighbors: str | None  # tells which identities are near which; None without a graph
    largest_bag: int  # most images of a bag; at least 1

    def __init__(self, model: str | Embedder, options: RunOptions, *, for_training: bool = False) -> None:
        if options.has_running_graph and not for_training:
            raise OptionError(
                "neighbors",
                f"must be an identity graph: {RUNNING!r} is for a training, whose epochs follow each other",
            )
        self.options = options
        self.embedder = embedder_of(model)
        self._decodes = for_training or self.embedder.needs_images
        self.begin_summary()
        self._size: tuple[int, int] | None = None
        self._width: int | None = None  # of the embeddings
        self.epoch = 0  # of the last bag
        # Bags of that epoch so far whose embeddings have collapsed, and those whose have not.
        self.collapsed = self.sound = 0

    def probe(self, machines: Machines) -> Probe | None:
        """An embedding by which other processes know that their model is the same; None where none is."""
        if not self.embedder.needs_images or self._size is None:
            return None
        return Probe.of(machines, self.embedder, self.dataset, self._size)

    def for_jobs(self, threads: int | None, probe: Probe | None) -> Stages:
        """Make the stages that other processes get, which take bags through and do not choose them."""
        alike = copy(self)
        if probe is not None:
            alike.embedder = ProbedEmbedder(self.embedder, probe)
        alike.options = replace(self.options, exclude=None, neighbors=None, random_share=0.0, threads=threads)
        return alike

    def __getstate__(self) -> dict[str, Any]:
        return {
            "options": self.options,
            "embedder": self.embedder,
            "dataset": self.dataset,
            "_decodes": self._decodes,
            "_size": self._size,
            "largest_bag": self.largest_bag,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, summary=Summary("", state["options"].metric), _width=None)

    def begin_summary(self) -> Summary:
        """Count anew."""
        self.summary = Summary(self.embedder.description, self.options.metric)
        return self.summary

    def open(self, rec: Rec) -> None:
        """Index the files and find out how large their images are."""
        options = self.options
        if options.bag_size is None:
            raise OptionError("bag_size", "must be a number: only mine_rec takes the whole dataset at once")
        with self.summary.clock("index"):
            self._open(rec, options)
            in_epoch = self._bags(0)
            # Every epoch takes the same number of images of an identity: what fits a bag now fits one later.
            self.largest_bag = max(1, min(options.bag_size, sum(bag.rows.height for bag in in_epoch)))
            if self._decodes:
                sizes = (
                    self.dataset.image_size(bag.rows, on_error=options.on_error, threads=options.threads)
                    for bag in in_epoch
                )
                self._size = next(filter(None, sizes), None)
                if self._size is None and in_epoch:
                    self._check_that_some_decode(in_epoch)

    def open_whole(self, rec: Rec) -> None:
        """Index the files, for a run without bags."""
        with self.summary.clock("index"):
            self._open(rec, self.options)

    def _open(self, rec: Rec, options: RunOptions) -> None:
        ensure_polars_threads()  # the dataset may be from before a fork, the order of an epoch may not
        self.dataset = open_dataset(rec, options, threads=options.threads)
        self.summary.files = [str(path) for path in self.dataset.paths]
        included = included_images(self.dataset, options.exclude, options.exclude_kinds)
        self.exclusion = included.digest
        self.rows_of_index = included.rows
        self.index = self.dataset.index if included.digest is None else self.dataset.index[included.rows]
        self.summary.images_indexed = self.index.height
        self.summary.images_excluded = len(self.dataset) - self.index.height
        identities, images_each = np.unique(self.dataset.labels[included.rows], return_counts=True)
        self.summary.identities = len(images_each)
        self.graph = self.neighbors = None
        if options.has_running_graph:
            self.neighbors = RUNNING
        elif options.neighbors is not None:
            self.graph = Graph.of_dataset(self.dataset, options.neighbors)
            self.neighbors = self.graph.digest
            self.summary.identities_without_neighbors = self.graph.without(identities)
        if why := why_never_triplets(images_each, options):
            raise NoTripletsError(f"{', '.join(self.summary.files)}: {why}")
        self.embedder.prepare(self.dataset.index)  # all: embeddings of a file are those of all images

    def _check_that_some_decode(self, in_epoch: list[Bag]) -> None:
        try:
            self.dataset.decode(in_epoch[0].rows[:1])
        except RecordError as error:
            count = sum(bag.rows.height for bag in in_epoch)
            raise NoTripletsError(
                f"none of {counted(count, 'image')} can be decoded; the first: {error}"
            ) from error

    def about(self) -> dict[str, Any]:
        """What the triplets depend on, as plain data that is the same wherever the files are."""
        options = asdict(self.options)
        without_effect = {*ResourceOptions.names(), "cache", "exclude", "exclude_kinds", "neighbors"}
        if self.options.bag_size is None:
            without_effect |= {"images_per_identity", "boundary", "tail", "random_share"}
        return {
            "kind": "triplets",
            "version": _core.__version__,
            "dataset": self.dataset.fingerprint,
            "files": [path.name for path in self.dataset.paths],
            "exclude": self.exclusion,
            "neighbors": self.neighbors,
            "model": self.summary.embedder,
            "seed": options.pop("seed"),
            "options": {name: value for name, value in options.items() if name not in without_effect},
        }

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images; (0, 0) if there are none."""
        return self._size or (0, 0)

    def waiting_for_images(self) -> AbstractContextManager[None]:
        """What to enter while waiting for :meth:`parts`."""
        return self.summary.waiting("decode" if self._decodes else "index")

    @property
    def part_size(self) -> int:
        """How many images to decode and embed at once: two such parts fit the memory, where one can."""
        most, memory = min(PART, self.largest_bag), self.options.memory
        if memory is None or self._size is None:
            return most
        height, width = self._size
        return min(most, max(1, memory // (2 * height * width * 3)))

    def depth(self, images: int) -> int:
        """How many parts of `images` images may be decoded ahead of the one in use, which must fit."""
        ahead, memory = -(-self.options.prefetch * self.largest_bag // images), self.options.memory
        if memory is None or self._size is None:
            return ahead
        height, width = self._size
        need = images * height * width * 3
        if need > memory:
            what = f"{counted(images, 'image')} of {height} x {width}"
            or_else = ", or lower bag_size" if images > 1 else ""
            raise OptionError(
                "memory", f"must be at least {need:,} bytes for {what}, not {memory:,}{or_else}"
            )
        return min(ahead, memory // need - 1)

    def _bags(self, epoch: int) -> list[Bag]:
        options = self.options
        assert options.bag_size is not None
        seq = order_of_epoch(self.index, options, epoch_seed(options.seed, epoch), self.graph)
        return list(bags(seq, options.bag_size, options.boundary, options.tail))

    def parts(
        self, epoch: int, images: int | None = None, *, first_bag: int = 0, rank: int = 0, size: int = 1
    ) -> Generator[tuple[Part, Images], None, None]:
        """Decode one epoch from `first_bag` on, bag by bag, in parts of at most this many images.

        By default a part is a whole bag, or the share of the process `rank` of `size`. Its images are
        (B, H, W, 3) uint8, or None if the embedder needs none. They are not in the part, so that they can be
        freed before it is.
        """
        with self.summary.clock("index", overlapped=True):
            in_epoch = self._bags(epoch)
        if first_bag > len(in_epoch):
            raise ValueError(
                f"state: bag is {first_bag}, and epoch {epoch} has {counted(len(in_epoch), 'bag')}"
            )
        images_of_epoch = sum(bag.rows.height for bag in in_epoch)
        for bag in in_epoch[first_bag:]:
            share = bag.rows if size == 1 else bag.rows[share_of(bag.rows["label"].to_numpy(), rank, size)]
            of_bag = Part(epoch, bag, len(in_epoch), images_of_epoch, share, last=True)
            yield from self.parts_of_bag(of_bag, images)

    def parts_of_bag(
        self, of_bag: Part, images: int | None = None
    ) -> Generator[tuple[Part, Images], None, None]:
        """Decode one bag, or a share of it, in parts of at most this many images; see :meth:`parts`."""
        share = of_bag.rows
        step = max(1, share.height if images is None else images)
        for start in range(0, max(1, share.height), step):
            advice = "lower bag_size, or hold fewer images ahead (prefetch, memory)"
            with _naming(of_bag.epoch, of_bag.bag, advice):
                rows, pixels = self._decode(share[start : start + step])
            yield replace(of_bag, rows=rows, last=start + step >= share.height), pixels
            del pixels  # not to be held while the next are decoded

    def bags_of(self, epoch: int) -> Iterator[Part]:
        """The bags of an epoch, before anything is decoded."""
        with self.summary.clock("index"):
            in_epoch = self._bags(epoch)
        images = sum(bag.rows.height for bag in in_epoch)
        for bag in in_epoch:
            yield Part(epoch, bag, len(in_epoch), images, bag.rows, last=True)

    def _decode(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Images]:
        if not self._decodes:
            return rows, None
        options = self.options
        with self.summary.clock("decode", overlapped=True):
            decoded = self.dataset.decode(
                rows, size=self._size, threads=options.threads, on_error=options.on_error
            )
        if decoded.failed:
            failed = (str(error) for _, error in decoded.failed)
            self.summary.skipped = list(dict.fromkeys([*self.summary.skipped, *failed]))  # once in all epochs
        return rows[decoded.kept], decoded.pixels

    def decode_ids(self, ids: NDArray[np.int64]) -> tuple[pl.DataFrame, NDArray[np.uint8]]:
        """Decode the images that have these ids, of which triplets were mined, in the order of the index."""
        wanted, known = np.unique(ids), self.dataset.ids  # which ascend
        at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        if (missing := wanted[known[at] != wanted]).size:
            raise ValueError(
                f"state: {', '.join(self.summary.files)} has no image with the id {missing[0]}, of which "
                f"triplets were mined; was the dataset changed?"
            )
        rows = self.dataset.index[at]
        with self.summary.clock("fetch"):
            decoded = self.dataset.decode(rows, size=self._size, threads=self.options.threads)
        return rows, decoded.pixels

    def embed(self, part: Part, rows: pl.DataFrame, images: Images) -> Started:
        """Begin to embed some of a part's images, which were decoded."""
        with self.summary.clock("embed"), _naming(part.epoch, part.bag):
            return started(self.embedder, rows, images if self.embedder.needs_images else None)

    def embedded(self, part: Part, rows: pl.DataFrame, embedding: Started) -> NDArray[np.float32]:
        """Wait for the embeddings of these rows."""
        with self.summary.clock("embed"), _naming(part.epoch, part.bag):
            embeddings = check_embeddings(embedding.result(), rows, self.summary.embedder, np.float32)
        width, self._width = self._width, embeddings.shape[1]
        if width not in (None, self._width):
            raise ValueError(
                f"{self.summary.embedder}: vectors of {self._width} numbers, after some of {width}"
            )
        return embeddings

    def mine(
        self, part: Part, embedded: list[NDArray[np.float32]], *, explain: bool, overlapped: bool
    ) -> Mined:
        """Mine all images of a bag, which were embedded piece by piece.

        With `explain` it finds out why there are no triplets. `overlapped`: the run does not wait for it.
        """
        rows, options, seed = part.rows, self.options, epoch_seed(self.options.seed, part.epoch)
        labels, ids = rows["label"].to_numpy(), image_ids(rows)
        with self.summary.clock("mine", overlapped=overlapped), _naming(part.epoch, part.bag):
            embeddings = np.concatenate(embedded) if embedded else np.empty((0, 1), dtype=np.float32)
            triplets = mine_rows(options, (embeddings, labels, ids), seed=seed, threads=options.threads)
        why = None
        if len(triplets) == 0 and explain:
            why = why_no_triplets(embeddings, labels, triplets.stats, options, threads=options.threads)
            why = f"epoch {part.epoch}, bag {part.bag.number}: {why}"
        return Mined(part.epoch, part.bag, rows, ids, triplets, part.bag.number + 1 == part.bags, why)

    def explain_pairs(self, mined: Mined, embedded: list[NDArray[np.float32]]) -> None:
        """Note in the summary why pairs of this bag have no negative, if no earlier bag says so."""
        if self.summary.without_negative is None and len(mined.triplets):
            rows = np.concatenate(embedded), mined.rows["label"].to_numpy(), mined.ids
            with suppress(MemoryError):  # the run goes on without it
                why = why_without_negative(*rows, mined.triplets, self.options, threads=self.options.threads)
                if why is not None:
                    self.summary.without_negative = {"epoch": mined.epoch, "bag": mined.bag.number, **why}

    def record(self, found: Outcome) -> None:
        """Add a bag to the summary, except how many of its triplets are used.

        Warn of the first bag whose embeddings have collapsed; after the last bag of an epoch, raise what
        :meth:`end_epoch` raises.
        """
        summary, stats = self.summary, found.stats
        summary.epochs = found.epoch + 1
        summary.bags += 1
        summary.images += found.images
        summary.pairs += stats.pairs
        summary.pairs_without_negative += stats.pairs_without_negative
        summary.pairs_over_max_ap += stats.pairs_over_max_ap
        summary.bags_without_triplets += found.triplets == 0
        summary.why_no_triplets = summary.why_no_triplets or found.why_none
        if found.epoch != self.epoch:
            self.epoch, self.collapsed, self.sound = found.epoch, 0, 0
        self.collapsed += stats.collapsed
        self.sound += stats.scatter is not None and not stats.collapsed
        if stats.collapsed:
            summary.bags_collapsed += 1
            self._why_collapsed = why_collapsed(stats)
        if found.last:
            self.end_epoch()
        if stats.collapsed and summary.bags_collapsed == 1:
            warnings.warn(
                f"epoch {found.epoch}, bag {found.bag}: {self._why_collapsed}. Its triplets are noise",
                CollapseWarning,
                stacklevel=stacklevel_of_user(),  # the caller of mine_rec, or who iterates over a feed
            )

    def end_epoch(self) -> None:
        """Raise a CollapsedError if the embeddings of all bags of the epoch have collapsed."""
        if self.collapsed and not self.sound:
            raise CollapsedError(
                f"epoch {self.epoch}, every bag: {self._why_collapsed}. Check the images and the weights; "
                "restart a training with a lower learning rate"
            )

    def no_triplets(self) -> NoTripletsError:
        """The error for a run that found none."""
        summary, size = self.summary, self.options.bag_size
        if summary.bags == 0 and size is not None:
            return NoTripletsError(f"no bag has {counted(size, 'image')}: lower bag_size, or use tail='keep'")
        bags = "" if size is None else f"{counted(summary.bags, 'bag')} with "
        return NoTripletsError(
            f"no triplet in {bags}{counted(summary.images, 'image')}; {summary.why_no_triplets}"
        )
