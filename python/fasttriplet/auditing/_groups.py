"""The groups that identities fall into, and how much groups are alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._neighbors import SCALE, Images, Rows, blocks, cosines, lengths, total, unit

_ITERATIONS = 12  # of the power iteration that begins a division; k-means goes on from there
_ROUNDS = 50  # of k-means, at most
# Images of an identity whose pairs are all compared first: up to here that takes less time than a division.
_COMPARED = 500
# Images times divisions of an identity, at most: an end for thousands of images that have nothing in common.
_WORK = 2**22
_HEIGHTS, _WEIGHTS = 2.0**20, 2.0**10  # steps of numbers whose sums are exact for up to 2**19 images
_PRIOR = 3  # pairs of images of the usual cosine that are added to those of a group, which may have none
_CANCELLED = 1e-3  # the norm of a sum of unit rows below which it has no direction
_LEAST = 0.5  # of the usual cosine, which no group is taken to be below


class Sum:
    """The sum of some unit rows: all that likeness depends on."""

    def __init__(self, rows: Rows) -> None:
        self.size = len(rows)
        self._total = total(rows)[None]

    @cached_property
    def length(self) -> float:
        """The norm."""
        return float(lengths(self._total)[0]) / SCALE

    @cached_property
    def centre(self) -> Rows:
        """The direction: (1, D), a unit row."""
        return unit(self._total)

    @property
    def within(self) -> float:
        """The mean cosine of two of the rows; there must be two."""
        return (self.length**2 - self.size) / (self.size * (self.size - 1))

    def likeness(self, other: Sum, usual: float) -> float:
        """How much the two groups are alike, see :func:`strengths`."""
        length, size = np.array([self.length, other.length]), np.array([self.size, other.size])
        cosine = cosines(self.centre, other.centre)[0, 0]
        return float(cosine * strengths(length, size, usual).prod())


def strengths(length: NDArray[np.float64], size: NDArray[np.int64], usual: float) -> NDArray[np.float64]:
    """What makes a likeness of the cosine of two centres: that times the strengths of both groups.

    The likeness of two groups is the mean cosine of two images across them, divided by that of two images
    within one of them (the geometric mean of both groups). It is 1 for two halves of one person, however few
    images they have and however much these vary, while the cosine of centres depends on both. The mean cosine
    within a group of few images is drawn towards the `usual` one of the dataset.
    """
    pairs = size * (size - 1) / 2
    cosine = ((length**2 - size) / 2 + _PRIOR * usual) / (pairs + _PRIOR)
    found: NDArray[np.float64] = length / size / np.sqrt(np.maximum(cosine, _LEAST * usual))
    return found


def without(
    cosine: NDArray[np.float64], length: NDArray[np.float64], size: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the cosine of x with s - x from that with s, the sum of unit rows of which x is one.

    x (s - x) = |s| cos(x, s) - 1, and |s - x|^2 = |s|^2 - 2 |s| cos(x, s) + 1. NaN where x is alone.
    """
    rest = np.sqrt(np.maximum(length**2 - 2 * length * cosine + 1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.clip((length * cosine - 1) / rest, -1, 1)
    found[(size == 1) | (rest < _CANCELLED)] = np.nan
    return found


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups that identities fall into; most have one.

    Attributes
    ----------
    of_image : (N,) int64
        Group of each image, or -1 for those that fit none.
    identity : (G,) int64
        Number of the identity that each group belongs to; ascending, the largest group of each first.
    sizes : (G,) int64
        Images of each.
    centres : (G, D) float32
        Unit rows.
    lengths : (G,) float64
        Norms of the sums of the unit rows.
    usual : float
        The usual mean cosine of two images of an identity.
    """

    of_image: NDArray[np.int64]
    identity: NDArray[np.int64]
    sizes: NDArray[np.int64]
    centres: Rows
    lengths: NDArray[np.float64]
    usual: float

    @property
    def strengths(self) -> NDArray[np.float64]:
        """See :func:`strengths`."""
        return strengths(self.lengths, self.sizes, self.usual)

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether a group is the largest of its identity."""
        return np.diff(self.identity, prepend=-1) > 0

    def kept(self, which: NDArray[np.bool_]) -> Groups:
        """Some of the groups, with all largest ones; images of those that are left out fit none."""
        if which.all():
            return self
        number = np.where(which, np.cumsum(which) - 1, -1)
        of_image = np.where(self.of_image < 0, -1, number[self.of_image])
        return replace(
            self,
            of_image=of_image,
            identity=self.identity[which],
            sizes=self.sizes[which],
            centres=self.centres[which],
            lengths=self.lengths[which],
        )


def divide(
    images: Images, usual: float, below: float | None, smallest: int, progress: Callable[[int], None]
) -> Groups:
    """Divide identities into groups whose likeness is smaller than `below`; None leaves them whole.

    An identity is halved, and its halves again, as long as the halves are that different. Parts of fewer than
    `smallest` images are not groups, and their images fit none, unless the identity has no larger part.
    """
    of_image = np.full(len(images), -1)
    identity, sizes, norms = list[int](), list[int](), list[float]()
    centres = np.empty((len(images), images.embeddings.shape[1]), np.float32)  # pages are taken when written
    for number in range(images.identities):
        here = images.of_identity(number)
        rows = images.unit(here)
        for members in [np.arange(len(rows))] if below is None else _people(rows, usual, below, smallest):
            group = len(identity)
            of_image[here.start + members] = group
            of_group = Sum(rows[members])
            centres[group] = of_group.centre[0]
            norms.append(of_group.length)
            identity.append(number)
            sizes.append(len(members))
        progress(here.stop)
    return Groups(
        of_image, np.array(identity), np.array(sizes), centres[: len(identity)], np.array(norms), usual
    )


def _people(rows: Rows, usual: float, below: float, smallest: int) -> list[NDArray[np.int64]]:
    """Positions of the images of each group, the largest group first."""
    # The likeness of two groups is no less than the least cosine of two images across them.
    if len(rows) <= _COMPARED and cosines(rows, rows).min() >= max(below, 0):
        return [np.arange(len(rows))]
    work, leaves = [np.arange(len(rows))], list[NDArray[np.int64]]()
    divisions = max(16, _WORK // len(rows))
    while work:
        part = work.pop()
        side = halves(rows[part]) if len(part) > 1 and divisions > 0 else None
        divisions -= 1
        if side is not None and Sum(rows[part[side]]).likeness(Sum(rows[part[~side]]), usual) < below:
            work += [part[side], part[~side]]
        else:
            leaves.append(part)
    leaves.sort(key=lambda part: (-len(part), part[0]))
    # A half may have taken images of several people along: a part that is near a larger one belongs to it.
    people = leaves[:1]
    for part in leaves[1:]:
        near = [Sum(rows[part]).likeness(Sum(rows[members]), usual) for members in people]
        if max(near) >= below:
            nearest = near.index(max(near))
            people[nearest] = np.sort(np.concatenate([people[nearest], part]))
        elif len(part) >= smallest or len(people[0]) < smallest:
            people.append(part)
    return sorted(people, key=lambda part: (-len(part), part[0]))


def halves(rows: Rows) -> NDArray[np.bool_] | None:
    """Two groups that differ most, by spherical k-means; None if all rows are alike.

    It begins twice: with the sides of the direction in which rows differ most, which shows two groups of
    similar size, and with the row that is farthest from all others, which is in a group that is much smaller.
    All sums are of whole numbers, and exact.
    """
    middle = Sum(rows).centre
    fit = cosines(rows, middle)[:, 0]
    farthest = rows[fit.argmin()][None]
    starts = [_sides(rows, farthest.astype(np.float64) - middle), cosines(rows, farthest)[:, 0] > fit]
    found = [side for side in (_settled(rows, start) for start in starts) if side is not None]
    return max(found, key=lambda side: Sum(rows[side]).length + Sum(rows[~side]).length, default=None)


def _sides(rows: Rows, direction: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Both sides of the first principal component, by power iteration from a direction (1, D)."""
    side = np.zeros(len(rows), bool)
    for _ in range(_ITERATIONS):
        heights = np.rint(cosines(rows, unit(direction))[:, 0] * _HEIGHTS)
        heights -= np.rint(heights.mean())
        side = heights > 0
        weights = np.rint(heights / max(np.abs(heights).max(), 1) * _WEIGHTS)
        direction = _weighted(rows, weights)[None]
    return side


def _settled(rows: Rows, side: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Move rows to the group whose centre is nearer, until all are there; None if a group is empty."""
    for _ in range(_ROUNDS):
        if side.all() or not side.any():
            return None
        near = cosines(rows, np.concatenate([Sum(rows[~side]).centre, Sum(rows[side]).centre]))
        before, side = side, near[:, 1] > near[:, 0]
        if (side == before).all():
            break
    return None if side.all() or not side.any() else side


def _weighted(rows: Rows, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of rows times whole numbers."""
    found = np.zeros(rows.shape[1])
    for some in blocks(*rows.shape):
        found += weights[some] @ rows[some].astype(np.float64)
    return found
