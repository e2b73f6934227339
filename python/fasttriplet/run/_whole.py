"""A run that mines a whole dataset at once: embeddings in a file, and blocks of them in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._npy import Table
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Rec
from fasttriplet.dataset._order import Bag, epoch_seed
from fasttriplet.embedders._base import image_named
from fasttriplet.embedders._precomputed import PrecomputedEmbedder
from fasttriplet.errors import CollapsedError, NoTripletsError
from fasttriplet.mining._blocks import AllRows, Rows, bytes_of_row, most_rows, usual_memory
from fasttriplet.mining._explain import why_collapsed, why_never_triplets, why_no_triplets
from fasttriplet.mining._mine import MiningStats, Triplets, mine_rows
from fasttriplet.mining._options import MiningOptions
from fasttriplet.mining._steps import Job, Schedule, Steps, cut
from fasttriplet.run._embed_rec import embed_on
from fasttriplet.run._machines import Machines, Needs
from fasttriplet.run._stages import Mined, Stages
from fasttriplet.run._summary import Progress
from fasttriplet.run._work_folder import WorkFolder

_STEPS, _FEWEST = 4, 8192  # steps for each that machines do at once; but no blocks of fewer rows
_SAMPLE = 4096  # rows that show whether the embeddings have collapsed, or why there are no triplets
_OF_EACH = 5  # most images of an identity for the latter
_TOGETHER = 2**22  # triplets that are sorted at once

Report = Callable[[int, int, int], object]  # steps done, of how many, triplets so far


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Some rows of a file of embeddings, in an order of their own."""

    table: Table
    at: NDArray[np.int64]  # rows of the file

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.at), self.table.shape[1]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        return self.table.rows(self.at[rows]).astype(np.float32, copy=False)


