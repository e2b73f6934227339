"""How a bag is divided among processes: the images that each embeds, and the triplets it trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def share_of(labels: Numbers, rank: int, size: int) -> slice:
    """Which images of a bag a process embeds: whole identity runs, about as many images for each process.

    The shares follow each other by rank. Some are empty where there are few identities.
    """
    starts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    places = np.concatenate([[0], starts, [len(labels)]])

    def cut(number: int) -> int:
        even = len(labels) * number / size
        return int(places[np.abs(places - even).argmin()])

    return slice(cut(rank), cut(rank + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """The triplets of all processes that wait to be handed out, in the order in which they will be.

    Their numbers differ by one at most: the first processes have one more.

    Attributes
    ----------
    epoch, bag : int
        Where the last of all these triplets is from.
    of : tuple of (T, 3) int64
        Ids of the triplets of each process, by rank.
    """

    epoch: int
    bag: int
    of: tuple[Numbers, ...]

    @classmethod
    def evenly(cls, epoch: int, bag: int, triplets: Numbers, size: int) -> Dealt:
        """The triplets of all processes by rank, as :attr:`joined` gives them, for `size` processes."""
        return cls(epoch, bag, tuple(np.array_split(triplets, size)))

    @property
    def joined(self) -> Numbers:
        """The triplets of all processes, by rank."""
        return np.concatenate(self.of)

    def __len__(self) -> int:
        return sum(map(len, self.of))

    @property
    def each(self) -> int:
        """How many triplets every process has."""
        return len(self) // len(self.of)

    def after(self, triplets: int) -> Dealt:
        """What is left when each process has handed out this many."""
        return Dealt(self.epoch, self.bag, tuple(own[triplets:] for own in self.of))

    def until(self, triplets: int) -> Dealt:
        """The first triplets of each process."""
        return Dealt(self.epoch, self.bag, tuple(own[:triplets] for own in self.of))

    def followed_by(self, epoch: int, bag: int, triplets: Numbers, holders: Numbers) -> Dealt:
        """These triplets, and after them those of a bag.

        A new triplet goes to the process that holds its anchor (`holders`, (T,)). Where one would get more
        than its part, its last ones go to processes that lack some, in the order of ranks.
        """
        if not len(triplets):
            return self
        size = len(self.of)
        total = len(self) + len(triplets)
        held = [triplets[holders == rank] for rank in range(size)]
        # Never negative, because those that wait are dealt evenly already.
        room = [total // size + (rank < total % size) - len(self.of[rank]) for rank in range(size)]
        moved = np.concatenate([own[wanted:] for own, wanted in zip(held, room, strict=True)])
        of, start = [], 0
        for waiting, own, wanted in zip(self.of, held, room, strict=True):
            lacking = max(0, wanted - len(own))
            of.append(np.concatenate([waiting, own[:wanted], moved[start : start + lacking]]))
            start += lacking
        return Dealt(epoch, bag, tuple(of))
