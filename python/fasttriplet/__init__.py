"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.bags import Bag, bags, triplet_seq
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import NoTripletsError, RecordError, RecordWarning
from fasttriplet.images import Decoded, decode_images, decode_rows
from fasttriplet.index import Inspection, index_rec, inspect_rec
from fasttriplet.mining import MiningStats, Triplets, mine
from fasttriplet.pipeline import MineResult, mine_rec
from fasttriplet.recordio import IRHeader, RecordFile, RecordWriter
from fasttriplet.summary import Progress, Summary

__all__ = [
    "Bag",
    "Decoded",
    "Embedder",
    "IRHeader",
    "Inspection",
    "MineResult",
    "MiningStats",
    "NoTripletsError",
    "Progress",
    "RecordError",
    "RecordFile",
    "RecordWarning",
    "RecordWriter",
    "Summary",
    "Triplets",
    "__version__",
    "bags",
    "decode_images",
    "decode_rows",
    "index_rec",
    "inspect_rec",
    "load_embedder",
    "mine",
    "mine_rec",
    "triplet_seq",
]
