"""Several identities that are one person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._groups import Groups
from fasttriplet.auditing._neighbors import Images, nearest_other, parts

_TWINS = 8  # nearest identities that each one is compared with


@dataclass(frozen=True, eq=False)
class People:
    """Which identities are one person, and what is nearest to each.

    Attributes
    ----------
    person : (K,) int64
        For each identity the largest one that is the same person, or itself.
    nearest : (K,) int64
        The nearest other identity, or -1 where there is none.
    cosine : (K,) float64
        Of the centres of both; NaN where there is none.
    """

    person: NDArray[np.int64]
    nearest: NDArray[np.int64]
    cosine: NDArray[np.float64]


def people(
    images: Images,
    groups: Groups,
    above: float | None,
    threads: int | None,
    progress: Callable[[int], None],
) -> People:
    """Find identities that are one person: their largest groups have at least this likeness.

    The largest group must be at least half of the identity, and not one image of several. The largest
    identity takes along those near it; what is near one of these alone does not join, so that no chain of
    neighbours makes one person of many.
    """
    numbers, firsts = np.arange(images.identities), groups.kept(groups.first)
    centres, strengths = firsts.centres, firsts.strengths
    person, nearest = numbers.copy(), np.full(len(numbers), -1)
    cosine = np.full(len(numbers), np.nan)
    if len(numbers) == 1:
        return People(person, nearest, cosine)
    sizes = np.diff(images.starts)
    whole = (firsts.sizes * 2 >= sizes) & ((firsts.sizes > 1) | (sizes == 1))
    beside: dict[int, set[int]] = {}
    for some in parts(len(numbers)):
        one, other, near = nearest_other((centres[some], numbers[some]), (centres, numbers), _TWINS, threads)
        one += some.start
        order = np.lexsort((other, -near, one))
        best = order[np.flatnonzero(np.diff(one[order], prepend=-1))]
        nearest[one[best]], cosine[one[best]] = other[best], near[best]
        likeness = near * strengths[one] * strengths[other]
        linked = whole[one] & whole[other] & (likeness >= (np.inf if above is None else above))
        for a, b in zip(one[linked].tolist(), other[linked].tolist(), strict=True):
            beside.setdefault(a, set()).add(b)
            beside.setdefault(b, set()).add(a)
        progress(int(images.starts[some.stop]))
    taken = set[int]()
    for largest in sorted(beside, key=lambda number: (-sizes[number], number)):
        if largest not in taken:
            joins = beside[largest] - taken - {largest}
            taken |= {largest, *joins}
            person[list(joins)] = largest
    return People(person, nearest, cosine)


def elsewhere(groups: Groups, above: float, threads: int | None) -> NDArray[np.int64]:
    """Find the other identity whose person each smaller group is; -1 where it is a person of its own."""
    found = np.full(len(groups.identity), -1)
    minor = np.flatnonzero(~groups.first)
    firsts = groups.kept(groups.first)
    if len(minor):
        at, other, near = nearest_other(
            (groups.centres[minor], groups.identity[minor]), (firsts.centres, firsts.identity), 1, threads
        )
        same = near * groups.strengths[minor[at]] * firsts.strengths[other] >= above
        found[minor[at[same]]] = other[same]
    return found
