"""What reading in the order of the file saves where the file is not in memory.

A `.rec` of many images (real faces, over and over, as identities of 60) is dropped from the page cache
(`posix_fadvise`, no rights needed), and a bag of it is decoded, 5 images of each identity: sorted by place in
the file and announced to the operating system, and from bytes that MXNet's `read_idx` reads one by one in the
order of the bag, as the original does.

Where the disk is nearly as fast as memory, as a virtual one may be, it can be limited to what a disk or a
file system on a network gives: a process with the rights of root then limits itself (cgroup version 1,
`blkio`).
"""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

import fasttriplet as ft
from data import FACES, PER_IDENTITY, write_dataset
from fasttriplet.mxnet import import_mxnet
from harness import Bench
from process import Way
from tables import Table

CGROUP = Path("/sys/fs/cgroup/blkio")
WAYS = ("decoded in the order of the file", "MXNet's `read_idx` in the order of the bag, `decode_images`")
MEMORY, DISK, LIMITED = "in memory", "from the disk", "from the disk, limited"

bench = Bench(__file__, __doc__, rounds=3, packages=["mxnet"])
bench.option("--rec", FACES, "file of images")
bench.option("--folder", None, "on the disk to measure; by default that of temporary files", kind=Path)
bench.option("--of", 100_000, "images of the file: 520 MB of faces", quick=2_000)
bench.option("--images", 7_200, "of the bag", quick=200)
bench.option("--limit", 1_000, "reads a second that the disk is limited to, where that can be done")


def drop(rec: Path) -> None:
    """Drop a file from the page cache."""
    with rec.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def limited(rec: Path, limit: int) -> Iterator[Path | None]:
    """A control group that limits reads from the file's disk; None where there cannot be one."""
    group, device = CGROUP / f"bench_cold-{os.getpid()}", rec.stat().st_dev
    try:
        group.mkdir()
        rule = f"{os.major(device)}:{os.minor(device)} {limit}"
        (group / "blkio.throttle.read_iops_device").write_text(rule)
    except OSError:
        if group.is_dir():
            group.rmdir()
        yield None
    else:
        yield group
        group.rmdir()


def ways(rec: str, bag: str, group: str | None) -> dict[str, Way]:
    path, rows = Path(rec), pl.read_parquet(bag)
    mx: Any = import_mxnet()
    records = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")

    dataset = ft.Dataset(path)

    def in_order() -> object:
        return dataset.decode(rows)

    def as_asked() -> object:
        return ft.decode_images([mx.recordio.unpack(records.read_idx(key))[1] for key in rows["key"]])

    def from_disk(member_of: Path) -> Callable[[], None]:
        def before() -> None:
            if group:
                (member_of / "cgroup.procs").write_text(str(os.getpid()))
            drop(path)

        return before

    found: dict[str, Way] = {}
    for name, call in zip(WAYS, (in_order, as_asked), strict=True):
        if group:
            found[f"{name}, {LIMITED}"] = Way(call, before=from_disk(Path(group)))
        found[f"{name}, {DISK}"] = Way(call, before=from_disk(CGROUP))
        found[f"{name}, {MEMORY}"] = Way(call)  # where the call before left it
    return found


def tables(options: Namespace) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rec = write_dataset(options.rec, Path(folder) / "big.rec", options.of, each=60)
        rows = ft.triplet_seq(ft.index_rec(rec, cache=False), PER_IDENTITY).head(options.images)
        rows.write_parquet(Path(folder) / "bag.parquet")
        with limited(rec, options.limit) as group:
            case: dict[str, Any] = {
                "rec": str(rec),
                "bag": f"{folder}/bag.parquet",
                "group": str(group) if group else None,
            }
            took = bench.measure(ways, **case)
        megabytes = rec.stat().st_size / 1e6
    found = Table(f"Seconds for {rows.height:,} images of {options.of:,} ({megabytes:,.0f} MB)")
    places = {MEMORY: MEMORY, DISK: DISK, LIMITED: f"limited to {options.limit:,} reads/s"}
    for name in WAYS:
        found.rows[name] = {
            column: took[f"{name}, {place}"].best
            for place, column in places.items()
            if f"{name}, {place}" in took
        }
    yield found


if __name__ == "__main__":
    bench.main(tables)
