"""What a run did, how far it is, and how fast each stage was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import polars as pl

from fasttriplet._words import counted
from fasttriplet.mining._options import Metric
from fasttriplet.run._timeline import Timeline

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_SAMPLE = 1_000_000  # triplets that the quantiles are taken from


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; reported at the beginning, every thousand images and at the end of each bag.

    Attributes
    ----------
    epoch, epochs : int
        The current epoch, counted from 1, and how many there are.
    bag, bags : int
        The current bag of this epoch, counted from 1, and how many there are.
    images, images_in_all : int
        Images embedded so far, and in all epochs.
    triplets : int
        Triplets found so far.
    bags_mined : int
        The bags, of all epochs, that they are from. A bag is mined while the next one is embedded.
    steps, steps_in_all : int
        Pairs of blocks mined so far, and all, where the whole dataset is mined at once.
    """

    epoch: int
    epochs: int
    bag: int
    bags: int
    images: int
    images_in_all: int
    triplets: int
    bags_mined: int
    steps: int = 0
    steps_in_all: int = 0


@dataclass(slots=True)
class Summary:
    """What a run of :func:`fasttriplet.mine_rec` or a :class:`fasttriplet.Feed` did.

    Attributes
    ----------
    embedder : str
        What computed the embeddings, and where.
    metric : str
        The scale of all distances, see :func:`fasttriplet.mine`.
    files : list of str
        The ``.rec`` files, as they were given.
    images_indexed, identities : int
        How many the dataset has, without the images that are excluded.
    images_excluded : int
        How many those are.
    identities_without_neighbors : int
        How many identities a graph of `neighbors` does not name, so that they are placed at random; of a
        running graph, in the epoch that is next. All, while there is none.
    epochs, bags, images : int
        How many were mined; in a group, by all processes together.
    batches : int
        How many a feed handed out.
    triplets, pairs, pairs_without_negative, pairs_over_max_ap : int
        Counts over all bags.
    without_negative : dict or None
        Why pairs of the first bag in which some have no negative have none, for up to 256 anchors: its
        ``epoch`` and ``bag``, how many such ``pairs`` there are, how many of them are ``separated`` (the
        nearest negative is beyond the band), how many have ``nearer`` negatives alone, and ``examples`` of
        both. :func:`fasttriplet.mine_rec` gives it.
    bags_without_triplets : int
        Bags that gave no triplet.
    why_no_triplets : str or None
        Why the first of these bags gave none.
    bags_collapsed : int
        Bags in which the embeddings of different identities were nearly equal, see :class:`MiningStats`.
    skipped : list of str
        What was wrong with each image that was left out (``on_error="skip"``), once in all epochs; in a
        group, of those that this process was to embed.
    stopped_at_max_triplets : bool
        Whether the run ended early because it had found `max_triplets`.
    seconds : dict of str to float
        How long each stage was busy: ``index``, ``decode``, ``embed``, ``mine``, ``write``, and of a feed
        ``neighbors``, a running graph, ``assemble``, ``train``, the time between two batches, and ``fetch``,
        the decoding of images that this feed has not embedded: of triplets in a state or, in a group, of
        other processes, for which ``gather`` is the time that they are waited for. They overlap; on a
        cluster, those of all processes are added. ``total`` is the wall time so far.
    waited : dict of str to float
        How long the run had to wait for a stage; these times do not overlap.
    quantiles : dict of str to dict of str to float
        Quantiles of ``d_ap`` and ``d_an`` by probability, on the scale of the metric. With more than a
        million triplets they are those of every k-th triplet.
    out : str or None
        The file of triplets.
    """

    embedder: str
    metric: Metric = "sqeuclidean"
    files: list[str] = field(default_factory=list)
    images_indexed: int = 0
    identities: int = 0
    images_excluded: int = 0
    identities_without_neighbors: int = 0
    epochs: int = 0
    bags: int = 0
    images: int = 0
    batches: int = 0
    triplets: int = 0
    pairs: int = 0
    pairs_without_negative: int = 0
    pairs_over_max_ap: int = 0
    without_negative: dict[str, Any] | None = None
    bags_without_triplets: int = 0
    why_no_triplets: str | None = None
    bags_collapsed: int = 0
    skipped: list[str] = field(default_factory=list)
    stopped_at_max_triplets: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    quantiles: dict[str, dict[str, float]] = field(default_factory=dict)
    out: str | None = None
    _started: float = field(default_factory=time.perf_counter, repr=False)
    _timeline: Timeline = field(default_factory=Timeline, repr=False)

    @contextmanager
    def clock(self, stage: str, *, overlapped: bool = False) -> Iterator[None]:
        """Count the time that the block takes for a stage.

        A stage is clocked from one thread at a time. The run waits for the block, unless it is `overlapped`.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = self._tick()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + ended - started
            self._timeline.add(stage, started, ended)
            if not overlapped:
                self._count_wait(stage, ended - started)

    @contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """Count the time of the block as waited for a stage that is clocked elsewhere."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._count_wait(stage, self._tick() - started)

    def add(self, *, skipped: list[str], seconds: dict[str, float], without_negative: Any) -> None:
        """Add what another process did for a bag: these fields of its summary."""
        self.skipped = list(dict.fromkeys([*self.skipped, *skipped]))
        for stage, more in seconds.items():
            if stage != "total":
                self.seconds[stage] = self.seconds.get(stage, 0.0) + more
        self.without_negative = self.without_negative or without_negative

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Let an error of the block say, in a note, how many images had been left out, and the first."""
        try:
            yield
        except Exception as error:
            if self.skipped:
                count = f"{len(self.skipped):,} of {counted(self.images_indexed, 'image')}"
                note = f"{count} had been left out; the first: {self.skipped[0]}"
                if note not in getattr(error, "__notes__", ()):  # an outer block may have the same summary
                    error.add_note(note)
            raise

    def _tick(self) -> float:
        now = time.perf_counter()
        self.seconds["total"] = now - self._started
        return now

    def _count_wait(self, stage: str, seconds: float) -> None:
        self.waited[stage] = self.waited.get(stage, 0.0) + seconds

    @property
    def waited_most_for(self) -> str | None:
        """The stage to make faster first: the one that the run waited for longest."""
        return max(self.waited, key=self.waited.__getitem__, default=None)

    def timeline(self) -> tuple[float, dict[str, list[float]]]:
        """How busy each stage was over time.

        Returns
        -------
        width : float
            Seconds of each of at most 64 equal parts of the run.
        busy : dict of str to list of float
            The share of each part in which a stage was busy, 0 to 1.
        """
        return self._timeline.shares()

    def images_per_second(self, stage: str) -> float | None:
        """Mined images per second that a stage was busy; None if it took no time."""
        return self.images / self.seconds[stage] if self.seconds.get(stage) else None

    def measure(self, triplets: pl.LazyFrame) -> None:
        """Take the quantiles of the distances."""
        columns = pl.col("d_ap", "d_an")
        sample = triplets.select(columns.gather_every(1 + self.triplets // _SAMPLE)).collect()
        self.quantiles = {
            name: {f"{q:g}": float(sample[name].quantile(q, "linear") or 0.0) for q in _QUANTILES}
            for name in sample.columns
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rates = {stage: self.images_per_second(stage) for stage in ("decode", "embed", "mine")}
        width, busy = self.timeline()
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name[0] != "_"}
        return plain | {
            "images_per_second": rates,
            "timeline": {"seconds_per_part": width, "busy": busy},
        }
