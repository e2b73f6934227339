"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.bags import Bag, bags, triplet_seq
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import NoTripletsError, RecordError, RecordWarning
from fasttriplet.index import Inspection, index_rec, inspect_rec
from fasttriplet.mining import MiningStats, Triplets, mine
from fasttriplet.recordio import IRHeader, RecordFile, RecordWriter

__all__ = [
    "Bag",
    "Embedder",
    "IRHeader",
    "Inspection",
    "MiningStats",
    "NoTripletsError",
    "RecordError",
    "RecordFile",
    "RecordWarning",
    "RecordWriter",
    "Triplets",
    "__version__",
    "bags",
    "index_rec",
    "inspect_rec",
    "load_embedder",
    "mine",
    "triplet_seq",
]
