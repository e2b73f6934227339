"""Which identities are near each other, and orders in which such identities follow each other."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import polars_frame
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._words import counted, first_names
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import places_among
from fasttriplet.dataset._options import BagOptions, IdentityGraph
from fasttriplet.dataset._tables import read_table
from fasttriplet.errors import OptionError

_COLUMNS = ("label", "neighbor_label")


def why_no_integers(table: pl.DataFrame, name: str) -> str | None:
    """What a column holds if it is not integers of 64 bits with a sign, one in each row."""
    kind = table.schema[name]
    if not kind.is_integer():
        return f"{kind}"
    if table[name].null_count():
        return f"{kind} with nulls"
    return f"{kind} from 2^63 on" if table[name].cast(pl.Int64, strict=False).null_count() else None


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The neighbors of identities, nearest first.

    Attributes
    ----------
    labels : (G,) int64
        The identities that the graph names, ascending.
    starts : (G + 1,) int64
        Where the neighbors of each begin, and E.
    neighbors : (E,) int64
        Positions among the labels.
    """

    labels: NDArray[np.int64]
    starts: NDArray[np.int64]
    neighbors: NDArray[np.int64]

    @classmethod
    def of(cls, table: pl.DataFrame, known: NDArray[np.int64], where: str = "") -> Graph:
        """Read a table; `known` are the labels of the dataset, in any order. `where` names the file."""
        polars_frame("neighbors", table)
        ensure_polars_threads()
        missing = [name for name in _COLUMNS if name not in table.columns]
        by = next((name for name in ("rank", "distance") if name in table.columns), None)
        if missing or by is None:
            raise OptionError(
                "neighbors",
                f"must have the columns 'label', 'neighbor_label' and 'rank' or 'distance'{where}, and has "
                f"{', '.join(table.columns)}",
            )
        if not {"neighbor", "neighbor_key"}.isdisjoint(table.columns):
            raise OptionError(
                "neighbors", f"must be of identities, and rows have neighbors{where}: give of='identities'"
            )
        for name in (*_COLUMNS, by):
            wrong = why_no_integers(table, name)
            if name == by and table.schema[name].is_numeric():
                wrong = f"{table.schema[name]} with nulls" if table[name].null_count() else None
            if wrong is not None:
                raise OptionError(
                    "neighbors", f"must have {'integers' if name != by else 'numbers'}, and no nulls, in the "
                    f"column {name!r}{where}, not {wrong}"
                )  # fmt: skip
        links = (
            table.select(pl.col(*_COLUMNS).cast(pl.Int64), by)
            .filter(pl.col("label") != pl.col("neighbor_label"))
            .sort("label", by, "neighbor_label")
            .unique(_COLUMNS, keep="first", maintain_order=True)
        )
        ends = [links[name].to_numpy() for name in _COLUMNS]
        labels = np.unique(np.concatenate(ends))
        strange = labels[places_among(np.unique(known), labels) < 0]
        if strange.size:
            raise OptionError(
                "neighbors",
                f"must be of this dataset, and names {counted(len(strange), 'identity')} that it does not "
                f"have{where}: {first_names([*map(str, strange.tolist())])}",
            )
        of, to = (np.searchsorted(labels, some) for some in ends)
        return cls(labels, np.searchsorted(of, np.arange(len(labels) + 1)), to)

    @classmethod
    def of_dataset(cls, dataset: Dataset, neighbors: IdentityGraph) -> Graph:
        """Read what the option `neighbors` gives, a Parquet file or a frame."""
        if isinstance(neighbors, (str, os.PathLike)):
            path = os.fspath(neighbors)
            return cls.of(read_table("neighbors", path, dataset), dataset.labels, f" of {path}")
        return cls.of(neighbors, dataset.labels)  # type: ignore[arg-type]

    @classmethod
    def of_positions(cls, labels: NDArray[np.int64], positions: NDArray[np.int64]) -> Graph:
        """Make the graph of ascending labels and, for each, the positions of those near it; -1 for none."""
        known = positions >= 0
        starts = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
        return cls(labels, starts, positions[known])

    @property
    def digest(self) -> str:
        """Tells one graph from another."""
        found = hashlib.blake2b(digest_size=8)
        for part in (self.labels, self.starts, self.neighbors):
            found.update(part.astype("<i8").tobytes())
        return found.hexdigest()

    def without(self, labels: NDArray[np.int64]) -> int:
        """How many of these identities the graph does not name."""
        return int(np.count_nonzero(places_among(self.labels, labels) < 0))

    def arranged(
        self, labels: NDArray[np.int64], sizes: NDArray[np.int64], options: BagOptions
    ) -> NDArray[np.int64]:
        """Arrange identities so that those of a bag are near each other: positions in the new order.

        `labels` are in a random order, and `sizes` are their numbers of images. :func:`fasttriplet.bags` cuts
        the new order where this begins with another bag.
        """
        by_label = np.argsort(labels)
        at = places_among(labels[by_label], self.labels)
        place = np.where(at < 0, -1, by_label[at])  # in the random order, of each label of the graph
        node = places_among(self.labels, labels)
        return _Walk(node, self.starts, place[self.neighbors], sizes, options).through()


