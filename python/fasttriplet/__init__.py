"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.errors import RecordError, RecordWarning
from fasttriplet.index import Inspection, index_rec, inspect_rec
from fasttriplet.mining import MiningStats, Triplets, mine
from fasttriplet.recordio import IRHeader, RecordFile, RecordWriter

__all__ = [
    "IRHeader",
    "Inspection",
    "MiningStats",
    "RecordError",
    "RecordFile",
    "RecordWarning",
    "RecordWriter",
    "Triplets",
    "__version__",
    "index_rec",
    "inspect_rec",
    "mine",
]
