"""Batches of triplets for training, mined with the network that is being trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import GEN_RUNNING, getgeneratorstate
from itertools import count
from typing import Any, NoReturn, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import batch_of_triplets, whole_number
from fasttriplet._launcher import threads_each
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._augment import Augment, assemble
from fasttriplet.dataset._dataset import Dataset, Rec
from fasttriplet.dataset._ids import positions_of
from fasttriplet.dataset._options import ExcludeOptions
from fasttriplet.dataset._order import epoch_seed
from fasttriplet.embedders import Embedder
from fasttriplet.errors import NoTripletsError, OptionError
from fasttriplet.run._bag import SharedStages
from fasttriplet.run._group import CLOSED, Alone, Group, check_agreement, failed, telling
from fasttriplet.run._image_triplets import ImageTriplets
from fasttriplet.run._options import FeedKeywords, FeedOptions, ResourceOptions
from fasttriplet.run._place import MOST_EPOCHS, NO_STATE, Place
from fasttriplet.run._running import ARRAYS, RunningGraph
from fasttriplet.run._shares import Dealt
from fasttriplet.run._stages import NICE, Images, Mined, Part, Stages
from fasttriplet.run._summary import Summary
from fasttriplet.run._worker import Ahead, Worker

# Options that a feed's batches do not depend on, or only by the dataset's fingerprint and the digests of what
# is excluded and of the graph.
_WITHOUT_EFFECT = {*ResourceOptions.names(), *ExcludeOptions.names(), "neighbors", "on_error"}

_STAGES_OF_BAG = ("decode", "embed", "mine")

_log = logging.getLogger("fasttriplet")

# Batches that are assembled while the caller trains on another one: a second one makes up for a thread that
# is late.
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class TripletBatch:
    """Images of T triplets: the T anchors, then the positives, then the negatives, of each device.

    Attributes
    ----------
    images : (3T, 3, H, W) float32
        RGB, 0 to 255, augmented; or what the `layout` of the feed made.
    labels : (3T,) int64
        Identities; shifted if the labels of several files are separate.
    ids : (3T,) int64
        Keys of the records; of several files, key + file * 2**48.
    epoch, bag : int
        Where the last triplet is from, from 0. The epoch decides how the images are augmented.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    epoch: int
    bag: int


