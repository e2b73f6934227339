"""How long it takes to index a ``.rec``, from nothing and from the cache, and how much memory.

Each call is in a process of its own, with the file in the page cache. *Before* is what the process spent
until then, imports for the most part. *MB* is the peak of the anonymous memory, with interpreter and Polars
in it and without the pages of files, which the kernel drops when it wants to; *of the call* is what the
call added. *Goal* is what this project asks of itself.

The peer is the loop that MXNet users have (``read_idx`` and ``unpack`` of each key), measured over 20,000
records and scaled up.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttriplet as ft
import original
from harness import HERE, Bench
from process import Way
from tables import Table

GOALS = {  # seconds
    "`index_rec` from nothing, with `.idx`": 3.0,
    "`index_rec` from nothing, without `.idx`": 3.0,
    "`index_rec` from the cache": 0.3,
    "`triplet_seq`": 0.5,
}
WITH_IDX, WITHOUT_IDX, CACHED, SEQUENCE = GOALS
MEMORY_GOAL = 300  # megabytes
PEER = "MXNet's `read_idx` and `unpack` of each key, scaled up"
PER_IDENTITY = 20

bench = Bench(__file__, __doc__, rounds=3, packages=["mxnet"], against=True)
bench.option("--records", 1_000_000, "of the file", quick=5_000)
bench.option("--bytes", 100, "of the shortest image; the longest has 255 more")
bench.option("--peer-records", 20_000, "that the peer reads", quick=1_000)


def write(path: Path, records: int, shortest: int) -> None:
    """Write a file of InsightFace's layout with about this many records."""
    count = max(1, records // (PER_IDENTITY + 1))
    images = count * PER_IDENTITY
    content = bytes(range(256)) * (2 + shortest // 256)
    with ft.RecordWriter(path) as writer:
        for key in range(1, images + 1):
            label = (key - 1) // PER_IDENTITY
            writer.write(key, (0, (label, 1.0), key, 0), content[: shortest + key * 7919 % 256])
        for identity in range(count):
            first, key = 1 + identity * PER_IDENTITY, images + 1 + identity
            writer.write(key, (0, (first, first + PER_IDENTITY), key, 0), b"")
        writer.write(0, (0, (images + 1, images + 1 + count), 0, 0), b"")


def ways(path: str, step: str, peer_records: int) -> dict[str, Way]:
    index_rec, triplet_seq = ft.index_rec, ft.triplet_seq  # their first use imports Polars
    rec = Path(path)
    if step == SEQUENCE:
        index = index_rec(rec, cache=False)
        return {step: Way(lambda: triplet_seq(index))}
    if step == PEER:
        return {step: Way(reading_headers(rec, peer_records), peer=True)}
    if step == WITHOUT_IDX:
        rec = link(rec, "without")
    elif step == CACHED:  # of this package, made by the call that does not count
        rec = link(rec, "-".join(HERE.parts[1:]))
    return {step: Way(lambda: index_rec(rec, cache=step == CACHED))}


def link(rec: Path, folder: str) -> Path:
    """The same file in a folder of its own, without an index."""
    linked = rec.parent / folder / rec.name
    if not linked.exists():
        linked.parent.mkdir()
        linked.hardlink_to(rec)
    return linked


def reading_headers(rec: Path, count: int) -> Callable[[], Any]:
    recordio = original.mxnet().recordio
    file = recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "r")
    keys = file.keys[:count]
    return lambda: [recordio.unpack(file.read_idx(key))[0].label for key in keys]


def tables(options: Namespace) -> Iterator[Table]:
    found = Table(f"{options.records:,} records, each step in a process of its own")
    with tempfile.TemporaryDirectory() as folder:
        rec = Path(folder) / "bench.rec"
        write(rec, options.records, options.bytes)
        for step in [*GOALS, *([PEER] if find_spec("mxnet") else [])]:
            took = bench.measure(
                ways, fresh=True, anonymous=True, path=str(rec), step=step, peer_records=options.peer_records
            )[step]
            scale = options.records / options.peer_records if step == PEER else 1
            found.rows[step] = {
                "seconds": took.best * scale,
                "goal, s": GOALS.get(step),
                "MB": took.held,
                "goal, MB": MEMORY_GOAL if "index_rec" in step else None,
                "MB of the call": took.added,
                "before, s": took.ready,
            }
    yield found


if __name__ == "__main__":
    bench.main(tables)
