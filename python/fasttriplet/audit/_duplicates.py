"""Pictures that occur twice: encoded again, mirrored, or shifted by a pixel or two.

Candidates are near each other as sketches, which are a few numbers per picture. Pixels decide: the pictures of each
candidate pair are decoded again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet.audit._findings import SCHEMA, no_findings
from fasttriplet.audit._pictures import EVEN, Looks
from fasttriplet.audit._survey import Progress
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.mining._mine import mine_rows
from fasttriplet.mining._options import MiningOptions

# Squared distances of sketches that a copy has at most. Of 2,375 faces of 112 x 112 that were mirrored, shifted by up
# to two pixels both ways and encoded again at quality 70, the largest are 0.17 and 0.22; half have 0.014 and 0.03.
_EVEN_WITHIN = 0.2
_WITHIN = 0.3
_NEAREST = 4  # sketches that are candidates for each picture
_SEARCH = MiningOptions(
    pairs="easiest",
    band="violating",
    margin=_EVEN_WITHIN,
    pick="hardest",
    negatives_per_pair=_NEAREST,
    normalize=False,
)
_ANCHORS = 2**16  # pictures whose neighbours are looked for in one call
_BYTES = 2**26  # of decoded images that are compared at a time; their details take twice that
_EVIDENCE = 5  # images beside each suspect
_STEP = "comparing pictures"

Positions = NDArray[np.int64]


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


def find_copies(
    dataset: Dataset,
    looks: Looks,
    usable: NDArray[np.bool_],
    more: tuple[Positions, Positions],
    *,
    above: float,
    threads: int | None,
    progress: Progress,
) -> Copies:
    """Find the pairs of images that show the same picture.

    Parameters
    ----------
    dataset, looks
        The images, and what they look like.
    usable : (N,) bool
        Images to look among: bad pictures are all alike.
    more : (P,) int64, (P,) int64
        Positions of pairs that are candidates, too, such as those with near embeddings.
    above : float
        The correlation of the details of copies.
    threads, progress
        See :func:`fasttriplet.audit`.
    """
    rows = np.flatnonzero(usable & looks.sketches.any(axis=1))
    first, second = _near(looks, rows, threads, progress)
    known = usable[more[0]] & usable[more[1]] & (more[0] != more[1])
    pairs = np.stack([np.concatenate([first, more[0][known]]), np.concatenate([second, more[1][known]])], axis=1)
    copies = _compared(dataset, np.unique(np.sort(pairs, axis=1), axis=0), above, threads, progress)
    # Each picture has its nearest neighbours as candidates. Of a picture that occurs more often, some copies may have
    # only each other: groups that show the same picture are joined by comparing one of each.
    while True:
        group = groups_of(copies, len(dataset))
        leaders = np.unique(group[np.concatenate([copies.first, copies.second])])
        crowded = leaders[np.bincount(group, minlength=len(group))[leaders] > _NEAREST]
        again = _near(looks, crowded, threads, lambda *_: None)
        pairs = np.unique(np.sort(np.stack(again, axis=1), axis=1), axis=0)
        found = _compared(dataset, pairs, above, threads, progress)
        if not len(found.first):
            return copies
        copies = Copies(
            *(
                np.concatenate([getattr(copies, name), getattr(found, name)])
                for name in ("first", "second", "correlation", "place")
            )
        )


def _near(
    looks: Looks, rows: Positions, threads: int | None, progress: Progress
) -> tuple[Positions, Positions]:
    """Pairs of pictures whose sketches are near: each with the nearest ones, exactly."""
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    even = np.ascontiguousarray(looks.sketches[rows, :EVEN])
    numbers = np.arange(len(rows))
    for start in range(0, len(rows) if len(rows) > 1 else 0, _ANCHORS):
        some = slice(start, start + _ANCHORS)
        # The sketch itself, among the references, is each anchor's only positive, at a distance of 0.
        found = mine_rows(
            _SEARCH, (even[some], numbers[some], None), (even, numbers, None), seed=0, threads=threads
        )
        first, second = rows[start + found.anchor], rows[found.negative]
        odd, other = looks.sketches[first, EVEN:], looks.sketches[second, EVEN:]
        apart = np.minimum(np.square(odd - other).sum(axis=1), np.square(odd + other).sum(axis=1))
        near = found.d_an + apart <= _WITHIN
        firsts.append(first[near])
        seconds.append(second[near])
        progress("looking for copies", min(some.stop, len(rows)), len(rows))
    return np.concatenate(firsts), np.concatenate(seconds)


def _compared(
    dataset: Dataset, pairs: NDArray[np.int64], above: float, threads: int | None, progress: Progress
) -> Copies:
    """Decode the pictures of pairs again and keep the pairs that are copies."""
    kept: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int8]]] = []
    size = dataset.image_size(pairs[:1].ravel(), threads=threads) if len(pairs) else None
    done = 0
    for some in _batches(pairs, 1 if size is None else max(2, _BYTES // (size[0] * size[1] * 3))):
        rows, at = np.unique(some, return_inverse=True)
        first, second = np.ascontiguousarray(at.reshape(-1, 2).T.astype(np.int64))
        pixels = dataset.decode(rows, size=size, threads=threads).pixels
        correlation, place = _core.compare_pictures(pixels, first, second, threads=threads)
        alike = correlation >= above
        kept.append((some[alike], correlation[alike], place[alike]))
        done += len(some)
        progress(_STEP, done, len(pairs))
    if not kept:
        none = np.empty(0, np.int64)
        return Copies(none, none, np.empty(0, np.float32), np.empty((0, 3), np.int8))
    found, correlations, places = (np.concatenate(column) for column in zip(*kept, strict=True))
    return Copies(found[:, 0], found[:, 1], correlations, places)


def _batches(pairs: NDArray[np.int64], images: int) -> Iterator[NDArray[np.int64]]:
    """Cut pairs into parts of at most this many different images."""
    step = max(1, images // 2)
    for start in range(0, len(pairs), step):
        yield pairs[start : start + step]


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
    fit = np.where(np.isnan(fit), -2.0, fit)
    _, identity, sizes = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    group = groups_of(copies, len(dataset))
    members = np.unique(np.concatenate([copies.first, copies.second]))
    members = members[np.lexsort((members, -sizes[identity[members]], -fit[members], group[members]))]
    rows: list[tuple[object, ...]] = []
    ends = np.flatnonzero(np.diff(group[members], append=-1)) + 1
    best = {(int(a), int(b)): at for at, (a, b) in enumerate(zip(copies.first, copies.second, strict=True))}
    partners: dict[int, list[int]] = {}
    for a, b in best:
        partners.setdefault(a, []).append(b)
        partners.setdefault(b, []).append(a)
    for finding, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        stays, *others = members[start:end].tolist()
        for image in sorted(others):
            # The pair with the image that stays was compared, or one with another copy.
            pair = min(
                (tuple(sorted((image, partner))) for partner in partners[image]),
                key=lambda pair: (stays not in pair, -float(copies.correlation[best[pair]]), pair),
            )
            at = best[pair]
            harmful = dataset.labels[image] != dataset.labels[stays]
            beside = [stays, *(other for other in sorted(others) if other != image)][:_EVIDENCE]
            rows.append(
                (
                    finding,
                    "duplicate",
                    int(dataset.keys[image]),
                    int(dataset.files[image]),
                    int(dataset.labels[image]),
                    None,
                    "drop" if harmful else "keep",
                    float(copies.correlation[at]),
                    _reason(dataset, image, stays, fit, copies, at),
                    dataset.keys[beside].tolist(),
                    dataset.files[beside].tolist(),
                )
            )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _reason(
    dataset: Dataset, image: int, stays: int, fit: NDArray[np.float64], copies: Copies, at: int
) -> str:
    """Say what is a copy of what, how that is known, and which of both fits better."""
    down, right, mirrored = copies.place[at].tolist()
    how = [f"correlation of details {copies.correlation[at]:.3f}"]
    if mirrored:
        how.append("mirrored")
    if moved := max(abs(down), abs(right)):
        how.append(f"shifted by {moved} pixel{'s' if moved > 1 else ''}")
    label, other = dataset.labels[image], dataset.labels[stays]
    if label == other:
        return f"same picture as another image of its identity ({', '.join(how)})"
    fits = [f"{value:.2f}" if value > -2 else "unknown" for value in (fit[stays], fit[image])]
    return (
        f"same picture as an image of identity {other} ({', '.join(how)}), which it fits better: "
        f"cosine {fits[0]} there, {fits[1]} here"
    )