class Feed:
    """Iterates over batches of triplets of a dataset, for training.

    Bag by bag, the images are decoded once, embedded with `model` as it is at that moment, and mined; the
    triplets, in random order, come in batches ``[anchors | positives | negatives]``. The decoded images of
    the bag are kept until all its batches are made. While the caller trains on a batch, the next batches are
    assembled and the next bag is decoded. Triplets that do not fill a batch go into the next bag's first one.
    Each bag is logged to the logger ``fasttriplet``, at level INFO.

    Close it, or use it in a ``with`` block, when the iteration ends early: what is being decoded is given up
    then. Iterate and close in one thread.

    Several processes that train one network have a feed each, with the same arguments and a `group` that
    connects them. Each decodes and embeds its share of a bag, all mine the same triplets, and each hands out
    its part of them, in as many batches as every other process. Where one fails, all end with its message.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : Embedder or str
        The network that is being trained, or a spec for :func:`fasttriplet.load_embedder`. It is called
        in the thread that iterates, between two batches.
    batch_size : int, default 60
        Images of a batch, a multiple of 3 for each device; with a `group`, of each process.
    devices : int, default 1
        How many equal slices a batch has, each ``[anchors | positives | negatives]`` of its own triplets: for
        a training that cuts batches for its devices.
    augment : Augment, optional
        Random changes of the images of batches, different in each epoch. Images that are embedded for mining
        are not changed. By default there are none.
    epochs : int or None, default 1
        Passes over the dataset; None for no end.
    first_epoch : int, default 0
        Number of the first pass, which decides its order, picks and augmentation: to continue a training.
    state : dict, optional
        What :meth:`state_dict` of a feed with the same arguments gave: continue after the batch that it had
        handed out last.
    group : Group, optional
        Connects the feeds of processes that train together; by default this one trains alone.
        :class:`fasttriplet.torch.TripletFeed` has one for ``torch.distributed``.
    layout : callable, default assemble
        Lays out the images of a batch, in a thread beside the caller's. It is called as
        :func:`fasttriplet.assemble` is, and returns the `images` of a batch: for numbers or memory of
        another kind.
    labels, cache
        See :func:`fasttriplet.index_rec`. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.
    exclude, exclude_kinds
        Images to leave out; see :func:`fasttriplet.mine_rec`. A `state` is of a feed without the same images.
    margin, band, ranks, pick, negatives_per_pair, fallback
    pairs, positives_per_anchor, triplets_per_anchor, max_ap, metric, normalize
        See :func:`fasttriplet.mine`. Semi-hard is ``d_ap < d_an < d_ap + margin``, by default on squared L2.
    images_per_identity, bag_size, boundary
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`.
    neighbors : path, DataFrame or "running", optional
        Makes bags of identities that are near each other: an identity graph, a Parquet file or a Polars
        frame; see :func:`fasttriplet.triplet_seq`. A `state` is of a feed with the same graph. For another
        graph in each epoch, make a feed for each, with its `first_epoch`. Or ``"running"``: the feed makes
        the graph itself, and makes it anew while the network learns; see the notes. A file of that name is
        given by its absolute path.
    random_share : float, default 0
        With `neighbors`, the share of a bag's images that are of identities in random order.
    refresh_epochs : int, default 1
        With ``neighbors="running"``, how many epochs have the same graph.
    tail : {"keep", "drop"}, default "keep"
        What to do with images that do not fill a bag and triplets that do not fill a batch. ``"keep"``: the
        last bag of an epoch is smaller, triplets left over go into the next batch, and the very last batch is
        smaller. ``"drop"``: neither is used, as in InsightFace. With a `group`, triplets that are left at the
        very end are not handed out if there are fewer than processes.
    on_error, seed
        See :func:`fasttriplet.mine_rec`.
    threads : int, optional
        Threads that decode, and that mine. By default one per core, divided by the processes on this machine
        if torchrun started them.
    prefetch : int, default 1
        Bags that may be decoded ahead of the one in use.
    memory : int, optional
        Most bytes of decoded images to hold, ahead and in use, by default ``prefetch + 1`` bags: a bag of
        7,200 images of 112 x 112 has 271 MB. With less, fewer bags are decoded ahead. Batches come on top,
        four at most, each of 150 kB per image of 112 x 112.

    Raises
    ------
    NoTripletsError
        If the dataset can give no triplet. While iterating, after an epoch without any triplet, or with
        ``tail="drop"`` without a full batch; the message says why.
    CollapsedError
        While iterating, at the last bag of an epoch, if in all its bags the embeddings of different
        identities were nearly equal. A feed warns of the first such bag (:class:`CollapseWarning`).
    PeerError
        If another process of the `group` failed, was killed or closed its feed before the end. Any other of
        these errors ends all processes of the group.
    RuntimeError
        In a process that was forked from the one that made the feed, or from one that had used Polars.
    RecordError, OSError, ValueError
        As :func:`fasttriplet.mine_rec`.

    Notes
    -----
    With ``neighbors="running"``, each identity has a running mean of its embeddings. When a bag has an
    identity, the mean of its embeddings there, computed as :func:`fasttriplet.neighbors` does, is its running
    mean if it had none, and else moves its running mean by half of the way, in float32. No image is embedded
    for it that is not embedded for mining. Before each epoch whose number is a multiple of `refresh_epochs`,
    the graph is made anew: what :func:`fasttriplet.neighbors` gives for these means, with 20 neighbors.
    Identities that no bag has had so far are placed at random: all in the epochs before the first graph, as
    in those of a feed that begins with a later `first_epoch` and without a `state`. The graph is a
    function of the embeddings, so a feed that continues from a state has the same batches, and in a group all
    processes have the same graph.

    The first bag of such an epoch is decoded after the last batch of the epoch before.

    Examples
    --------
    >>> with Feed("train.rec", model=network, augment=Augment(mirror=True)) as feed:  # doctest: +SKIP
    ...     for batch in feed:
    ...         train_on(batch.images, batch.labels)
    """

    @shows(FeedOptions)
    def __init__(
        self,
        rec: Rec,
        *,
        model: Embedder | str,
        batch_size: int = 60,
        devices: int = 1,
        augment: Augment | None = None,
        epochs: int | None = 1,
        first_epoch: int = 0,
        state: Mapping[str, Any] | None = None,
        group: Group | None = None,
        layout: Callable[..., Any] = assemble,
        **options: Unpack[FeedKeywords],
    ) -> None:
        if group is not None and not all(
            callable(getattr(group, name, None)) for name in ("gather", "leave")
        ):
            raise OptionError("group", f"must be a Group, with gather and leave, not {group!r:.100}")
        self._group: Group = Alone() if group is None else group
        with telling(self._group):
            chosen = FeedOptions.of(Feed, options)
            if chosen.threads is None:
                chosen = replace(chosen, threads=threads_each())
            self._options = chosen
            self._devices = devices = whole_number("devices", devices, 1)
            batch_size = batch_of_triplets("batch_size", batch_size, devices)
            self._triplets_per_batch = batch_size // 3
            first_epoch = whole_number("first_epoch", first_epoch, 0, MOST_EPOCHS)
            self._end = None if epochs is None else first_epoch + whole_number("epochs", epochs, 1)
            if augment is not None and not isinstance(augment, Augment):
                raise OptionError("augment", f"must be an Augment, not {augment!r}")
            if not callable(layout):
                raise OptionError("layout", f"must be a callable, as assemble is, not {layout!r:.100}")
            self._augment, self._layout = augment, layout
            self._stages = Stages(model, chosen, for_training=True)
            self._stages.open(rec)
            running = chosen.has_running_graph
            self._running = RunningGraph(self._stages.index["label"].to_numpy(), chosen) if running else None
            self._shared = SharedStages(self._stages, self._group, self._running)
            self._stages.depth(self._stages.largest_bag)  # an error now, not when the training starts
            # What decides the batches.
            self._arguments = {
                "dataset": self._stages.dataset.fingerprint,
                "exclude": self._stages.exclusion,
                "neighbors": self._stages.neighbors,
                "batch_size": batch_size,
                "devices": devices,
                "augment": None if augment is None else asdict(augment),
                **{name: value for name, value in asdict(chosen).items() if name not in _WITHOUT_EFFECT},
                "processes": self._group.size,
            }
            self._start = start = Place(first_epoch, 0) if state is None else self._restored(state)
            of_state = [start.digest]
            if self._running is not None:
                of_state.append(self._running.digest(start.epoch, start.bag))
            alike = {"first_epoch": first_epoch, "epochs": epochs, "state": of_state}
            check_agreement(self._group, self._arguments | alike)
        self._stages.epoch, self._stages.sound = start.epoch, start.sound_bags
        # The first bag that no batch so far is from, and how many before it in its epoch have not collapsed.
        self._next_bag = (start.epoch, start.bag, start.sound_bags)
        self._waiting: Dealt | None = None  # mined by all processes, and not yet handed out
        self._images_of_bag = 0
        self._no_bag = False  # in an epoch, so that there are no more
        self._waited: dict[str, float] = {}  # seconds for each stage, up to the last bag
        self._batches = self._run()

    @property
    def summary(self) -> Summary:
        """What was done so far, and what the run waited for."""
        return self._stages.summary

    @property
    def dataset(self) -> Dataset:
        """The images, which stay open."""
        return self._stages.dataset

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self._stages.image_size

    @property
    def images_of_bag(self) -> int:
        """Images of the bag in use, or of the share of this process; 0 before the first."""
        return self._images_of_bag

    def state_dict(self, *, epoch: int | None = None) -> dict[str, Any]:
        """What is needed to continue after the batch that was handed out last.

        A feed that gets it as `state` hands out the batches that this one would have handed out, if the
        model embeds as it would have: the model's own state is to be saved at the same moment.

        Parameters
        ----------
        epoch : int, optional
            Continue with the first bag of this epoch instead, without the triplets that are left. Only the
            means and the graph of ``neighbors="running"`` are then of this feed.

        Returns
        -------
        dict
            Numbers, texts and one array: ``triplets``, (T, 3) int64, ids of what was mined and is still to be
            handed out. With ``neighbors="running"`` also ``means`` and ``mean_labels``, 4 bytes for each
            number of each identity's embedding, and ``graph_labels``, ``graph_starts`` and
            ``graph_neighbors``. In a group it is the same in all processes, if they have taken as many
            batches.
        """
        waiting = self._waiting
        place = self._start if waiting is None else Place.after(self._next_bag, waiting)
        if epoch is not None:
            place = Place(whole_number("epoch", epoch, 0, MOST_EPOCHS), 0)
        arrays = {} if self._running is None else self._running.state(place.epoch, place.bag)
        return {"arguments": dict(self._arguments), **asdict(place), **arrays}

    def _restored(self, state: Mapping[str, Any]) -> Place:
        """The place of a state, and what else is in it."""
        if not isinstance(state, Mapping):
            raise ValueError(NO_STATE)
        place = Place.of(
            {name: value for name, value in state.items() if name not in ARRAYS}, self._arguments
        )
        if ARRAYS.keys() & state.keys() != (set() if self._running is None else ARRAYS.keys()):
            raise ValueError(NO_STATE)
        if self._running is not None:
            self._running.restore(state)
        return place

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TripletBatch:
        for batch in self._of_this_thread():
            if batch is not None:
                return batch
        raise StopIteration

    def _of_this_thread(self) -> Iterator[TripletBatch | None]:
        if getgeneratorstate(self._batches) == GEN_RUNNING:
            raise RuntimeError("another thread is waiting for a batch; iterate over a Feed in one thread")
        return self._batches

    def one_epoch(self) -> Iterator[TripletBatch]:
        """Iterate over what is left of the current epoch: a pass over the dataset.

        The next call continues with the epoch after it. Its first bag is mined when its first batch is asked
        for, so a training can verify its network or change its learning rate in between.

        Yields
        ------
        TripletBatch
            Those that iterating over the feed gives. Triplets that do not fill a batch go into the first
            batch of the next epoch.
        """
        for batch in self._of_this_thread():
            if batch is None:
                return
            yield batch
            del batch  # not to be held while waiting for the next one

    def close(self) -> None:
        """End the iteration and its threads; a RuntimeError while another thread waits for a batch."""
        try:
            self._batches.close()
        except ValueError:
            raise RuntimeError("another thread is waiting for a batch; close the Feed there") from None
        self._group.leave(CLOSED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._group.leave(failed(error))
        self.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a Feed cannot be copied, nor sent to another process, such as a worker of a data loader: it has "
            "threads, and the model of this process. Make one in that process"
        )

    def _run(self) -> Generator[TripletBatch | None, None, None]:
        """The batches, and None at the end of each epoch."""
        with telling(self._group):
            yield from self._epochs_of_batches()
        self._group.leave(None)

    def _epochs_of_batches(self) -> Generator[TripletBatch | None, None, None]:
        stages, size, start = self._stages, self._triplets_per_batch, self._start
        # What waits for the next batches: triplets of all processes, and this one's with their images.
        waiting = start.waiting(self._group.size)
        carried: ImageTriplets | None = None
        drop = self._options.tail == "drop"
        # A feed stops after a batch, so the bags before that place have given triplets.
        epoch, mined_in_epoch, gained_in_epoch, why = start.epoch, 0, start.bag, None
        next_bag = self._next_bag
        if self._group.rank == 0:
            _log.info(
                f"{counted(stages.summary.images_indexed, 'image')} of "
                f"{counted(stages.summary.identities, 'identity')}; each bag, at most "
                f"{counted(stages.largest_bag, 'image')}, is decoded, embedded and mined before its "
                "first batch"
            )
        with (
            self.summary.in_errors(),
            Worker("decode", nice=NICE) as decoder,
            Worker("assemble") as assembler,
        ):
            depth = stages.depth(stages.largest_bag)
            if len(waiting):
                batches, carried = self._shared.restored(waiting).cut(size, None, waiting.each // size)
                yield from self._hand_out(assembler, batches, waiting, next_bag)
                waiting = waiting.after(size * len(batches))
                del batches
            for part, images in self._decoded(decoder, depth):
                if part.epoch != epoch:  # of that in the state, all bags had been mined
                    yield None
                    epoch, mined_in_epoch, gained_in_epoch, why = part.epoch, 0, 0, None
                assert images is not None  # stages for training decode them whatever the model
                mined, holders = self._mine(part, images, explain=why is None)
                why = why or mined.why_none
                next_bag = epoch, part.bag.number + 1, stages.sound
                triplets = np.stack([*mined.triplets], axis=1)
                waiting = waiting.followed_by(epoch, part.bag.number, triplets, holders)
                waiting, batches, carried = self._cut(part, images, waiting, carried)
                del images  # only `batches` hold them now, and not while waiting for the next ones
                mined_in_epoch += len(triplets)
                gained_in_epoch += len(batches) if drop else len(triplets)
                yield from self._hand_out(assembler, batches, waiting, next_bag)
                waiting = waiting.after(size * len(batches))
                del batches
                if mined.last and not gained_in_epoch:
                    break
                if mined.last and epoch + 1 != self._end:
                    epoch, mined_in_epoch, gained_in_epoch, why = epoch + 1, 0, 0, None
                    self._reach((epoch, 0, 0), waiting)
                    yield None
            # Without an end all batches are full, as a network may be bound to their size.
            if carried is not None and waiting.each and (gained_in_epoch or self._end is not None):
                yield from self._hand_out(assembler, [carried], waiting, next_bag)
            if not gained_in_epoch:
                raise self._nothing(mined_in_epoch, why)
            if not self.summary.batches and len(waiting) > len(start.triplets):
                raise NoTripletsError(
                    f"only {counted(len(waiting), 'triplet')} for {self._group.size} processes of the group"
                )

    def _nothing(self, mined_in_epoch: int, why: str | None) -> NoTripletsError:
        if mined_in_epoch:
            return NoTripletsError(
                f"no bag of a whole epoch filled a batch of {counted(self._triplets_per_batch, 'triplet')}: "
                "lower batch_size, raise bag_size, or use tail='keep'"
            )
        if why is None:
            return self._stages.no_triplets()
        return NoTripletsError(f"no triplet in an epoch; {why}")

    def _reach(self, next_bag: tuple[int, int, int], waiting: Dealt) -> None:
        """Be at this place, of which a state is."""
        self._next_bag, self._waiting = next_bag, waiting
        if self._running is not None:
            self._running.commit()

    def _decoded(self, decoder: Worker, depth: int) -> Generator[tuple[Part, Images], None, None]:
        """All parts, decoded ahead; but not beyond an epoch whose order depends on the parts before it."""
        stages, running, epoch, first_bag = self._stages, self._running, self._start.epoch, self._start.bag
        while epoch != self._end and not self._no_bag:
            end = self._end
            if running is not None:
                following = running.next_due(epoch)
                end = following if end is None else min(end, following)
                if first_bag == 0 and running.is_due(epoch):
                    self._refresh(running, epoch)
                stages.graph = running.graph
                stages.summary.identities_without_neighbors = running.without()
            parts = self._parts(epoch, end, first_bag)
            yield from Ahead(decoder, parts, depth, stages.waiting_for_images)
            if end is None:
                return
            epoch, first_bag = end, 0

    def _refresh(self, running: RunningGraph, epoch: int) -> None:
        """Make the graph of the means, and log it."""
        with self.summary.clock("neighbors"):
            running.refresh()
        if self._group.rank == 0 and running.graph is not None:
            _log.info(
                f"epoch {epoch}: bags by a graph of the running means of "
                f"{counted(len(running.graph.labels), 'identity')}"
            )

    def _parts(
        self, first: int, end: int | None, first_bag: int
    ) -> Generator[tuple[Part, Images], None, None]:
        rank, size = self._group.rank, self._group.size
        for epoch in count(first) if end is None else range(first, end):
            empty = first_bag == 0
            for part in self._stages.parts(epoch, first_bag=first_bag, rank=rank, size=size):
                empty = False
                yield part
                del part
            if empty:
                self._no_bag = True
                return
            first_bag = 0

    def _cut(
        self, part: Part, images: NDArray[np.uint8], waiting: Dealt, carried: ImageTriplets | None
    ) -> tuple[Dealt, list[ImageTriplets], ImageTriplets | None]:
        """Full batches of this process, after what waits in all of them; and its rest."""
        size, count = self._triplets_per_batch, waiting.each // self._triplets_per_batch
        found = self._shared.triplets(waiting, 0 if carried is None else len(carried), part, images)
        batches, carried = found.cut(size, carried, count)
        if self._options.tail == "drop":
            return waiting.until(size * count), batches, None
        return waiting, batches, carried

    def _mine(
        self, part: Part, images: NDArray[np.uint8], *, explain: bool
    ) -> tuple[Mined, NDArray[np.int64]]:
        """Mine a bag, of which `part` is the share of this process; also tell who holds each anchor."""
        stages = self._stages
        self._images_of_bag = part.rows.height
        mined, ends = self._shared.mine(part, images, explain=explain)
        stages.record(mined.outcome)
        stages.summary.triplets += len(mined.triplets)
        if self._group.rank == 0:
            self._log(part, mined)
        triplets = mined.triplets.shuffle(epoch_seed(self._options.seed, part.epoch))
        anchors = positions_of(mined.ids, triplets.anchor)
        return replace(mined, triplets=triplets), np.searchsorted(ends, anchors, side="right")

    def _log(self, part: Part, mined: Mined) -> None:
        """Log what a bag gave, and how long the training waited for it."""
        stats, before = mined.triplets.stats, self._waited
        waited = self._waited = dict(self.summary.waited)
        decode, embed, mine = (waited.get(stage, 0) - before.get(stage, 0) for stage in _STAGES_OF_BAG)
        unmatched = stats.pairs_without_negative / max(1, stats.pairs)
        _log.info(
            f"epoch {part.epoch}, bag {part.bag.number} ({part.bags:,} in all): "
            f"{counted(mined.rows.height, 'image')}, {counted(len(mined.triplets), 'triplet')}, "
            f"{unmatched:.0%} of {counted(stats.pairs, 'pair')} without a negative; "
            f"waited {decode:.1f} s for decoding, {embed:.1f} s for embedding, {mine:.1f} s for mining"
        )

    def _hand_out(
        self,
        assembler: Worker,
        batches: list[ImageTriplets],
        waiting: Dealt,
        next_bag: tuple[int, int, int],
    ) -> Generator[TripletBatch, None, None]:
        summary = self._stages.summary
        for batch in Ahead(
            assembler, self._assemble(batches), _BATCHES_AHEAD, partial(summary.waiting, "assemble")
        ):
            summary.batches += 1
            waiting = waiting.after(self._triplets_per_batch)
            self._reach(next_bag, waiting)
            with summary.clock("train"):
                yield batch
            del batch  # not to be held while waiting for the next one

    def _assemble(self, batches: list[ImageTriplets]) -> Generator[TripletBatch, None, None]:
        for chosen in batches:
            with self._stages.summary.clock("assemble", overlapped=True):
                # For each device all anchors first. The last, smaller batch may not come out even.
                slices = np.array_split(chosen.rows, self._devices)
                rows = np.concatenate([triplets.T.ravel() for triplets in slices])
                ids, seed = chosen.ids[rows], epoch_seed(self._options.seed, chosen.epoch)
                images = self._layout(chosen.pixels, rows, augment=self._augment, ids=ids, seed=seed)
                batch = TripletBatch(images, chosen.labels[rows], ids, chosen.epoch, chosen.bag)
            yield batch
