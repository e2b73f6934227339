"""The embedder of a spec that is loaded where it embeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasttriplet.embedders._base import Embedder, Started, started
from fasttriplet.embedders._load import load_embedder

if TYPE_CHECKING:
    import polars as pl
    from numpy import float32, uint8
    from numpy.typing import NDArray


class DeferredEmbedder:
    """The network of a spec, for other processes: each that embeds loads it when it embeds first.

    Parameters
    ----------
    spec : str
    batch_size, devices
        See :func:`fasttriplet.load_embedder`.

    Attributes
    ----------
    known : str or None
        The description that the network must have wherever it is loaded, once that is known.
    """

    needs_images = True

    def __init__(self, spec: str, *, batch_size: int | None = None, devices: str | None = None) -> None:
        self.spec, self.batch_size, self.devices = spec, batch_size, devices
        self.known: str | None = None
        self._loaded: Embedder | None = None

    @property
    def description(self) -> str:
        """One line for people."""
        return self.known or self.network().description

    def network(self) -> Embedder:
        """Load it, or return what was loaded."""
        if self._loaded is None:
            loaded = load_embedder(self.spec, batch_size=self.batch_size, devices=self.devices)
            if self.known not in (None, loaded.description):
                raise ValueError(
                    f"{self.spec} runs differently on two machines, so its embeddings could differ: "
                    f"{self.known}; and {loaded.description}; say where it runs (devices)"
                )
            self._loaded = loaded
        return self._loaded

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: networks do not prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[uint8] | None) -> NDArray[float32]:
        """Run the network over images."""
        return self.network().embed(rows, images)

    def start_embedding(self, rows: pl.DataFrame, images: NDArray[uint8] | None) -> Started:
        """Begin to run the network over images."""
        return started(self.network(), rows, images)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_loaded": None}
