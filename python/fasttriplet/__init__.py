"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from typing import TYPE_CHECKING

from fasttriplet import _lazy, _moved, _systems
from fasttriplet.errors import (
    CollapsedError,
    CollapseWarning,
    NoTripletsError,
    OptionError,
    PeerError,
    RecordError,
    RecordWarning,
    SpecError,
)

_systems.refuse_others()

if TYPE_CHECKING:
    from fasttriplet._core import __version__
    from fasttriplet._metadata import read_metadata
    from fasttriplet.auditing._audit import Audit, audit
    from fasttriplet.auditing._clean import Cleaned, clean
    from fasttriplet.dataset._augment import Augment, assemble
    from fasttriplet.dataset._dataset import Dataset
    from fasttriplet.dataset._images import Decoded, decode_images
    from fasttriplet.dataset._index import Inspection, index_rec, inspect_rec
    from fasttriplet.dataset._order import Bag, bags, epoch_seed, triplet_seq
    from fasttriplet.dataset._packing._pack import Packed, PackedFile, pack
    from fasttriplet.dataset._recordio import IRHeader, RecordFile, RecordWriter
    from fasttriplet.embedders import Embedder, load_embedder
    from fasttriplet.mining._mine import MiningStats, Triplets, mine
    from fasttriplet.mining._neighbors import Neighbors, neighbors
    from fasttriplet.reporting._report import report
    from fasttriplet.run._embed_rec import Embedded, embed_rec
    from fasttriplet.run._export import Exported, export
    from fasttriplet.run._feed import Feed, TripletBatch
    from fasttriplet.run._group import Group
    from fasttriplet.run._mine_rec import MineResult, mine_rec
    from fasttriplet.run._summary import Progress, Summary
    from fasttriplet.verify._bin_file import read_pairs, write_pairs
    from fasttriplet.verify._draw import DrawnPairs, draw_pairs
    from fasttriplet.verify._protocol import Verification, verify_distances
    from fasttriplet.verify._run import verify_pairs, verify_rec

__all__ = [
    "Audit", "Augment", "Bag", "Cleaned", "CollapseWarning", "CollapsedError", "Dataset", "Decoded",
    "DrawnPairs", "Embedded", "Embedder", "Exported", "Feed", "Group", "IRHeader", "Inspection",
    "MineResult", "MiningStats", "Neighbors", "NoTripletsError", "OptionError", "Packed", "PackedFile",
    "PeerError", "Progress", "RecordError", "RecordFile", "RecordWarning", "RecordWriter", "SpecError",
    "Summary", "TripletBatch", "Triplets", "Verification", "__version__", "assemble", "audit", "bags",
    "clean", "decode_images", "draw_pairs", "embed_rec", "epoch_seed", "export", "index_rec",
    "inspect_rec", "load_embedder", "mine", "mine_rec", "neighbors", "pack", "read_metadata",
    "read_pairs", "report", "triplet_seq", "verify_distances", "verify_pairs", "verify_rec",
    "write_pairs",
]  # fmt: skip

# Where the other names are. They are imported at their first use: `fasttriplet --help` waits for neither
# NumPy nor Polars (0.3 s), and reading a record not for Polars.
_HOMES = {
    "_core": ("__version__",),
    "_metadata": ("read_metadata",),
    "auditing._audit": ("Audit", "audit"),
    "auditing._clean": ("Cleaned", "clean"),
    "dataset._augment": ("Augment", "assemble"),
    "embedders": ("Embedder", "load_embedder"),
    "run._embed_rec": ("Embedded", "embed_rec"),
    "run._export": ("Exported", "export"),
    "run._feed": ("Feed", "TripletBatch"),
    "run._group": ("Group",),
    "dataset._dataset": ("Dataset",),
    "dataset._images": ("Decoded", "decode_images"),
    "dataset._index": ("Inspection", "index_rec", "inspect_rec"),
    "verify._protocol": ("Verification", "verify_distances"),
    "mining._mine": ("MiningStats", "Triplets", "mine"),
    "mining._neighbors": ("Neighbors", "neighbors"),
    "dataset._order": ("Bag", "bags", "epoch_seed", "triplet_seq"),
    "dataset._packing._pack": ("Packed", "PackedFile", "pack"),
    "verify._draw": ("DrawnPairs", "draw_pairs"),
    "verify._bin_file": ("read_pairs", "write_pairs"),
    "reporting._report": ("report",),
    "run._mine_rec": ("MineResult", "mine_rec"),
    "dataset._recordio": ("IRHeader", "RecordFile", "RecordWriter"),
    "run._summary": ("Progress", "Summary"),
    "verify._run": ("verify_pairs", "verify_rec"),
}

__getattr__, __dir__ = _lazy.names_of(__name__, _HOMES)
_moved.answer_old_names()
