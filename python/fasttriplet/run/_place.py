"""Where a feed is between two batches: what its state holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import whole_number
from fasttriplet.dataset._options import RUNNING
from fasttriplet.errors import OptionError
from fasttriplet.run._shares import Dealt

NO_STATE = "state must be what state_dict() of a Feed gave"
MOST_EPOCHS = 2**31 - 1  # epochs, and bags of one: triplets in files have 32 bits for each


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place after a batch: the next bag to mine, and triplets (T, 3) that come before it."""

    epoch: int
    bag: int
    sound_bags: int = 0  # of the epoch, before this one: whose embeddings have not collapsed
    triplets_epoch: int = 0
    triplets_bag: int = 0
    triplets: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), np.int64))

    @classmethod
    def after(cls, next_bag: tuple[int, int, int], waiting: Dealt) -> Place:
        """The place with these triplets of all processes left before the next bag."""
        if not len(waiting):
            return cls(*next_bag)
        return cls(*next_bag, waiting.epoch, waiting.bag, waiting.joined)

    def waiting(self, processes: int) -> Dealt:
        """The triplets, as they were dealt to the processes."""
        return Dealt.evenly(self.triplets_epoch, self.triplets_bag, self.triplets, processes)

    @property
    def digest(self) -> str:
        """A text that is another one for another place."""
        numbers = np.array([self.epoch, self.bag, self.sound_bags, self.triplets_epoch, self.triplets_bag])
        return hashlib.sha256(numbers.tobytes() + self.triplets.tobytes()).hexdigest()

    @classmethod
    def of(cls, state: Mapping[str, Any], arguments: Mapping[str, Any]) -> Place:
        """Read what :meth:`Feed.state_dict` gave, of a feed with the same arguments; without means."""
        names = [place.name for place in fields(cls)]
        state = {"sound_bags": state.get("bag", 0), **state}  # one of 0.1 may be older than `sound_bags`
        if {*state} != {*names, "arguments"} or not isinstance(state["arguments"], Mapping):
            raise ValueError(NO_STATE)
        # A state of 0.1 may be older than these.
        earlier = {
            "metric": "sqeuclidean",
            "processes": 1,
            "exclude": None,
            "neighbors": None,
            "random_share": 0.0,
            "refresh_epochs": 1,
            **state["arguments"],
        }
        for name, value in arguments.items():
            before = earlier.get(name)
            if isinstance(before, list):  # from a file, where JSON has no tuples
                before = tuple(before)
            if before != value and name == "dataset":
                raise OptionError("state", "is of another dataset: its keys, labels or sizes differ")
            if before != value and name == "exclude":
                must = "not be given" if before is None else "name the same images as before"
                found = "no image" if before is None else "other images"
                raise OptionError("exclude", f"must {must}: the run that wrote the state excluded {found}")
            if before != value and name == "neighbors":
                must, found = "be the same graph as before", "had another one"
                if before is None:
                    must, found = "not be given", "had none"
                elif before == RUNNING:
                    must, found = f"be {RUNNING!r}", "made the graph itself"
                raise OptionError("neighbors", f"must {must}: the run that wrote the state {found}")
            if before != value and name == "processes":
                raise OptionError(
                    "state", f"is of a training in {before!r:.100} processes, and this one has {value}"
                )
            if before != value:
                raise ValueError(
                    f"state is of a Feed with {name} {before!r:.100}, and this one has {value!r}"
                )
        triplets = np.asarray(state["triplets"])
        if triplets.dtype != np.int64 or triplets.ndim != 2 or triplets.shape[1] != 3:
            raise ValueError(f"state: triplets must be (T, 3) int64, not {triplets.dtype} {triplets.shape}")
        numbers = {name: whole_number(f"state: {name}", state[name], 0, MOST_EPOCHS) for name in names[:-1]}
        return cls(**numbers, triplets=triplets)
