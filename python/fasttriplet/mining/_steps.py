"""Mining all rows in steps that are kept on the disk, so that another run can continue at any moment.

Rows are in the order of their labels and are cut into blocks of whole identities. A step takes two blocks, or
one with itself, and writes for each what may be picked from the other: a part. Parts of the same anchors are
merged, some at a time, along a tree; its root is the triplets of these anchors. A job, a step or a merger,
that is done twice writes the same again, so it does not matter which process does it, or how often.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._files import placing
from fasttriplet._metadata import as_parquet, read_metadata
from fasttriplet.mining._blocks import AllRows, Part, Rows, collect, collect_between, finish, merge
from fasttriplet.mining._mine import MiningStats
from fasttriplet.mining._options import MiningOptions

_COUNTS = ("pairs", "pairs_over_max_ap", "pairs_without_negative", "pairs_screened", "exact_distances")
_TOGETHER = 8  # parts that are merged at once: each is as large as the triplets of its anchors


def cut(labels: NDArray[np.int64], most: int) -> tuple[Rows, ...]:
    """Cut rows, in the order of their labels, into blocks of at most `most` rows, but of whole identities.

    Blocks are about equally large: their number is the least, or a few more.
    """
    edges = np.flatnonzero(np.diff(labels, append=labels[-1] + 1)) + 1  # where identities end
    each = -(-len(labels) // -(-len(labels) // most))
    blocks: list[Rows] = []
    first = 0
    while first < len(labels):
        within = int(np.searchsorted(edges, first + each, side="right"))
        end = int(edges[within - 1]) if within and edges[within - 1] > first else int(edges[within])
        blocks.append((first, end))
        first = end
    return tuple(blocks)


class Step(NamedTuple):
    """Two blocks, by their numbers, that are mined with each other; or one with itself."""

    one: int
    other: int


class Merger(NamedTuple):
    """The parts of a block's anchors from some blocks, `first` to before `end`, that become one.

    Those from all blocks become triplets.
    """

    anchors: int
    first: int
    end: int


Job = Step | Merger


@dataclass(frozen=True, eq=False)
class Steps:
    """All steps of mining some rows, and the folder of what is done.

    Attributes
    ----------
    rows : AllRows
        In the order of their labels.
    blocks : tuple of (int, int)
        See :func:`cut`.
    options : MiningOptions
    seed : int
    folder : Path
        Files of it are complete, or not there.
    """

    rows: AllRows
    blocks: tuple[Rows, ...]
    options: MiningOptions
    seed: int
    folder: Path

    def __len__(self) -> int:
        return len(self.blocks) * (len(self.blocks) + 1) // 2

    def do(self, job: Job, *, threads: int | None) -> None:
        """Do a job."""
        if isinstance(job, Merger):
            self._merge(job, threads=threads)
            return
        one, other = job
        here, there = self.blocks[one], self.blocks[other]
        if one == other:
            found = collect(self.rows, here, here, self.options, seed=self.seed, threads=threads)
            found.save(self.part_of(one, one, one + 1))
            return
        parts = collect_between(self.rows, here, there, self.options, seed=self.seed, threads=threads)
        parts[0].save(self.part_of(one, other, other + 1))
        parts[1].save(self.part_of(other, one, one + 1))

    def _merge(self, job: Merger, *, threads: int | None) -> None:
        anchors, first, end = job
        whole = (first, end) == (0, len(self.blocks))
        target = self.triplets_of(anchors) if whole else self.part_of(*job)
        parts = [self.part_of(anchors, *within) for within in self.below(first, end)]
        try:
            loaded = [Part.load(part) for part in parts]
        except FileNotFoundError:
            if not target.exists():  # else another process has done the same, and removed the parts
                raise
        else:
            merged = merge(loaded, threads=threads)
            if whole:
                triplets = finish(merged, threads=threads)
                counts = {name: getattr(triplets.stats, name) for name in _COUNTS}
                with placing(target) as file:
                    about = as_parquet({"kind": "triplets of a block", **counts})
                    triplets.to_frame().write_parquet(file, metadata=about)
            else:
                merged.save(target)
        for part in parts:
            part.unlink(missing_ok=True)

    def below(self, first: int, end: int) -> list[Rows]:
        """The ranges of blocks whose parts are merged to that of a range, or of all blocks."""
        width = 1
        while width * _TOGETHER < end - first:
            width *= _TOGETHER
        return [(at, min(at + width, end)) for at in range(first, end, width)]

    def triplets_of(self, anchors: int) -> Path:
        """The file of the triplets of a block's anchors."""
        return self.folder / f"{anchors:05}.triplets"

    def part_of(self, anchors: int, first: int, end: int) -> Path:
        """The file of what may be picked for a block's anchors from the blocks `first` to before `end`."""
        return self.folder / f"{anchors:05}-{first:05}-{end:05}.part"

    def stats(self, seconds: float) -> MiningStats:
        """The counts of all triplets, when all blocks have theirs."""
        total = dict.fromkeys(_COUNTS, 0)
        for anchors in range(len(self.blocks)):
            counts = read_metadata(self.triplets_of(anchors))
            for name in _COUNTS:
                total[name] += counts[name]
        return MiningStats(**total, scatter=None, seconds=seconds)

    def sorted_triplets(self, most: int) -> Iterator[pl.DataFrame]:
        """All triplets in the order of their ids, about `most` at a time, when all blocks are complete."""
        files = [self.triplets_of(one) for one in range(len(self.blocks))]
        ids = np.sort(self.rows.ids)
        counts = np.zeros(len(ids), np.int64)
        ranges: list[tuple[int, int] | None] = []
        for file in files:
            anchors = pl.read_parquet(file, columns=["anchor"], glob=False)["anchor"].to_numpy()
            ranges.append((int(anchors[0]), int(anchors[-1])) if len(anchors) else None)
            at, of_each = np.unique(anchors, return_counts=True)
            counts[np.searchsorted(ids, at)] += of_each
        before = np.cumsum(counts) - counts
        starts = np.searchsorted(before, np.arange(0, counts.sum(), most), side="left")
        firsts = np.unique(np.minimum(starts, len(ids) - 1))
        for first, end in zip(
            firsts.tolist(), [*firsts[1:].tolist(), len(ids)], strict=False
        ):  # none of none
            low, high = int(ids[first]), int(ids[end - 1])
            frames = [
                pl.scan_parquet(file, glob=False).filter(pl.col("anchor").is_between(low, high)).collect()
                for file, known in zip(files, ranges, strict=True)
                if known is not None and known[0] <= high and known[1] >= low
            ]
            if not frames:
                continue
            frame = pl.concat(frames).sort("anchor", "positive", "negative") if len(frames) > 1 else frames[0]
            yield frame


