"""What reading in the order of the file saves where the file is not in memory.

A `.rec` of many images (the real faces beside the checkout, over and over, as identities of 60) is dropped
from the page cache (`posix_fadvise`, no rights needed), and a bag of it is decoded, 5 images an identity: by
`decode_rows`, which sorts the reads and announces them to the operating system, and from bytes that MXNet's
`read_idx` reads one by one in the order of the bag, as the original does. The file is dropped before each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fasttriplet as ft
from faces import FACES, write_dataset
from fasttriplet.mxnet.compat import import_mxnet
from machine import report


def drop(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(path: Path) -> float:
    """Seconds to read a whole file."""
    started = time.perf_counter()
    path.read_bytes()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rec", type=Path, default=FACES)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; by default that of temporary files"
    )
    parser.add_argument("--of", type=int, default=100_000, help="images of the file: 520 MB of faces")
    parser.add_argument("--images", type=int, default=7200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.rec.is_file():
        parser.error(f"no file {arguments.rec}; give one with --rec")
    mx: Any = import_mxnet()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rec = write_dataset(arguments.rec, Path(folder) / "big.rec", arguments.of, per_identity=60)
        everything = ft.index_rec(rec, cache=False)
        rows = ft.triplet_seq(everything, 5).head(arguments.images)

        records = mx.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "r")

        def sorted_and_announced() -> object:
            return ft.decode_rows([ft.RecordFile(rec)], rows)

        def as_asked() -> object:
            images = [mx.recordio.unpack(records.read_idx(key))[1] for key in rows["key"]]
            return ft.decode_images(images)

        ways: dict[str, Callable[[], object]] = {
            "decode_rows": sorted_and_announced,
            "MXNet's read_idx in the order asked, and decode_images": as_asked,
        }
        drop(rec)
        results: dict[str, Any] = {
            "file, MB": round(rec.stat().st_size / 1e6),
            "reading the whole file, from the disk, s": reading(rec),
            "reading the whole file, in memory, s": reading(rec),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                drop(rec)
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        for name, way in ways.items():
            way()
            started = time.perf_counter()
            way()
            results[f"{name}, in memory, s"] = time.perf_counter() - started
            results[f"{name}, from the disk, s"] = float(np.median(seconds[name]))
        medians = [float(np.median(taken)) for taken in seconds.values()]
        results["in the order asked / decode_rows, from the disk"] = medians[1] / medians[0]
    title = f"a bag of {rows.height:,} images of {everything.height:,}, not in memory"
    report(title, results, as_json=arguments.json)


if __name__ == "__main__":
    main()
