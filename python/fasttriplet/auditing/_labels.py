"""How well images fit their own identity and others: what is mislabelled, and what fits nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._groups import Groups, without
from fasttriplet.auditing._neighbors import Images, cosines, cosines_with, nearest_other, parts


@dataclass(frozen=True, eq=False)
class Own:
    """How well images fit their own identity.

    Attributes
    ----------
    fit : (N,) float64
        Cosine with the nearest group of the identity, of which the image itself is left out; NaN where
        nothing else is in the identity.
    centre : (N,) float64
        Cosine with the centre of the largest group, with the image itself.
    """

    fit: NDArray[np.float64]
    centre: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Other:
    """How well images fit the person that is nearest to them and not their own.

    Attributes
    ----------
    fit : (N,) float64
        Cosine with the nearest group of another person; -1 where there is none.
    group : (N,) int64
        That group, or -1.
    """

    fit: NDArray[np.float64]
    group: NDArray[np.int64]


def own_fit(images: Images, groups: Groups) -> Own:
    """Compare each image with its own identity."""
    fit, centre = np.empty((2, len(images)))
    identity, firsts = images.identity, np.flatnonzero(groups.first)
    for some in parts(len(images)):
        rows, first, group = images.unit(some), firsts[identity[some]], groups.of_image[some]
        centre[some] = fit[some] = cosines_with(rows, groups.centres[first])
        inside = np.flatnonzero(group >= 0)
        group = group[inside]
        cosine = cosines_with(rows[inside], groups.centres[group])
        fit[some][inside] = without(cosine, groups.lengths[group], groups.sizes[group])
    for number in np.flatnonzero(np.bincount(groups.identity) > 1):
        here = images.of_identity(number)
        of_identity = np.arange(*np.searchsorted(groups.identity, (number, number + 1)))
        near = cosines(images.unit(here), groups.centres[of_identity])
        near[groups.of_image[here][:, None] == of_identity] = np.nan  # done above, without the image itself
        fit[here] = np.fmax(fit[here], np.fmax.reduce(near, axis=1))
    return Own(fit, centre)


def other_fit(
    images: Images,
    groups: Groups,
    person: NDArray[np.int64],
    threads: int | None,
    progress: Callable[[int], None],
) -> Other:
    """Compare each image with all other people; `person` has that of each identity."""
    fit, group = np.full(len(images), -1.0), np.full(len(images), -1)
    own, of_group = person[images.identity], person[groups.identity]
    if (of_group == of_group[0]).all():
        return Other(fit, group)
    for some in parts(len(images)):
        at, nearest, cosine = nearest_other(
            (images.unit(some), own[some]), (groups.centres, of_group), 1, threads
        )
        fit[some.start + at], group[some.start + at] = cosine, nearest
        progress(some.stop)
    return Other(fit, group)
