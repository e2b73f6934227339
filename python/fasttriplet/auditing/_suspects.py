"""What was measured, as findings: each with its numbers in words, and images to look at beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.auditing._frames import Findings
from fasttriplet.auditing._groups import Groups
from fasttriplet.auditing._labels import Other
from fasttriplet.auditing._neighbors import Images, cosines, nearest_in, spread
from fasttriplet.auditing._thresholds import Thresholds

_EVIDENCE = 5  # images beside each suspect
_HALF = 0.5  # of the usual cosine of two images of an identity
_MOST = 1000  # images of a group that are compared one by one, evenly spread


@dataclass(frozen=True, eq=False)
class Measured:
    """What all steps measured.

    Attributes
    ----------
    images, groups, other, known
        See their classes.
    known_as : (G,) int64
        For each group the other identity that it is, or -1.
    person : (K,) int64
        The person of each identity: its own number, or that of a larger identity.
    own : (N,) float64
        Cosine of each image with its own identity.
    """

    images: Images
    groups: Groups
    known_as: NDArray[np.int64]
    person: NDArray[np.int64]
    own: NDArray[np.float64]
    other: Other
    known: Thresholds


def suspects(measured: Measured, largest_label: int, progress: Callable[[int, int], None]) -> pl.DataFrame:
    """Give all findings; new people who are divided from an identity get labels above the largest."""
    return _Writer(measured, largest_label).frame(progress)


class _Writer:
    def __init__(self, of: Measured, largest_label: int) -> None:
        self._of, self._found = of, Findings(of.images)
        known, groups = of.known, of.groups
        self._wrong = self._outlier = np.zeros(len(of.images), bool)
        if known.lead is not None and known.other_above is not None:
            self._wrong = (of.other.fit - of.own >= known.lead) & (of.other.fit >= known.other_above)
        if known.own_below is not None:
            self._outlier = (of.own < known.own_below) & ~self._wrong
        # A smaller group is a person if it remains one without the images that are reported alone.
        self._left = ~(self._wrong | self._outlier)
        grouped = groups.of_image[self._left & (groups.of_image >= 0)]
        remaining = np.bincount(grouped, minlength=len(groups.sizes))
        self._new = np.flatnonzero(~groups.first & (remaining >= known.smallest_group))
        self._left &= ~np.isin(groups.of_image, self._new)
        self._strengths = groups.strengths
        self._enough = _HALF * groups.usual  # cosine of two images that may be one person
        self._firsts, self._identity = np.flatnonzero(groups.first), of.images.identity
        # The label of each group when all findings are followed.
        self._labels = of.images.labels[of.images.starts[of.person[groups.identity]]]
        known_as = of.known_as[self._new]
        nobody = self._new[known_as < 0]
        self._labels[nobody] = largest_label + 1 + np.arange(len(nobody))
        somebody = self._new[known_as >= 0]
        self._labels[somebody] = of.images.labels[of.images.starts[of.person[known_as[known_as >= 0]]]]

    def frame(self, progress: Callable[[int, int], None]) -> pl.DataFrame:
        """All findings, one after another."""
        merged = np.flatnonzero(self._of.person != np.arange(len(self._of.person)))
        work = [
            (self._mislabelled, np.flatnonzero(self._wrong)),
            (self._fits_nowhere, np.flatnonzero(self._outlier)),
            (self._same_person, merged),
            (self._two_people, self._new),
        ]
        done, total = 0, sum(len(numbers) for _, numbers in work)
        for report, numbers in work:
            for number in numbers.tolist():
                report(number)
                done += 1
                progress(done, total)
        return self._found.frame()

    def _mislabelled(self, image: int) -> None:
        of = self._of
        group = int(of.other.group[image])
        theirs = self._members(group)
        rows, label = of.images.unit(slice(image, image + 1)), self._label(int(of.groups.identity[group]))
        both = np.concatenate([theirs, self._beside(image)])
        among = np.isin(nearest_in(of.images, rows, both, _EVIDENCE)[0], theirs)
        self._found.add(
            "mislabelled",
            [image],
            nearest_in(of.images, rows, theirs, _EVIDENCE),
            suggested=int(self._labels[group]),
            action="relabel",
            score=of.other.fit[image] - of.own[image],
            reason=(
                f"cosine {of.other.fit[image]:.2f} with identity {label}, {of.own[image]:.2f} with its own; "
                f"{among.sum()} of the {len(among)} nearest images of both are identity {label}"
            ),
        )

    def _fits_nowhere(self, image: int) -> None:
        of = self._of
        group, beside = int(of.other.group[image]), self._beside(image)
        other = ""
        if group >= 0:
            label = self._label(int(of.groups.identity[group]))
            other = f"; nearest other identity {label}: {of.other.fit[image]:.2f}"
        majority = of.groups.sizes[self._firsts[self._identity[image]]] > 1
        self._found.add(
            "outlier",
            [image],
            nearest_in(of.images, of.images.unit(slice(image, image + 1)), beside, _EVIDENCE),
            suggested=None,
            action="drop" if majority else "keep",  # of two images that differ, either may be the wrong one
            score=(1 - of.own[image]) / 2,
            reason=f"cosine {of.own[image]:.2f} with its own identity{other}",
        )

    def _same_person(self, number: int) -> None:
        of, larger = self._of, int(self._of.person[number])
        one, two = int(self._firsts[number]), int(self._firsts[larger])
        here = of.images.of_identity(number)
        members, theirs = here.start + np.flatnonzero(self._left[here]), self._members(two)
        self._found.add(
            "same-person",
            members.tolist(),
            nearest_in(of.images, of.images.unit(members), theirs, _EVIDENCE),
            suggested=self._label(larger),
            action="relabel",
            score=self._likeness(one, two),
            reason=(
                f"identities {self._label(number)} and {self._label(larger)} have a likeness of "
                f"{self._likeness(one, two):.2f}{self._pairs(self._members(one), theirs)}"
            ),
        )

    def _two_people(self, group: int) -> None:
        of = self._of
        number = int(of.groups.identity[group])
        first = int(self._firsts[number])
        here = of.images.of_identity(number)
        inside = (of.groups.of_image[here] == group) & ~(self._wrong | self._outlier)[here]
        members, theirs = here.start + np.flatnonzero(inside), self._members(first)
        known_as = int(of.known_as[group])
        who = f" and is identity {self._label(known_as)}" if known_as >= 0 else ""
        self._found.add(
            "two-people",
            members.tolist(),
            nearest_in(of.images, of.images.unit(members), theirs, _EVIDENCE),
            suggested=int(self._labels[group]),
            action="relabel",
            score=1 - self._likeness(group, first),
            reason=(
                f"{len(members)} of {counted(here.stop - here.start, 'image')} of identity "
                f"{self._label(number)} are a group that has a likeness of "
                f"{self._likeness(group, first):.2f} with the rest{who}{self._pairs(members, theirs)}"
            ),
        )

    def _likeness(self, one: int, two: int) -> float:
        groups = self._of.groups
        cosine = cosines(groups.centres[one : one + 1], groups.centres[two : two + 1])[0, 0]
        return float(cosine * self._strengths[one] * self._strengths[two])

    def _pairs(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> str:
        """What pairs of images across two groups say."""
        images, enough = self._of.images, self._enough
        pairs = cosines(images.unit(_some(one)), images.unit(_some(two)))
        return (
            f"; {counted(pairs.size, 'pair')} of images across: mean cosine {pairs.mean():.2f}, "
            f"{(pairs >= enough).mean():.0%} above {enough:.2f}"
        )

    def _label(self, number: int) -> int:
        return int(self._of.images.labels[self._of.images.starts[number]])

    def _members(self, group: int) -> NDArray[np.int64]:
        """Images of a group, up to a thousand."""
        here = self._of.images.of_identity(int(self._of.groups.identity[group]))
        return _some(here.start + np.flatnonzero(self._of.groups.of_image[here] == group))

    def _beside(self, image: int) -> NDArray[np.int64]:
        """The other images of an image's identity, up to a thousand."""
        here = self._of.images.of_identity(int(self._identity[image]))
        return _some(np.delete(np.arange(here.start, here.stop), image - here.start))


def _some(members: NDArray[np.int64]) -> NDArray[np.int64]:
    return members[spread(len(members), _MOST)]
