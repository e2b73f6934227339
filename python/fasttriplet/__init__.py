"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.errors import RecordError
from fasttriplet.mining import MiningStats, Triplets, mine

__all__ = ["MiningStats", "RecordError", "Triplets", "__version__", "mine"]
