"""An identity graph that a training makes itself, of the embeddings that it mines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._words import advising, counted
from fasttriplet.dataset._graph import Graph
from fasttriplet.dataset._ids import image_ids, places_among
from fasttriplet.mining._neighbors import means_of_identities, neighbors
from fasttriplet.run._options import FeedOptions

# What a mean keeps of its earlier value when a bag has the identity again. With one bag in each epoch, what
# the network said two epochs ago counts a quarter. The center loss (Wen et al. 2016) has the same factor; the
# centre of a class with n images in a batch moves by n / (1 + n) of that.
KEPT = np.float32(0.5)
NEAREST = 20  # neighbors of an identity in the graph

# The arrays of a state, with their types.
ARRAYS: dict[str, type[np.generic]] = {
    "mean_labels": np.int64,
    "means": np.float32,
    "graph_labels": np.int64,
    "graph_starts": np.int64,
    "graph_neighbors": np.int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Update:
    """The means of a bag's identities."""

    places: NDArray[np.int64]
    means: NDArray[np.float32]


class RunningGraph:
    """The running mean of each identity's embeddings, and the graph that was last made of them.

    What a bag adds counts when a batch of it, or a later one, is handed out: so the means are always those of
    the feed's place, from which a state continues.
    """

    def __init__(self, labels: NDArray[np.int64], options: FeedOptions) -> None:
        self._labels = np.unique(labels)
        self._options = options
        self._means: NDArray[np.float32] | None = None  # (I, D), once a bag was embedded
        self._seen = np.zeros(len(self._labels), np.bool_)
        self._waiting: list[_Update] = []
        self.graph: Graph | None = None

    def add(self, rows: pl.DataFrame, embedded: list[NDArray[np.float32]]) -> None:
        """Take the embeddings of a bag, which count after :meth:`commit`."""
        if not embedded:
            return
        present, numbers = np.unique(rows["label"].to_numpy(), return_inverse=True)
        means = means_of_identities(
            np.concatenate(embedded),
            numbers.reshape(-1),
            image_ids(rows),
            len(present),
            normalize=self._options.normalize,
        )
        self._waiting.append(_Update(places_among(self._labels, present), means))

    def commit(self) -> None:
        """Let all bags so far count."""
        for update in self._waiting:
            places, means = update.places, update.means
            known = self._room(means.shape[1])
            again = self._seen[places]
            means[again] = KEPT * known[places[again]] + (1 - KEPT) * means[again]
            known[places] = means
            self._seen[places] = True
        self._waiting.clear()

    def _room(self, width: int) -> NDArray[np.float32]:
        if self._means is None:
            count = len(self._labels)
            with advising("give a graph of a file as neighbors"):
                _core.probe_memory(4 * width * count, f"running means of {counted(count, 'identity')}")
                self._means = np.zeros((count, width), np.float32)
        if self._means.shape[1] != width:
            raise ValueError(f"state: means have {self._means.shape[1]} numbers, and embeddings have {width}")
        return self._means

    def is_due(self, epoch: int) -> bool:
        """Whether the order of this epoch is that of a new graph."""
        return epoch % self._options.refresh_epochs == 0

    def next_due(self, epoch: int) -> int:
        """The first epoch after this one whose order is that of a new graph."""
        every = self._options.refresh_epochs
        return (epoch // every + 1) * every

    def refresh(self) -> None:
        """Make the graph of the means; without any there is none."""
        self.graph = None
        if self._means is None or not self._seen.any():
            return
        options, labels = self._options, self._labels[self._seen]
        found = neighbors(
            self._means[self._seen],
            labels,
            NEAREST,
            of="identities",
            metric=options.metric,
            normalize=options.normalize,
            threads=options.threads,
        )
        self.graph = Graph.of_positions(labels, found.positions)

    def without(self) -> int:
        """How many identities the graph does not name."""
        return len(self._labels) if self.graph is None else self.graph.without(self._labels)

    def state(self, epoch: int, bag: int) -> dict[str, NDArray[Any]]:
        """What continues at this place: copies of the means and, where it is still needed, the graph."""
        seen, means = self._seen, self._means
        graph = None if bag == 0 and self.is_due(epoch) else self.graph
        if graph is None:
            graph = Graph(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64))
        return {
            "mean_labels": self._labels[seen],
            "means": np.empty((0, 0), np.float32) if means is None else means[seen],
            "graph_labels": graph.labels.copy(),
            "graph_starts": graph.starts.copy(),
            "graph_neighbors": graph.neighbors.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state` gave."""
        found = {name: np.asarray(state[name]) for name in ARRAYS}
        for name, array in found.items():
            dims = 2 if name == "means" else 1
            if array.dtype != ARRAYS[name] or array.ndim != dims:
                kind = ARRAYS[name].__name__
                raise ValueError(
                    f"state: {name} must be {kind} of {counted(dims, 'dimension')}, not {array.dtype} "
                    f"{array.shape}"
                )
        labels, means = found["mean_labels"], found["means"]
        if len(labels) != len(means) or not np.isfinite(means).all():
            raise ValueError("state: means must be finite, one for each of mean_labels")
        self._check_labels("mean_labels", labels)
        if len(labels):
            places = places_among(self._labels, labels)
            self._room(means.shape[1])[places] = means
            self._seen[places] = True
        self._restore_graph(*(found[name] for name in ("graph_labels", "graph_starts", "graph_neighbors")))

    def _check_labels(self, name: str, labels: NDArray[np.int64]) -> None:
        ascend = (labels[1:] > labels[:-1]).all()
        if not ascend or (places_among(self._labels, labels) < 0).any():
            raise ValueError(f"state: {name} must be identities of the dataset, in ascending order")

    def _restore_graph(
        self, labels: NDArray[np.int64], starts: NDArray[np.int64], near: NDArray[np.int64]
    ) -> None:
        self._check_labels("graph_labels", labels)
        ends = len(starts) == len(labels) + 1 and starts[0] == 0 and starts[-1] == len(near)
        if not ends or (starts[1:] < starts[:-1]).any():
            raise ValueError("state: graph_starts must ascend from 0 to the number of graph_neighbors")
        if len(near) and not (near.min() >= 0 and near.max() < len(labels)):
            raise ValueError("state: graph_neighbors must be positions among graph_labels")
        self.graph = Graph(labels, starts, near) if len(labels) else None

    def digest(self, epoch: int, bag: int) -> str:
        """A text that is another one for another state."""
        found = hashlib.sha256()
        for array in self.state(epoch, bag).values():
            found.update(array.tobytes())
        return found.hexdigest()
