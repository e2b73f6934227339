"""Whether a model gives in another process what it gave in the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet.dataset._dataset import Dataset
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import Started, check_embeddings, started
from fasttriplet.embedders._vectors import why_of_another_model
from fasttriplet.run._machines import Machines, Needs, once


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """An image, and the embedding that it must have wherever the model runs, but for rounding."""

    rows: pl.DataFrame  # of the index: one
    pixels: NDArray[np.uint8]
    vector: NDArray[np.float32]  # (1, D)

    @classmethod
    def of(
        cls, machines: Machines, embedder: Embedder, dataset: Dataset, size: tuple[int, int]
    ) -> Probe | None:
        """Embed the first image of this size that can be decoded; None if the first thousand cannot."""
        rows = dataset.index[:1000]
        for at in range(rows.height):
            row = rows[at]
            decoded = dataset.decode(row, size=size, threads=1, on_error="skip")
            if not decoded.failed:
                image = (row, decoded.pixels)
                return cls(*image, once(machines, _embedded, embedder, image, Needs(embeds=True)))
        return None

    def check(self, embedder: Embedder) -> None:
        """Raise a ValueError if an embedder is of another model."""
        found = _embedded(embedder, (self.rows, self.pixels))
        if why_of_another_model(embedder.description, self.vector, found) is not None:
            raise ValueError(
                f"{embedder.description}: the model gives another embedding here than where the run began, "
                "so its files differ; all machines need the same"
            )


def _embedded(embedder: Embedder, image: tuple[pl.DataFrame, NDArray[np.uint8]]) -> NDArray[np.float32]:
    return check_embeddings(embedder.embed(*image), image[0], embedder.description, np.float32)


class ProbedEmbedder:
    """An embedder for other processes, each of which compares it with a probe before its first image."""

    needs_images = True

    def __init__(self, embedder: Embedder, probe: Probe) -> None:
        self._embedder, self._probe = embedder, probe
        self._checked = False

    @property
    def description(self) -> str:
        """One line for people."""
        return self._embedder.description

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: it was prepared before it was sent."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Embed images."""
        return self.start_embedding(rows, images).result()

    def start_embedding(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> Started:
        """Begin to embed images."""
        if not self._checked:
            self._probe.check(self._embedder)
        self._checked = True
        return started(self._embedder, rows, images)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_checked": False}
