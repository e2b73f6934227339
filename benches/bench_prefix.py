"""What a first look at some of the columns would rule out, on embeddings of trained networks.

Rows are turned to their principal axes, so that the first columns hold most of every distance. Of a prefix
`x'` of each row and the lengths of the rests `x''`, Cauchy and Schwarz say

    |x' - y'|^2 + (|x''| - |y''|)^2  <=  d  <=  |x' - y'|^2 + (|x''| + |y''|)^2

so a (pair, negative) is left if these bounds overlap its window. A miner would multiply the prefixes first,
and the other columns only where something is left: in a *tile*, the 24 anchors and 32 candidates that it
multiplies together, or in a *group*, one anchor and 16 candidates. *Least work* is what it multiplies, all
prefixes and the rest of each tile that is left, as a share of all columns. *8 bits* are prefixes that are
rounded as the screen's codes are, with the bound of their residuals; the lengths stay exact.

The windows: *semi-hard*, `d_ap < d_an < d_ap + margin`; and *hardest*, which ends with the nearest of these
negatives. A miner does not know that one before, so it would rule out less. Pairs are made within runs of
`--each` images of an identity; all rows of other identities are candidates. Nothing is timed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import PER_IDENTITY, SHARED
from harness import Bench
from tables import Cell, Table

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
ANCHORS, CANDIDATES, GROUP = 24, 32, 16
WINDOWS = ("semi-hard", "hardest")
LEVELS = 127  # the largest code of 8 bits
SLACK = 1e-12  # float64 rounds, and bounds of all columns are distances

bench = Bench(__file__, __doc__)
bench.option("--embeddings", [SHARED / "lfw112-a" / "emb_a.npy"], "(N, D) float32 of trained networks")
bench.option("--labels", [SHARED / "lfw112-a" / "lab_a.npy"], "(N,) of each of these")
bench.option("--shares", [0.125, 0.25, 0.5, 1.0], "of the columns")
bench.option("--each", PER_IDENTITY, "images of a run whose pairs are looked at")
bench.option("--margin", 0.3, "of squared L2")
bench.option("--rows", 7200, "at most", quick=400)


@dataclass
class Bag:
    """Unit rows in their principal axes, identity after identity."""

    rows: Floats
    labels: NDArray[np.int64]
    pairs: NDArray[np.int64]  # (P, 2), in the order of the anchors
    spectrum: Floats  # share of each column in all squared distances


@dataclass
class Prefix:
    """The first columns of all rows, as a kernel would have them."""

    rows: Floats
    residuals: Floats  # lengths of what rounding took
    rests: Floats  # lengths of the other columns

    def bounds(self, anchors: slice) -> tuple[Floats, Floats]:
        """Least and largest squared distance of some rows to all."""
        near = np.sqrt(squared_distances(self.rows[anchors], self.rows))
        lost = self.residuals[anchors, None] + self.residuals
        rests, others = self.rests[anchors, None], self.rests
        low = np.square(np.maximum(near - lost, 0)) + np.square(rests - others)
        high = np.square(near + lost) + np.square(rests + others)
        return low - SLACK, high + SLACK


def read(embeddings: Path, labels: Path, most: int, each: int) -> Bag:
    rows, of = np.load(embeddings).astype(np.float64), np.load(labels).ravel().astype(np.int64)
    order = np.argsort(of, kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)]
    rows, of = rows[order], of[order]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    variances, axes = np.linalg.eigh(rows.T @ rows)
    variances, axes = variances[::-1], axes[:, ::-1]
    starts = np.searchsorted(of, of)  # of each row's identity
    run = (np.arange(len(of)) - starts) // each
    pairs = [
        (anchor, positive)
        for anchor in range(len(of))
        for positive in range(anchor + 1, min(anchor + each, len(of)))
        if of[anchor] == of[positive] and run[anchor] == run[positive]
    ]
    return Bag(rows @ axes, of, np.array(pairs), variances / variances.sum())


def prefix_of(bag: Bag, columns: int, *, rounded: bool) -> Prefix:
    first, rests = bag.rows[:, :columns], np.linalg.norm(bag.rows[:, columns:], axis=1)
    if not rounded:
        return Prefix(first, np.zeros(len(first)), rests)
    # Turned at random, so that the one step of a row fits all of its columns.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(columns, columns)))[0]
    turned = first @ turn
    steps = np.abs(turned).max(axis=1, keepdims=True) / LEVELS
    coded = np.rint(turned / steps) * steps
    return Prefix(coded, np.linalg.norm(turned - coded, axis=1), rests)


def squared_distances(x: Floats, y: Floats) -> Floats:
    norms = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    found: Floats = np.maximum(norms - 2 * x @ y.T, 0)
    return found


def any_of(flags: Flags, size: int) -> Flags:
    """Whether there is any in each block of columns."""
    padded = np.pad(flags, ((0, 0), (0, -flags.shape[1] % size)))
    found: Flags = padded.reshape(len(flags), -1, size).any(axis=2)
    return found


def left(bag: Bag, prefix: Prefix, margin: float) -> dict[str, list[float]]:
    """For each window the shares of (pair, negative)s, tiles and groups that are left."""
    counts = {window: np.zeros((3, 2)) for window in WINDOWS}
    blocks = range(0, len(bag.rows) + ANCHORS, ANCHORS)
    for first, (start, end) in zip(blocks, pairwise(np.searchsorted(bag.pairs[:, 0], blocks)), strict=False):
        if start == end:
            continue
        block = slice(first, first + ANCHORS)
        anchors, positives = bag.pairs[start:end].T
        different, place = np.unique(anchors, return_inverse=True)
        distances = squared_distances(bag.rows[block], bag.rows)[anchors - first]
        low, high = (bound[anchors - first] for bound in prefix.bounds(block))
        negative = bag.labels[anchors, None] != bag.labels
        d_ap = np.take_along_axis(distances, positives[:, None], axis=1)
        qualify = negative & (distances > d_ap) & (distances < d_ap + margin)
        nearest = np.where(qualify, distances, np.inf).min(axis=1, keepdims=True)
        for window, below in zip(WINDOWS, (d_ap + margin, np.minimum(nearest, d_ap + margin)), strict=True):
            flags = negative & (high > d_ap) & (low < below)
            of_anchors = np.zeros((len(different), len(bag.rows)), bool)
            np.logical_or.at(of_anchors, place, flags)
            groups, tiles = any_of(of_anchors, GROUP), any_of(flags.any(axis=0, keepdims=True), CANDIDATES)
            counts[window] += [
                [flags.sum(), negative.sum()],
                [tiles.sum(), tiles.size],
                [groups.sum(), groups.size],
            ]
    return {window: [float(several / of) for several, of in found] for window, found in counts.items()}


def tables(options: Namespace) -> Iterator[Table]:
    for embeddings, labels in zip(options.embeddings, options.labels, strict=True):
        if not embeddings.is_file():
            raise SystemExit(f"no file {embeddings}; name one with --embeddings")
        bag = read(embeddings, labels, options.rows, options.each)
        count, dim = bag.rows.shape
        found = Table(
            f"{embeddings.stem}, {count:,} x {dim}, {len(np.unique(bag.labels)):,} identities, "
            f"{len(bag.pairs):,} pairs: % that is left"
        )
        for share in options.shares:
            columns = round(share * dim)
            for rounded in (False, True):
                row: dict[str, Cell] = {"of squared distances": 100 * float(bag.spectrum[:columns].sum())}
                shares = left(bag, prefix_of(bag, columns, rounded=rounded), options.margin)
                for window, (pairs, tiles, groups) in shares.items():
                    row[f"{window}: (pair, negative)s"] = 100 * pairs
                    row[f"{window}: tiles"] = 100 * tiles
                    row[f"{window}: groups"] = 100 * groups
                    row[f"{window}: least work"] = 100 * (share + (1 - share) * tiles)
                found.rows[f"{columns} columns{', 8 bits' if rounded else ''}"] = row
        yield found


if __name__ == "__main__":
    bench.main(tables)
