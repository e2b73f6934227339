"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from typing import TYPE_CHECKING, Any

from fasttriplet._core import __version__
from fasttriplet.errors import NoTripletsError, RecordError, RecordWarning, SpecError

if TYPE_CHECKING:
    from fasttriplet.augment import Augment, assemble
    from fasttriplet.embedders import Embedder, load_embedder
    from fasttriplet.feed import Feed, TripletBatch
    from fasttriplet.images import Decoded, decode_images, decode_rows
    from fasttriplet.index import Inspection, index_rec, inspect_rec
    from fasttriplet.judging import Verification, verify_distances
    from fasttriplet.mining import MiningStats, Triplets, mine
    from fasttriplet.order import Bag, bags, epoch_seed, triplet_seq
    from fasttriplet.packing import Packed, pack
    from fasttriplet.pair_drawing import DrawnPairs, draw_pairs
    from fasttriplet.pairs_file import read_pairs, write_pairs
    from fasttriplet.pipeline import MineResult, mine_rec
    from fasttriplet.recordio import IRHeader, RecordFile, RecordWriter
    from fasttriplet.summary import Progress, Summary
    from fasttriplet.verification import verify_pairs, verify_rec

__all__ = [
    "Augment",
    "Bag",
    "Decoded",
    "DrawnPairs",
    "Embedder",
    "Feed",
    "IRHeader",
    "Inspection",
    "MineResult",
    "MiningStats",
    "NoTripletsError",
    "Packed",
    "Progress",
    "RecordError",
    "RecordFile",
    "RecordWarning",
    "RecordWriter",
    "SpecError",
    "Summary",
    "TripletBatch",
    "Triplets",
    "Verification",
    "__version__",
    "assemble",
    "bags",
    "decode_images",
    "decode_rows",
    "draw_pairs",
    "epoch_seed",
    "index_rec",
    "inspect_rec",
    "load_embedder",
    "mine",
    "mine_rec",
    "pack",
    "read_pairs",
    "triplet_seq",
    "verify_distances",
    "verify_pairs",
    "verify_rec",
    "write_pairs",
]

# Where the other names are. They are imported at their first use, so that `fasttriplet --help` and a
# process that reads one record do not wait for NumPy and Polars (0.3 s).
_HOMES = {
    "augment": ("Augment", "assemble"),
    "embedders": ("Embedder", "load_embedder"),
    "feed": ("Feed", "TripletBatch"),
    "images": ("Decoded", "decode_images", "decode_rows"),
    "index": ("Inspection", "index_rec", "inspect_rec"),
    "judging": ("Verification", "verify_distances"),
    "mining": ("MiningStats", "Triplets", "mine"),
    "order": ("Bag", "bags", "epoch_seed", "triplet_seq"),
    "packing": ("Packed", "pack"),
    "pair_drawing": ("DrawnPairs", "draw_pairs"),
    "pairs_file": ("read_pairs", "write_pairs"),
    "pipeline": ("MineResult", "mine_rec"),
    "recordio": ("IRHeader", "RecordFile", "RecordWriter"),
    "summary": ("Progress", "Summary"),
    "verification": ("verify_pairs", "verify_rec"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
