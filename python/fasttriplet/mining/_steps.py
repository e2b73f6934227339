"""Mining all rows in steps that are kept on the disk, so that another run can continue at any moment.

Rows are in the order of their labels and are cut into blocks of whole identities. A step takes two blocks, or
one with itself, and writes for each what may be picked from the other: a part. When all parts of a block are
there, they are merged, and the triplets of its anchors take their place. A step that is done twice writes the
same again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._files import replacing
from fasttriplet._metadata import as_parquet, read_metadata
from fasttriplet.mining._blocks import AllRows, Part, Rows, collect, collect_between, finish, merge
from fasttriplet.mining._mine import MiningStats
from fasttriplet.mining._options import MiningOptions

_COUNTS = ("pairs", "pairs_over_max_ap", "pairs_without_negative", "pairs_screened", "exact_distances")


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

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The numbers of the two blocks of each step; those that complete a block come first."""
        for one in range(len(self.blocks)):
            for other in range(one, len(self.blocks)):
                yield one, other

    def is_done(self, one: int, other: int) -> bool:
        """Whether a step need not be done, or not again."""
        return all(
            self._part(anchors, block).exists() or self.triplets_of(anchors).exists()
            for anchors, block in ((one, other), (other, one))
        )

    def do(self, one: int, other: int, *, threads: int | None) -> None:
        """Do a step."""
        here, there = self.blocks[one], self.blocks[other]
        if one == other:
            self._save(
                collect(self.rows, here, here, self.options, seed=self.seed, threads=threads), one, one
            )
            return
        found = collect_between(self.rows, here, there, self.options, seed=self.seed, threads=threads)
        self._save(found[0], one, other)
        self._save(found[1], other, one)

    def complete(self, one: int, *, threads: int | None) -> None:
        """Choose the triplets of a block's anchors, when all its steps are done; its parts are removed."""
        target = self.triplets_of(one)
        parts = [self._part(one, block) for block in range(len(self.blocks))]
        if not target.exists():
            whole = merge([Part.load(part) for part in parts], threads=threads)
            triplets = finish(whole, threads=threads)
            counts = {name: getattr(triplets.stats, name) for name in _COUNTS}
            with replacing(target) as file:
                frame = triplets.to_frame()
                frame.write_parquet(file, metadata=as_parquet({"kind": "triplets of a block", **counts}))
        for part in parts:
            part.unlink(missing_ok=True)

    def run(
        self, *, threads: int | None, progress: Callable[[int, int], object] = lambda _done, _triplets: None
    ) -> MiningStats:
        """Do all steps that are left, in this process. `progress` is told of steps and triplets so far."""
        triplets = 0
        total = dict.fromkeys(_COUNTS, 0)
        started = time.perf_counter()
        for done, (one, other) in enumerate(self, start=1):
            if not self.is_done(one, other):
                self.do(one, other, threads=threads)
            if other == len(self.blocks) - 1:
                self.complete(one, threads=threads)
                counts = read_metadata(self.triplets_of(one))
                for name in _COUNTS:
                    total[name] += counts[name]
                triplets += (
                    pl.scan_parquet(self.triplets_of(one), glob=False).select(pl.len()).collect().item()
                )
            progress(done, triplets)
        return MiningStats(**total, scatter=None, seconds=time.perf_counter() - started)

    def triplets_of(self, one: int) -> Path:
        """The file of the triplets of a block's anchors."""
        return self.folder / f"{one:05}.triplets"

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

    def _part(self, anchors: int, block: int) -> Path:
        return self.folder / f"{anchors:05}-{block:05}.part"

    def _save(self, part: Part, anchors: int, block: int) -> None:
        part.save(self._part(anchors, block))