class Schedule:
    """Gives the jobs that are left, each when what it needs is done.

    Attributes
    ----------
    done : int
        Steps that are done.
    triplets : int
        Those of the blocks that have all of theirs.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps, self._every = steps, len(steps.blocks)
        # A list, not a look for each: over NFS, a file that was looked for in vain stays missing for a while.
        there = set(os.listdir(steps.folder))  # noqa: PTH208  names
        self._complete: set[int] = set()  # blocks that have their triplets
        self._parts: set[Merger] = set()  # those that are there
        self._mergers: deque[Merger] = deque()
        self._offered: set[Merger] = set()
        self.done = self.triplets = 0
        for anchors in range(self._every):
            if steps.triplets_of(anchors).name in there:
                self._completed(anchors)
            else:
                self._look(Merger(anchors, 0, self._every), there)
        self._steps_left: deque[Step] = deque()
        for one in range(self._every):
            for other in range(one, self._every):
                if self._has(one, other) and self._has(other, one):
                    self.done += 1
                else:
                    self._steps_left.append(Step(one, other))

    def _look(self, node: Merger, there: set[str]) -> None:
        """Find the parts below a node of a tree that are there, and what can be merged."""
        for within in self._steps.below(*node[1:]):
            below = Merger(node.anchors, *within)
            if self._steps.part_of(*below).name in there:
                self._parts.add(below)
            elif below.end - below.first > 1:
                self._look(below, there)
        self._offer(node)

    def _has(self, anchors: int, block: int) -> bool:
        """Whether what may be picked from a block is in a part that is there, or in the triplets."""
        if anchors in self._complete:
            return True
        first, end = 0, self._every
        while True:
            first, end = next(one for one in self._steps.below(first, end) if one[0] <= block < one[1])
            if Merger(anchors, first, end) in self._parts:
                return True
            if end - first == 1:
                return False

    def take(self) -> Job | None:
        """The next job; None at the end, and while the jobs that are left wait for others."""
        if self._mergers:  # first: they remove files
            return self._mergers.popleft()
        return self._steps_left.popleft() if self._steps_left else None

    def finished(self, job: Job) -> None:
        """Note that a job is done."""
        if isinstance(job, Step):
            self.done += 1
            one, other = job
            for part in {Merger(one, other, other + 1), Merger(other, one, one + 1)}:
                self._appeared(part)
        elif (job.first, job.end) == (0, self._every):
            self._completed(job.anchors)
        else:
            self._appeared(job)

    def _appeared(self, part: Merger) -> None:
        """Note that a part is there; a step may have written one again."""
        if part.anchors not in self._complete:
            self._parts.add(part)
            self._offer(self._above(part))

    def _above(self, part: Merger) -> Merger:
        """The node of the tree that a part is merged into."""
        first, end = 0, self._every
        while (part.first, part.end) not in (below := self._steps.below(first, end)):
            first, end = next(one for one in below if one[0] <= part.first < one[1])
        return Merger(part.anchors, first, end)

    def _offer(self, node: Merger) -> None:
        below = (Merger(node.anchors, *within) for within in self._steps.below(*node[1:]))
        if node not in self._offered and all(part in self._parts for part in below):
            self._offered.add(node)
            self._mergers.append(node)

    def _completed(self, anchors: int) -> None:
        self._complete.add(anchors)
        file = self._steps.triplets_of(anchors)
        self.triplets += pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
