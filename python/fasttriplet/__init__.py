"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import RecordError
from fasttriplet.mining import MiningStats, Triplets, mine

__all__ = ["Embedder", "MiningStats", "RecordError", "Triplets", "__version__", "load_embedder", "mine"]