class _Walk:
    """From a random identity to its neighbors and to theirs, breadth first, until a bag is full."""

    def __init__(
        self,
        node: NDArray[np.int64],
        starts: NDArray[np.int64],
        places: NDArray[np.int64],
        sizes: NDArray[np.int64],
        options: BagOptions,
    ) -> None:
        assert options.bag_size is not None  # triplet_seq takes a number
        self._node, self._starts, self._sizes = node.tolist(), starts.tolist(), sizes.tolist()
        self._places = places  # of the neighbors; -1 for those without images
        # The same flags for single identities and for arrays of them; the last one is for the place -1.
        self._free = bytearray(b"\1" * len(node) + b"\0")
        self._are_free = np.frombuffer(self._free, np.bool_)
        self._next = 0  # no identity before this one is free
        self._splits = options.boundary == "split"
        self._size = options.bag_size
        self._near = int(options.bag_size * (1 - options.random_share))  # images, before the random ones
        self._filled = 0  # images of the bag
        self._order: list[int] = []

    def through(self) -> NDArray[np.int64]:
        """All identities, bag by bag."""
        while (seed := self._any_free()) is not None:
            self._take(seed)
            self._take_near(seed)
            while (other := self._any_free()) is not None and self._fits(other, self._size):
                self._take(other)
            # An identity that the end of the bag cuts goes on in the next one.
            self._filled = self._filled % self._size if self._splits else 0
        return np.array(self._order, dtype=np.int64)

    def _take_near(self, seed: int) -> None:
        """Take what is near until the bag has room for random ones alone; where nothing is, begin anew."""
        found, expanded = [seed], 0
        while self._filled < self._near:
            if expanded < len(found):
                near = self._neighbors(found[expanded])
                expanded += 1
            elif (other := self._any_free()) is not None:
                near = [other]
            else:
                return
            for one in near:
                if not self._fits(one, self._near):
                    return
                self._take(one)
                found.append(one)

    def _neighbors(self, identity: int) -> list[int]:
        node = self._node[identity]
        if node < 0:
            return []
        places = self._places[self._starts[node] : self._starts[node + 1]]
        free: list[int] = places[self._are_free[places]].tolist()
        return free

    def _any_free(self) -> int | None:
        at = self._free.find(1, self._next)
        self._next = len(self._sizes) if at < 0 else at
        return None if at < 0 else at

    def _fits(self, identity: int, most: int) -> bool:
        return self._filled < most if self._splits else self._filled + self._sizes[identity] <= most

    def _take(self, identity: int) -> None:
        self._free[identity] = 0
        self._filled += self._sizes[identity]
        self._order.append(identity)