class Whole:
    """Mines a whole dataset; the triplets come from :meth:`triplets`, in the order of their ids.

    Parameters
    ----------
    stages : Stages
        Opened with :meth:`Stages.open_whole`.
    embedder : PrecomputedEmbedder
        Of all images of the dataset.
    folder : WorkFolder
        What is done so far.
    machines : Machines
        Where it is done.
    """

    def __init__(
        self, stages: Stages, embedder: PrecomputedEmbedder, folder: WorkFolder, machines: Machines
    ) -> None:
        self._stages, self._embedder, self._table = stages, embedder, embedder.table
        self._options, self._folder, self._machines = stages.options, folder, machines
        index, at = stages.index, stages.rows_of_index
        self._read = self._table.read_through()
        left_out = np.isin(at, self._read.not_finite)
        if left_out.any():
            self._leave_out(index, at, left_out)
        index, at = index.filter(~left_out), at[~left_out]
        labels = index["label"].to_numpy()
        if why := why_never_triplets(np.unique(labels, return_counts=True)[1], self._options):
            raise NoTripletsError(f"of the images with an embedding: {why}")
        order = np.argsort(labels, kind="stable")
        self._index, self._ids = index, stages.dataset.ids[at]
        ids = self._ids
        mining = MiningOptions(**{name: getattr(self._options, name) for name in MiningOptions.names()})
        rows = AllRows(_Rows(self._table, at[order]), labels[order], ids[order], self._read.digest)
        seed = epoch_seed(self._options.seed, 0)
        self.steps = Steps(rows, self._blocks(rows.labels), mining, seed, folder.place)

    def _leave_out(self, index: pl.DataFrame, at: NDArray[np.int64], left_out: NDArray[np.bool_]) -> None:
        summary = self._stages.summary
        if self._options.on_error == "raise":
            self._embedder.embed(index[np.flatnonzero(left_out)])  # which raises
        summary.skipped = [
            f"{image_named(index, row)}: "
            + self._embedder.why_skipped.get(int(at[row]), "its embedding holds NaN or infinity")
            for row in np.flatnonzero(left_out).tolist()
        ]

    def _blocks(self, labels: NDArray[np.int64]) -> tuple[Rows, ...]:
        """Cut the rows into blocks, as an unfinished run did it if nothing says otherwise."""
        before = (self._folder.of or {}).get("blocks") if self._options.memory is None else None
        if before is not None and before[-1][1] == len(labels):
            return tuple((first, end) for first, end in before)
        return cut(labels, self._most())

    def _most(self) -> int:
        """How many rows a block may have."""
        shape, at_once = self._table.shape, self._machines.at_once()
        if self._options.memory is not None or self._machines.is_here:
            return most_rows(shape, self._options.memory)
        usual = usual_memory(shape)
        most = most_rows(shape, min(usual, self._machines.memory or usual))
        # Several steps for each that can be done at once, so that all machines end at about one time.
        return min(most, max(_FEWEST, math.ceil(shape[0] / math.sqrt(2 * _STEPS * at_once))))

    def about(self) -> dict[str, Any]:
        """Of what the work in the folder is, as plain data."""
        return {
            "triplets": self._stages.about(),
            "embeddings": self._read.digest,
            "blocks": self.steps.blocks,
        }

    def check_scatter(self) -> None:
        """Raise a CollapsedError if the embeddings of different identities are nearly equal."""
        rows = self.steps.rows
        some = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
        embeddings, labels, _ = rows.taken(some)
        one_each = replace(self.steps.options, pairs="hardest", positives_per_anchor=None, pick="random")
        stats = mine_rows(one_each, (embeddings, labels, None), seed=0, threads=self._options.threads).stats
        if stats.collapsed:
            raise CollapsedError(f"{why_collapsed(stats)}. Check the images and the weights")

    def mine(self, report: Report) -> MiningStats:
        """Do what is left to do."""
        total, began = len(self.steps), time.perf_counter()
        schedule = Schedule(self.steps)
        take: Callable[[], Job | None] = schedule.take
        rows = max(end - first for first, end in self.steps.blocks)
        needs = Needs(memory=rows * bytes_of_row(self._table.shape[1]))
        work = _Work(self.steps, self._folder, self._machines.threads)

        def tell() -> None:
            if schedule.done:
                self._folder.note(f"{schedule.done:,} of {counted(total, 'pair')} of blocks")
            report(schedule.done, total, schedule.triplets)

        tell()
        with self._stages.summary.clock("mine"):
            done: Iterator[tuple[Job, None]] = self._machines.run(_do, work, take, needs)
            for job, _ in done:
                schedule.finished(job)
                tell()
        return self.steps.stats(time.perf_counter() - began)

    def triplets(self, stats: MiningStats) -> Iterator[Mined]:
        """All triplets, some at a time."""
        bag = Bag(0, self._index)
        for some in self.steps.sorted_triplets(_TOGETHER):
            anchor, positive, negative, d_ap, d_an = (column.to_numpy() for column in some)
            found = Triplets(anchor, positive, negative, d_ap, d_an, stats)
            yield Mined(0, bag, self._index, self._ids, found, last=True, why_none=None)

    def check_unchanged(self) -> None:
        """Raise a ValueError if the file of embeddings was changed while it was mined."""
        if self._table.digest() != self._read.digest:
            raise ValueError(
                f"{self._stages.summary.embedder}: the file was changed while it was mined, so nothing is "
                "written; mine it again"
            )

    def why_none(self, stats: MiningStats) -> str:
        """Why there are no triplets, as a few images of each identity show, those with pairs first."""
        rows, threads = self.steps.rows, self._options.threads
        _, starts, sizes = np.unique(rows.labels, return_index=True, return_counts=True)
        few = np.flatnonzero(np.arange(len(rows)) - np.repeat(starts, sizes) < _OF_EACH)
        single = np.repeat(sizes, sizes)[few] == 1
        some = np.sort(few[np.argsort(single, kind="stable")][:_SAMPLE])
        embeddings, labels, _ = rows.taken(some)
        return why_no_triplets(embeddings, labels, stats, self.steps.options, whole=True, threads=threads)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What a process needs to do jobs."""

    steps: Steps
    folder: WorkFolder
    threads: int | None


def _do(work: _Work, job: Job) -> None:
    """Do a job, in whatever process this is."""
    work.folder.check_shared()
    work.steps.do(job, threads=work.threads)


def mine_whole(
    stages: Stages, rec: Rec, folder: WorkFolder, machines: Machines, tell: Callable[[Progress], object]
) -> Iterator[Mined]:
    """Mine a whole dataset; gives the triplets in the order of their ids, some at a time."""
    stages.open_whole(rec)
    summary = stages.summary

    def report(steps: int, in_all: int, triplets: int) -> None:
        images = summary.images_indexed
        tell(Progress(1, 1, 1, 1, images, images, triplets, 0, steps, in_all))

    embedder = stages.embedder
    if not isinstance(embedder, PrecomputedEmbedder):
        embedder = _embedded(stages, folder, machines, tell)
    whole = Whole(stages, embedder, folder, machines)
    folder.begin(whole.about())
    whole.check_scatter()
    stats = whole.mine(report)
    whole.check_unchanged()
    summary.epochs = summary.bags = 1
    summary.images = len(whole.steps.rows)
    summary.pairs, summary.pairs_over_max_ap = stats.pairs, stats.pairs_over_max_ap
    summary.pairs_without_negative = stats.pairs_without_negative
    yield from whole.triplets(stats)
    if summary.triplets == 0:
        summary.bags_without_triplets = 1
        summary.why_no_triplets = whole.why_none(stats)


def _embedded(
    stages: Stages, folder: WorkFolder, machines: Machines, tell: Callable[[Progress], object]
) -> PrecomputedEmbedder:
    """Embed all images of the dataset into the folder, or continue that."""

    def report(_: str, done: int, images: int) -> None:
        tell(Progress(1, 1, 1, 1, done, images, 0, 0))

    path = folder.place / "embeddings.npy"
    with stages.summary.clock("embed"):
        embed_on(
            machines,
            stages.dataset,
            stages.embedder,
            path,
            folder.check_shared,
            on_error=stages.options.on_error,
            threads=stages.options.threads,
            progress=report,
        )
    embedder = PrecomputedEmbedder(path)
    embedder.prepare(stages.dataset.index)
    return embedder
