"""Pictures that occur twice: encoded again, mirrored, or shifted by a pixel or two.

Candidates are near each other as sketches, which are a few numbers per picture. Pixels decide: the pictures
of each candidate pair are decoded again and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._forks import cached_property
from fasttriplet._words import counted
from fasttriplet.auditing._findings import SCHEMA, no_findings
from fasttriplet.auditing._pictures import EVEN, Looks
from fasttriplet.auditing._survey import Progress
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.mining._mine import mine_rows
from fasttriplet.mining._options import MiningOptions

# Squared distances of sketches that a copy has at most. Of 2,375 faces of 112 x 112 that were mirrored,
# shifted by up to two pixels both ways and encoded again at quality 70, the largest are 0.17 and 0.22; half
# have 0.014 and 0.03. A pixel is more of a smaller picture: distances grow with the square of that.
_EVEN_WITHIN = 0.2
_WITHIN = 0.3
_SIDE = 112
_NEAREST = 4  # sketches that are candidates for each picture
_SEARCH = MiningOptions(
    pairs="easiest", band="violating", pick="hardest", negatives_per_pair=_NEAREST, normalize=False
)
_ANCHORS = 2**16  # pictures whose neighbours are looked for in one call
_BYTES = 2**26  # of decoded images that are compared at a time; their details take twice that
_EVIDENCE = 5  # images beside each suspect
_DIGITS = 6  # of scores

Positions = NDArray[np.int64]
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Pairs of images that show the same picture.

    Attributes
    ----------
    first, second : (P,) int64
        Positions of the images, the first before the second; pairs ascend.
    correlation : (P,) float32
        Of their details.
    place : (P, 3) int8
        How far the second is shifted down and to the right, and whether it is mirrored.
    """

    first: Positions
    second: Positions
    correlation: NDArray[np.float32]
    place: NDArray[np.int8]

    @classmethod
    def of(cls, parts: Sequence[Copies]) -> Copies:
        """All pairs of several."""
        parts = [cls(_NONE, _NONE, np.empty(0, np.float32), np.empty((0, 3), np.int8)), *parts]
        return cls(
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.second for part in parts]),
            np.concatenate([part.correlation for part in parts]),
            np.concatenate([part.place for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search for images of a dataset that show the same picture.

    Attributes
    ----------
    dataset, looks
        The images, and what they look like.
    above : float
        The correlation of the details of copies.
    threads, progress
        See :func:`fasttriplet.audit`.
    """

    dataset: Dataset
    looks: Looks
    above: float
    threads: int | None
    progress: Progress

    def copies(self, usable: NDArray[np.bool_], more: tuple[Positions, Positions]) -> Copies:
        """Find the pairs of images that show the same picture.

        Parameters
        ----------
        usable : (N,) bool
            Images to look among: bad pictures are all alike.
        more : (P,) int64, (P,) int64
            Positions of pairs that are candidates, too, such as those with near embeddings.
        """
        first, second = self._near(np.flatnonzero(usable & self.looks.sketches.any(axis=1)))
        known = usable[more[0]] & usable[more[1]] & (more[0] != more[1])
        copies = self._compared(
            np.concatenate([first, more[0][known]]), np.concatenate([second, more[1][known]])
        )
        # Each picture has its nearest neighbours as candidates. Of a picture that occurs more often, some
        # copies may have only each other: large groups are joined if their first images are copies.
        while True:
            group = groups_of(copies, len(self.dataset))
            crowded = np.flatnonzero(np.bincount(group) > _NEAREST)
            found = self._compared(*self._near(crowded))
            if not len(found.first):
                return copies
            copies = Copies.of([copies, found])

    @cached_property
    def _size(self) -> tuple[int, int]:
        decoded = np.flatnonzero(self.looks.decoded)[:1]
        return self.dataset.image_size(decoded, threads=self.threads) or (_SIDE, _SIDE)

    def _near(self, rows: Positions) -> tuple[Positions, Positions]:
        """Pairs of pictures whose sketches are near: each with the nearest ones, exactly."""
        sketches, firsts, seconds = self.looks.sketches, [_NONE], [_NONE]
        reach = max(1.0, (_SIDE / min(self._size)) ** 2)
        search = replace(_SEARCH, margin=reach * _EVEN_WITHIN)
        even, numbers = np.ascontiguousarray(sketches[rows, :EVEN]), np.arange(len(rows))
        for start in range(0, len(rows) if len(rows) > 1 else 0, _ANCHORS):
            some = slice(start, start + _ANCHORS)
            # The sketch itself, among the references, is each anchor's only positive, at a distance of 0.
            anchors, references = (even[some], numbers[some], None), (even, numbers, None)
            found = mine_rows(search, anchors, references, seed=0, threads=self.threads)
            first, second = rows[start + found.anchor], rows[found.negative]
            odd, other = sketches[first, EVEN:], sketches[second, EVEN:]
            apart = np.minimum(np.square(odd - other).sum(axis=1), np.square(odd + other).sum(axis=1))
            near = found.d_an + apart <= reach * _WITHIN
            firsts.append(first[near])
            seconds.append(second[near])
            self.progress("looking for copies", min(some.stop, len(rows)), len(rows))
        return np.concatenate(firsts), np.concatenate(seconds)

    def _compared(self, first: Positions, second: Positions) -> Copies:
        """Decode the pictures of pairs again and keep the pairs that are copies."""
        pairs = np.unique(np.sort(np.stack([first, second], axis=1), axis=1), axis=0)
        parts, (height, width) = [Copies.of([])], self._size
        step = max(1, _BYTES // (2 * height * width * 3))
        for start in range(0, len(pairs), step):
            some = pairs[start : start + step]
            rows, at = np.unique(some, return_inverse=True)
            first, second = np.ascontiguousarray(at.reshape(-1, 2).T.astype(np.int64))
            pixels = self.dataset.decode(rows, size=self._size, threads=self.threads).pixels
            correlation, place = _core.compare_pictures(pixels, first, second, threads=self.threads)
            alike = correlation >= self.above
            parts.append(Copies(some[alike, 0], some[alike, 1], correlation[alike], place[alike]))
            self.progress("comparing pictures", start + len(some), len(pairs))
        return Copies.of(parts)


def groups_of(copies: Copies, count: int) -> Positions:
    """Number the groups that pairs connect: for each of `count` images the first one of its group."""
    group = np.arange(count)
    while True:
        one, other = group[copies.first], group[copies.second]
        if (one == other).all():
            return group
        low = np.minimum(one, other)
        np.minimum.at(group, one, low)
        np.minimum.at(group, other, low)
        while ((further := group[group]) != group).any():
            group = further


def duplicates(dataset: Dataset, copies: Copies, fit: NDArray[np.float64]) -> pl.DataFrame:
    """Make findings of copies: `SCHEMA`, one finding per picture, from 0.

    A finding has a row for each image of the picture but one, which stays: that which fits its identity best,
    by `fit`, the cosine with it (N,); of equal ones that of the larger identity, then the first. An image
    under another label than that is to be dropped; under the same label it is harmless and kept.
    """
    if not len(copies.first):
        return no_findings()
    known = np.where(np.isnan(fit), -2.0, fit)
    _, identity, sizes = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    group = groups_of(copies, len(dataset))
    members = np.unique(np.concatenate([copies.first, copies.second]))
    members = members[np.lexsort((members, -sizes[identity[members]], -known[members], group[members]))]
    ends = np.flatnonzero(np.diff(group[members], append=-1)) + 1
    pairs = _pairs_of(copies)
    rows = []
    for finding, (stays, *others) in enumerate(np.split(members, ends[:-1])):
        others.sort()
        for image in others:
            # The image that stays and this one were compared, or else this one and another copy.
            at = min(pairs[image], key=lambda at: (stays not in {copies.first[at], copies.second[at]}, at))
            beside = [stays, *(other for other in others[:_EVIDENCE] if other != image)][:_EVIDENCE]
            rows.append((
                finding, "duplicate", dataset.keys[image], dataset.files[image], dataset.labels[image], None,
                "keep" if dataset.labels[image] == dataset.labels[stays] else "drop",
                round(min(float(copies.correlation[at]), 1.0), _DIGITS),
                _reason(dataset.labels[[image, stays]], fit[[image, stays]], copies, at),
                dataset.keys[beside].tolist(), dataset.files[beside].tolist(),
            ))  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _pairs_of(copies: Copies) -> dict[int, list[int]]:
    """For each image the pairs that it is in."""
    found: dict[int, list[int]] = {}
    for at, pair in enumerate(zip(copies.first.tolist(), copies.second.tolist(), strict=True)):
        for image in pair:
            found.setdefault(image, []).append(at)
    return found


def _reason(labels: NDArray[np.int64], fits: NDArray[np.float64], copies: Copies, at: int) -> str:
    """Say what an image is a copy of, how that is known, and which of both fits its identity better."""
    down, right, mirrored = copies.place[at].tolist()
    how = f"correlation of details {copies.correlation[at]:.3f}"
    if mirrored:
        how += ", mirrored"
    if moved := max(abs(down), abs(right)):
        how += f", shifted by {counted(moved, 'pixel')}"
    if labels[0] == labels[1]:
        return f"same picture as another image of its identity ({how})"
    here, there = ("unknown" if np.isnan(value) else f"{value:.2f}" for value in fits)
    return (
        f"same picture as an image of identity {labels[1]} ({how}), which it fits better: "
        f"cosine {there} there, {here} here"
    )
